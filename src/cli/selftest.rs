//! `selftest`: every kernel of the engine against its reference, on this adapter.

mod bisect;
mod choose;
mod compare;
mod dump;
mod junit;
mod known;
mod show;
mod translate;

use std::{
    path::PathBuf,
    time::{Instant, SystemTime},
};

use clap::{Args, ValueEnum};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{SessionOptions, session::Session},
    files::{
        native::FileSource,
        read_all,
        replace::{check_writable, replace_file},
    },
    machine::Machine as _,
    selftest::{self, ModelReport, Replay, Row, Runner, Summary, check_logits},
};

use self::{
    choose::{Chosen, Shard, choose},
    compare::{Base, Compared},
    known::Known,
};
use super::{
    adapter::gpu,
    globals::{Arithmetic, Globals},
    memory::MemoryOption,
    model::{Located, locate, open},
    signals::{check_interrupt, keep},
    terminal::{out, out_json},
};

/// Bytes of the largest file of golden logits that is read.
const MAX_GOLDEN: u64 = 256 << 20;

const HELP: &str = "\
A row is called KERNEL/NAME [TUNING], as --list, failures and reports have it.

A file of known failures has one row a line. Without [TUNING] a line means every tuning of the row,
* stands for any text, and # begins a comment:
  matvec/Q4 9x5x1024 outliers [spread 8]   # wrong since driver 23.1
  rope_cache/F16 * [gpu]
Rows of the file that fail do not fail the test; those that pass are told, to be removed from it.
--write-known writes such a file of all that fails in this run.

--compare with one file runs the test and says what differs from that earlier run. With several it
runs nothing, and shows them side by side, each against the first.

Exit code 7 says that something failed which is not known to, or, with several files to compare,
that a row fails which does not fail in the first. --json has a format and a version; times of rows
have the reference on the host in them, and of a program's first row its compilation.

Examples:
  grok-wgpu selftest
  grok-wgpu selftest --profile full --report report.html --junit report.xml
  grok-wgpu selftest --kernel matvec --case bf16 --tuning all --json
  grok-wgpu selftest --row \"matvec/Q4 9x5x1024 outliers [gpu]\" --dump repro
  grok-wgpu selftest --profile full --shard 1/4 --known failures.txt --max-failures 20
  grok-wgpu selftest --json > before.json
  grok-wgpu selftest --compare before.json
  grok-wgpu selftest --compare nvidia.json amd.json intel.json
  grok-wgpu selftest --bisect models/demo";

/// Headings of the options.
const ROWS: &str = "Which rows";
const RESULTS: &str = "What is written";
const EXPECTED: &str = "What is expected";

/// Check every kernel on this adapter against its reference
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Options {
    /// How many rows: the chosen ones, or thousands of random ones as well
    #[arg(long, value_enum, default_value = "quick", help_heading = ROWS)]
    profile: Profile,
    /// Only this kernel
    #[arg(long, value_name = "NAME", help_heading = ROWS)]
    kernel: Option<String>,
    /// Only rows whose KERNEL/NAME contains this text, random ones included; capitals do not matter
    #[arg(long, value_name = "TEXT", help_heading = ROWS)]
    case: Option<String>,
    /// Only the row of exactly this name, KERNEL/NAME or `KERNEL/NAME [TUNING]`; may be repeated
    #[arg(long, value_name = "ROW", help_heading = ROWS, conflicts_with_all = ["kernel", "case"])]
    row: Vec<String>,
    /// How work is divided; as the profile has it unless given
    ///
    /// `gpu` and `cpu` are what such devices take where nothing was measured, `tuned` what `tune`
    /// found, `all` is every way. Otherwise a variant, as in `spread`, with or without its sizes,
    /// as in `tiles 64`.
    #[arg(long, value_name = "WAY", help_heading = ROWS)]
    tuning: Option<String>,
    /// Only the I-th of N parts of the rows; the first part has the whole models too
    #[arg(long, value_name = "I/N", help_heading = ROWS)]
    shard: Option<Shard>,
    /// List the rows and stop
    #[arg(long, help_heading = ROWS, conflicts_with_all = ["report", "junit", "max_failures"])]
    list: bool,
    /// Write a page that can be attached to a bug report
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    report: Option<PathBuf>,
    /// Write the results as XML in the form of `JUnit`, for continuous integration
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    junit: Option<PathBuf>,
    /// Write one row to a new folder, to be run without this program
    ///
    /// The folder gets the WGSL, what naga makes of it for Vulkan, Metal and DirectX, constants,
    /// bindings, inputs, expected and actual results, and a page that runs it in a browser.
    #[arg(long, value_name = "DIR", help_heading = RESULTS, requires = "row")]
    #[arg(conflicts_with_all = ["list", "report", "junit", "known", "write_known", "compare"])]
    dump: Option<PathBuf>,
    /// Rows that are known to fail: a file, described below
    #[arg(long, value_name = "FILE", help_heading = EXPECTED)]
    known: Option<PathBuf>,
    /// Write such a file of what fails in this run
    #[arg(long, value_name = "FILE", help_heading = EXPECTED)]
    write_known: Option<PathBuf>,
    /// Stop after so many failures that are not known
    #[arg(long, value_name = "N", help_heading = EXPECTED)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    max_failures: Option<u64>,
    /// Compare with an earlier run, or show several beside each other; what --json wrote
    #[arg(long, value_name = "FILE", help_heading = EXPECTED, num_args = 1..)]
    compare: Vec<PathBuf>,
    /// Run this model kernel by kernel beside the reference, and name the first that parts from it
    #[arg(long, value_name = "MODEL")]
    #[arg(conflicts_with_all = ["kernel", "case", "row", "report", "junit", "profile", "list"])]
    #[arg(conflicts_with_all = ["known", "write_known", "max_failures", "compare", "shard"])]
    bisect: Option<PathBuf>,
    /// What the model to bisect is given to read
    #[arg(long, value_name = "TEXT", requires = "bisect")]
    #[arg(default_value = "Once upon a time, there was a little fox who lived by the sea.")]
    prompt: String,
    #[command(flatten)]
    memory: MemoryOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Chosen rows, work divided as this adapter has it
    Quick,
    /// Chosen and random rows, work divided in every way
    Full,
}

impl From<Profile> for selftest::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Quick => Self::Quick,
            Profile::Full => Self::Full,
        }
    }
}

impl Options {
    /// Whether an option says how to run the test.
    fn runs(&self) -> bool {
        let files = [&self.report, &self.junit, &self.known, &self.write_known];
        self.is_partial()
            || self.list
            || self.tuning.is_some()
            || self.shard.is_some()
            || self.max_failures.is_some()
            || files.iter().any(|file| file.is_some())
    }

    /// Whether rows are picked by their names; whole models are left out then.
    fn is_partial(&self) -> bool {
        self.kernel.is_some() || self.case.is_some() || !self.row.is_empty()
    }
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    if let Some(model) = &options.bisect {
        return bisect::run(globals, &options.prompt, model, options.memory).await;
    }
    if let [_, _, ..] = options.compare.as_slice() {
        if options.runs() {
            return Err(Error::Usage(
                "--compare with several files runs nothing, so it takes no option of the test"
                    .into(),
            )
            .with_hint("Leave the other options out, or compare this run with one file."));
        }
        return compare::matrix(globals, &options.compare);
    }
    // All that can be wrong with files is found before minutes of work.
    let base = options.compare.first().map(|path| Base::open(path)).transpose()?;
    let known = options.known.as_deref().map(Known::open).transpose()?;
    let cases = choose::cases(options)?;
    let _kept = keep();
    for file in [&options.report, &options.junit, &options.write_known].into_iter().flatten() {
        // Opening in append mode keeps what an earlier run wrote.
        check_writable(file)?;
    }

    let started = Instant::now();
    let mut first = gpu(globals).await?;
    globals.terminal().note(first.caps().describe());
    let chosen = choose(options, &cases, &first)?;
    if options.list {
        return show::list(globals, first.caps(), &cases, &chosen);
    }
    if let Some(folder) = &options.dump {
        let [one] = chosen.as_slice() else { return Err(dump::several(&cases, &chosen)) };
        return dump::run(globals, folder, &mut first, one.case(&cases), one).await;
    }
    first.prepare_ahead(chosen.iter().map(|one| one.dispatch(&cases)));
    let mut runner = Runner::new(first, choose::guards(options));
    let (mut rows, mut models) = (Vec::new(), Vec::new());
    let limits = Limits { known: known.as_ref(), max_failures: options.max_failures };
    let bar = globals.terminal().bar("checking", chosen.len() as u64, false);
    let open = async || gpu(globals).await;
    let mut ended = check_rows(limits, &chosen, &mut rows, async |one| {
        check_interrupt()?;
        bar.inc(1);
        runner.row(one.case(&cases), &one.tuning, &one.value, open).await
    })
    .await;
    bar.finish_and_clear();
    let first_part = options.shard.is_none_or(Shard::is_first);
    if matches!(ended, Ok(None)) && !options.is_partial() && first_part {
        ended = check_models(globals, &mut runner, &mut models).await.map(|()| None);
    }
    for model in &mut models {
        model.known = known.as_ref().is_some_and(|known| known.has(&model.id()));
    }
    let stopped = match &ended {
        Ok(stopped) => stopped.clone(),
        Err(error) => Some(error.to_string()),
    };
    let summary = Summary {
        caps: runner.caps().clone(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        replay: Replay::Command,
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        seconds: started.elapsed().as_secs_f64(),
        rows,
        models,
        unfinished: stopped,
    };
    write(globals, options, &summary, known.as_ref())?;
    print(globals, &summary, base.as_ref())?;
    ended?;
    match summary.failures() {
        0 => Ok(()),
        failures => {
            let checks = summary.checks();
            Err(Error::Verification(format!("{failures} of {checks} checks failed")))
        }
    }
}

/// What is expected of rows.
#[derive(Clone, Copy)]
struct Limits<'a> {
    /// Rows that are known to fail.
    known: Option<&'a Known>,
    /// Number of other failures after which the test stops.
    max_failures: Option<u64>,
}

/// Runs the chosen rows with `run`. Returns why it stopped early, if too many failed. `rows` has
/// the results so far even after an error.
async fn check_rows(
    limits: Limits<'_>,
    chosen: &[Chosen],
    rows: &mut Vec<Row>,
    mut run: impl AsyncFnMut(&Chosen) -> Result<Row>,
) -> Result<Option<String>> {
    let mut failures = 0;
    for (done, one) in (1..).zip(chosen) {
        let mut row = run(one).await?;
        row.known = limits.known.is_some_and(|known| known.has(&row.id()));
        failures += u64::from(row.report.failure.is_some() && !row.known);
        rows.push(row);
        if limits.max_failures.is_some_and(|most| failures >= most) && done < chosen.len() {
            return Ok(Some(format!(
                "it stopped after {failures} failures, as --max-failures asks for; {} of {} rows \
                 were not run",
                chosen.len() - done,
                chosen.len()
            )));
        }
    }
    Ok(None)
}

/// Checks the small models whose golden logits are built in, and the shipped model if it is found.
async fn check_models(
    globals: &Globals,
    runner: &mut Runner,
    reports: &mut Vec<ModelReport>,
) -> Result<()> {
    let terminal = globals.terminal();
    let gpu = runner.gpu(async || gpu(globals).await).await?;
    reports.extend(selftest::check_models(gpu).await?);
    let place = locate(None);
    let Located::Path(folder) = &place else {
        terminal.faint("the shipped model is not here, so it was not run");
        return Ok(());
    };
    let golden = folder.join("golden/logits.safetensors");
    let golden = read_all(&FileSource::open(golden)?, MAX_GOLDEN).await?;
    // The golden logits were computed with the reference's arithmetic.
    let reference = Globals { compat: Arithmetic::Reference, ..globals.clone() };
    let opened = open(&place, &reference).await?;
    let keep = gpu.tensor_count();
    let sizes =
        SessionOptions::new(opened.config.max_position_embeddings.min(2048), 256, DType::F32);
    let config = &opened.config;
    let result = async {
        let weights = &opened.weights;
        let mut session =
            Session::load(&mut *gpu, config, weights, sizes, &mut |_| check_interrupt()).await?;
        check_logits(&mut session, &golden).await
    };
    let result = result.await;
    gpu.truncate(keep);
    reports.push(ModelReport::of("the shipped model, after its golden prompts".into(), result)?);
    Ok(())
}

/// Writes the files that the options ask for, and tells where they are.
fn write(
    globals: &Globals,
    options: &Options,
    summary: &Summary,
    known: Option<&Known>,
) -> Result<()> {
    let terminal = globals.terminal();
    if let Some(report) = &options.report {
        replace_file(report, summary.html().as_bytes())?;
        terminal.note(format!("the report is in {}", report.display()));
    }
    if let Some(junit) = &options.junit {
        replace_file(junit, junit::xml(summary).as_bytes())?;
        terminal.note(format!("the results as XML are in {}", junit.display()));
    }
    if let Some(path) = &options.write_known {
        replace_file(path, known::of(summary).as_bytes())?;
        terminal.note(format!("what failed is listed in {}", path.display()));
    }
    // Rows that were left out may be those that a line means.
    let whole = !options.is_partial() && options.shard.is_none() && summary.unfinished.is_none();
    if let (Some(known), true) = (known, whole) {
        for line in known.unused() {
            terminal.warn(format!("{line} means no row that was run"));
        }
    }
    Ok(())
}

/// Prints the results, with what differs from an earlier run.
fn print(globals: &Globals, summary: &Summary, base: Option<&Base>) -> Result<()> {
    let json = summary.json();
    let compared = base.map(|base| Ok::<_, Error>(Compared::of(base, &Base::now(&json)?)));
    let compared = compared.transpose()?;
    if globals.json {
        let mut json = json;
        if let Some(compared) = compared {
            json["compared"] = compared.json();
        }
        return out_json(&json);
    }
    let compared = compared.map_or(String::new(), |compared| compared.describe());
    out(&(show::table(summary) + &compared))
}

#[cfg(test)]
mod tests {
    use grok_wgpu::lab::{kernels, machine::host::Host, selftest::Report, variants::Tuning};
    use pollster::block_on;

    use super::*;

    /// Rows of a kernel of which those at these places fail, until the test stops.
    fn ran(fail: &[usize], known: Option<&Known>, most: Option<u64>) -> (Vec<Row>, Option<String>) {
        let mut cases = kernels::cases();
        cases.retain(|case| case.kernel == "gather");
        let chosen = choose::all(&cases, &Tuning::default());
        assert!(chosen.len() > 5, "{}", chosen.len());
        let mut rows = Vec::new();
        let mut at = 0;
        let limits = Limits { known, max_failures: most };
        let stopped = block_on(check_rows(limits, &chosen, &mut rows, async |one| {
            let case = one.case(&cases);
            let shader = case.build(&mut Host::of_shapes()).record(&one.value)?.shader;
            let failure = fail.contains(&at).then(|| "wrong".to_owned());
            at += 1;
            Ok(Row {
                kernel: case.kernel,
                case: case.name.clone(),
                tuning: one.tuning.clone(),
                shader,
                exact: case.exact,
                seconds: 0.0,
                known: false,
                report: Report { elements: 1, worst: 0.0, rounded: 0, failure, wrong: None },
            })
        }));
        (rows, stopped.expect("no error"))
    }

    #[test]
    fn the_test_stops_after_so_many_failures() {
        let (rows, stopped) = ran(&[1, 3, 4], None, Some(2));
        assert_eq!(rows.len(), 4);
        assert!(stopped.is_some_and(|why| why.contains("2 failures") && why.contains("not run")));
        let (all, stopped) = ran(&[1, 3, 4], None, None);
        assert!(all.len() > 5 && stopped.is_none());
        // Those that are known to fail do not count.
        let known = format!("{}\ngather/*[nothing]\n", all[1].id());
        let known = Known::parse(&known).expect("lines");
        let (rows, _) = ran(&[1, 3, 4], Some(&known), Some(2));
        assert_eq!(rows.len(), 5);
        assert!(rows[1].known && !rows[3].known);
        assert_eq!(known.unused().len(), 1);
    }
}
