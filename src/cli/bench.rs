//! `bench`: how fast a model runs on this adapter, and where the time goes.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use grok_wgpu::{
    Config, Error, Gpu, Machine, Result, Synthetic, Weights,
    gpu::StepTime,
    plan::{cache_position_bytes, layer_dispatches},
    session::{Read, Session, Sizes},
};
use serde_json::{Value, json};

use super::{
    Globals,
    model::{Element, Opened, load, locate, preset},
    terminal::{Terminal, check_interrupt, out, out_json, size},
};

/// What every token's read-back is: the likeliest token.
const READ: Read = Read::Top(1);

/// Measure the speed of a model on this adapter
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu bench models/demo --kernels
  grok-wgpu bench --random --preset bench --type bf16 --prompt 512 --tokens 64
  grok-wgpu bench --random --config config.json --json")]
pub(super) struct Options {
    /// Folder or file of the model; the one that is shipped if none is given
    #[arg(conflicts_with = "random")]
    model: Option<PathBuf>,
    /// Make up the weights of --preset or --config
    #[arg(long)]
    random: bool,
    /// A configuration by name
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(grok_wgpu::PRESETS))]
    #[arg(requires = "random")]
    preset: Option<String>,
    /// A config.json
    #[arg(long, value_name = "FILE", conflicts_with = "preset", requires = "random")]
    config: Option<PathBuf>,
    /// Element type of made-up weights
    #[arg(long = "type", value_enum, default_value = "bf16", requires = "random")]
    element: Element,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to make after it
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Times to measure, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Tokens of the prompt that go through the model at once
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    prefill: u32,
    /// Show the time of each kernel on the device, where it has timestamps
    #[arg(long)]
    kernels: bool,
}

/// What was measured.
struct Measured {
    load: Duration,
    /// Seconds of a whole prompt, by repeat.
    prefill: Vec<f64>,
    /// Seconds of one token, by token of all repeats.
    decode: Vec<f64>,
    /// Seconds that the host takes to hand over one token, by token.
    host: Vec<f64>,
    dispatches: u64,
    layer_dispatches: f64,
    bytes_bound: u64,
    least_bytes: u64,
    submissions: f64,
    read_back_bytes: f64,
    weights_bytes: u64,
    allocated_bytes: u64,
    decode_kernels: Option<Vec<Kernel>>,
    prefill_kernels: Option<Vec<Kernel>>,
}

/// All runs of one kernel in a plan.
struct Kernel {
    label: String,
    runs: u64,
    nanoseconds: f64,
    share: f64,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    if options.random {
        let (name, file) = (options.preset.as_deref(), options.config.as_deref());
        let config = preset(name, file, terminal)?;
        let dtype = options.element.dtype();
        let weights = Synthetic::new(&config, dtype, 0)?;
        let bytes = weights.bytes();
        return bench(globals, options, &config, &weights, bytes).await;
    }
    let opened = Opened::open(&locate(options.model.as_deref())?, globals).await?;
    let bytes = opened.checkpoint.bytes();
    bench(globals, options, &opened.config, &opened.checkpoint, bytes).await
}

async fn bench(
    globals: &Globals,
    options: &Options,
    config: &Config,
    weights: &impl Weights,
    bytes: u64,
) -> Result<()> {
    let context = u64::from(options.prompt) + u64::from(options.tokens);
    let most = config.max_position_embeddings;
    let context =
        u32::try_from(context).ok().filter(|&context| context <= most).ok_or_else(|| {
            let context = most as usize;
            Error::ContextLength {
                prompt: options.prompt as usize,
                wanted: options.tokens as usize,
                context,
            }
        })?;
    let start = Instant::now();
    let sizes = Sizes { context, prefill: options.prefill.min(options.prompt) };
    let mut session = load(globals, config, weights, bytes, sizes).await?;
    let loaded = start.elapsed();
    let measured = measure(globals.terminal(), options, &mut session, loaded).await?;
    let adapter = session.machine().caps().describe();
    if globals.json {
        out_json(&as_json(options, config, &measured, &adapter))
    } else {
        out(&describe(options, config, &measured, &adapter))
    }
}

async fn measure(
    terminal: Terminal,
    options: &Options,
    session: &mut Session<Gpu>,
    load: Duration,
) -> Result<Measured> {
    let vocab = session.config().vocab_size;
    let prompt = ids(options.prompt, vocab);
    let made = ids(options.tokens, vocab);
    let bar = terminal.bar("measuring", u64::from(options.repeats) + 2, false);
    let (mut prefill, mut decode, mut host) = (Vec::new(), Vec::new(), Vec::new());
    let (mut submissions, mut read_back_bytes) = (0, 0);
    for repeat in 0..=options.repeats {
        session.rewind(0);
        let start = Instant::now();
        session.prefill(&prompt, READ).await?;
        let prompt_time = start.elapsed().as_secs_f64();
        let before = session.machine().counters();
        let mut times = Vec::new();
        for &id in &made {
            check_interrupt()?;
            let start = Instant::now();
            session.decode(id, READ).await?;
            times.push(start.elapsed().as_secs_f64());
        }
        let after = session.machine().counters();
        if repeat > 0 {
            prefill.push(prompt_time);
            decode.extend(times);
            submissions += after.submissions - before.submissions;
            read_back_bytes += after.read_back_bytes - before.read_back_bytes;
        }
        bar.inc(1);
    }
    // Without a result to wait for, a step ends when it has been handed over.
    session.rewind(options.prompt as usize);
    for &id in &made {
        check_interrupt()?;
        session.machine_mut().flush().await?;
        let start = Instant::now();
        session.decode(id, Read::Nothing).await?;
        host.push(start.elapsed().as_secs_f64());
    }
    session.machine_mut().flush().await?;
    bar.inc(1);

    session.rewind(options.prompt as usize);
    let positions = u64::from(options.prompt) + 1;
    let cache = cache_position_bytes(session.config()) * positions;
    let least_bytes = session.model().active_bytes() + cache;
    let (mut decode_kernels, mut prefill_kernels) = (None, None);
    if options.kernels && session.machine().caps().timestamps {
        // What is timed is the step that ran last, again.
        session.decode(made[0], READ).await?;
        session.rewind(prompt.len());
        let plan = session.decode_plan(READ)?.clone();
        decode_kernels = Some(kernels(&session.machine_mut().time_plan(&plan).await?));
        session.rewind(0);
        session.prefill(&prompt[..session.sizes().prefill as usize], READ).await?;
        session.rewind(0);
        let plan = session.prefill_plan(READ)?.clone();
        prefill_kernels = Some(kernels(&session.machine_mut().time_plan(&plan).await?));
        session.rewind(prompt.len());
    }
    bar.finish_and_clear();
    let plan = session.decode_plan(READ)?;
    let (dispatches, bytes_bound, counts) = (plan.dispatches(), plan.bytes_bound(), plan.kernels());
    let steps = decode.len().max(1) as f64;
    Ok(Measured {
        load,
        prefill,
        decode,
        host,
        dispatches,
        layer_dispatches: layer_dispatches(session.model(), &counts),
        bytes_bound,
        least_bytes,
        submissions: submissions as f64 / steps,
        read_back_bytes: read_back_bytes as f64 / steps,
        weights_bytes: session.model().bytes(),
        allocated_bytes: session.machine().allocated_bytes(),
        decode_kernels,
        prefill_kernels,
    })
}

/// Ids all over the vocabulary, the same each time.
fn ids(count: u32, vocab: u32) -> Vec<u32> {
    (0..count).map(|i| i.wrapping_mul(0x9E37_79B9).rotate_left(15) % vocab).collect()
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Sums by kernel, the longest first.
fn kernels(times: &[StepTime]) -> Vec<Kernel> {
    let all: f64 = times.iter().map(|time| time.nanoseconds).sum();
    let mut kernels: Vec<Kernel> = Vec::new();
    for StepTime { label, nanoseconds, .. } in times {
        match kernels.iter_mut().find(|kernel| kernel.label == *label) {
            Some(kernel) => {
                kernel.runs += 1;
                kernel.nanoseconds += nanoseconds;
            }
            None => kernels.push(Kernel {
                label: label.clone(),
                runs: 1,
                nanoseconds: *nanoseconds,
                share: 0.0,
            }),
        }
    }
    for kernel in &mut kernels {
        kernel.share = if all > 0.0 { kernel.nanoseconds / all } else { 0.0 };
    }
    kernels.sort_by(|one, other| other.nanoseconds.total_cmp(&one.nanoseconds));
    kernels
}

fn describe(options: &Options, config: &Config, m: &Measured, adapter: &str) -> String {
    let (prefill, decode) = (median(&m.prefill), median(&m.decode));
    let ratio = m.bytes_bound as f64 / m.least_bytes as f64;
    let mut lines = vec![
        adapter.to_owned(),
        format!(
            "model        {} parameters, {} of weights, {} on the device",
            config.parameters().total,
            size(m.weights_bytes),
            size(m.allocated_bytes)
        ),
        format!("load         {:.2} s", m.load.as_secs_f64()),
        format!(
            "prefill      {:.1} tokens/s ({} tokens in {prefill:.3} s)",
            f64::from(options.prompt) / prefill,
            options.prompt
        ),
        format!(
            "decode       {:.2} tokens/s ({:.3} ms a token after {} tokens)",
            1.0 / decode,
            1e3 * decode,
            options.prompt
        ),
        format!("host         {:.3} ms a token to encode and submit", 1e3 * median(&m.host)),
        format!(
            "one token    {} dispatches, {:.1} for each layer; submissions {:.0}; {:.0} bytes read back",
            m.dispatches, m.layer_dispatches, m.submissions, m.read_back_bytes
        ),
        format!(
            "memory       {} bound, {} needed at the least ({ratio:.2} times)",
            size(m.bytes_bound),
            size(m.least_bytes)
        ),
        format!(
            "             {} a second of what is needed",
            size(rounded(m.least_bytes as f64 / decode))
        ),
    ];
    let tables = [("decode", &m.decode_kernels), ("prefill chunk", &m.prefill_kernels)];
    for (name, kernels) in tables {
        let Some(kernels) = kernels else { continue };
        let all: f64 = kernels.iter().map(|kernel| kernel.nanoseconds).sum();
        lines.push(format!("\n{name}: {:.3} ms on the device", 1e-6 * all));
        for kernel in kernels {
            lines.push(format!(
                "  {:<28} {:>5} runs {:>10.3} ms {:>6.1}%",
                kernel.label,
                kernel.runs,
                1e-6 * kernel.nanoseconds,
                100.0 * kernel.share
            ));
        }
    }
    if options.kernels && m.decode_kernels.is_none() {
        lines.push("this device has no timestamps".into());
    }
    lines.join("\n") + "\n"
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and a rate is not negative"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

fn as_json(options: &Options, config: &Config, m: &Measured, adapter: &str) -> Value {
    let (prefill, decode) = (median(&m.prefill), median(&m.decode));
    let list = |kernels: &Option<Vec<Kernel>>| {
        kernels.as_ref().map(|kernels| {
            kernels
                .iter()
                .map(|kernel| {
                    json!({
                        "kernel": kernel.label,
                        "runs": kernel.runs,
                        "nanoseconds": kernel.nanoseconds,
                        "share": kernel.share,
                    })
                })
                .collect::<Vec<_>>()
        })
    };
    json!({
        "adapter": adapter,
        "parameters": config.parameters().total,
        "weights_bytes": m.weights_bytes,
        "allocated_bytes": m.allocated_bytes,
        "load_seconds": m.load.as_secs_f64(),
        "prompt": options.prompt,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "prefill_tokens_per_second": f64::from(options.prompt) / prefill,
        "prefill_seconds": m.prefill,
        "decode_tokens_per_second": 1.0 / decode,
        "decode_seconds_per_token": decode,
        "host_seconds_per_token": median(&m.host),
        "dispatches_per_token": m.dispatches,
        "dispatches_per_layer": m.layer_dispatches,
        "submissions_per_token": m.submissions,
        "read_back_bytes_per_token": m.read_back_bytes,
        "bytes_bound": m.bytes_bound,
        "least_bytes": m.least_bytes,
        "bytes_ratio": m.bytes_bound as f64 / m.least_bytes as f64,
        "decode_kernels": list(&m.decode_kernels),
        "prefill_kernels": list(&m.prefill_kernels),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "halves are exact")]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn shares_add_up() {
        let step =
            |label: &str, nanoseconds| StepTime { label: label.into(), class: None, nanoseconds };
        let found = kernels(&[step("a", 1.0), step("b", 6.0), step("a", 3.0)]);
        assert_eq!(found[0].label, "b");
        assert_eq!((found[1].runs, found.len()), (2, 2));
        assert!((found.iter().map(|kernel| kernel.share).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
