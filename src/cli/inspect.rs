//! `inspect`: whether a model fits and how fast it can be; what it is, and what it needs.

mod show;
mod verdict;

use std::path::PathBuf;

use clap::Args;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{Synthetic, open::Opened},
    engine::SessionOptions,
    files::Source,
    machine::{counting::DeviceLimits, gpu::Gpu},
    measure::{
        capacity::{MemoryPlan, Planner, layer_dispatches},
        fit::type_of_most,
        placement::{Budget, Placed},
        rates::{Outlook, Rate, Rates},
    },
    model::{
        config::{Config, PRESETS},
        schema,
        weights::Weights,
    },
    text::{chat::choose, sampler::Sampling},
    variants::Kept,
};
use serde_json::{Value, json};

use self::verdict::{Bandwidth, Verdict};
use super::{
    adapter,
    expected::{self, Settled, Smaller, Speeds, kind, settle, smaller},
    globals::Globals,
    hub::{commit, hub, in_cache, open_remote},
    memory::{Memory, MemoryOption, Told, computed, place, placement_json},
    model::{Element, Located, folder_of, locate, open, preset, tokenizer, told},
    scan::Scan,
    sizes::{Decided, Rule, SizeOptions},
    terminal::{out, out_json},
    units,
};

/// Show whether a model fits, how fast it can be, and what it is
///
/// Parameters for each token are those that a generated token is multiplied by: the chosen experts,
/// everything else in the layers, and the head; of the embedding table it reads one row. A device
/// that reads so many bytes a second generates no more tokens than there are such bytes in it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu inspect models/demo
  grok-wgpu inspect models/demo --all
  grok-wgpu inspect models/demo --scan --no-device
  grok-wgpu inspect hf://xai-org/grok-2 --memory 192GiB
  grok-wgpu inspect --preset grok-2 --no-device --memory 192GiB --bandwidth 936GB/s
  grok-wgpu inspect --config config.json --memory 80GiB --json")]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub(super) struct Options {
    /// Folder or file of the model, or `hf://OWNER/NAME`, of which only the headers are read where
    /// it is; the demo model if none is given
    #[arg(conflicts_with_all = ["preset", "config"])]
    model: Option<PathBuf>,
    /// A configuration by name, without weights
    #[arg(long)]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    preset: Option<String>,
    /// A config.json, without weights
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Element type of weights that are not there
    #[arg(long = "type", value_enum, default_value = "bf16")]
    element: Element,
    /// Show the configuration, the kinds of tensors, the tokenizer and the memory plans too
    #[arg(long)]
    all: bool,
    /// List all tensors
    #[arg(long)]
    tensors: bool,
    /// Read all weights, and list those that are not finite or end in zeros
    #[arg(long, conflicts_with_all = ["preset", "config"])]
    scan: bool,
    /// Do not ask an adapter for its limits
    #[arg(long)]
    no_device: bool,
    /// What the device reads of its memory in a second, such as 936GB/s; if not given, what `tune`
    /// measured
    #[arg(long, value_name = "RATE", value_parser = units::bandwidth)]
    bandwidth: Option<u64>,
    #[command(flatten)]
    sizes: SizeOptions,
}

/// What is known of a model.
struct Known {
    /// What was named.
    name: String,
    /// Whether there are weights: otherwise their type is only what was asked for.
    stored: bool,
    config: Config,
    bytes: u64,
    slices: Option<usize>,
    files: Vec<String>,
    tensors: Vec<(String, DType, Vec<u64>)>,
    tokenizer: Option<String>,
    /// Tokens that a text begins with.
    begin: Vec<u32>,
    /// How conversations are written.
    template: Option<String>,
    /// How tokens are sampled where nobody says.
    sampling: Sampling,
    scan: Option<Scan>,
    /// The folder of its files.
    folder: Option<String>,
}

/// A plan under some limits, or why there is none.
struct Planned {
    name: String,
    limits: DeviceLimits,
    plan: Result<MemoryPlan>,
    layer_dispatches: f64,
    /// The longest context that fits in `--device-memory`; 0 if none fits.
    longest: Option<u32>,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    if options.preset.is_none() && options.config.is_none() {
        let place = locate(options.model.as_deref());
        let shown = place.to_string();
        // A scan reads all of it, so it is downloaded.
        let name = match &place {
            Located::Hub(name) if !options.scan => name,
            _ => {
                let opened = open(&place, globals).await?;
                return show_opened(globals, options, &opened, shown).await;
            }
        };
        let hub = hub().await?;
        let commit = commit(&hub, name, globals.terminal())?;
        let here = in_cache(&hub, name, &commit, globals).await;
        if here.is_ok() || hub.is_offline() {
            return show_opened(globals, options, &told(here?, globals), shown).await;
        }
        let there = open_remote(&hub, name, &commit, globals).await?;
        return show_opened(globals, options, &told(there, globals), shown).await;
    }
    let config = preset(options.preset.as_deref(), options.config.as_deref(), globals.terminal());
    let config = config.await?;
    let dtype = options.element.dtype();
    let weights = Synthetic::new(&config, dtype, 0)?;
    let tensors: Vec<_> = schema::tensors(&config)
        .into_iter()
        .map(|tensor| {
            let dtype = if tensor.may_be(dtype) { dtype } else { DType::F32 };
            (tensor.name, dtype, tensor.shape)
        })
        .collect();
    let bytes = weights.bytes();
    let file = options.config.as_deref().map(|file| file.display().to_string());
    let known = Known {
        name: file.or_else(|| options.preset.clone()).unwrap_or_default(),
        stored: false,
        config,
        bytes,
        slices: None,
        files: Vec::new(),
        tensors,
        tokenizer: None,
        begin: Vec::new(),
        template: None,
        sampling: Sampling::USUAL,
        scan: None,
        folder: None,
    };
    show(globals, options, &known, &weights).await
}

/// Shows a model whose headers have been read.
async fn show_opened(
    globals: &Globals,
    options: &Options,
    opened: &Opened<impl Source>,
    name: String,
) -> Result<()> {
    let mut known = of_checkpoint(globals, opened, name).await;
    if options.scan {
        known.scan = Some(Scan::run(&opened.weights, globals.terminal()).await?);
    }
    show(globals, options, &known, &opened.weights).await?;
    known.scan.map_or(Ok(()), |scan| scan.verdict(&opened.weights))
}

async fn of_checkpoint(globals: &Globals, opened: &Opened<impl Source>, name: String) -> Known {
    let checkpoint = &opened.weights;
    let (mut begin, mut template) = (Vec::new(), None);
    let tokenizer = match tokenizer(globals, opened).await {
        Ok(tokenizer) => {
            let (path, tokens) = (tokenizer.path().display(), tokenizer.vocab_size());
            let stops: Vec<String> = tokenizer.stop_ids().iter().map(u32::to_string).collect();
            let kind = tokenizer.kind();
            begin = tokenizer.begin_ids().to_vec();
            let starts = match &begin[..] {
                [] => String::new(),
                ids => format!("a text begins with {} {ids:?}, ", tokenizer.spelt(ids)),
            };
            let choice = choose(&tokenizer, opened.template(), None);
            let brought = match (opened.template(), choice.warning) {
                (None, _) => "the model brings no template".to_owned(),
                (Some(brought), None) => format!("as in the model's {}", brought.source),
                (Some(brought), Some(_)) => {
                    format!("though the model brings another template in {}", brought.source)
                }
            };
            template = Some(format!("{}, {brought}", choice.scaffold.name));
            let stops = stops.join(" or ");
            format!("{path}, {kind}, {tokens} tokens, {starts}an answer ends with {stops}")
        }
        Err(error) => {
            globals.terminal().warn(format!("the tokenizer cannot be used: {error}"));
            format!("cannot be used: {error}")
        }
    };
    Known {
        name,
        stored: true,
        config: opened.config.clone(),
        bytes: checkpoint.bytes(),
        slices: Some(checkpoint.slices()),
        files: checkpoint
            .sources()
            .iter()
            .map(|source| source.path().display().to_string())
            .collect(),
        tensors: checkpoint
            .tensors()
            .map(|(name, dtype, shape)| (name.to_owned(), dtype, shape.to_vec()))
            .collect(),
        tokenizer: Some(tokenizer),
        begin,
        template,
        sampling: opened.sampling,
        scan: None,
        folder: folder_of(opened),
    }
}

async fn show(
    globals: &Globals,
    options: &Options,
    known: &Known,
    weights: &impl Weights,
) -> Result<()> {
    let usual = SessionOptions::of(&known.config).context;
    let asked = options.sizes.sizes(&known.config, usual.into());
    let device = device(globals, options).await?;
    let device = device.as_ref().map(|(gpu, kept)| (gpu, kept));
    let decided = asked.on(device, &known.config, weights)?;
    let Decided { sizes, .. } = decided;
    let mut all = Vec::new();
    if let Some((gpu, _)) = device {
        all.push((gpu.caps().describe(), DeviceLimits::of(gpu.caps())));
    }
    all.push(("WebGPU's default limits".into(), DeviceLimits::BASELINE));
    let measured = device.and_then(|(_, kept)| kept.bandwidth);
    let given = options.bandwidth.map(|rate| Bandwidth { rate, measured: false });
    let rate = given.or(measured.map(|rate| Bandwidth { rate, measured: true }));
    let within = |memory| budget(memory, device.map(|(gpu, _)| gpu));
    let memory = Some(within(asked.memory).device).filter(|&device| device < u64::MAX);
    let limits = all[0].1;
    let verdict = Verdict::new(known, weights, limits, sizes, memory, rate)?;
    let of = (type_of_most(&known.config, weights)?, known.folder.as_deref());
    let speeds = speeds(options, device, of, given)?;
    let place = |budget| place(&known.config, weights, limits, sizes, budget);
    let placed = settle(&asked, &speeds, within, place)
        .and_then(|settled| Ok((place(settled.budget)?, settled)));
    let (placed, settled) = match placed {
        Ok((placed, settled)) => (Ok(placed), Some(settled)),
        // Memory that is too little is said where the placement would be.
        Err(error) if error.code() == "limit" => (Err(error), None),
        Err(error) => return Err(error),
    };
    let outlook = Outlooks::new((known, weights), limits, sizes, settled, &placed, speeds)?;
    let on_cpu = settled
        .zip(placed.as_ref().ok())
        .filter(|_| asked.host_compute.is_some())
        .map(|(settled, placed)| OnCpu::new(settled, placed, &known.config));
    let placed = memory.map(|_| placed);
    let mut plans = Vec::new();
    if globals.json || options.all {
        for (name, limits) in all {
            plans.push(planned(name, limits, known, weights, sizes, memory)?);
        }
    }
    if globals.json {
        let mut json = show::as_json((options, memory), known, &verdict, &plans, decided);
        json["expected"] = outlook.as_ref().map(Outlooks::to_json).into();
        json["placement"] = placed.as_ref().map(placement_json).into();
        if let (Some(on_cpu), Some(_)) = (&on_cpu, memory) {
            json["placement"]["on_cpu"] = on_cpu.to_json();
        }
        return out_json(&json);
    }
    let mut text = verdict.describe();
    if options.all {
        text += "\n";
        text += &show::describe(known);
    }
    text += &show::describe_more(options, known);
    if let (Some(placed), Some(memory)) = (&placed, memory) {
        text += &show::describe_placement(placed, memory, &known.config);
        if let Some(on_cpu) = &on_cpu {
            text += &show::describe_on_cpu(on_cpu);
        }
    }
    if let Some(outlook) = &outlook {
        text += &outlook.describe();
    }
    if options.all {
        text += &show::describe_plans(&plans, decided, memory);
    }
    out(&text)?;
    let more = verdict.more(options.all);
    for line in more {
        globals.terminal().faint(line);
    }
    Ok(())
}

/// What the CPU computes for generated tokens, where it was asked to.
struct OnCpu {
    settled: Settled,
    /// Of how many layers the experts, and the dense MLPs.
    layers: [u32; 2],
}

impl OnCpu {
    fn new(settled: Settled, placed: &Placed, config: &Config) -> Self {
        let layers = settled.host.map_or([0, 0], |_| computed(placed, config));
        Self { settled, layers }
    }

    fn to_json(&self) -> Value {
        let ([experts, dense], by_rates) = (self.layers, self.settled.by_rates);
        let rule = if by_rates { Rule::Measured } else { Rule::Asked };
        json!({
            "layers_of_experts": experts,
            "layers_of_dense_mlps": dense,
            "kept_bytes": self.settled.host.map(|host| host.memory),
            "rule": rule.name(),
        })
    }
}

/// How fast a model is expected to be as it is placed, and with fewer bits if it is not whole.
struct Outlooks {
    speeds: Speeds,
    now: Outlook,
    settled: Settled,
    /// Whether all of it is on the device.
    is_whole: bool,
    /// What all of it takes of a device.
    whole: Option<u64>,
    smaller: Vec<Smaller>,
}

impl Outlooks {
    /// Of a model that is placed so; `None` if it does not fit at all.
    fn new(
        (known, weights): (&Known, &impl Weights),
        limits: DeviceLimits,
        sizes: SessionOptions,
        settled: Option<Settled>,
        placed: &Result<Placed>,
        speeds: Speeds,
    ) -> Result<Option<Self>> {
        let Some((settled, placed)) = settled.zip(placed.as_ref().ok()) else { return Ok(None) };
        let (now, is_whole) = (speeds.outlook(placed), placed.bytes.is_whole());
        let (mut whole, mut fewer) = (Some(placed.plan.total()), Vec::new());
        if !is_whole {
            let of = (&known.config, type_of_most(&known.config, weights)?);
            whole = expected::total(&known.config, weights, limits, sizes)?;
            fewer = smaller(of, weights, limits, sizes, settled.budget, &speeds)?;
        }
        Ok(Some(Self { speeds, now, settled, is_whole, whole, smaller: fewer }))
    }

    fn describe(&self) -> String {
        let mut lines = expected::lines(&self.now, &self.settled);
        if self.is_whole {
            return format!("\n{}\n", lines.join("\n"));
        }
        lines.extend(expected::would_fit(self.whole, &self.smaller));
        format!("  {}\n", lines.join("\n  "))
    }

    fn to_json(&self) -> Value {
        let on_cpu = self.settled.host.is_some();
        let mut json = expected::to_json(&self.speeds, &self.now, on_cpu, &self.smaller);
        json["whole_bytes"] = self.whole.into();
        json
    }
}

/// The rates to reckon with, and the memory for weights that are not on the device. Without a
/// device another computer is planned for, whose files come from the disk.
fn speeds(
    options: &Options,
    device: Option<(&Gpu, &Kept)>,
    of: (DType, Option<&str>),
    given: Option<Bandwidth>,
) -> Result<Speeds> {
    let host = options.sizes.host;
    let mut speeds = if let Some((gpu, measured)) = device {
        Speeds::of(gpu, measured, of, host.kept())?
    } else {
        let kept = if host.is_auto() { u64::MAX } else { host.kept() };
        Speeds { rates: Rates::assumed(kind(None)), free: None, kept }
    };
    if let Some(of) = given {
        speeds.rates = speeds.rates.with(Rate::Device, of.rate as f64)?;
    }
    Ok(speeds)
}

/// The memory to plan for. Adapters that run on a CPU have no memory of their own to tell of.
fn budget(asked: MemoryOption, gpu: Option<&Gpu>) -> Budget {
    let told = gpu.filter(|gpu| !gpu.caps().is_cpu).map(Told::of).unwrap_or_default();
    let budget = asked.budget(told);
    // Nobody was asked whether it can be pinned.
    let host = match asked.host_memory {
        Memory::Size(host) => host,
        Memory::Auto => budget.host,
    };
    Budget { host, ..budget }
}

/// The device to plan for, with what was measured on it. `None` without an adapter: WebGPU's
/// default limits are planned for anyway.
async fn device(globals: &Globals, options: &Options) -> Result<Option<(Gpu, Kept)>> {
    if options.no_device {
        return Ok(None);
    }
    match adapter::measured(globals).await {
        Ok(device) => Ok(Some(device)),
        Err(error @ Error::Adapter(_)) if globals.adapter.is_none() => {
            globals.terminal().warn(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn planned(
    name: String,
    limits: DeviceLimits,
    known: &Known,
    weights: &impl Weights,
    sizes: SessionOptions,
    memory: Option<u64>,
) -> Result<Planned> {
    let planner = match Planner::new(&known.config, weights, limits) {
        Ok(planner) => planner,
        Err(error @ Error::Limit { .. }) => {
            let (plan, longest) = (Err(error), memory.map(|_| 0));
            return Ok(Planned { name, limits, plan, layer_dispatches: 0.0, longest });
        }
        Err(error) => return Err(error),
    };
    let plan = match planner.plan(sizes) {
        Err(error) if !matches!(error, Error::Limit { .. }) => return Err(error),
        plan => plan,
    };
    let layer_dispatches =
        plan.as_ref().map_or(0.0, |plan| layer_dispatches(planner.model(), &plan.decode.kernels));
    let longest = match memory {
        Some(memory) => Some(planner.longest_context(memory, sizes)?),
        None => None,
    };
    Ok(Planned { name, limits, plan, layer_dispatches, longest })
}
