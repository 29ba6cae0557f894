//! `inspect`: what a model is, and what it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clap::Args;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::size,
        tensor::DType,
    },
    checkpoint::{Synthetic, open::Opened},
    engine::SessionOptions,
    files::{Source as _, native::FileSource},
    machine::{counting::DeviceLimits, gpu::Gpu},
    measure::capacity::{MemoryPlan, Planner, layer_dispatches},
    model::{
        config::{Config, PRESETS, Parameters},
        rope, schema,
        weights::Weights,
    },
    text::{chat::choose, sampler::Sampling},
};
use serde_json::{Value, json};

use super::{
    adapter::gpu,
    globals::Globals,
    model::{Element, SizeOptions, locate, open, preset, tokenizer},
    scan::Scan,
    terminal::{out, out_json},
};

/// Show what a model is and what it needs
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu inspect models/demo --tensors
  grok-wgpu inspect models/demo --scan --no-device
  grok-wgpu inspect --preset grok-2 --no-device --context 8192
  grok-wgpu inspect --config config.json --memory 80GiB --json")]
pub(super) struct Options {
    /// Folder or file of the model; the one that is shipped if none is given
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
    /// List all tensors
    #[arg(long)]
    tensors: bool,
    /// Read all weights, and list those that are not finite or end in zeros
    #[arg(long, conflicts_with_all = ["preset", "config"])]
    scan: bool,
    /// Do not ask an adapter for its limits
    #[arg(long)]
    no_device: bool,
    /// Memory of the device: what context fits? A number with or without KiB, MiB, GiB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    #[command(flatten)]
    sizes: SizeOptions,
}

/// What is known of a model.
struct Known {
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
}

/// A plan under some limits, or why there is none.
struct Planned {
    name: String,
    limits: DeviceLimits,
    plan: Result<MemoryPlan>,
    layer_dispatches: f64,
    /// The longest context that fits in `--memory`; 0 if none fits.
    longest: Option<u32>,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    if options.preset.is_none() && options.config.is_none() {
        let path = locate(options.model.as_deref())?;
        let opened = open(&path, globals).await?;
        let mut known = of_checkpoint(globals, &opened).await;
        if options.scan {
            known.scan = Some(Scan::run(&opened.weights, globals.terminal()).await?);
        }
        show(globals, options, &known, &opened.weights).await?;
        return known.scan.map_or(Ok(()), |scan| scan.verdict(&opened.weights));
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
    let known = Known {
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
    };
    show(globals, options, &known, &weights).await
}

async fn of_checkpoint(globals: &Globals, opened: &Opened<FileSource>) -> Known {
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
        Err(error) => format!("cannot be used: {error}"),
    };
    Known {
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
    }
}

async fn show(
    globals: &Globals,
    options: &Options,
    known: &Known,
    weights: &impl Weights,
) -> Result<()> {
    let sizes =
        options.sizes.sizes(&known.config, SessionOptions::of(&known.config).context.into());
    let device = device(globals, options).await?;
    let mut all = Vec::new();
    if let Some(gpu) = &device {
        all.push((gpu.caps().describe(), DeviceLimits::of(gpu.caps())));
    }
    all.push(("WebGPU's default limits".into(), DeviceLimits::BASELINE));
    let mut plans = Vec::new();
    for (name, limits) in all {
        plans.push(planned(name, limits, known, weights, sizes, options.memory)?);
    }
    if globals.json {
        out_json(&as_json(options, known, &plans, sizes))
    } else {
        out(&(describe(options, known) + &describe_plans(&plans, sizes, options.memory)))
    }
}

/// The device to plan for. `None` without an adapter: WebGPU's default limits are planned for
/// anyway.
async fn device(globals: &Globals, options: &Options) -> Result<Option<Gpu>> {
    if options.no_device {
        return Ok(None);
    }
    match gpu(globals).await {
        Ok(gpu) => Ok(Some(gpu)),
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

/// Tensors of one kind together.
#[derive(Default)]
struct OfKind {
    count: usize,
    parameters: u64,
    bytes: u64,
    types: BTreeSet<DType>,
}

impl OfKind {
    fn types(&self) -> String {
        self.types.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join("+")
    }
}

/// The model's tensors, grouped by kind.
fn kinds(known: &Known) -> BTreeMap<&'static str, OfKind> {
    let types: BTreeMap<&str, DType> =
        known.tensors.iter().map(|(name, dtype, _)| (name.as_str(), *dtype)).collect();
    let mut kinds: BTreeMap<&'static str, OfKind> = BTreeMap::new();
    for tensor in schema::tensors(&known.config) {
        let kind = kinds.entry(tensor.kind().name()).or_default();
        kind.count += 1;
        kind.parameters += tensor.shape.iter().product::<u64>();
        if let Some(&dtype) = types.get(tensor.name.as_str()) {
            kind.bytes += tensor.bytes(dtype);
            kind.types.insert(dtype);
        }
    }
    kinds
}

/// How many tensors have each element type.
fn types(known: &Known) -> BTreeMap<DType, usize> {
    let mut types = BTreeMap::new();
    for (_, dtype, _) in &known.tensors {
        *types.entry(*dtype).or_default() += 1;
    }
    types
}

fn config_fields(known: &Known) -> Value {
    // `Config` writes valid JSON.
    serde_json::from_str(&known.config.to_json()).unwrap_or_default()
}

fn describe(options: &Options, known: &Known) -> String {
    let mut lines = Vec::new();
    lines.push("Configuration".to_owned());
    for (name, value) in config_fields(known).as_object().into_iter().flatten() {
        lines.push(format!("  {name:<34} {value}"));
    }
    lines.push(format!("  rope: {}", rope::explain(&known.config)));
    let Parameters { total, active } = known.config.parameters();
    let types: Vec<String> =
        types(known).iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    lines.push("\nWeights".into());
    lines.push(format!("  parameters   {total}, of which {active} run for a token"));
    lines.push(format!("  bytes        {} ({})", known.bytes, size(known.bytes)));
    lines.push(format!("  tensors      {} ({})", known.tensors.len(), types.join(", ")));
    for (name, kind) in kinds(known) {
        lines.push(format!(
            "    {name:<10} {:>6} {:>16} parameters {:>12} {}",
            kind.count,
            kind.parameters,
            size(kind.bytes),
            kind.types()
        ));
    }
    if let Some(slices) = known.slices {
        let files = known.files.len();
        lines.push(format!("  layout       {files} files, tensor-parallel slices: {slices}"));
    }
    if let Some(tokenizer) = &known.tokenizer {
        lines.push(format!("  tokenizer    {tokenizer}"));
        if let Some(template) = &known.template {
            lines.push(format!("  chat         {template}"));
        }
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = known.sampling;
        lines.push(format!(
            "  sampling     temperature {temperature}, top-k {top_k}, top-p {top_p}, \
             min-p {min_p}, repetition penalty {repetition_penalty}, unless told otherwise"
        ));
    }
    if let Some(scan) = &known.scan {
        lines.push(scan.describe());
    }
    if options.tensors {
        lines.push("\nTensors".into());
        for (name, dtype, shape) in &known.tensors {
            lines.push(format!("  {dtype:<5} {name} {shape:?}"));
        }
    }
    lines.join("\n") + "\n"
}

fn describe_plans(plans: &[Planned], sizes: SessionOptions, memory: Option<u64>) -> String {
    let mut lines = Vec::new();
    for planned in plans {
        let DeviceLimits { binding, buffer } = planned.limits;
        lines.push(format!("\nMemory plan: {}", planned.name));
        lines.push(format!("  bindings of {}, buffers of {}", size(binding), size(buffer)));
        match &planned.plan {
            Err(error) => lines.push(format!("  does not fit: {error}")),
            Ok(plan) => {
                let shards = plan.cache_shards;
                lines.push(format!(
                    "  weights      {} in bindings, {} cuts",
                    size(plan.weights),
                    plan.cuts
                ));
                lines.push(format!(
                    "  KV cache     {} of {} for {} positions, {} each, \
                     in shards for each layer: {shards}",
                    size(plan.cache),
                    sizes.cache,
                    sizes.context,
                    size(plan.cache_position),
                ));
                lines.push(format!(
                    "  scratch      {} for prompts by {} tokens",
                    size(plan.scratch),
                    sizes.prefill
                ));
                lines.push(format!("  total        {} ({})", plan.total(), size(plan.total())));
                lines.push(format!(
                    "  one token    {} dispatches, {:.1} for each layer",
                    plan.decode.dispatches, planned.layer_dispatches
                ));
                if let Some(memory) = memory {
                    let verdict = if plan.total() <= memory { "fits" } else { "does not fit" };
                    lines.push(format!("  {verdict} in {}", size(memory)));
                }
            }
        }
        match planned.longest {
            Some(0) => lines.push("  no context fits".into()),
            Some(longest) => lines.push(format!("  the longest context that fits: {longest}")),
            None => lines.push(
                "  WebGPU does not tell how much memory there is: --memory BYTES says what fits"
                    .into(),
            ),
        }
    }
    lines.join("\n") + "\n"
}

fn as_json(options: &Options, known: &Known, plans: &[Planned], sizes: SessionOptions) -> Value {
    let Parameters { total, active } = known.config.parameters();
    let kinds: BTreeMap<_, _> = kinds(known)
        .into_iter()
        .map(|(name, kind)| {
            let value = json!({
                "count": kind.count,
                "parameters": kind.parameters,
                "bytes": kind.bytes,
                "types": kind.types.iter().map(|dtype| dtype.name()).collect::<Vec<_>>(),
            });
            (name, value)
        })
        .collect();
    let types: BTreeMap<_, _> =
        types(known).into_iter().map(|(dtype, count)| (dtype.name(), count)).collect();
    let mut value = json!({
        "config": config_fields(known),
        "rope": rope::explain(&known.config),
        "parameters": {"total": total, "active": active},
        "bytes": known.bytes,
        "tensors": {"count": known.tensors.len(), "types": types, "kinds": kinds},
        "slices": known.slices,
        "files": known.files,
        "tokenizer": known.tokenizer,
        "begin_ids": known.begin,
        "template": known.template,
        "sampling": known.sampling.to_json(),
        "context": sizes.context,
        "prefill": sizes.prefill,
        "cache": sizes.cache.name(),
        "plans": plans
            .iter()
            .map(|planned| plan_json(planned, options.memory))
            .collect::<Vec<_>>(),
    });
    if let Some(scan) = &known.scan {
        value["scan"] = scan.to_json();
    }
    if options.tensors {
        let list = known.tensors.iter().map(
            |(name, dtype, shape)| json!({"name": name, "dtype": dtype.name(), "shape": shape}),
        );
        value["tensors"]["list"] = list.collect::<Vec<_>>().into();
    }
    value
}

fn plan_json(planned: &Planned, memory: Option<u64>) -> Value {
    let mut value = json!({
        "device": planned.name,
        "max_binding_bytes": planned.limits.binding,
        "max_buffer_bytes": planned.limits.buffer,
    });
    match &planned.plan {
        Err(error) => value["problem"] = error.to_string().into(),
        Ok(plan) => {
            value["weights_bytes"] = plan.weights.into();
            value["cuts"] = plan.cuts.into();
            value["kv_bytes_per_position"] = plan.cache_position.into();
            value["kv_bytes"] = plan.cache.into();
            value["kv_shards"] = plan.cache_shards.into();
            value["scratch_bytes"] = plan.scratch.into();
            value["total_bytes"] = plan.total().into();
            value["dispatches_per_token"] = plan.decode.dispatches.into();
            value["dispatches_per_layer"] = planned.layer_dispatches.into();
            if let Some(memory) = memory {
                value["fits"] = (plan.total() <= memory).into();
            }
        }
    }
    if let Some(longest) = planned.longest {
        value["longest_context"] = longest.into();
    }
    value
}

/// Parses a number of bytes with an optional unit, such as `80GiB` or `16 gb`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        unit => return Err(format!("unit {unit} is not known")),
    };
    digits
        .trim_end()
        .parse::<u64>()
        .map_err(|error| error.to_string())?
        .checked_mul(unit)
        .ok_or_else(|| "too large".into())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_of_memory() {
        assert_eq!(bytes("80GiB"), Ok(80 << 30));
        assert_eq!(bytes("16 gb"), Ok(16_000_000_000));
        assert_eq!(bytes("123"), Ok(123));
        for wrong in ["", "GiB", "-1", "1.5G", "5 parsecs", "99999999999T"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
