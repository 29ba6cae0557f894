//! `bench --device` and `bench --kernels`: what a device can do at the most, and every kernel of a
//! model beside that.

use grok_wgpu::lab::{
    base::{
        error::Result,
        num::size,
        tensor::{DType, Shape},
    },
    engine::SessionOptions,
    machine::gpu::Gpu,
    measure::{
        device::{Ceilings, Cost, Costs, ceilings, costs},
        kernels::{Load, Timed, TimedPass, time_kernels},
    },
    model::{Phase, config::Config, weights::Lasting},
    selftest::adapter,
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        adapter::gpu,
        globals::Globals,
        model::load_weights,
        signals::check_interrupt,
        table::table,
        terminal::{out, out_json},
    },
    Options,
    figures::{plain, seconds},
};

/// The value of `format` in the JSON of `--device`, and of `--kernels`.
const FORMATS: [&str; 2] = ["grok-wgpu device", "grok-wgpu kernels"];
/// The version of either; it rises when a key changes its meaning.
const VERSION: u64 = 1;
/// Dispatches whose cost is measured.
const DISPATCHES: u32 = 1000;
/// Generated tokens that go through the model at once.
const DECODED: [u32; 2] = [1, 4];

/// What was measured of a device.
struct Device {
    ceilings: Ceilings,
    costs: Costs,
}

/// A pass that was measured.
struct Measured {
    load: Load,
    pass: TimedPass,
}

/// Runs `bench --device`.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let mut gpu = gpu(globals).await?;
    let device = measure(globals, options, &mut gpu).await?;
    if globals.json {
        return out_json(&Value::Object(head(FORMATS[0], &gpu, &device)));
    }
    out(&describe(&gpu, &device))
}

/// Runs `bench --kernels` with a model.
pub(super) async fn kernels<W: Lasting>(
    globals: &Globals,
    options: &Options,
    name: String,
    config: &Config,
    (weights, bytes): (&W, u64),
) -> Result<()> {
    // The session is there to load the weights. Its own buffers are of no use here.
    let cache = options.cache.dtype();
    let sizes = SessionOptions::new(1, 1, cache);
    let mut session = load_weights(globals, config, weights, bytes, sizes).await?;
    let (model, split) = (session.model().clone(), session.options().split);
    let gpu = session.machine_mut();
    let device = measure(globals, options, gpu).await?;
    let loads = loads(options, config, (cache, split));
    let bar = globals.terminal().bar("measuring", loads.len() as u64, false);
    let mut passes = Vec::new();
    for load in loads {
        check_interrupt()?;
        passes
            .push(Measured { load, pass: time_kernels(gpu, &model, load, options.repeats).await? });
        bar.inc(1);
    }
    bar.finish_and_clear();
    if globals.json {
        let mut json = head(FORMATS[1], gpu, &device);
        json.insert("model".into(), name.into());
        json.insert("weights_bytes".into(), model.bytes().into());
        let passes: Vec<Value> =
            passes.iter().map(|measured| pass_json(measured, &device.ceilings)).collect();
        json.insert("passes".into(), passes.into());
        return out_json(&json.into());
    }
    let weights = format!("\nmodel    {name}: {} of weights\n", size(model.bytes()));
    let mut text = describe(gpu, &device) + &weights;
    text.extend(passes.iter().map(|measured| pass_table(measured, &device.ceilings)));
    out(&text)
}

/// The passes to measure: no longer than the model allows.
fn loads(options: &Options, config: &Config, (cache, split): (DType, u32)) -> Vec<Load> {
    let positions = options.positions.min(config.max_position_embeddings);
    let decoded = DECODED.map(|tokens| (Phase::Decode, tokens));
    decoded
        .into_iter()
        .chain([(Phase::Prefill, options.prompt)])
        .map(|(phase, tokens)| {
            let tokens = tokens.min(positions);
            Load { phase, tokens, positions, cache, split }
        })
        .collect()
}

async fn measure(globals: &Globals, options: &Options, gpu: &mut Gpu) -> Result<Device> {
    let bar = globals.terminal().bar("measuring the device", 2, false);
    let ceilings = ceilings(gpu, options.repeats).await?;
    bar.inc(1);
    check_interrupt()?;
    let costs = costs(gpu, DISPATCHES, options.repeats).await?;
    bar.finish_and_clear();
    Ok(Device { ceilings, costs })
}

/// The beginning of either report.
fn head(format: &str, gpu: &Gpu, device: &Device) -> Map<String, Value> {
    let Ceilings { read, copy, flops } = device.ceilings;
    let Costs { round_trip, dependent, independent, apart } = device.costs;
    let caps = gpu.caps();
    let cost = |Cost { host, device }| json!({ "host_seconds": host, "device_seconds": device });
    let object = json!({
        "format": format,
        "version": VERSION,
        "program": env!("CARGO_PKG_VERSION"),
        "adapter": caps.describe(),
        "device": adapter(&caps.name, &caps.identity(), &caps.describe()),
        "ceilings": {
            "read_bytes_per_second": read,
            "copy_bytes_per_second": copy,
            "flops_per_second": flops,
        },
        "round_trip_seconds": round_trip,
        "dispatch": {
            "dependent": cost(dependent),
            "independent": cost(independent),
            "apart": cost(apart),
        },
    });
    let Value::Object(object) = object else { unreachable!("it is written as an object above") };
    object
}

fn pass_json(Measured { load, pass }: &Measured, ceilings: &Ceilings) -> Value {
    let kernels: Vec<Value> =
        pass.kernels.iter().map(|timed| kernel_json(timed, ceilings)).collect();
    json!({
        "phase": phase(load.phase),
        "tokens": load.tokens,
        "positions": load.positions,
        "cache": load.cache.name(),
        "split": load.split,
        "dispatches": pass.dispatches,
        "seconds": pass.seconds,
        "kernels": kernels,
    })
}

fn kernel_json(timed: &Timed, ceilings: &Ceilings) -> Value {
    let &Timed { ref label, shape, runs, seconds, bytes, operations } = timed;
    let giga = |count| giga(count, seconds);
    json!({
        "kernel": label,
        "shape": shape.extents(),
        "runs": runs,
        "seconds": seconds,
        "bytes": bytes,
        "flops": operations,
        "gigabytes_per_second": giga(bytes),
        "gigaflops_per_second": giga(operations),
        "share": share(timed, ceilings),
        "limit": limit(timed, ceilings),
    })
}

/// Billions a second of something that was counted in so many seconds.
fn giga(count: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| 1e-9 * count as f64 / seconds)
}

/// The part of the device's least time in a kernel's time, from 0 to 1.
fn share(timed: &Timed, ceilings: &Ceilings) -> Option<f64> {
    let least = ceilings.least_seconds(timed.bytes, timed.operations);
    (timed.seconds > 0.0).then(|| least / timed.seconds)
}

/// What the least time is of.
fn limit(timed: &Timed, ceilings: &Ceilings) -> &'static str {
    if ceilings.is_computing(timed.bytes, timed.operations) { "flops" } else { "bytes" }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Decode => "decode",
        Phase::Prefill => "prefill",
    }
}

/// What was measured of the device, for people.
fn describe(gpu: &Gpu, Device { ceilings, costs }: &Device) -> String {
    let giga = |rate: f64| plain(1e-9 * rate);
    let mut text = format!(
        "adapter  {}\n\n\
         reads    {} GB/s\n\
         copies   {} GB/s, read and written\n\
         computes {} GFLOP/s of multiply-adds in f32\n\
         answers  after {}, one dispatch and its result\n\n",
        gpu.caps().describe(),
        giga(ceilings.read),
        giga(ceilings.copy),
        giga(ceilings.flops),
        seconds(costs.round_trip),
    );
    let rows = [
        ("needs the one before it", costs.dependent),
        ("needs no other", costs.independent),
        ("needs it, in a pass of its own", costs.apart),
    ]
    .map(|(name, cost)| [format!("  {name}"), seconds(cost.host), seconds(cost.device)]);
    let head = ["a dispatch that".to_owned(), "host".into(), "device".into()];
    text += &table(&[&[head][..], &rows].concat());
    text
}

fn pass_table(Measured { load, pass }: &Measured, ceilings: &Ceilings) -> String {
    let tokens = match load.tokens {
        1 => "1 token".to_owned(),
        many => format!("{many} tokens"),
    };
    let head = format!("{}, {tokens} up to position {}", phase(load.phase), load.positions);
    let head = [&head, "matrix", "runs", "time", "GB/s", "GFLOP/s", "share"].map(String::from);
    let rows = pass.kernels.iter().map(|timed| {
        let giga = |count| giga(count, timed.seconds).map_or("-".into(), plain);
        let share = share(timed, ceilings);
        [
            format!("  {}", timed.label),
            extents(timed.shape),
            timed.runs.to_string(),
            seconds(timed.seconds),
            giga(timed.bytes),
            if timed.operations > 0 { giga(timed.operations) } else { "-".into() },
            share.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    format!("\n{}all in one compute pass: {}\n", table(&rows), seconds(pass.seconds))
}

/// Extents as people write them.
fn extents(shape: Shape) -> String {
    let extents: Vec<String> = shape.extents().iter().map(u32::to_string).collect();
    extents.join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_time_that_counts() {
        let ceilings = Ceilings { read: 100.0, copy: 100.0, flops: 1000.0 };
        let timed = |bytes, operations, seconds| Timed {
            label: "a".into(),
            shape: [2, 3].into(),
            runs: 1,
            seconds,
            bytes,
            operations,
        };
        let of = |timed: Timed| (share(&timed, &ceilings), limit(&timed, &ceilings));
        assert_eq!(of(timed(200, 100, 4.0)), (Some(0.5), "bytes"));
        assert_eq!(of(timed(200, 8000, 16.0)), (Some(0.5), "flops"));
        assert_eq!(of(timed(200, 0, 0.0)), (None, "bytes"));
        assert_eq!(extents([8, 16_384, 8192].into()), "8x16384x8192");
        let kernel = kernel_json(&timed(200, 100, 4.0), &ceilings);
        assert_eq!(kernel["shape"], json!([2, 3]));
        assert_eq!(kernel["gigabytes_per_second"], json!(1e-9 * 200.0 / 4.0));
    }
}
