//! Results and lists of rows as text.

use grok_wgpu::lab::{
    base::error::Result,
    kernels::Case,
    machine::gpu::Caps,
    selftest::{Row, Summary, Suspect, Totals, describe},
};
use serde_json::{Value, json};

use super::{
    super::{
        globals::Globals,
        terminal::{out, out_json},
    },
    choose::Chosen,
};

/// Most failures that are printed; reports have all.
const SHOWN: usize = 100;

/// Prints the names of the chosen rows, one a line.
pub(super) fn list(
    globals: &Globals,
    caps: &Caps,
    cases: &[Case],
    chosen: &[Chosen],
) -> Result<()> {
    if !globals.json {
        let lines = chosen.iter().map(|one| one.id(cases) + "\n");
        return out(&lines.collect::<String>());
    }
    let row = |one: &Chosen| {
        let (case, shader) = (one.case(cases), one.dispatch(cases).shader);
        json!({
            "row": one.id(cases),
            "kernel": case.kernel,
            "case": case.name,
            "tuning": one.tuning,
            "variant": shader.variant,
            "program": shader.label(),
            "exact": case.exact,
        })
    };
    let mut object = describe(caps);
    object.insert("rows".into(), chosen.iter().map(row).collect::<Value>());
    out_json(&object.into())
}

/// A line for each kernel and model, then what failed.
pub(super) fn table(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{:<22} {:>6} {:>12} {:>12} {:>8} {:>9}",
        "kernel", "rows", "elements", "worst/bound", "failed", "time"
    )];
    let line = |name: &str, rows: &[Row]| {
        let Totals { rows, elements, worst, failed, seconds, .. } = Totals::of(rows);
        format!("{name:<22} {rows:>6} {elements:>12} {worst:>12.3} {failed:>8} {seconds:>7.2} s")
    };
    for rows in summary.kernels() {
        lines.push(line(rows[0].kernel, rows));
    }
    lines.push(line("all", &summary.rows));
    let rounded = summary.rounded();
    if rounded > 0 {
        lines.push(format!(
            "{rounded} values that are stored as f16 or q8 are the other neighbour of the exact \
             value, which is allowed: they are not in worst/bound"
        ));
    }
    for model in &summary.models {
        let verdict = match &model.failure {
            None => "passed",
            Some(_) if model.known => "failed, as is known,",
            Some(_) => "FAILED",
        };
        lines.push(format!(
            "{verdict} {}: largest difference of a logit {:.1e}, allowed {:.0e}",
            model.name, model.worst, model.most
        ));
        if let Some(failure) = &model.failure {
            lines.push(format!("  {failure}"));
        }
    }
    failures(summary, &mut lines);
    known(summary, &mut lines);
    if let Some(why) = &summary.unfinished {
        lines.push(format!("The test did not end: {why}"));
    }
    lines.join("\n") + "\n"
}

fn failures(summary: &Summary, lines: &mut Vec<String>) {
    for row in summary.failed_rows().take(SHOWN) {
        let failure = row.report.failure.as_deref().unwrap_or_default();
        lines.push(format!("FAILED {}: {failure}", row.id()));
        if let Some(wrong) = &row.report.wrong {
            lines.push(format!("  {}", wrong.extent()));
        }
        lines.push(format!("  {}", summary.replay.of(row, &summary.caps)));
    }
    let all = summary.failed_rows().count();
    if all > SHOWN {
        lines.push(format!(
            "FAILED {} more rows, which --json and --write-known have all",
            all - SHOWN
        ));
    }
    if all > 0 {
        lines.push(
            "With --dump DIR such a command writes its row's shader, inputs and results to a \
             folder, for other programs"
                .into(),
        );
    }
    let suspects = summary.suspects();
    if !suspects.is_empty() {
        lines.push("Where to look first, by how well it explains what failed:".into());
    }
    for Suspect { file, failed, rows } in suspects {
        lines.push(format!("  {file}: {failed} of {rows} rows that link it failed"));
    }
}

fn known(summary: &Summary, lines: &mut Vec<String>) {
    let known = summary.known_failures();
    if known > 0 {
        lines.push(format!("{known} failed that are known to fail"));
    }
    let passes = summary.known_passes();
    for id in passes.iter().take(SHOWN) {
        lines.push(format!("PASSED, though it is known to fail: {id}"));
    }
    if passes.len() > SHOWN {
        lines.push(format!("PASSED {} more of those", passes.len() - SHOWN));
    }
}
