//! Refuses duplicate tensor names in a file.

use crate::base::json;

/// Returns an error that names a tensor if the header of a file has it twice.
pub(super) fn refuse_duplicates<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(format!("duplicate tensor `{}`", json::clipped(pair[0]))),
    }
}
