//! `tune`: measures how this adapter divides its work best, and keeps it for the other commands.

mod rates;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::SessionOptions,
    files::replace::set_aside,
    kernels,
    machine::Machine as _,
    machine::gpu::Gpu,
    measure::{
        attention,
        autotune::{self as tune, Found, choose, measure},
        bandwidth::bandwidth,
        chunks,
        lengths::{Timed, best},
        splits::{self, Split},
    },
    model::{config::Config, weights::Lasting},
    selftest::failed_trials,
    variants::{Kept, Tuning, Why},
};
use serde_json::{Value, json};

use super::{
    adapter::{self, read_store},
    globals::Globals,
    model::{ModelOptions, load_weights, locate, open},
    signals::check_interrupt,
    sizes::CacheOption,
    terminal::{Terminal, out, out_json},
    units::{self, whole},
};

/// Measure how this adapter divides its work best, and keep it for the other commands
///
/// A device has several ways to compute a product: how many invocations share a row, how high tiles
/// are, whether subgroups exchange values. Each way runs on all products of the model, and on its
/// attention to 4096 positions; the fastest for each size of product and for attention is kept by
/// adapter and driver, and so are how many tokens of a prompt should go through such a model at
/// once (`--chunks`), how many positions the shortest split of a generated token's attention should
/// have, and how fast the device reads its memory, by which `inspect` bounds the speed of a model.
/// Results are as right in every way, but their last bits may differ; only
/// `--round-activations` lets them differ by more. A way on trial (`coop`) is measured only where
/// the rows of the self-test pass with it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu tune models/demo
  grok-wgpu tune --random --preset bench --type q4 --rounds 10
  grok-wgpu tune models/demo --dry-run --json
  grok-wgpu tune --rates FOLDER
  grok-wgpu tune --rates --type q4 --random --preset grok-2 --json
  grok-wgpu tune --forget")]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub(super) struct Options {
    #[command(flatten)]
    of: ModelOptions,
    /// Times to measure each way, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Tokens of a prompt to measure with
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    prompt: u32,
    /// Tokens of a prompt that may go through at once: each is measured, as far as the context and
    /// the device's memory allow
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    #[arg(default_values_t = chunks::LENGTHS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    chunks: Vec<u32>,
    #[command(flatten)]
    cache: CacheOption,
    /// Also measure products that round activations to 8 bits, where weights are quantized
    ///
    /// Devices that multiply bytes in hardware may read prompts faster with it, at some cost in
    /// quality, which `perplexity --against` shows.
    #[arg(long)]
    round_activations: bool,
    /// Measure in some seconds how fast this computer moves and multiplies weights, and nothing
    /// else: the device's memory, pinned memory of the host, writes to the device, the model's
    /// files, products on the CPU, the cost of a submission. `inspect`, `generate`, `chat` and
    /// `bench` tell by it how many tokens a second to expect
    ///
    /// Files are read from the disk: on Linux the system is asked to forget what it keeps of them.
    /// Without a model, a file of 256 MiB is written to the folder of the measurements for it, and
    /// removed.
    #[arg(long, conflicts_with_all = ["round_activations", "forget", "rounds", "chunks", "prompt"])]
    rates: bool,
    /// Show what is best, but do not keep it
    #[arg(long)]
    dry_run: bool,
    /// Forget what was measured on this adapter
    #[arg(long, conflicts_with_all = ["model", "random", "dry_run", "round_activations"])]
    forget: bool,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let file = globals.tuning_file();
    if options.forget {
        return forget(globals, file).await;
    }
    if options.rates {
        return Box::pin(rates::run(globals, options)).await;
    }
    if let Some((config, weights)) = options.of.made_up(globals).await? {
        let bytes = weights.bytes();
        return Box::pin(run_on(globals, options, &config, &weights, bytes)).await;
    }
    let opened = open(&locate(options.of.model.as_deref()), globals).await?;
    let bytes = opened.weights.bytes();
    Box::pin(run_on(globals, options, &opened.config, &opened.weights, bytes)).await
}

/// What was measured.
struct Results {
    device: String,
    /// Products and attention.
    found: Vec<Found>,
    /// The variants that the device cannot run, each with the reason.
    left_out: Vec<(&'static str, Why)>,
    /// Bytes that are read in a second.
    rate: Option<u64>,
    /// The class of models, the time of a prompt by each length of chunks, and the best length.
    model: String,
    chunks: Vec<Timed>,
    chunk: Option<u32>,
    /// The class of heads, the times of attention by each length of splits, and the best length.
    heads: String,
    splits: Vec<Split>,
    split: Option<u32>,
}

async fn run_on(
    globals: &Globals,
    options: &Options,
    config: &Config,
    weights: &impl Lasting,
    bytes: u64,
) -> Result<()> {
    let keep = if options.dry_run { None } else { globals.tuning_file() };
    // Fails before the measurement if the file cannot be read.
    keep.as_deref().map(read_store).transpose()?;
    let results = Box::pin(measured(globals, options, config, weights, bytes)).await?;
    let left_out = results.left_out.iter();
    Report {
        device: &results.device,
        kept: results.kept(),
        json: results.as_json(keep.as_deref()),
        text: results.describe(),
        left_out: left_out.map(|(variant, why)| format!("{variant} {why}")).collect(),
    }
    .keep_and_tell(globals, keep.as_deref())
}

/// What was measured.
struct Report<'a> {
    device: &'a str,
    /// What other commands heed.
    kept: Kept,
    json: Value,
    text: String,
    /// What was not measured, and why.
    left_out: Vec<String>,
}

impl Report<'_> {
    /// Keeps it in this file, if one is named, and prints it.
    fn keep_and_tell(self, globals: &Globals, keep: Option<&Path>) -> Result<()> {
        if let Some(path) = keep {
            adapter::keep(path, self.device, self.kept)?;
        }
        if globals.json {
            return out_json(&self.json);
        }
        let terminal = globals.terminal();
        terminal.note(self.device);
        out(&self.text)?;
        for what in &self.left_out {
            terminal.note(format!("not measured: {what}"));
        }
        match keep {
            Some(path) => terminal.note(format!("kept in {}", path.display())),
            None => terminal.note("not kept"),
        }
        Ok(())
    }
}

/// Measures all of it, with a progress bar.
async fn measured(
    globals: &Globals,
    options: &Options,
    config: &Config,
    weights: &impl Lasting,
    bytes: u64,
) -> Result<Results> {
    let terminal = globals.terminal();
    let most = config.max_position_embeddings.saturating_sub(1).max(1);
    let prompt = options.prompt.min(most);
    let cache = options.cache.dtype();
    let sizes = SessionOptions::new(prompt + 1, prompt, cache);
    let mut session = load_weights(globals, config, weights, bytes, sizes).await?;
    let caps = session.machine().caps().clone();
    let rounding = options.round_activations;
    let gpu = session.machine_mut();
    let failed = failed_trials(gpu, &kernels::cases(), &mut check_interrupt).await?;
    let without: Vec<&str> = failed.iter().map(|&(variant, _)| variant).collect();
    let mut ways = tune::ways(&caps, rounding, &without).len();
    for heads in attention::heads(config, cache) {
        ways += attention::ways(&caps, heads).len();
    }
    let lengths = options.chunks.len() + splits::LENGTHS.len();
    let ids: Vec<u32> = (0..prompt).map(|i| i.wrapping_mul(7919) % config.vocab_size).collect();
    let runs = lengths as u64 * u64::from(options.rounds + 1);
    let bar = terminal.bar("measuring", ways as u64 + runs, false);
    let progress = || {
        bar.inc(1);
        check_interrupt()
    };
    let rounds = options.rounds;
    let mut found =
        measure(&mut session, &ids, rounds, rounding, &without, &mut |_| progress()).await?;
    let chunks = chunks::measure(&mut session, &options.chunks, rounds, &mut || progress()).await?;
    let usual = SessionOptions::of(config).on(session.machine()).prefill;
    // The model makes room for a cache of many positions, and for the matrix that is read.
    let mut gpu = session.into_machine();
    gpu.truncate(0);
    let of = attention::measure(&mut gpu, config, cache, prompt, rounds, &mut |_| progress()).await;
    let of = unless_memory_is_out(of, "attention was", terminal)?;
    found.extend(of.unwrap_or_default());
    // Attention is divided in the way that was just found.
    let measured = Some(Arc::new(choose(&found)));
    gpu.set_tuning(Tuning { measured, ..gpu.tuning().clone() });
    let of = splits::measure(&mut gpu, config, cache, rounds, &mut || progress()).await;
    let splits = unless_memory_is_out(of, "splits of attention were", terminal)?;
    let splits = splits.unwrap_or_default();
    let rate = bandwidth(&mut gpu, rounds).await.map(whole);
    let rate = unless_memory_is_out(rate, "how fast memory is read was", terminal)?;
    bar.finish_and_clear();
    for (variant, failure) in &failed {
        terminal.warn(format!("not measured: {variant} is wrong on this device: {failure}"));
    }
    let timed: Vec<Timed> = splits.iter().map(Split::timed).collect();
    Ok(Results {
        device: caps.describe(),
        found,
        left_out: tune::left_out(&caps),
        rate,
        model: chunks::class(config, weights)?,
        chunk: best(&chunks, usual),
        chunks,
        heads: splits::class(config, cache),
        split: best(&timed, SessionOptions::SPLIT),
        splits,
    })
}

/// `None` with a warning if the device had no memory for a measurement.
fn unless_memory_is_out<T>(of: Result<T>, what: &str, terminal: Terminal) -> Result<Option<T>> {
    match of {
        Err(error @ (Error::OutOfMemory { .. } | Error::Limit { .. })) => {
            terminal.warn(format!("{what} not measured: {error}"));
            Ok(None)
        }
        of => of.map(Some),
    }
}

impl Results {
    /// What other commands heed.
    fn kept(&self) -> Kept {
        let entry = |class: &String, length: Option<u32>| {
            length.map(|length| (class.clone(), length)).into_iter().collect()
        };
        Kept {
            settings: choose(&self.found),
            bandwidth: self.rate,
            chunks: entry(&self.model, self.chunk),
            splits: entry(&self.heads, self.split),
            ..Kept::default()
        }
    }

    fn describe(&self) -> String {
        let mut text = table(&self.found);
        text.extend(self.chunk.map(|length| {
            let best = format!("prompts by {length} tokens are best for {}\n", self.model);
            chunk_times(&self.chunks) + &best
        }));
        text.extend(self.split.map(|length| {
            let best = format!("splits of {length} positions are best for {}\n", self.heads);
            split_times(&self.splits) + &best
        }));
        text.extend(self.rate.map(|rate| format!("memory is read at {}\n", units::rate(rate))));
        text
    }

    fn as_json(&self, kept: Option<&Path>) -> Value {
        let chunks: Vec<Value> = self
            .chunks
            .iter()
            .map(|&Timed { length, seconds }| json!({ "tokens": length, "seconds": seconds }))
            .collect();
        json!({
            "device": self.device,
            "file": kept.map(Path::to_string_lossy),
            "bytes_per_second": self.rate,
            "products": self.found.iter().map(product_json).collect::<Vec<_>>(),
            "model": self.model,
            "chunk": self.chunk,
            "chunks": chunks,
            "heads": self.heads,
            "split": self.split,
            "splits": self.splits.iter().map(split_json).collect::<Vec<_>>(),
        })
    }
}

fn product_json(of: &Found) -> Value {
    let ways: Vec<Value> = of
        .times
        .iter()
        .map(|(way, time)| json!({ "way": way.to_string(), "nanoseconds": time }))
        .collect();
    let best = of.best().map(|(way, _)| way.to_string());
    json!({ "product": of.class.to_string(), "best": best, "ways": ways })
}

fn split_json(split: &Split) -> Value {
    let times: Vec<Value> = split
        .times
        .iter()
        .map(|(positions, seconds)| json!({ "positions": positions, "seconds": seconds }))
        .collect();
    json!({ "positions": split.length, "seconds": split.timed().seconds, "texts": times })
}

fn table(found: &[Found]) -> String {
    let head = ["product", "best", "ms", "default ms", "faster"].map(String::from);
    let lines = found.iter().filter_map(|of| {
        let ((way, time), before) = (of.best()?, of.before()?);
        let [ms, before_ms] = [time, before].map(|t| format!("{:.3}", t / 1e6));
        let faster = format!("{:.2}x", before / time);
        Some([of.class.to_string(), way.to_string(), ms, before_ms, faster])
    });
    let lines = std::iter::once(head).chain(lines);
    let lines: Vec<String> = lines
        .map(|[product, best, ms, before, faster]| {
            format!("{product:<40} {best:>14} {ms:>10} {before:>10} {faster:>7}\n")
        })
        .collect();
    lines.concat()
}

/// A line for each length of chunks.
fn chunk_times(timed: &[Timed]) -> String {
    let tokens = timed.iter().map(|of| of.length).max().unwrap_or_default();
    let line = |&Timed { length, seconds }: &Timed| {
        let rate = f64::from(tokens) / seconds;
        format!("a prompt of {tokens} tokens by {length:>4}: {rate:.0} tokens/s\n")
    };
    timed.iter().map(line).collect()
}

/// A line for each length of splits.
fn split_times(splits: &[Split]) -> String {
    let line = |split: &Split| {
        let at = |&(positions, seconds): &(u32, f64)| {
            format!("{:.3} ms at {positions} positions", 1e3 * seconds)
        };
        let times: Vec<String> = split.times.iter().map(at).collect();
        format!("attention in splits of {:>4}: {}\n", split.length, times.join(", "))
    };
    splits.iter().map(line).collect()
}

async fn forget(globals: &Globals, file: Option<PathBuf>) -> Result<()> {
    let terminal = globals.terminal();
    let path = file.ok_or_else(|| {
        Error::Usage("no file is named to forget it from".into())
            .with_hint("`--tuning-file FILE` names one.")
    })?;
    match read_store(&path) {
        Ok(_) => {}
        // A file that cannot be read has nothing that could be kept.
        Err(error) if error.code() == "format" => {
            let aside = set_aside(&path)?;
            terminal.warn(&error);
            terminal.note(format!("forgot all of it: the file is {} now", aside.display()));
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let gpu = Gpu::open(&globals.choice(), globals.limits.into()).await?;
    let device = gpu.caps().describe();
    terminal.note(if adapter::forget(&path, &device)? {
        format!("forgot what was measured on {device}")
    } else {
        format!("nothing was measured on {device}")
    });
    Ok(())
}
