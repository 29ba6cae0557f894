//! The `*.index.json` of a checkpoint in several files, which maps tensors to files.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::base::json;

/// Bytes of the longest index that is read.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// A parsed index.
#[derive(Debug)]
pub(crate) struct Index {
    /// File of each tensor, by the tensor's name in the file.
    pub weight_map: BTreeMap<String, String>,
    /// Bytes of all tensors according to the index.
    pub total_size: Option<u64>,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    ///
    /// All of its problems. A file name must be that of a file beside the index: no path can lead
    /// out of the folder.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut object = json::parse_object(text).map_err(|what| vec![what])?;
        let total_size = object
            .get("metadata")
            .and_then(|metadata| metadata.get("total_size"))
            .and_then(|size| size.as_u64().or_else(|| size.as_f64().and_then(whole)));
        let map = match object.remove("weight_map") {
            Some(Value::Object(map)) => map,
            Some(_) => return Err(vec!["weight_map is not an object".into()]),
            None => return Err(vec!["weight_map is missing".into()]),
        };
        if map.is_empty() {
            return Err(vec!["weight_map is empty".into()]);
        }
        let weight_map = files(map)?;
        Ok(Self { weight_map, total_size })
    }

    /// The files it names, sorted.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

fn files(map: Map<String, Value>) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut weight_map = BTreeMap::new();
    let mut problems = Vec::new();
    for (tensor, file) in map {
        match file {
            Value::String(file) if is_plain(&file) => {
                weight_map.insert(tensor, file);
            }
            Value::String(file) => problems.push(format!(
                "weight_map names the file \"{}\" for `{}`, wanted the plain name of a \
                 .safetensors file",
                json::clipped(&file),
                json::clipped(&tensor)
            )),
            _ => problems.push(format!(
                "weight_map has something for `{}` that is not a file name",
                json::clipped(&tensor)
            )),
        }
    }
    if problems.is_empty() { Ok(weight_map) } else { Err(problems) }
}

/// Whether a name is a plain file name ending in `.safetensors`, on every operating system.
pub(super) fn is_plain(name: &str) -> bool {
    name.len() <= 255
        && name.ends_with(".safetensors")
        && !name.starts_with('.')
        && !name.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range and the fraction are checked"
)]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number))
        .then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names() {
        for bad in [
            "/etc/passwd.safetensors",
            "../a.safetensors",
            "a/b.safetensors",
            "C:\\a.safetensors",
            "C:a.safetensors",
            "a\0.safetensors",
            "a\n.safetensors",
            "..",
            ".safetensors",
            "",
            "a.bin",
        ] {
            let text = serde_json::json!({"weight_map": {"x": bad}}).to_string();
            let problems = Index::parse(&text).expect_err(bad);
            assert!(problems[0].contains("`x`"), "{problems:?}");
        }
        let text = r#"{"metadata":{"total_size":12.0},"weight_map":{"x":"a-00001.safetensors"}}"#;
        let index = Index::parse(text).expect("a good index");
        assert_eq!(index.total_size, Some(12));
        assert_eq!(index.weight_map["x"], "a-00001.safetensors");
    }

    #[test]
    fn not_an_index() {
        for bad in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{}}"#,
            r#"{"weight_map":{"x":1}}"#,
            r#"{"weight_map":{"x":"a.safetensors"},"weight_map":{"x":"b.safetensors"}}"#,
        ] {
            assert!(Index::parse(bad).is_err(), "{bad}");
        }
    }
}
