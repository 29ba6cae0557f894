//! Measured tunings of a computer's devices, as JSON.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use super::{Class, Form, Measured, SPLITS, Setting, is_split};
use crate::base::{
    error::{Error, Result},
    json::parse_object,
};

/// Measurements by device: its name and driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    /// By [`crate::machine::gpu::Caps::describe`].
    pub devices: BTreeMap<String, Kept>,
}

/// What was measured on a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The settings for products and attention.
    pub settings: Measured,
    /// Bytes that the device reads in a second.
    pub bandwidth: Option<u64>,
    /// How many tokens of a prompt should go through a model at once, by class of models
    /// ([`crate::measure::chunks::class`]).
    pub chunks: BTreeMap<String, u32>,
    /// Positions of the shortest split of decode attention, by class of heads
    /// ([`crate::measure::splits::class`]).
    pub splits: BTreeMap<String, u32>,
    /// How fast weights are moved and multiplied, by name: see [`crate::measure::rates::key`].
    pub rates: BTreeMap<String, f64>,
}

impl Kept {
    /// Adds what was measured later, which holds where both have a value.
    pub fn extend(&mut self, later: Self) {
        let Self { settings, bandwidth, chunks, splits, rates } = later;
        self.settings.extend(settings);
        self.bandwidth = bandwidth.or(self.bandwidth);
        self.chunks.extend(chunks);
        self.splits.extend(splits);
        self.rates.extend(rates);
    }
}

/// The file's key for the bytes that a device reads in a second.
const BANDWIDTH: &str = "bytes_per_second";

/// The file's key for lengths of chunks.
const CHUNKS: &str = "chunks";

/// Most tokens of a chunk.
const MOST: u32 = 4096;

/// The file's key for splits of decode attention. Files of earlier versions have none.
const SPLIT: &str = "splits";

/// The file's key for rates. Files of earlier versions have none.
const RATES: &str = "rates";

/// The file's key for attention. Files of earlier versions have none.
const ATTENTION: &str = "attention";

/// Version of the file's layout. Files with another version are refused.
const VERSION: u64 = 1;

impl Store {
    /// Reads what [`Store::to_json`] wrote. `path` is the file's, for errors.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if the text is anything else. The message names the entry.
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
            let bad = |what| bad(format!("`{device}`: {what}"));
            store.devices.insert(device.clone(), read_device(entry).map_err(bad)?);
        }
        Ok(store)
    }

    /// As a JSON object.
    pub fn to_json(&self) -> Value {
        let devices: Map<String, Value> = self
            .devices
            .iter()
            .map(|(device, kept)| (device.clone(), write_device(kept)))
            .collect();
        json!({ "version": VERSION, "devices": devices })
    }
}

/// The measurements of a device.
fn read_device(entry: &Value) -> Result<Kept, String> {
    let mut kept = Kept::default();
    for form in Form::ALL {
        kept.settings.extend(read(form, entry)?);
    }
    kept.settings.extend(read_attention(entry)?);
    if let Some(rate) = entry.get(BANDWIDTH) {
        let rate = rate.as_u64().filter(|&rate| rate > 0);
        kept.bandwidth = Some(rate.ok_or_else(|| format!("`{BANDWIDTH}` is no whole number"))?);
    }
    let is_chunk = |tokens: u32| (1..=MOST).contains(&tokens);
    kept.chunks = read_lengths(entry, CHUNKS, is_chunk, || format!("chunk of 1 to {MOST} tokens"))?;
    kept.splits = read_lengths(entry, SPLIT, is_split, || {
        let (least, most) = (SPLITS.start(), SPLITS.end());
        format!("power of two from {least} to {most} positions")
    })?;
    kept.rates = read_rates(entry)?;
    Ok(kept)
}

fn write_device(kept: &Kept) -> Value {
    let Kept { settings, bandwidth, chunks, splits, rates } = kept;
    let parts = Form::ALL.map(|form| (key(form).to_owned(), write(form, settings)));
    let mut entry = Map::from_iter(parts);
    let attention = texts(settings, |class| class.heads().is_some());
    if !attention.is_empty() {
        entry.insert(ATTENTION.into(), attention.into());
    }
    if let &Some(rate) = bandwidth {
        entry.insert(BANDWIDTH.into(), rate.into());
    }
    for (key, lengths) in [(CHUNKS, chunks), (SPLIT, splits)] {
        if !lengths.is_empty() {
            entry.insert(key.into(), json!(lengths));
        }
    }
    if !rates.is_empty() {
        entry.insert(RATES.into(), json!(rates));
    }
    Value::Object(entry)
}

/// The file's key for the products of a form.
fn key(form: Form) -> &'static str {
    match form {
        Form::Vector => "vectors",
        Form::Matrix => "matrices",
    }
}

/// The measurements of a form.
fn read(form: Form, entry: &Value) -> Result<Measured, String> {
    let key = key(form);
    let pairs = entry.get(key).and_then(Value::as_object);
    let pairs = pairs.ok_or_else(|| format!("`{key}` is no object"))?;
    let pair = |(class, way): (&String, &Value)| {
        let way = way.as_str().ok_or_else(|| format!("`{class}` has no text"))?;
        let setting: Setting = way.parse()?;
        if !setting.variant().forms().contains(&form) {
            return Err(format!("`{way}` is no way to divide a {}", form.name()));
        }
        Ok((Class::parse(form, class)?, setting))
    };
    pairs.iter().map(pair).collect()
}

/// Lengths by class, none if the entry has no such key: each as `may` says, which `wanted` tells.
fn read_lengths(
    entry: &Value,
    key: &str,
    may: impl Fn(u32) -> bool,
    wanted: impl Fn() -> String,
) -> Result<BTreeMap<String, u32>, String> {
    let Some(pairs) = entry.get(key) else { return Ok(BTreeMap::new()) };
    let pairs = pairs.as_object().ok_or_else(|| format!("`{key}` is no object"))?;
    let pair = |(class, length): (&String, &Value)| {
        let length = length.as_u64().and_then(|length| u32::try_from(length).ok());
        let length = length.filter(|&length| may(length));
        let wrong = || format!("`{class}` is no {}", wanted());
        Ok((class.clone(), length.ok_or_else(wrong)?))
    };
    pairs.iter().map(pair).collect()
}

/// Rates by name, none if the entry has no such key: each above zero.
fn read_rates(entry: &Value) -> Result<BTreeMap<String, f64>, String> {
    let Some(pairs) = entry.get(RATES) else { return Ok(BTreeMap::new()) };
    let pairs = pairs.as_object().ok_or_else(|| format!("`{RATES}` is no object"))?;
    let pair = |(name, rate): (&String, &Value)| {
        let rate = rate.as_f64().filter(|&rate| rate.is_finite() && rate > 0.0);
        Ok((name.clone(), rate.ok_or_else(|| format!("`{name}` is no rate above zero"))?))
    };
    pairs.iter().map(pair).collect()
}

fn write(form: Form, measured: &Measured) -> Value {
    texts(measured, |class| class.heads().is_none() && class.form == form).into()
}

/// The measurements of attention.
fn read_attention(entry: &Value) -> Result<Measured, String> {
    let Some(pairs) = entry.get(ATTENTION) else { return Ok(Measured::new()) };
    let pairs = pairs.as_object().ok_or_else(|| format!("`{ATTENTION}` is no object"))?;
    let pair = |(class, way): (&String, &Value)| {
        let way = way.as_str().ok_or_else(|| format!("`{class}` has no text"))?;
        Ok((Class::parse_attention(class)?, way.parse()?))
    };
    pairs.iter().map(pair).collect()
}

/// Some of the measurements.
fn texts(measured: &Measured, which: impl Fn(&Class) -> bool) -> Map<String, Value> {
    let of = measured.iter().filter(|(class, _)| which(class));
    of.map(|(class, way)| (class.to_string(), way.to_string().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tensor::DType;

    fn class(form: Form, kernel: &str, dtype: DType) -> Class {
        Class { form, kernel: kernel.into(), dtype, rows: 4096, cols: 1024 }
    }

    /// Files that earlier versions wrote have these texts.
    #[test]
    fn what_is_written_is_read() {
        let of = |form, kernel, dtype, way: &str| {
            let setting: Setting = way.parse().expect("a setting");
            assert_eq!(setting.to_string(), way);
            (class(form, kernel, dtype), setting)
        };
        let measured = Measured::from([
            of(Form::Vector, "matvec", DType::Q4, "spread 8"),
            of(Form::Vector, "matvec", DType::BF16, "lanes 32 4"),
            of(Form::Vector, "gated_matvec", DType::Q8, "subgroup 64"),
            of(Form::Matrix, "matmul", DType::F32, "tiles 64"),
            of(Form::Matrix, "expert_matmul", DType::F16, "spread 16"),
            of(Form::Matrix, "matmul", DType::Q4, "packed 32"),
        ]);
        let name = "a device (driver 1)".to_owned();
        let kept = Kept { settings: measured, ..Kept::default() };
        let mut store = Store { devices: [(name.clone(), kept)].into() };
        let text = store.to_json().to_string();
        assert!(!text.contains(BANDWIDTH), "{text}");
        assert_eq!(Store::parse(Path::new("t"), &text).expect("it was written"), store);
        assert!(!text.contains(CHUNKS) && !text.contains(SPLIT), "{text}");
        assert!(!text.contains(RATES), "{text}");
        assert!(!text.contains(ATTENTION), "{text}");
        let kept = store.devices.get_mut(&name).expect("it is there");
        kept.bandwidth = Some(936_000_000_000);
        kept.chunks = [("Q4 8192".to_owned(), 1024), ("a".to_owned(), 1)].into();
        kept.rates = [("link_bytes_per_second".to_owned(), 24.5e9), ("a".to_owned(), 1e-6)].into();
        kept.splits = [("64 on 8 heads of 128, F32".to_owned(), 32), ("a".to_owned(), 1024)].into();
        let text = store.to_json().to_string();
        assert_eq!(Store::parse(Path::new("t"), &text).expect("it was written"), store);
        let class = Class::parse_attention("attention decode F16 128").expect("a class");
        let kept = store.devices.get_mut(&name).expect("it is there");
        kept.settings.insert(class, "tiles 32".parse().expect("a setting"));
        let json = store.to_json();
        let kept = &json["devices"][&name][ATTENTION]["attention decode F16 128"];
        assert_eq!(kept, "tiles 32");
        assert_eq!(Store::parse(Path::new("t"), &json.to_string()).expect("it was written"), store);
    }

    #[test]
    fn later_measurements_hold_and_others_stay() {
        let lengths = |pairs: &[(&str, u32)]| {
            pairs.iter().map(|&(class, length)| (class.to_owned(), length)).collect()
        };
        let mut kept = Kept {
            bandwidth: Some(1),
            chunks: lengths(&[("a", 256)]),
            splits: lengths(&[("a", 64), ("b", 128)]),
            ..Kept::default()
        };
        kept.extend(Kept { splits: lengths(&[("b", 32), ("c", 512)]), ..Kept::default() });
        assert_eq!((kept.bandwidth, &kept.chunks), (Some(1), &lengths(&[("a", 256)])));
        assert_eq!(kept.splits, lengths(&[("a", 64), ("b", 32), ("c", 512)]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |class: &str, way: &str| {
            json!({ "version": 1, "devices": { "d": {
                "vectors": { class: way }, "matrices": {} } } })
            .to_string()
        };
        let of = |key: &str, lengths: Value| {
            json!({ "version": 1, "devices": { "d": {
                "vectors": {}, "matrices": {}, key: lengths } } })
            .to_string()
        };
        let of_chunks = |chunks| of("chunks", chunks);
        let of_splits = |splits| of("splits", splits);
        for (text, what) in [
            ("{".to_owned(), "not the expected JSON"),
            ("{}".to_owned(), "`version` is not 1"),
            (json!({ "version": 1 }).to_string(), "`devices` is no object"),
            (json!({ "version": 1, "devices": { "d": {} } }).to_string(), "`vectors` is no object"),
            (
                json!({ "version": 1, "devices": { "d": {
                    "vectors": {}, "matrices": {}, "bytes_per_second": -1 } } })
                .to_string(),
                "`d`: `bytes_per_second` is no whole number",
            ),
            (of_chunks(json!([1])), "`d`: `chunks` is no object"),
            (of_chunks(json!({ "c": 0 })), "`d`: `c` is no chunk of 1 to 4096 tokens"),
            (of_chunks(json!({ "c": 4097 })), "`c` is no chunk"),
            (of_chunks(json!({ "c": "256" })), "`c` is no chunk"),
            (of("rates", json!(1)), "`d`: `rates` is no object"),
            (of("rates", json!({ "r": 0 })), "`d`: `r` is no rate above zero"),
            (of("rates", json!({ "r": -2.5 })), "`r` is no rate above zero"),
            (of("rates", json!({ "r": "fast" })), "`r` is no rate above zero"),
            (of_splits(json!(32)), "`d`: `splits` is no object"),
            (of_splits(json!({ "h": 16 })), "`h` is no power of two from 32 to 1024 positions"),
            (of_splits(json!({ "h": 96 })), "`h` is no power of two"),
            (of_splits(json!({ "h": 2048 })), "`h` is no power of two"),
            (
                json!({ "version": 1, "devices": { "d": { "vectors": {}, "matrices": {},
                    "attention": { "attention decode F32": "tiles 32" } } } })
                .to_string(),
                "`attention decode F32` is no attention",
            ),
            (with("matvec Q4", "spread 8"), "`matvec Q4` is no kind of product"),
            (with("matvec Q5 4x4", "spread 8"), "`matvec Q5 4x4` is no kind of product"),
            (with("matvec Q4 4x4", "lanes 32"), "`lanes 32` is no way"),
            (with("matvec Q4 4x4", "strides 32"), "there are lanes LANES ROWS, "),
            (with("matvec Q4 4x4", "tiles 32"), "no way to divide a matrix-vector product"),
            (with("matvec Q4 4x4", "lanes 64 64"), "256 at the most"),
            (with("matvec Q4 4x4", "spread 12"), "powers of two"),
            (with("matvec Q4 4x4", "lanes x 4"), "no number"),
            (with("matvec Q4 4x4", "tiles 8"), "tiles has no such size"),
        ] {
            let error = Store::parse(Path::new("tuning.json"), &text).expect_err(what).to_string();
            assert!(error.contains("tuning.json") && error.contains(what), "{error}: {what}");
        }
    }
}
