//! Compares the results of self-tests: a run with an earlier one, or several beside each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::native::read_text,
    selftest::{FORMAT, VERSION},
};
use pollster::block_on;
use serde_json::{Map, Value, json};

use super::super::{
    globals::Globals,
    terminal::{out, out_json},
};

/// Bytes of the longest report that is read.
const MAX_REPORT: u64 = 256 << 20;

/// Most rows of a list in text; JSON has all.
const SHOWN: usize = 20;

/// An error grew if it is larger by this factor, and by this fraction of the bound.
const GREW: (f64, f64) = (1.01, 1e-3);

/// A row is slower if it takes so many times as long, and so many seconds more. The first row of a
/// program waits for its compilation, and other programs run beside.
const SLOWER: (f64, f64) = (2.0, 0.05);

/// The results of a run.
pub(super) struct Base {
    name: String,
    adapter: String,
    driver: String,
    program: String,
    seconds: f64,
    unfinished: bool,
    rows: BTreeMap<String, Outcome>,
    /// Names of kernels and models, in their order.
    kernels: Vec<String>,
    /// The digest of each program's WGSL.
    programs: BTreeMap<String, String>,
}

/// The result of a row, or of a model.
#[derive(Clone, Copy)]
struct Outcome {
    kernel: usize,
    failed: bool,
    /// Largest error as a fraction of the bound.
    worst: f64,
    seconds: f64,
}

impl Base {
    /// Reads what `--json` wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is no report of this
    /// version.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = block_on(read_text(path, MAX_REPORT))?;
        let fail = |what: String| {
            Error::format(path, what).with_hint(
                "`grok-wgpu selftest --json > FILE` writes what can be compared; reports of older \
                 versions have to be made again.",
            )
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| fail(format!("not JSON: {error}")))?;
        Self::parse(path.display().to_string(), &value).map_err(fail)
    }

    /// The results of this run.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is no report, which is a bug.
    pub(super) fn now(value: &Value) -> Result<Self> {
        Self::parse("this run".into(), value).map_err(Error::Usage)
    }

    fn parse(name: String, value: &Value) -> Result<Self, String> {
        if value["format"] != FORMAT {
            return Err(format!("its \"format\" is {}, not \"{FORMAT}\"", value["format"]));
        }
        if value["version"] != VERSION {
            return Err(format!("its \"version\" is {}, not {VERSION}", value["version"]));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (adapter, build) = (&value["adapter"], &value["build"]);
        let mut base = Self {
            name,
            adapter: text(&adapter["name"]),
            driver: [text(&adapter["driver"]), text(&adapter["driver_info"])].join(" "),
            program: format!("grok-wgpu {}, wgpu {}", text(&build["engine"]), text(&build["wgpu"])),
            seconds: value["seconds"].as_f64().unwrap_or_default(),
            unfinished: !value["unfinished"].is_null(),
            rows: BTreeMap::new(),
            kernels: Vec::new(),
            programs: BTreeMap::new(),
        };
        for (program, about) in value["programs"].as_object().into_iter().flatten() {
            base.programs.insert(program.clone(), text(&about["sha256"]));
        }
        let Some(rows) = value["rows"].as_array() else { return Err("it has no \"rows\"".into()) };
        for (at, row) in rows.iter().enumerate() {
            let (Some(id), Some(kernel)) = (row["row"].as_str(), row["kernel"].as_str()) else {
                return Err(format!("\"rows\"[{at}] has no \"row\" and \"kernel\""));
            };
            base.add(id, kernel, row, row["worst"].as_f64());
        }
        for model in value["models"].as_array().into_iter().flatten() {
            let allowed = model["most"].as_f64().unwrap_or(f64::NAN);
            let worst = model["worst"].as_f64().map(|worst| worst / allowed);
            base.add(&format!("model/{}", text(&model["name"])), "model", model, worst);
        }
        Ok(base)
    }

    fn add(&mut self, id: &str, kernel: &str, value: &Value, worst: Option<f64>) {
        let known = self.kernels.iter().position(|name| name == kernel);
        let kernel = known.unwrap_or_else(|| {
            self.kernels.push(kernel.to_owned());
            self.kernels.len() - 1
        });
        let outcome = Outcome {
            kernel,
            failed: value["failure"].is_string(),
            // JSON has no infinity: `null` stands for it.
            worst: worst.unwrap_or(f64::INFINITY),
            seconds: value["seconds"].as_f64().unwrap_or_default(),
        };
        self.rows.insert(id.to_owned(), outcome);
    }

    /// The rows of which there is one for each case, by the case.
    fn single(&self) -> BTreeMap<&str, &String> {
        let mut single: BTreeMap<&str, Option<&String>> = BTreeMap::new();
        for id in self.rows.keys() {
            let entry = single.entry(untuned(id));
            entry.and_modify(|other| *other = None).or_insert(Some(id));
        }
        single.into_iter().filter_map(|(case, id)| Some((case, id?))).collect()
    }

    /// Rows, failed rows, largest error and seconds of a kernel; `None` if it has no row.
    fn totals(&self, kernel: &str) -> Option<(usize, usize, f64, f64)> {
        let at = self.kernels.iter().position(|name| name == kernel)?;
        let rows = self.rows.values().filter(|row| row.kernel == at);
        Some(rows.fold((0, 0, 0.0, 0.0), |(rows, failed, worst, seconds), row| {
            let failed = failed + usize::from(row.failed);
            (rows + 1, failed, f64::max(worst, row.worst), seconds + row.seconds)
        }))
    }
}

/// The name of a row without its tuning.
fn untuned(id: &str) -> &str {
    id.rfind(" [").map_or(id, |at| &id[..at])
}

/// What differs between two runs.
pub(super) struct Compared<'a> {
    before: &'a Base,
    /// Properties that differ.
    notes: Vec<String>,
    /// Rows that fail now, and passed before.
    fails: Vec<String>,
    /// Rows that pass now, and failed before.
    passes: Vec<String>,
    new: Vec<String>,
    gone: Vec<String>,
    /// Rows that pass with a larger error: the fractions of the bound before and now. The one that
    /// grew most is the first.
    grew: Vec<Pair>,
    /// Rows that take longer, in seconds before and now.
    slower: Vec<Pair>,
    /// Seconds that the rows of both took.
    seconds: (f64, f64),
}

/// A row, and a figure before and now.
type Pair = (String, f64, f64);

impl<'a> Compared<'a> {
    pub(super) fn of(before: &'a Base, now: &Base) -> Self {
        // Adapters divide work in different ways of their own. Where both runs had one way for a
        // case, these are compared.
        let (ones, others) = (before.single(), now.single());
        let mut met = BTreeSet::new();
        let mut compared = Self {
            before,
            notes: notes(before, now),
            fails: Vec::new(),
            passes: Vec::new(),
            new: Vec::new(),
            gone: Vec::new(),
            grew: Vec::new(),
            slower: Vec::new(),
            seconds: (0.0, 0.0),
        };
        for (id, new) in &now.rows {
            let same = || before.rows.get_key_value(id);
            let like = || {
                others.get(untuned(id))?;
                before.rows.get_key_value(*ones.get(untuned(id))?)
            };
            let Some((known, old)) = same().or_else(like) else {
                compared.new.push(id.clone());
                continue;
            };
            met.insert(known);
            compared.seconds.0 += old.seconds;
            compared.seconds.1 += new.seconds;
            match (old.failed, new.failed) {
                (false, true) => compared.fails.push(id.clone()),
                (true, false) => compared.passes.push(id.clone()),
                (false, false)
                    if new.worst > old.worst * GREW.0 && new.worst > old.worst + GREW.1 =>
                {
                    compared.grew.push((id.clone(), old.worst, new.worst));
                }
                _ => {}
            }
            let more = new.seconds - old.seconds;
            if new.seconds > old.seconds * SLOWER.0 && more > SLOWER.1 {
                compared.slower.push((id.clone(), old.seconds, new.seconds));
            }
        }
        let gone = before.rows.keys().filter(|id| !met.contains(id));
        compared.gone = gone.cloned().collect();
        let by_growth = |a: &Pair, b: &Pair| (b.2 - b.1).total_cmp(&(a.2 - a.1));
        compared.grew.sort_by(by_growth);
        compared.slower.sort_by(by_growth);
        compared
    }

    /// As text.
    pub(super) fn describe(&self) -> String {
        let Self { before, fails, passes, new, gone, grew, slower, seconds, .. } = self;
        let mut text = format!("\nCompared with {}:\n", before.name);
        text.extend(self.notes.iter().map(|note| format!("  note: {note}\n")));
        let plain = |rows: &[String]| rows.to_vec();
        let pairs = |rows: &[Pair], unit: &str| {
            let show =
                |(id, before, now): &Pair| format!("{id}: {before:.3}{unit}, now {now:.3}{unit}");
            rows.iter().map(show).collect::<Vec<_>>()
        };
        for (what, rows) in [
            ("fail and passed before", plain(fails)),
            ("pass and failed before", plain(passes)),
            ("have a larger error, as a fraction of the bound", pairs(grew, "")),
            ("take longer", pairs(slower, " s")),
            ("are new", plain(new)),
            ("are gone", plain(gone)),
        ] {
            let _ = writeln!(text, "  {} rows {what}", rows.len());
            // Which rows were run is no news of the device.
            let few = if what.starts_with("are") { 3 } else { SHOWN };
            text.extend(rows.iter().take(few).map(|row| format!("    {row}\n")));
            if rows.len() > few {
                let _ = writeln!(text, "    and {} more, which --json has", rows.len() - few);
            }
        }
        let (old, now) = seconds;
        let _ = writeln!(text, "  rows of both took {old:.1} s before, and {now:.1} s now");
        text
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let pairs = |pairs: &[Pair]| -> Value {
            let pair =
                |(id, before, now): &Pair| json!({ "row": id, "before": before, "now": now });
            pairs.iter().map(pair).collect()
        };
        json!({
            "base": self.before.name,
            "notes": self.notes,
            "fails": self.fails,
            "passes": self.passes,
            "new": self.new,
            "gone": self.gone,
            "grew": pairs(&self.grew),
            "slower": pairs(&self.slower),
            "seconds": { "before": self.seconds.0, "now": self.seconds.1 },
        })
    }
}

/// Properties of two runs that differ, which explain other results.
fn notes(before: &Base, now: &Base) -> Vec<String> {
    let mut notes = Vec::new();
    for (what, old, new) in [
        ("adapter", &before.adapter, &now.adapter),
        ("driver", &before.driver, &now.driver),
        ("program", &before.program, &now.program),
    ] {
        if old != new {
            notes.push(format!("another {what}: {} before, {} now", old.trim(), new.trim()));
        }
    }
    let changed: Vec<&str> = now
        .programs
        .iter()
        .filter(|(program, digest)| before.programs.get(*program).is_some_and(|old| old != *digest))
        .map(|(program, _)| program.as_str())
        .collect();
    if !changed.is_empty() {
        notes.push(format!("the WGSL of {} differs", changed.join(", ")));
    }
    for (name, unfinished) in [("the earlier run", before.unfinished), ("this run", now.unfinished)]
    {
        if unfinished {
            notes.push(format!("{name} did not end"));
        }
    }
    notes
}

/// Shows several reports beside each other, and what fails in each that does not in the first.
///
/// # Errors
///
/// Those of [`Base::open`]; [`Error::Verification`] if there is such a row.
pub(super) fn matrix(globals: &Globals, files: &[PathBuf]) -> Result<()> {
    let reports = files.iter().map(|path| Base::open(path)).collect::<Result<Vec<Base>>>()?;
    let (first, others) = reports.split_first().expect("the caller has several");
    let compared: Vec<Compared<'_>> =
        others.iter().map(|other| Compared::of(first, other)).collect();
    if globals.json {
        out_json(&as_json(&reports, &compared))?;
    } else {
        let mut text = describe(&reports);
        for (other, compared) in others.iter().zip(&compared) {
            let _ = write!(text, "\n{}, which is \"now\" here:", other.name);
            text += &compared.describe();
        }
        out(&text)?;
    }
    let fails: BTreeSet<&String> = compared.iter().flat_map(|compared| &compared.fails).collect();
    match fails.len() {
        0 => Ok(()),
        fails => Err(Error::Verification(format!(
            "{fails} rows fail that do not fail in {}",
            first.name
        ))
        .with_hint("The list above has them; `selftest --row ROW` runs one.")),
    }
}

/// Names of all kernels, in the order of the first report that has them.
fn kernels(reports: &[Base]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let all = reports.iter().flat_map(|report| &report.kernels);
    all.map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

/// The name of a column: A to Z, then numbers.
fn column(at: usize) -> String {
    match u8::try_from(at) {
        Ok(at) if at < 26 => char::from(b'A' + at).to_string(),
        _ => (at + 1).to_string(),
    }
}

/// A line for each report, and a table of kernels: how many rows failed, or the largest error.
fn describe(reports: &[Base]) -> String {
    let mut text = String::new();
    for (at, report) in reports.iter().enumerate() {
        let Base { name, adapter, driver, program, rows, seconds, .. } = report;
        let failed = rows.values().filter(|row| row.failed).count();
        let _ = writeln!(
            text,
            "{:>2}  {name}: {adapter}, {}; {program}; {failed} of {} checks failed, {seconds:.1} \
             s",
            column(at),
            driver.trim(),
            rows.len()
        );
    }
    let _ = write!(text, "\n{:<22}", "worst/bound, or failed");
    text.extend((0..reports.len()).map(|at| format!(" {:>12}", column(at))));
    text.push('\n');
    for kernel in kernels(reports) {
        let _ = write!(text, "{kernel:<22}");
        for report in reports {
            let cell = match report.totals(kernel) {
                None => "–".to_owned(),
                Some((_, 0, worst, _)) => format!("{worst:.3}"),
                Some((rows, failed, ..)) => format!("{failed} of {rows}"),
            };
            let _ = write!(text, " {cell:>12}");
        }
        text.push('\n');
    }
    text
}

fn as_json(reports: &[Base], compared: &[Compared<'_>]) -> Value {
    let about = |report: &Base| {
        let failed = report.rows.values().filter(|row| row.failed).count();
        json!({
            "file": report.name,
            "adapter": report.adapter,
            "driver": report.driver.trim(),
            "program": report.program,
            "checks": report.rows.len(),
            "failed": failed,
            "seconds": report.seconds,
        })
    };
    let cells = |kernel: &str| -> Value {
        let cell = |report: &Base| {
            report.totals(kernel).map(|(rows, failed, worst, seconds)| {
                let worst = worst.is_finite().then_some(worst);
                json!({ "rows": rows, "failed": failed, "worst": worst, "seconds": seconds })
            })
        };
        reports.iter().map(cell).collect()
    };
    let kernels = kernels(reports).into_iter().map(|kernel| (kernel.to_owned(), cells(kernel)));
    json!({
        "reports": reports.iter().map(about).collect::<Value>(),
        "kernels": kernels.collect::<Map<_, _>>(),
        "compared": compared.iter().map(Compared::json).collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: &[(&str, Option<f64>, bool)]) -> Value {
        let row = |(id, worst, failed): &(&str, Option<f64>, bool)| {
            let kernel = id.split('/').next();
            let mut row = json!({ "row": id, "kernel": kernel, "worst": worst, "seconds": 0.5 });
            if *failed {
                row["failure"] = "wrong".into();
            }
            row
        };
        let rows: Value = rows.iter().map(row).collect();
        json!({ "format": FORMAT, "version": VERSION, "rows": rows })
    }

    fn base(rows: &[(&str, Option<f64>, bool)]) -> Base {
        Base::parse("x".into(), &report(rows)).expect("a report")
    }

    #[test]
    fn differences_are_found() {
        let before = base(&[
            ("a/1 [gpu]", Some(0.5), false),
            ("a/2 [gpu]", Some(0.5), false),
            ("a/3 [gpu]", None, true),
            ("b/4 [gpu]", Some(0.1), false),
            ("b/5 [gpu]", Some(0.1), false),
        ]);
        let now = base(&[
            ("a/1 [gpu]", Some(0.5), false),
            ("a/2 [gpu]", None, true),
            ("a/3 [gpu]", Some(0.2), false),
            ("b/4 [gpu]", Some(0.2), false),
            ("b/6 [gpu]", Some(0.1), false),
        ]);
        let compared = Compared::of(&before, &now);
        assert_eq!(compared.fails, ["a/2 [gpu]"]);
        assert_eq!(compared.passes, ["a/3 [gpu]"]);
        assert_eq!(
            (&compared.new[..], &compared.gone[..]),
            (&["b/6 [gpu]".to_owned()][..], &["b/5 [gpu]".to_owned()][..])
        );
        assert_eq!(compared.grew, [("b/4 [gpu]".to_owned(), 0.1, 0.2)]);
        assert!(compared.describe().contains("1 rows fail and passed before\n    a/2 [gpu]\n"));
        assert!(Compared::of(&now, &now).fails.is_empty());
        assert_eq!(now.totals("a").map(|(rows, failed, ..)| (rows, failed)), Some((3, 1)));
    }

    /// Two adapters have different ways of their own, of which a quick run takes one.
    #[test]
    fn a_case_with_one_way_is_compared_with_another_way() {
        let before = base(&[
            ("a/1 [gpu]", Some(0.5), false),
            ("a/2 of [3, 4] [gpu]", Some(0.5), false),
            ("a/3 [gpu]", Some(0.5), false),
        ]);
        let now = base(&[
            ("a/1 [spread 8]", None, true),
            ("a/2 of [3, 4] [spread 8]", Some(0.5), false),
            ("a/3 [spread 8]", Some(0.5), false),
            ("a/3 [lanes 8]", Some(0.5), false),
        ]);
        let compared = Compared::of(&before, &now);
        assert_eq!(compared.fails, ["a/1 [spread 8]"]);
        assert_eq!(compared.new, ["a/3 [lanes 8]", "a/3 [spread 8]"]);
        assert_eq!(compared.gone, ["a/3 [gpu]"]);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for (value, why) in [
            (json!({ "rows": [] }), "\"format\" is null"),
            (json!({ "format": FORMAT, "version": 99, "rows": [] }), "\"version\" is 99"),
            (json!({ "format": FORMAT, "version": VERSION }), "no \"rows\""),
            (json!({ "format": FORMAT, "version": VERSION, "rows": [1] }), "\"rows\"[0]"),
        ] {
            let result = Base::parse("x".into(), &value);
            assert!(result.err().is_some_and(|what| what.contains(why)), "{value}");
        }
    }

    #[test]
    fn columns_have_short_names() {
        assert_eq!([0, 25, 26].map(column), ["A", "Z", "27"]);
    }
}
