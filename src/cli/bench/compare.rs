//! Compares a run's figures with those of an earlier run.

use std::path::{Path, PathBuf};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::native::read_text,
};
use pollster::block_on;
use serde_json::{Map, Value, json};

use super::{
    super::table::table,
    figures::{FIGURES, Unit, plain},
    show::{FORMAT, PHASES, VERSION},
};

/// Bytes of the longest report that is read.
const MAX_REPORT: u64 = 16 << 20;

/// Properties that must agree for two runs to be comparable: the key in JSON, and its text for a
/// note.
const SAME: [(&str, &str); 8] = [
    ("adapter", "adapter"),
    ("model", "model"),
    ("parameters", "number of parameters"),
    ("weights_bytes", "size of the weights"),
    ("compat", "arithmetic (--compat)"),
    ("prompt", "length of the prompt"),
    ("tokens", "number of tokens made"),
    ("chunk", "number of tokens that go through at once (--prefill)"),
];

/// The JSON report of an earlier run.
pub(super) struct Base {
    path: PathBuf,
    report: Value,
}

/// A figure in both runs.
struct Pair {
    label: String,
    key: String,
    unit: Unit,
    before: Option<f64>,
    now: Option<f64>,
}

impl Base {
    /// Reads a report.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is no report of this
    /// version.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = block_on(read_text(path, MAX_REPORT))?;
        let fail = |what: String| {
            Error::format(path, format!("{what}; wanted what `grok-wgpu bench --json` writes"))
        };
        let report: Value =
            serde_json::from_str(&text).map_err(|error| fail(format!("not JSON: {error}")))?;
        if report["format"] != FORMAT {
            return Err(fail(format!("its \"format\" is {}, not \"{FORMAT}\"", report["format"])));
        }
        if report["version"] != VERSION {
            return Err(fail(format!("its \"version\" is {}, not {VERSION}", report["version"])));
        }
        if let Some(name) = PHASES.iter().find(|&&name| !report[name].is_object()) {
            return Err(fail(format!("it has no object \"{name}\"")));
        }
        Ok(Self { path: path.to_owned(), report })
    }

    /// Notes on properties that differ, which makes figures hard to compare.
    fn notes(&self, now: &Value) -> Vec<String> {
        SAME.iter()
            .filter(|(key, _)| self.report[key] != now[key])
            .map(|(key, what)| {
                format!("another {what}: {} before, {} now", self.report[key], now[key])
            })
            .collect()
    }

    /// The figures of a phase, then the times of its kernels.
    fn pairs(&self, now: &Value, phase: &str) -> Vec<Pair> {
        let (before, now) = (&self.report[phase], &now[phase]);
        let figures = FIGURES.iter().map(|figure| Pair {
            label: figure.label.into(),
            key: figure.key.into(),
            unit: figure.unit,
            before: before[figure.key].as_f64(),
            now: now[figure.key].as_f64(),
        });
        let (mut old, new) = (kernels(before), kernels(now));
        let added: Vec<_> =
            new.iter().filter(|(name, _)| old.iter().all(|(other, _)| other != name)).collect();
        old.extend(added.into_iter().map(|(name, _)| (name.clone(), f64::NAN)));
        let kernels = old.into_iter().map(|(name, before)| Pair {
            label: format!("    {name}"),
            before: before.is_finite().then_some(before),
            now: new.iter().find(|(other, _)| *other == name).map(|(_, seconds)| *seconds),
            key: name,
            unit: Unit::Seconds,
        });
        figures.chain(kernels).filter(|pair| pair.before.or(pair.now).is_some()).collect()
    }

    /// The comparison as text.
    pub(super) fn describe(&self, now: &Value) -> String {
        let mut text = format!("\nCompared with {}:\n", self.path.display());
        text.extend(self.notes(now).iter().map(|note| format!("  note: {note}\n")));
        for phase in PHASES {
            let mut rows =
                vec![[phase.to_owned(), "before".into(), "now".into(), "now / before".into()]];
            rows.extend(self.pairs(now, phase).into_iter().map(|pair| {
                let show = |value: Option<f64>| value.map_or("-".into(), |v| pair.unit.show(v));
                let ratio = pair.ratio().map_or("-".into(), plain);
                [format!("  {}", pair.label), show(pair.before), show(pair.now), ratio]
            }));
            text.push('\n');
            text += &table(&rows);
        }
        text
    }

    /// The comparison as JSON.
    pub(super) fn compared(&self, now: &Value) -> Value {
        let mut object = Map::new();
        object.insert("base".into(), self.path.display().to_string().into());
        object.insert("notes".into(), self.notes(now).into());
        for phase in PHASES {
            let pairs = self.pairs(now, phase).into_iter().map(|pair| {
                let (before, now, ratio) = (pair.before, pair.now, pair.ratio());
                (pair.key, json!({ "before": before, "now": now, "ratio": ratio }))
            });
            object.insert(phase.into(), Value::Object(pairs.collect()));
        }
        object.into()
    }
}

impl Pair {
    fn ratio(&self) -> Option<f64> {
        let before = self.before.filter(|before| *before > 0.0)?;
        Some(self.now? / before)
    }
}

/// Names and seconds of a phase's kernels. Variants of a kernel are summed: runs may use different
/// ones.
fn kernels(phase: &Value) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for kernel in phase["kernels"].as_array().into_iter().flatten() {
        let (Some(label), Some(seconds)) = (kernel["kernel"].as_str(), kernel["seconds"].as_f64())
        else {
            continue;
        };
        // `matvec.spread/q4` counts as `matvec/q4`.
        let (program, weight) = label.split_at(label.find('/').unwrap_or(label.len()));
        let name = program.split('.').next().unwrap_or(program).to_owned() + weight;
        match sums.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum += seconds,
            None => sums.push((name, seconds)),
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_kernel_are_one() {
        let kernel = |label, seconds| json!({ "kernel": label, "seconds": seconds });
        let phase = json!({ "kernels": [
            kernel("matvec.spread/q4", 1.0),
            kernel("route", 2.0),
            kernel("matvec/q4", 4.0),
            kernel("matvec/f32", 8.0),
        ] });
        let wanted = [("matvec/q4", 5.0), ("route", 2.0), ("matvec/f32", 8.0)];
        assert_eq!(kernels(&phase), wanted.map(|(name, seconds)| (name.to_owned(), seconds)));
        assert!(kernels(&Value::Null).is_empty());
    }
}
