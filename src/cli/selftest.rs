//! `selftest`: every kernel of the engine against its reference, on this adapter.

use std::{
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use clap::{Args, ValueEnum};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{SessionOptions, session::Session, step::Readback},
    files::{
        native::FileSource,
        read_all,
        replace::{check_writable, replace_file},
    },
    kernels,
    machine::{Machine as _, gpu::Gpu},
    selftest::{
        self, Bisect, ModelReport, Replay, Row, Runner, Summary, Suspect, Totals, check_logits,
    },
    variants::{Setting, Tuning, VARIANTS},
};
use serde_json::{Value, json};

use super::{
    adapter::gpu,
    globals::{Arithmetic, Globals},
    model::{load_on, locate, open, tokenizer},
    signals::{check_interrupt, keep},
    terminal::{out, out_json},
};

/// Bytes of the largest file of golden logits that is read.
const MAX_GOLDEN: u64 = 256 << 20;

/// Check every kernel on this adapter against its reference
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu selftest
  grok-wgpu selftest --profile full --report report.html
  grok-wgpu selftest --kernel attention --adapter nvidia
  grok-wgpu selftest --kernel matvec --case bf16 --tuning all --json
  grok-wgpu selftest --bisect models/demo")]
pub(super) struct Options {
    /// How many rows: the chosen ones, or thousands of random ones as well
    #[arg(long, value_enum, default_value = "quick")]
    profile: Profile,
    /// Only this kernel
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Only rows whose KERNEL/NAME contains this text, random ones included; capitals do not matter
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// How work is divided; as the profile has it unless given
    ///
    /// `gpu` and `cpu` are what such devices take where nothing was measured, `tuned` what `tune`
    /// found, `all` is every way. Otherwise a variant, as in `spread`, with or without its sizes,
    /// as in `tiles 64`.
    #[arg(long, value_name = "WAY")]
    tuning: Option<String>,
    /// Write a page that can be attached to a bug report
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Run this model kernel by kernel beside the reference, and name the first that parts from it
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["kernel", "case", "report", "profile"])]
    bisect: Option<PathBuf>,
    /// What the model to bisect is given to read
    #[arg(long, value_name = "TEXT", requires = "bisect")]
    #[arg(default_value = "Once upon a time, there was a little fox who lived by the sea.")]
    prompt: String,
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

/// The tunings that `text` selects, with their names: all, one by its name, those of a variant, or
/// a variant with sizes.
fn meant(text: &str, gpu: &Gpu) -> Result<Vec<(String, Tuning)>> {
    let wrong = |what: String| Error::Usage(format!("--tuning {text}: {what}"));
    let on = gpu.caps().capabilities();
    let mut all = selftest::Profile::Full.tunings(gpu);
    if text == "all" {
        return Ok(all);
    }
    if all.iter().any(|(name, _)| name == text) {
        all.retain(|(name, _)| name == text);
        return Ok(all);
    }
    if let Some(variant) = VARIANTS.iter().find(|variant| variant.name() == text) {
        variant.needs(&on).map_err(|why| wrong(why.to_string()))?;
        all.retain(|(name, _)| name.split(' ').next() == Some(text));
        return Ok(all);
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let setting: Setting = text
        .parse()
        .map_err(|what| wrong(format!("{what}; this device has {}, all", names.join(", "))))?;
    setting.runs_on(&on).map_err(|why| wrong(why.to_string()))?;
    Ok(vec![(text.to_owned(), Tuning::by(&on, setting))])
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    if let Some(model) = &options.bisect {
        return bisect(globals, options, model).await;
    }
    let terminal = globals.terminal();
    // `--case` may name a random row, and only the full profile has those.
    let profile = if options.case.is_some() { Profile::Full } else { options.profile };
    let profile = selftest::Profile::from(profile);
    let cases = cases(options, profile)?;
    let _kept = keep();
    if let Some(report) = &options.report {
        // Fails now and not after minutes of work. Opening in append mode keeps an earlier report.
        check_writable(report)?;
    }

    let started = Instant::now();
    let mut first = gpu(globals).await?;
    terminal.note(first.caps().describe());
    let tunings = match &options.tuning {
        None => selftest::Profile::from(options.profile).tunings(&first),
        Some(text) => meant(text, &first)?,
    };
    first.prepare_ahead(selftest::dispatches(&cases, &tunings));
    let mut runner = Runner::new(first, profile);
    let (mut rows, mut models) = (Vec::new(), Vec::new());
    let mut ended = check_rows(globals, &mut runner, &cases, &tunings, &mut rows).await;
    if ended.is_ok() && options.kernel.is_none() && options.case.is_none() {
        ended = check_models(globals, &mut runner, &mut models).await;
    }
    let summary = Summary {
        caps: runner.caps().clone(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        replay: Replay::Command,
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        seconds: started.elapsed().as_secs_f64(),
        rows,
        models,
        unfinished: ended.as_ref().err().map(ToString::to_string),
    };
    if let Some(report) = &options.report {
        replace_file(report, summary.html().as_bytes())?;
        terminal.note(format!("the report is in {}", report.display()));
    }
    if globals.json {
        out_json(&as_json(&summary))?;
    } else {
        out(&table(&summary))?;
    }
    ended?;
    match summary.failures() {
        0 => Ok(()),
        failures => {
            let checks = summary.rows.len() + summary.models.len();
            Err(Error::Verification(format!("{failures} of {checks} checks failed")))
        }
    }
}

/// Runs every row with every tuning that applies. `rows` has the results so far even after an
/// error.
async fn check_rows(
    globals: &Globals,
    runner: &mut Runner,
    cases: &[kernels::Case],
    tunings: &[(String, Tuning)],
    rows: &mut Vec<Row>,
) -> Result<()> {
    let bar = globals.terminal().bar("checking", cases.len() as u64, false);
    let open = async || gpu(globals).await;
    for case in cases {
        for (tuning, value) in selftest::ways(case, tunings)? {
            check_interrupt()?;
            rows.push(runner.row(case, &tuning, &value, open).await?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The rows that the options ask for.
fn cases(options: &Options, profile: selftest::Profile) -> Result<Vec<kernels::Case>> {
    let mut cases = profile.cases();
    let mut names: Vec<&str> = cases.iter().map(|case| case.kernel).collect();
    names.dedup();
    if let Some(kernel) = &options.kernel
        && !names.contains(&kernel.as_str())
    {
        return Err(Error::Usage(format!(
            "no kernel is called `{kernel}`; there are: {}",
            names.join(", ")
        )));
    }
    cases.retain(|case| {
        options.kernel.as_ref().is_none_or(|kernel| case.kernel == kernel)
            && options.case.as_ref().is_none_or(|text| case.is_meant_by(text))
    });
    if cases.is_empty() {
        return Err(Error::Usage("no row of the table has this name".into()));
    }
    Ok(cases)
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
    let Ok(folder) = locate(None) else {
        terminal.faint("the shipped model is not here, so it was not run");
        return Ok(());
    };
    let golden = folder.join("golden/logits.safetensors");
    let golden = read_all(&FileSource::open(golden)?, MAX_GOLDEN).await?;
    // The golden logits were computed with the reference's arithmetic.
    let reference = Globals { compat: Arithmetic::Reference, ..globals.clone() };
    let opened = open(&folder, &reference).await?;
    let keep = gpu.tensor_count();
    let sizes =
        SessionOptions::new(opened.config.max_position_embeddings.min(512), 256, DType::F32);
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

fn as_json(summary: &Summary) -> Value {
    let row = |row: &Row| {
        let mut value = row.json();
        if row.report.failure.is_some() {
            value["replay"] = summary.replay.of(row, &summary.caps.name).into();
        }
        value
    };
    let rows: Vec<Value> = summary.rows.iter().map(row).collect();
    let models: Vec<Value> = summary.models.iter().map(ModelReport::json).collect();
    let limits: serde_json::Map<String, Value> = summary
        .caps
        .named_limits()
        .into_iter()
        .map(|(name, device, _)| (name.to_owned(), device.into()))
        .collect();
    json!({
        "engine": env!("CARGO_PKG_VERSION"),
        "adapter": summary.caps.describe(),
        "limits": limits,
        "date": summary.date,
        "seconds": summary.seconds,
        "rows": rows,
        "models": models,
        "failures": summary.failures(),
        "unfinished": summary.unfinished,
        "suspects": summary.suspects().iter().map(Suspect::json).collect::<Value>(),
    })
}

/// A line for each kernel and model, then what failed.
fn table(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{:<22} {:>6} {:>12} {:>12} {:>8}",
        "kernel", "rows", "elements", "worst/bound", "failed"
    )];
    let line = |name: &str, rows: &[Row]| {
        let Totals { rows, elements, worst, failed, .. } = Totals::of(rows);
        format!("{name:<22} {rows:>6} {elements:>12} {worst:>12.3} {failed:>8}")
    };
    for rows in summary.kernels() {
        lines.push(line(rows[0].kernel, rows));
    }
    lines.push(line("all", &summary.rows));
    for model in &summary.models {
        let verdict = if model.failure.is_some() { "FAILED" } else { "passed" };
        lines.push(format!(
            "{verdict} {}: largest difference of a logit {:.1e}, allowed {:.0e}",
            model.name, model.worst, model.most
        ));
        if let Some(failure) = &model.failure {
            lines.push(format!("  {failure}"));
        }
    }
    for row in &summary.rows {
        if let Some(failure) = &row.report.failure {
            lines.push(format!("FAILED {}/{} [{}]: {failure}", row.kernel, row.case, row.tuning));
            lines.push(format!("  {}", summary.replay.of(row, &summary.caps.name)));
        }
    }
    let suspects = summary.suspects();
    if !suspects.is_empty() {
        lines.push("Where to look first, by how well it explains what failed:".into());
    }
    for Suspect { file, failed, rows } in suspects {
        lines.push(format!("  {file}: {failed} of {rows} rows that link it failed"));
    }
    if let Some(why) = &summary.unfinished {
        lines.push(format!("The test did not end: {why}"));
    }
    lines.join("\n") + "\n"
}

/// Tokens that are decoded one by one after the prompt.
const DECODED: u32 = 4;

/// Runs a model kernel by kernel beside the oracles.
async fn bisect(globals: &Globals, options: &Options, model: &Path) -> Result<()> {
    let terminal = globals.terminal();
    let opened = open(model, globals).await?;
    let ids = tokenizer(globals, &opened).await?.encode_prompt(&options.prompt)?;
    if ids.is_empty() {
        return Err(Error::Usage("the prompt is empty".into()));
    }
    let mut gpu = gpu(globals).await?;
    terminal.note(gpu.caps().describe());
    let prompt = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let context = prompt.saturating_add(DECODED);
    let sizes = SessionOptions::new(context, prompt.min(256), DType::F32);
    let config = &opened.config;
    let weights = &opened.weights;
    let machine = Bisect::new(&mut gpu);
    let mut session = load_on(machine, &terminal, config, weights, weights.bytes(), sizes).await?;
    let named = session.model().clone();
    session.machine_mut().name_weights(&named);

    let bar = terminal.bar("bisecting", u64::from(DECODED) + 1, false);
    let mut reply = session.prefill(&ids, Readback::Top(1)).await?;
    bar.inc(1);
    for _ in 0..DECODED {
        check_interrupt()?;
        if session.machine().parted().is_some() {
            break;
        }
        let id = reply.candidates.first().map_or(0, |best| best.id);
        reply = session.decode(id, Readback::Top(1)).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let machine = session.machine();
    let (worst, at) = machine.worst().cloned().unwrap_or_default();
    let parted = machine.parted();
    if globals.json {
        out_json(&json!({
            "kernels": machine.compared(),
            "worst": worst.is_finite().then_some(worst),
            "worst_at": at,
            "parted": parted.map(|p| json!({
                "kernel": p.kernel, "after": p.after, "near": p.near, "failure": p.failure,
            })),
        }))?;
    } else if parted.is_none() {
        out(&format!(
            "{} kernels agree with their references, {} tokens of prompt and {DECODED} decoded\n\
             largest error: {worst:.3} of what is allowed, by {at}\n",
            machine.compared(),
            ids.len()
        ))?;
    }
    match parted {
        None => Ok(()),
        Some(p) => Err(Error::Verification(format!(
            "kernel `{}` parts from its reference, after {} kernels that agree\n  at {}\n  {}\n  \
             its rows: grok-wgpu selftest --kernel {} --tuning all",
            p.kernel, p.after, p.near, p.failure, p.kernel
        ))),
    }
}
