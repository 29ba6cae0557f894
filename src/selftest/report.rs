//! The results of a self-test: totals, suspects, and JSON for programs. `page.rs` has the page for
//! people.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{ModelReport, Report};
use crate::{
    base::num::hex,
    machine::{
        gpu::{Caps, Identity, LimitProfile, WGPU},
        shader::Shader,
    },
};

/// The value of `format` in the JSON of a self-test.
pub const FORMAT: &str = "grok-wgpu selftest";

/// The version of that JSON; it rises when a key changes its meaning.
pub const VERSION: u64 = 1;

/// Most suspect files that are listed when rows fail.
const SUSPECTS: usize = 5;

/// The result of one row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the kernel, which is the stem of its files.
    pub kernel: &'static str,
    /// The row's name.
    pub case: String,
    /// Name of the tuning.
    pub tuning: String,
    /// The program.
    pub shader: Shader,
    /// Whether the result had to be exact.
    pub exact: bool,
    /// Time that the row took, with its reference on the host and, where it was the first of its
    /// program, the wait for the program's compilation.
    pub seconds: f64,
    /// Whether it is expected to fail.
    pub known: bool,
    /// The result.
    pub report: Report,
}

impl Row {
    /// Its name: `KERNEL/CASE [TUNING]`.
    pub fn id(&self) -> String {
        format!("{}/{} [{}]", self.kernel, self.case, self.tuning)
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let Report { elements, worst, rounded, failure, wrong } = &self.report;
        let mut row = json!({
            "row": self.id(),
            "kernel": self.kernel,
            "case": self.case,
            "tuning": self.tuning,
            "variant": self.shader.variant,
            "program": self.shader.label(),
            "exact": self.exact,
            "elements": elements,
            // JSON has no infinity: `null` stands for it.
            "worst": worst.is_finite().then_some(worst),
            "rounded": rounded,
            "seconds": self.seconds,
        });
        if self.known {
            row["known"] = true.into();
        }
        if let Some(failure) = failure {
            row["failure"] = failure.as_str().into();
        }
        if let Some(wrong) = wrong {
            row["wrong"] = wrong.json();
        }
        row
    }
}

/// The program that ran the self-test: its version, the commit that it was built from if that is
/// known, and `wgpu`'s version.
pub fn build() -> Value {
    json!({
        "engine": env!("CARGO_PKG_VERSION"),
        // Set where a release is built.
        "commit": option_env!("GROK_WGPU_COMMIT"),
        "wgpu": WGPU,
    })
}

/// An adapter and its driver; `summary` is [`Caps::describe`].
pub fn adapter(name: &str, identity: &Identity, summary: &str) -> Value {
    let Identity { vendor, device, kind, backend, driver, driver_info } = identity;
    json!({
        "name": name,
        "type": kind,
        "vendor": format!("{vendor:#06x}"),
        "device": format!("{device:#06x}"),
        "backend": backend,
        "driver": driver,
        "driver_info": driver_info,
        "summary": summary,
    })
}

/// The adapter, its driver, and what the device was opened with.
pub fn describe(caps: &Caps) -> Map<String, Value> {
    let (mut limits, mut most) = (Map::new(), Map::new());
    for (name, device, adapter) in caps.named_limits() {
        limits.insert(name.into(), device.into());
        most.insert(name.into(), adapter.into());
    }
    let profile = match caps.profile {
        LimitProfile::Baseline => "baseline",
        LimitProfile::Full => "full",
    };
    let object = json!({
        "adapter": adapter(&caps.name, &caps.identity(), &caps.describe()),
        "features": caps.features(),
        "subgroups": caps.subgroups.map(|(least, most)| json!({ "least": least, "most": most })),
        "limits_profile": profile,
        "limits": limits,
        "adapter_limits": most,
    });
    let Value::Object(object) = object else { unreachable!("it is written as an object above") };
    object
}

/// How the report says to run a row again.
#[derive(Clone, Copy, Debug)]
pub enum Replay {
    /// With the command line program.
    Command,
    /// With the npm package.
    Package,
}

impl Replay {
    /// The command or call that runs this row alone, on this adapter and with its limits.
    pub fn of(self, row: &Row, caps: &Caps) -> String {
        let Row { kernel, case, .. } = row;
        match self {
            Self::Command => format!(
                "grok-wgpu selftest --adapter {}{} --row {}",
                quoted(&caps.name),
                if caps.profile == LimitProfile::Baseline { " --limits baseline" } else { "" },
                quoted(&row.id()),
            ),
            Self::Package => {
                let options = json!({ "kernel": kernel, "case": case });
                format!("await GrokWgpu.selftest({options})")
            }
        }
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A WGSL file that failed rows link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its path in the repository.
    pub file: &'static str,
    /// Number of failed rows that link it.
    pub failed: usize,
    /// Number of rows that link it.
    pub rows: usize,
}

impl Suspect {
    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "file": self.file, "failed": self.failed, "rows": self.rows })
    }
}

/// The results of a self-test.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The adapter and its limits.
    pub caps: Caps,
    /// Operating system and processor, or browser.
    pub system: String,
    /// The command or call that ran the self-test.
    pub command: String,
    /// How a row is run again.
    pub replay: Replay,
    /// The date, for people.
    pub date: String,
    /// The duration.
    pub seconds: f64,
    /// All rows, grouped by kernel.
    pub rows: Vec<Row>,
    /// The results of whole models.
    pub models: Vec<ModelReport>,
    /// Why the test stopped early, if it did.
    pub unfinished: Option<String>,
}

impl Summary {
    /// Number of rows and models that failed and were not expected to.
    pub fn failures(&self) -> usize {
        self.failed_rows().count() + self.failed_models().count()
    }

    /// Number of rows and models that failed as expected.
    pub fn known_failures(&self) -> usize {
        let rows = self.rows.iter().map(|row| (row.known, &row.report.failure));
        let models = self.models.iter().map(|model| (model.known, &model.failure));
        rows.chain(models).filter(|(known, failure)| *known && failure.is_some()).count()
    }

    /// Rows and models that passed though they were expected to fail.
    pub fn known_passes(&self) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| row.known && row.report.failure.is_none());
        let models = self.models.iter().filter(|model| model.known && model.failure.is_none());
        rows.map(Row::id).chain(models.map(ModelReport::id)).collect()
    }

    /// Number of rows and models.
    pub fn checks(&self) -> usize {
        self.rows.len() + self.models.len()
    }

    /// Whether everything ran, and nothing failed that was not expected to.
    pub fn passed(&self) -> bool {
        self.failures() == 0 && self.unfinished.is_none()
    }

    /// The rows that failed and were not expected to.
    pub fn failed_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.report.failure.is_some() && !row.known)
    }

    /// The models that failed and were not expected to.
    pub fn failed_models(&self) -> impl Iterator<Item = &ModelReport> {
        self.models.iter().filter(|model| model.failure.is_some() && !model.known)
    }

    /// Number of values that were stored as the other neighbour: see [`Report::rounded`].
    pub fn rounded(&self) -> usize {
        self.rows.iter().map(|row| row.report.rounded).sum()
    }

    /// The programs of all rows by their labels, with the SHA-256 of the linked WGSL.
    pub fn programs(&self) -> Vec<(Shader, String)> {
        let mut seen = BTreeSet::new();
        let rows = self.rows.iter().map(|row| row.shader);
        let programs = rows.filter(|shader| seen.insert(shader.label()));
        programs.map(|shader| (shader, digest(shader))).collect()
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let mut value = row.json();
            if row.report.failure.is_some() {
                value["replay"] = self.replay.of(row, &self.caps).into();
            }
            value
        };
        let programs = self.programs().into_iter().map(|(shader, digest)| {
            let features: Vec<&str> = shader.features.iter().map(|one| one.name()).collect();
            let files: Vec<&str> = shader.linked().map(|file| file.path).collect();
            (
                shader.label(),
                json!({ "sha256": digest, "main": shader.main(), "files": files,
                    "features": features }),
            )
        });
        let mut object = Map::new();
        object.insert("format".into(), FORMAT.into());
        object.insert("version".into(), VERSION.into());
        object.insert("build".into(), build());
        object.extend(describe(&self.caps));
        let rest = json!({
            "system": self.system,
            "command": self.command,
            "date": self.date,
            "seconds": self.seconds,
            "programs": programs.collect::<Map<_, _>>(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "models": self.models.iter().map(ModelReport::json).collect::<Vec<_>>(),
            "failures": self.failures(),
            "known_failures": self.known_failures(),
            "known_passes": self.known_passes(),
            "unfinished": self.unfinished,
            "suspects": self.suspects().iter().map(Suspect::json).collect::<Vec<_>>(),
        });
        if let Value::Object(rest) = rest {
            object.extend(rest);
        }
        object.into()
    }

    /// Files that explain the failures best, most suspect first: rows that link them failed, and
    /// other rows passed.
    ///
    /// The measure is Ochiai's: the cosine between "links the file" and "failed" over all rows.
    pub fn suspects(&self) -> Vec<Suspect> {
        let mut files: BTreeMap<&'static str, Suspect> = BTreeMap::new();
        // A row that is known to fail says nothing new of a file.
        for row in self.rows.iter().filter(|row| !row.known) {
            for file in row.shader.linked() {
                let none = Suspect { file: file.path, failed: 0, rows: 0 };
                let suspect = files.entry(file.path).or_insert(none);
                suspect.rows += 1;
                suspect.failed += usize::from(row.report.failure.is_some());
            }
        }
        let all = self.failed_rows().count() as f64;
        let measure = |s: &Suspect| s.failed as f64 / (all * s.rows as f64).sqrt();
        let mut suspects: Vec<Suspect> =
            files.into_values().filter(|suspect| suspect.failed > 0).collect();
        suspects.sort_by(|a, b| measure(b).total_cmp(&measure(a)));
        suspects.truncate(SUSPECTS);
        suspects
    }

    /// The rows, grouped by kernel.
    pub fn kernels(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|one, other| one.kernel == other.kernel)
    }
}

/// Totals over some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Number of rows.
    pub rows: usize,
    /// Number of rows that had to be exact.
    pub exact: usize,
    /// Number of elements compared.
    pub elements: usize,
    /// Largest error, as a fraction of the bound.
    pub worst: f64,
    /// Number of failed rows, expected ones too.
    pub failed: usize,
    /// Time that they took.
    pub seconds: f64,
}

impl Totals {
    /// Adds up `rows`.
    pub fn of(rows: &[Row]) -> Self {
        Self {
            rows: rows.len(),
            exact: rows.iter().filter(|row| row.exact).count(),
            elements: rows.iter().map(|row| row.report.elements).sum(),
            worst: rows.iter().map(|row| row.report.worst).fold(0.0, f64::max),
            failed: rows.iter().filter(|row| row.report.failure.is_some()).count(),
            seconds: rows.iter().map(|row| row.seconds).sum(),
        }
    }
}

/// The SHA-256 of a program's linked WGSL, with the features that it enables.
fn digest(shader: Shader) -> String {
    hex(&Sha256::digest(shader.enables() + &shader.source()))
}
