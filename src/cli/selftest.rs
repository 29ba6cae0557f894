//! `selftest`: every kernel of the engine against its reference, on this adapter.

use clap::{Args, ValueEnum};
use grok_wgpu::{
    Error, Result, kernels,
    selftest::{Report, check},
    tuning::Tuning,
};
use serde_json::{Value, json};

use super::{
    Globals,
    model::gpu,
    terminal::{check_interrupt, out, out_json},
};

/// Check every kernel on this adapter against its reference
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu selftest
  grok-wgpu selftest --kernel attention --adapter nvidia
  grok-wgpu selftest --kernel matvec --case bf16 --tuning all --json")]
pub(super) struct Options {
    /// Only this kernel
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Only rows whose name contains this text
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// How work is divided; this adapter's own way unless given
    #[arg(long, value_enum)]
    tuning: Option<Tunings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tunings {
    /// As on GPUs
    Gpu,
    /// As on adapters that run on a CPU
    Cpu,
    /// Both
    All,
}

/// One row that was run.
struct Row {
    kernel: &'static str,
    case: String,
    tuning: &'static str,
    report: Report,
}

impl Row {
    fn replay(&self, adapter: &str) -> String {
        format!(
            "grok-wgpu selftest --adapter {} --kernel {} --case {} --tuning {}",
            quoted(adapter),
            self.kernel,
            quoted(&self.case),
            self.tuning
        )
    }
}

/// A word as shells take it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    let mut cases = kernels::cases();
    let names: Vec<&str> = cases.iter().map(|case| case.kernel).collect();
    if let Some(kernel) = &options.kernel
        && !names.contains(&kernel.as_str())
    {
        let mut names = names;
        names.dedup();
        return Err(Error::Usage(format!(
            "no kernel is called `{kernel}`; there are: {}",
            names.join(", ")
        )));
    }
    cases.retain(|case| {
        options.kernel.as_ref().is_none_or(|kernel| case.kernel == kernel)
            && options.case.as_ref().is_none_or(|text| case.name.contains(text))
    });
    if cases.is_empty() {
        return Err(Error::Usage("no row of the table has this name".into()));
    }

    let mut gpu = gpu(globals).await?;
    terminal.note(gpu.caps().describe());
    let tunings: Vec<_> = Tuning::ALL
        .into_iter()
        .filter(|(name, tuning)| match options.tuning {
            None => *tuning == gpu.tuning(),
            Some(Tunings::All) => true,
            Some(Tunings::Gpu) => *name == "gpu",
            Some(Tunings::Cpu) => *name == "cpu",
        })
        .collect();
    let bar = terminal.bar("checking", (cases.len() * tunings.len()) as u64, false);
    let mut rows = Vec::new();
    for case in &cases {
        for &(name, tuning) in &tunings {
            check_interrupt()?;
            let report = check(&mut gpu, case, tuning).await?;
            rows.push(Row { kernel: case.kernel, case: case.name.clone(), tuning: name, report });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    let adapter = &gpu.caps().info.name;
    let failures = rows.iter().filter(|row| row.report.failure.is_some()).count();
    if globals.json {
        out_json(&json!({
            "adapter": gpu.caps().describe(),
            "rows": rows.iter().map(|row| as_json(row, adapter)).collect::<Vec<_>>(),
            "failures": failures,
        }))?;
    } else {
        out(&table(&rows, adapter))?;
    }
    if failures > 0 {
        return Err(Error::Verification(format!("{failures} of {} rows failed", rows.len())));
    }
    Ok(())
}

fn as_json(row: &Row, adapter: &str) -> Value {
    let mut value = json!({
        "kernel": row.kernel,
        "case": row.case,
        "tuning": row.tuning,
        "elements": row.report.elements,
        // Not a number in JSON if it is infinite.
        "worst": row.report.worst.is_finite().then_some(row.report.worst),
    });
    if let Some(failure) = &row.report.failure {
        value["failure"] = failure.as_str().into();
        value["replay"] = row.replay(adapter).into();
    }
    value
}

/// A line for each kernel, then what failed.
fn table(rows: &[Row], adapter: &str) -> String {
    let mut lines = vec![format!(
        "{:<22} {:>5} {:>12} {:>12} {:>8}",
        "kernel", "rows", "elements", "worst/bound", "failed"
    )];
    let line = |name: &str, rows: &[Row]| {
        let elements: usize = rows.iter().map(|row| row.report.elements).sum();
        let worst = rows.iter().map(|row| row.report.worst).fold(0.0, f64::max);
        let failed = rows.iter().filter(|row| row.report.failure.is_some()).count();
        format!("{name:<22} {:>5} {elements:>12} {worst:>12.3} {failed:>8}", rows.len())
    };
    for rows in rows.chunk_by(|one, other| one.kernel == other.kernel) {
        lines.push(line(rows[0].kernel, rows));
    }
    lines.push(line("all", rows));
    for row in rows {
        if let Some(failure) = &row.report.failure {
            lines.push(format!("FAILED {}/{} [{}]: {failure}", row.kernel, row.case, row.tuning));
            lines.push(format!("  {}", row.replay(adapter)));
        }
    }
    lines.join("\n") + "\n"
}
