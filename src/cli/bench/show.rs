//! The measurements as a table and as JSON.

use grok_wgpu::lab::base::num::size;
use serde_json::{Map, Value, json};

use super::{
    super::{table::table, units::count},
    Subject,
    figures::{FIGURES, plain, seconds, whole},
    measure::{Kernel, Measured, Phase},
};

/// The value of `format` in the JSON, which `--compare` checks.
pub(super) const FORMAT: &str = "grok-wgpu bench";
/// The version of the JSON; it rises when a key changes its meaning.
pub(super) const VERSION: u64 = 1;
/// Names of the phases in JSON.
pub(super) const PHASES: [&str; 2] = ["prefill", "decode"];

/// The report as JSON.
pub(super) fn as_json(subject: &Subject<'_>, m: &Measured) -> Value {
    let Subject { name, config, options, compat, adapter, split } = subject;
    json!({
        "format": FORMAT,
        "version": VERSION,
        "program": env!("CARGO_PKG_VERSION"),
        "adapter": adapter,
        "model": name,
        "compat": compat,
        "parameters": config.parameters().total,
        "active_parameters": config.parameters().active,
        "weights_bytes": m.weights_bytes,
        "allocated_bytes": m.allocated_bytes,
        "load_seconds": m.load.as_secs_f64(),
        "prompt": options.prompt,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "chunk": m.prefill.timed_tokens,
        "split": split,
        "prefill": phase_json(&m.prefill),
        "decode": phase_json(&m.decode),
    })
}

fn phase_json(phase: &Phase) -> Value {
    let mut object = Map::new();
    object.insert("tokens".into(), phase.tokens.into());
    object.insert("tokens_before".into(), phase.before.into());
    for figure in FIGURES {
        let value = (figure.of)(phase).map(|value| {
            if figure.unit.is_whole() { whole(value).into() } else { Value::from(value) }
        });
        object.insert(figure.key.into(), value.unwrap_or_default());
    }
    object.insert("all_seconds".into(), phase.seconds.clone().into());
    object.insert("timed_tokens".into(), phase.timed_tokens.into());
    let kernels = phase.kernels.as_ref().map(|kernels| kernels.iter().map(kernel_json).collect());
    object.insert("kernels".into(), kernels.unwrap_or_default());
    object.into()
}

fn kernel_json(kernel: &Kernel) -> Value {
    json!({
        "kernel": kernel.label,
        "runs": kernel.runs,
        "seconds": kernel.seconds,
        "share": kernel.share,
        "bytes_touched": kernel.bytes_touched,
    })
}

/// The report as a table.
pub(super) fn describe(subject: &Subject<'_>, m: &Measured) -> String {
    let Subject { name, config, options, adapter, .. } = subject;
    let counts = config.parameters();
    let mut text = format!(
        "adapter  {adapter}\n\
         model    {name}: {} parameters, {} of them for each token\n\
         memory   {} of weights, {} on the device, loaded in {:.2} s\n\n",
        count(counts.total),
        count(counts.active),
        size(m.weights_bytes),
        size(m.allocated_bytes),
        m.load.as_secs_f64(),
    );
    let phases = [&m.prefill, &m.decode];
    let mut rows = vec![[String::new(), "prefill".into(), "decode".into()]];
    rows.push([
        "tokens".into(),
        format!("a prompt of {}", options.prompt),
        format!("1 after {}", options.prompt),
    ]);
    for figure in FIGURES {
        let values = phases.map(|phase| (figure.of)(phase));
        if values.iter().any(Option::is_some) {
            let [prefill, decode] =
                values.map(|value| value.map_or("-".into(), |value| figure.unit.show(value)));
            rows.push([figure.label.into(), prefill, decode]);
        }
    }
    text += &table(&rows);
    for (name, phase) in PHASES.iter().zip(phases) {
        if let Some(kernels) = &phase.kernels {
            text.push('\n');
            text += &kernel_table(name, phase, kernels);
        }
    }
    if !options.rates && m.decode.kernels.is_none() {
        text += "\nThis device has no timestamps, so there are no times of kernels.\n";
    }
    text
}

fn kernel_table(name: &str, phase: &Phase, kernels: &[Kernel]) -> String {
    let tokens = match phase.timed_tokens {
        1 => "1 token".to_owned(),
        many => format!("{many} tokens"),
    };
    let mut rows = vec![[
        format!("{name}, {tokens}"),
        "runs".into(),
        "time".into(),
        "share".into(),
        "GB/s".into(),
    ]];
    rows.extend(kernels.iter().map(|kernel| {
        let rate = 1e-9 * kernel.bytes_touched as f64 / kernel.seconds.max(1e-9);
        [
            format!("  {}", kernel.label),
            kernel.runs.to_string(),
            seconds(kernel.seconds),
            format!("{:.1} %", 100.0 * kernel.share),
            plain(rate),
        ]
    }));
    table(&rows)
}
