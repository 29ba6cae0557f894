//! What was measured on the devices of a computer, as JSON.

use std::{collections::BTreeMap, fmt::Display, path::Path, str::FromStr};

use serde_json::{Map, Value, json};

use super::{Class, Measured};
use crate::base::{
    error::{Error, Result},
    json::parse_object,
};

/// Measurements by device: its name and driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// By [`crate::machine::gpu::Caps::describe`].
    pub devices: BTreeMap<String, Measured>,
}

/// What a file must say to be read: another layout gets another number.
const VERSION: u64 = 1;

impl Store {
    /// Reads what [`Store::to_json`] wrote. `path` is the file's, for errors.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if the text is anything else, with the entry.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let bad = |what: String| Error::Format { path: path.to_owned(), what };
        let file = parse_object(text).map_err(bad)?;
        if file.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return Err(bad(format!("`version` is not {VERSION}")));
        }
        let devices = file.get("devices").and_then(Value::as_object);
        let devices = devices.ok_or_else(|| bad("`devices` is no object".into()))?;
        let mut store = Self::default();
        for (device, entry) in devices {
            let part = |key| part(entry, key).map_err(|what| bad(format!("`{device}`: {what}")));
            let (vectors, matrices) = (part("vectors")?, part("matrices")?);
            let bad = |what| bad(format!("`{device}`: {what}"));
            let vectors = pairs(vectors).map_err(bad)?;
            let matrices = pairs(matrices).map_err(bad)?;
            store.devices.insert(device.clone(), Measured { vectors, matrices });
        }
        Ok(store)
    }

    /// As a JSON object.
    pub fn to_json(&self) -> Value {
        let devices: Map<String, Value> = self
            .devices
            .iter()
            .map(|(device, Measured { vectors, matrices })| {
                let entry = json!({ "vectors": object(vectors), "matrices": object(matrices) });
                (device.clone(), entry)
            })
            .collect();
        json!({ "version": VERSION, "devices": devices })
    }
}

fn part<'a>(entry: &'a Value, key: &str) -> Result<&'a Map<String, Value>, String> {
    entry.get(key).and_then(Value::as_object).ok_or_else(|| format!("`{key}` is no object"))
}

fn pairs<W: FromStr<Err = String>>(map: &Map<String, Value>) -> Result<BTreeMap<Class, W>, String> {
    map.iter()
        .map(|(class, way)| {
            let way = way.as_str().ok_or_else(|| format!("`{class}` has no text"))?;
            Ok((class.parse()?, way.parse()?))
        })
        .collect()
}

fn object<W: Display>(pairs: &BTreeMap<Class, W>) -> Value {
    let pairs = pairs.iter().map(|(class, way)| (class.to_string(), Value::from(way.to_string())));
    Value::Object(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::tensor::DType,
        variants::{Matrices, Vectors},
    };

    fn class(kernel: &str, dtype: DType) -> Class {
        Class { kernel: kernel.into(), dtype, rows: 4096, cols: 1024 }
    }

    #[test]
    fn what_is_written_is_read() {
        let vectors = [
            (class("matvec", DType::Q4), Vectors::Spread { width: 8 }),
            (class("matvec", DType::BF16), Vectors::Lanes { lanes: 32, rows: 4 }),
            (class("gated_matvec", DType::Q8), Vectors::Subgroup { lanes: 64 }),
        ];
        let matrices = [
            (class("matmul", DType::F32), Matrices::Tiles { rows: 64 }),
            (class("expert_matmul", DType::F16), Matrices::Spread { width: 16 }),
            (class("matmul", DType::Q4), Matrices::Packed { rows: 32 }),
        ];
        let measured = Measured { vectors: vectors.into(), matrices: matrices.into() };
        let store = Store { devices: [("a device (driver 1)".to_owned(), measured)].into() };
        let text = store.to_json().to_string();
        assert_eq!(Store::parse(Path::new("t"), &text).expect("it was written"), store);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |class: &str, way: &str| {
            json!({ "version": 1, "devices": { "d": {
                "vectors": { class: way }, "matrices": {} } } })
            .to_string()
        };
        for (text, what) in [
            ("{".to_owned(), "not the expected JSON"),
            ("{}".to_owned(), "`version` is not 1"),
            (json!({ "version": 1 }).to_string(), "`devices` is no object"),
            (json!({ "version": 1, "devices": { "d": {} } }).to_string(), "`vectors` is no object"),
            (with("matvec Q4", "spread 8"), "`matvec Q4` is no kind of product"),
            (with("matvec Q5 4x4", "spread 8"), "`matvec Q5 4x4` is no kind of product"),
            (with("matvec Q4 4x4", "lanes 32"), "`lanes 32` is no way"),
            (with("matvec Q4 4x4", "lanes 64 64"), "256 at the most"),
            (with("matvec Q4 4x4", "spread 12"), "powers of two"),
            (with("matvec Q4 4x4", "lanes x 4"), "no number"),
        ] {
            let error = Store::parse(Path::new("tuning.json"), &text).expect_err(what).to_string();
            assert!(error.contains("tuning.json") && error.contains(what), "{error}: {what}");
        }
    }
}
