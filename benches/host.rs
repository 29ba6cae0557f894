//! Host time per token of a model with as many dispatches as Grok-2: `cargo bench --bench host`.
//! It ends when the token's work is submitted, with commands that were encoded ahead and without;
//! and for a token whose experts are not on the device, but in the slots of their layers: what a
//! segment costs, of which each layer has one, without what reading weights costs.
//!
//! The model has all 64 layers, 1/64 of each width, and bindings of 1/64² of their size, so that
//! matrices split into as many shards as the released model's. No weights are loaded. Without
//! `GROK_WGPU_ADAPTER` the device runs nothing.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::Synthetic,
    engine::{Engine, SessionOptions, session::Session, step::Readback},
    machine::{
        counting::DeviceLimits,
        gpu::{AdapterChoice, Gpu, LimitProfile},
    },
    measure::capacity::Planner,
    model::{Model, Placement, Slots, config::Config},
};
use pollster::block_on;

const SCALE: u32 = 64;

/// A small Grok-2: the same layers and operators.
fn config() -> Config {
    let released = Config::preset("grok-2").expect("a preset");
    let head_dim = released.head_dim / (SCALE / 8);
    let dense = released.dense_width().unwrap_or_default() / SCALE;
    let expert = released.moe_intermediate_size() / SCALE;
    let mut small = released.with_head_dim(head_dim).with_widths(dense, expert);
    small.vocab_size /= SCALE;
    small.hidden_size /= SCALE;
    small.num_attention_heads /= 8;
    small.num_key_value_heads /= 8;
    small
}

/// A session on the adapter that the environment names, or on a device that runs nothing; its
/// weights are zeros.
fn session(binding: u64) -> Session<Gpu> {
    let choice =
        std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Nothing, AdapterChoice::Named);
    let mut gpu = block_on(Gpu::open(&choice, LimitProfile::Full)).expect("the adapter is there");
    gpu.limit_bindings(binding);
    let config = config();
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
    let model = Model::alloc(&mut gpu, &config, &weights).expect("fits");
    let sizes = SessionOptions::new(128, 32, DType::F32);
    Engine::with_model(gpu, model, sizes).expect("fits").into()
}

/// Such a session on the device that runs nothing, whose experts are not on it. That device has all
/// routers choose expert 0, which has a slot of each layer.
fn streaming() -> Session<Gpu> {
    let choice = AdapterChoice::Nothing;
    let gpu = block_on(Gpu::open(&choice, LimitProfile::Full)).expect("it is always there");
    let config = config();
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
    let placement = Placement { experts: 0, slots: Slots::Each(2), ..Placement::WHOLE };
    let sizes = SessionOptions::new(128, 32, DType::F32);
    let mut progress = |_| Ok(());
    let load = Engine::load_placed(gpu, &config, &weights, sizes, placement, &mut progress);
    block_on(load).expect("fits").into()
}

/// Dispatches of the released model, with the corresponding binding limit.
fn released(binding: u64) -> u64 {
    let config = Config::preset("grok-2").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
    let limits = DeviceLimits { binding, buffer: binding };
    let planner = Planner::new(&config, &weights, limits).expect("fits");
    let plan = planner.plan(SessionOptions::new(4096, 256, DType::F32)).expect("fits");
    plan.decode.dispatches
}

fn token(criterion: &mut Criterion, name: &str, binding: u64) {
    let mut session = session(binding / u64::from(SCALE * SCALE));
    let start = Instant::now();
    block_on(session.prepare(1, Readback::Top(40))).expect("compiles");
    let caps = session.machine().caps().describe();
    let dispatches = session.decode_plan(Readback::Top(40)).expect("a plan").dispatches();
    eprintln!(
        "{name}: {dispatches} dispatches on {caps} (the released model: {}), compiled and \
         recorded in {:.0} ms",
        released(binding),
        1e3 * start.elapsed().as_secs_f64()
    );
    let mut group = criterion.benchmark_group("host");
    group.sample_size(20);
    for (ahead, how) in [(true, "encoded ahead"), (false, "not encoded ahead")] {
        session.machine_mut().encode_ahead(ahead);
        group.bench_function(format!("{name}, {how}"), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| one(&mut session)).sum());
        });
    }
    group.finish();
}

/// The host's time for one token.
fn one(session: &mut Session<Gpu>) -> Duration {
    session.rewind(0);
    let (start, waited) = (Instant::now(), session.machine().waited());
    block_on(session.decode(1, Readback::Top(40))).expect("runs");
    let waited = session.machine().waited() - waited;
    start.elapsed().saturating_sub(Duration::from_secs_f64(waited))
}

/// The host's time for a segment: tokens in segments and whole ones take turns.
fn segments(criterion: &mut Criterion) {
    let (mut streaming, mut whole) = (streaming(), session(u64::MAX));
    let layers = f64::from(config().num_hidden_layers());
    // The first token has the experts read.
    for session in [&mut streaming, &mut whole] {
        for _ in 0..20 {
            one(session);
        }
    }
    let moved = streaming.engine().moved();
    let mut apart: Vec<f64> = (0..200)
        .map(|_| (one(&mut streaming).as_secs_f64() - one(&mut whole).as_secs_f64()) / layers)
        .collect();
    assert_eq!(streaming.engine().moved().bytes, moved.bytes, "nothing is read any more");
    apart.sort_by(f64::total_cmp);
    eprintln!(
        "a segment: {:.1} microseconds, the median of 200 tokens of {layers} segments more than \
         whole ones; a quarter took {:.1} or less, a quarter {:.1} or more",
        1e6 * apart[100],
        1e6 * apart[50],
        1e6 * apart[150]
    );
    criterion.bench_function("host/a token in segments", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| one(&mut streaming)).sum());
    });
}

fn tokens(criterion: &mut Criterion) {
    token(criterion, "a token, bindings of 128 MiB", 128 << 20);
    token(criterion, "a token, bindings of 2 GiB", 2 << 30);
}

criterion_group!(host, tokens, segments);
criterion_main!(host);
