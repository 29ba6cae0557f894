//! `bench`: how fast a model runs on this adapter, what that takes, and where the time goes.

mod compare;
mod device;
mod figures;
mod measure;
mod show;

use std::{path::PathBuf, time::Instant};

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    measure::fit::type_of_most,
    model::{config::Config, weights::Lasting},
};

use self::{
    compare::Base,
    measure::{Measured, measure},
    show::{as_json, describe},
};
use super::{
    adapter,
    expected::Speeds,
    globals::Globals,
    memory::{HostOption, MemoryOption},
    model::{ModelOptions, Stored, load_weights, locate, open},
    sizes::{CacheOption, PrefillOption, Sizes},
    terminal::{out, out_json},
};

const FIGURES: &str = "\
A prompt is measured as a whole, generated tokens one by one. What is printed of either:
  tokens/s          of the median, and of all but the slowest and the fastest tenth
  dispatches        kernels started, by the whole and by layer
  bytes bound       all tensors that dispatches see, each as often as it is bound
  bytes touched     the parts of them that dispatches read or write at the most
  least bytes       the weights that these tokens need and all keys and values, once
  operations        two for each product that is added, in matrices and in attention
  host time         to stage, encode and submit
  device time       by kernel, where the device has timestamps

With --kernels, every kernel is measured by itself: for one generated token, for four at once, and
for a prompt, at the end of --positions. A share is that of the time which the device needs at the
least, by what --device measures, in the time that the kernel took.

Examples:
  grok-wgpu bench models/demo
  grok-wgpu bench --random --preset bench --type q4 --json > before.json
  grok-wgpu bench --random --preset bench --type q4 --compare before.json
  grok-wgpu bench --random --config config.json --prompt 512 --tokens 64
  grok-wgpu bench --device
  grok-wgpu bench --kernels --random --preset bench --type q4 --json";

/// Measure the speed of a model on this adapter
#[derive(Args, Debug)]
#[command(after_help = FIGURES)]
pub(super) struct Options {
    #[command(flatten)]
    of: ModelOptions,
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
    /// Tokens of the prompt in the run that does not count. The default is all
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    warm_up: Option<u32>,
    #[command(flatten)]
    prefill: PrefillOption,
    #[command(flatten)]
    cache: CacheOption,
    #[command(flatten)]
    memory: MemoryOption,
    #[command(flatten)]
    host: HostOption,
    /// Leave out what needs more runs: the times of the host and of the kernels
    #[arg(long)]
    rates: bool,
    /// Print each figure beside that of an earlier run, which --json wrote
    #[arg(long, value_name = "BASE.json")]
    compare: Option<PathBuf>,
    /// Measure the device and no model: how fast it reads, copies and computes at the most, and
    /// what a dispatch costs
    #[arg(long, conflicts_with_all = ["model", "random", "kernels", "compare"])]
    device: bool,
    /// Measure the device, and then every kernel of the model by itself
    #[arg(long, conflicts_with = "compare")]
    kernels: bool,
    /// With --kernels: tokens in the cache, where attention is measured
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "kernels")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    positions: u32,
}

/// What is measured, for reports.
struct Subject<'a> {
    /// Where the weights come from.
    name: String,
    config: &'a Config,
    options: &'a Options,
    compat: &'static str,
    adapter: String,
    /// Positions of the shortest split of decode attention.
    split: u32,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    // Before the work, so that a wrong path costs nothing.
    let base = options.compare.as_deref().map(Base::open).transpose()?;
    if options.device {
        return device::run(globals, options).await;
    }
    if let Some((config, weights)) = options.of.made_up(globals).await? {
        let dtype = options.of.element.dtype();
        let bytes = weights.bytes();
        let (name, file) = (options.of.preset.as_deref(), options.of.config.as_deref());
        let file = file.map(|file| file.display().to_string());
        let name = format!("{}, made up, {dtype}", file.as_deref().or(name).unwrap_or("config"));
        return bench(globals, options, base.as_ref(), name, &config, (&weights, bytes.into()))
            .await;
    }
    let place = locate(options.of.model.as_deref());
    let opened = open(&place, globals).await?;
    let weights = (&opened.weights, Stored::of(&opened));
    let name = place.to_string();
    bench(globals, options, base.as_ref(), name, &opened.config, weights).await
}

async fn bench<W: Lasting>(
    globals: &Globals,
    options: &Options,
    base: Option<&Base>,
    name: String,
    config: &Config,
    (weights, stored): (&W, Stored),
) -> Result<()> {
    if options.kernels {
        return device::kernels(globals, options, name, config, (weights, stored.bytes)).await;
    }
    let most = config.max_position_embeddings;
    let context = options.prompt.checked_add(options.tokens).filter(|&context| context <= most);
    let context = context.ok_or(Error::ContextLength {
        prompt: options.prompt as usize,
        wanted: options.tokens as usize,
        context: most as usize,
    })?;
    let start = Instant::now();
    let sizes = Sizes::new(context, options.prefill, options.cache)
        .with_chunks_to(options.prompt)
        .within(options.memory)
        .computing(options.host);
    let mut session = load_weights(globals, config, weights, stored.clone(), sizes).await?;
    let loaded = start.elapsed();
    let mut measured: Measured = measure(globals.terminal(), options, &mut session, loaded).await?;
    let adapter = session.machine().caps().describe();
    let kept = adapter::known(globals, &adapter).unwrap_or_default();
    let of = (type_of_most(config, weights)?, stored.folder());
    let speeds = Speeds::of(session.machine(), &kept, of, options.host.kept())?;
    measured.expect(&session, &speeds);
    let (compat, split) = (globals.compat.name(), session.options().split);
    let subject = Subject { name, config, options, compat, adapter, split };
    let mut json = as_json(&subject, &measured);
    if globals.json {
        if let Some(base) = base {
            json["compare"] = base.compared(&json);
        }
        return out_json(&json);
    }
    let mut text = describe(&subject, &measured);
    if let Some(base) = base {
        text += &base.describe(&json);
    }
    out(&text)
}
