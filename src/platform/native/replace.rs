//! Files that are there as a whole or not at all.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process,
};

use crate::{Error, Result};

/// Writes a file beside its place and moves it there when it is whole.
///
/// Programs that run at once write files of their own; the last to finish gives its name.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written. What was there before is still there then.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.part", process::id()));
    let written = File::create(&unfinished)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|source| {
        // It may never have come to be.
        let _ = fs::remove_file(&unfinished);
        Error::io(path, source)
    })
}
