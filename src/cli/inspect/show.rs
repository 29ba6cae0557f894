//! All that `inspect` knows, as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use grok_wgpu::lab::{
    base::{error::Result, num::size, tensor::DType},
    machine::counting::DeviceLimits,
    measure::placement::Placed,
    model::{
        config::{Config, Parameters},
        rope, schema,
    },
    text::sampler::Sampling,
};
use serde_json::{Value, json};

use super::{
    super::{expected::NOT_ON_CPU, memory::lines, scan::Scan, sizes::Decided, units},
    Known, OnCpu, Options, Planned,
    verdict::Verdict,
};

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

/// The configuration and the weights.
pub(super) fn describe(known: &Known) -> String {
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
    lines.push(format!("  parameters   {total}, {active} of them for each token"));
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
    lines.join("\n") + "\n"
}

/// What was asked for besides: the scan of the weights, and the list of tensors.
pub(super) fn describe_more(options: &Options, known: &Known) -> String {
    let mut lines = Vec::new();
    lines.extend(known.scan.as_ref().map(Scan::describe));
    if options.tensors {
        lines.push("\nTensors".into());
        for (name, dtype, shape) in &known.tensors {
            lines.push(format!("  {dtype:<5} {name} {shape:?}"));
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What goes where, unless all of the model fits.
pub(super) fn describe_placement(placed: &Result<Placed>, memory: u64, config: &Config) -> String {
    let lines = match placed {
        Ok(placed) if placed.bytes.is_whole() => return String::new(),
        Ok(placed) => lines(placed, config),
        Err(error) => vec![error.to_string(), error.hint().to_owned()],
    };
    format!("\nPlacement in {}\n  {}\n", units::short_size(memory), lines.join("\n  "))
}

/// What the CPU computes for generated tokens: of how many layers the experts and the dense MLPs.
pub(super) fn describe_on_cpu(on_cpu: &OnCpu) -> String {
    let [experts, dense] = on_cpu.layers;
    if on_cpu.settled.host.is_none() {
        return format!("  on the CPU       {NOT_ON_CPU}\n");
    }
    let of = |what: &str, count| match count {
        0 => None,
        1 => Some(format!("{what} of 1 layer")),
        count => Some(format!("{what} of {count} layers")),
    };
    let parts: Vec<_> =
        [of("experts", experts), of("dense MLP", dense)].into_iter().flatten().collect();
    if parts.is_empty() {
        return "  on the CPU       nothing: all is on the device\n".to_owned();
    }
    format!("  on the CPU       {}, for generated tokens\n", parts.join(", "))
}

/// What the model takes under the limits of each device.
pub(super) fn describe_plans(
    plans: &[Planned],
    Decided { sizes, chunk, split }: Decided,
    memory: Option<u64>,
) -> String {
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
                    "  scratch      {} for prompts by {} tokens, {}",
                    size(plan.scratch),
                    sizes.prefill,
                    chunk.describe()
                ));
                lines.push(format!(
                    "  attention    of a generated token in splits of at least {} positions, {}",
                    sizes.split,
                    split.describe()
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
                "  WebGPU does not tell how much memory there is: --device-memory 24GiB says what \
                 fits"
                    .into(),
            ),
        }
    }
    lines.join("\n") + "\n"
}

/// Everything.
pub(super) fn as_json(
    (options, memory): (&Options, Option<u64>),
    known: &Known,
    verdict: &Verdict,
    plans: &[Planned],
    Decided { sizes, chunk, split }: Decided,
) -> Value {
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
        "verdict": verdict.to_json(),
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
        "prefill_rule": chunk.name(),
        "split": sizes.split,
        "split_rule": split.name(),
        "cache": sizes.cache.name(),
        "plans": plans
            .iter()
            .map(|planned| plan_json(planned, memory))
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
