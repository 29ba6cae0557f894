//! Readers of `config.json`, one for each family of models.
//!
//! A family is data: the architectures it goes by, and a function from its fields to a [`Config`].
//! The names of its tensors are in `checkpoint/families.rs`.

mod grok;
mod reader;

use std::path::Path;

use serde_json::Value;

use self::reader::{Reader, shown};
use super::config::Config;
use crate::base::{
    error::{Error, Result},
    json,
};

/// Bytes of the largest `config.json` that is read.
const MAX_BYTES: usize = 4 << 20;

/// A family of models.
struct Family {
    /// Values of `architectures` in its files.
    architectures: &'static [&'static str],
    /// Values of `model_type` in its files, for those that name no architecture.
    model_types: &'static [&'static str],
    /// Fields that do not change the arithmetic, besides those that every family ignores.
    ignored: &'static [&'static str],
    /// Builds a configuration from the fields. Where one is missing or wrong it records a problem
    /// and goes on with a placeholder.
    read: fn(&mut Reader) -> Config,
}

/// All families. A file that names neither an architecture nor a `model_type` is read as the first.
static FAMILIES: &[Family] = &[grok::FAMILY];

impl Config {
    /// Reads a `config.json`. `path` is for messages only. Also returns warnings, about fields that
    /// are unknown and were ignored.
    ///
    /// A field that is absent or null takes the family's default: for Grok-2 `SGLang`'s. A file is
    /// taken for a Grok-1 if it names neither `residual_moe: true` nor `moe_intermediate_size`.
    /// Grok-1 then differs from Grok-2 in these defaults, as xai-org/grok-1 has it: no router cap,
    /// a head tied to the embedding table, and the tanh form of GELU. A field that is named always
    /// wins.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if the text is not a JSON object of at most 4 MiB, else [`Error::Config`]
    /// with every field that is missing, of the wrong type, out of range or not supported.
    pub fn from_json(path: &Path, text: &str) -> Result<(Self, Vec<String>)> {
        if text.len() > MAX_BYTES {
            return Err(Error::format(
                path,
                format!("{} bytes are too many for a config.json (at most 4 MiB)", text.len()),
            ));
        }
        let fields = json::parse_object(text).map_err(|what| Error::format(path, what))?;
        let mut reader = Reader::new(fields);
        let family = family(&mut reader);
        let config = (family.read)(&mut reader);
        let (mut problems, warnings) = reader.finish(family.ignored);
        problems.extend(config.problems());
        if problems.is_empty() {
            Ok((config, warnings))
        } else {
            Err(Error::Config { path: path.into(), problems })
        }
    }

    /// A Grok's `config.json` that reads back equal, for models without one: presets and GGUFs,
    /// whose layers are all like the first. A model that was read from a `config.json` keeps its
    /// own.
    pub fn to_json(&self) -> String {
        grok::write(self)
    }
}

/// The family that the file names. An unknown name is a problem; the file is then read as the first
/// family, so that its other problems are reported too.
fn family(reader: &mut Reader) -> &'static Family {
    let find = |names: fn(&Family) -> &'static [&'static str], name: &str| {
        FAMILIES.iter().find(|family| names(family).contains(&name))
    };
    let supported = |names: fn(&Family) -> &'static [&'static str]| {
        FAMILIES.iter().flat_map(names).copied().collect::<Vec<_>>().join(", ")
    };
    let model_type = reader.text("model_type");
    let (found, problem) = match (reader.take("architectures"), model_type) {
        (None, None) => return &FAMILIES[0],
        (None, Some(name)) => (
            find(|family| family.model_types, &name),
            format!(
                "unsupported model_type {name:?}; supported: {}",
                supported(|family| family.model_types)
            ),
        ),
        (Some(names), _) => (
            names
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .find_map(|name| find(|family| family.architectures, name)),
            format!(
                "unsupported architectures {}; supported: {}",
                shown(&names),
                supported(|family| family.architectures)
            ),
        ),
    };
    found.unwrap_or_else(|| {
        reader.problem(problem);
        &FAMILIES[0]
    })
}
