//! How near the expected rate of tokens is to the measured one, where weights come from a slow
//! source: `GROK_WGPU_ADAPTER=NAME cargo bench --bench predict`.
//!
//! All threads share the source, as they share a disk. The rates of the device are measured first,
//! as `tune --rates MODEL` does; for prompts, also how fast it computes on the model where all of
//! it is there. Lines for each placement and each rate of the source.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{HostCompute, SessionOptions, session::Session, step::Readback},
    machine::{
        Machine as _,
        counting::DeviceLimits,
        gpu::{AdapterChoice, Gpu, LimitProfile},
    },
    measure::{
        computing,
        placement::placed,
        rates::{Kind, Outlook, Rate, Rates, Room},
        transfers,
    },
    model::{Placement, Slots, config::Config, schema::tensors, weights::Weights},
};
use pollster::block_on;

const TYPE: DType = DType::Q4;
const LAYERS: u32 = 6;
const TOKENS: u32 = 24;
/// Tokens of a prompt, which is one chunk.
const PROMPT: u32 = 48;
const PROMPTS: u32 = 6;

/// Bytes a second that the source gives.
const RATES: [f64; 3] = [40e6, 160e6, 640e6];

/// A tensor.
struct Held {
    dtype: DType,
    row_bytes: usize,
    bytes: Vec<u8>,
}

/// Weights in memory that come as slowly as from a disk of some rate.
#[derive(Clone)]
struct Throttled {
    held: Arc<HashMap<String, Held>>,
    rate: f64,
    /// When the disk has nothing to do again.
    free: Arc<Mutex<Instant>>,
}

impl Throttled {
    fn new(config: &Config) -> Result<Self> {
        let (made, mut held) = (Synthetic::new(config, TYPE, 11)?, HashMap::new());
        for tensor in tensors(config) {
            let (dtype, mut bytes) = (made.dtype(&tensor.name)?, Vec::new());
            let rows = tensor.shape[0];
            block_on(made.read_rows(&tensor.name, 0, rows, &mut bytes))?;
            let row_bytes = bytes.len() / usize::try_from(rows).expect("few");
            held.insert(tensor.name, Held { dtype, row_bytes, bytes });
        }
        Ok(Self { held: Arc::new(held), rate: 1e12, free: Arc::new(Mutex::new(Instant::now())) })
    }
}

impl Weights for Throttled {
    fn dtype(&self, name: &str) -> Result<DType> {
        Ok(self.held[name].dtype)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let Held { row_bytes, bytes, .. } = &self.held[name];
        let [start, end] =
            [row0, row0 + rows].map(|at| usize::try_from(at).expect("few") * row_bytes);
        let takes = Duration::from_secs_f64((end - start) as f64 / self.rate);
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
        into.clear();
        into.extend_from_slice(&bytes[start..end]);
        thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

fn main() -> Result<()> {
    let choice =
        std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
    let mut gpu = block_on(Gpu::open(&choice, LimitProfile::Full))?;
    println!("{}", gpu.caps().describe());
    let mut rates = Rates::assumed(Kind::Software);
    for (rate, value) in block_on(transfers::measure(&mut gpu, TYPE, &mut |_| Ok(())))? {
        rates = rates.with(rate, value)?;
        println!("{}: {value:.3e}", rate.what());
    }
    rates = rates.with(Rate::Cpu, transfers::cpu(TYPE)?)?;
    println!("{}: {:.3e}", Rate::Cpu.what(), rates.get(Rate::Cpu));
    // Wide enough for bytes to count: to ask for parts of a narrower model takes longer than they.
    let mut config = Config::preset("tiny").expect("a preset").with_layers(LAYERS);
    config = config.with_widths(1024, 512);
    config.hidden_size = 512;
    let least = Placement::least(Slots::Shared(2));
    let places = [
        ("experts are brought", Placement { attention: LAYERS, dense: LAYERS, ..least }, false),
        ("experts and dense MLPs", Placement { attention: LAYERS, ..least }, false),
        ("all that can be", least, false),
        ("half of the experts", Placement { attention: 6, dense: 6, experts: 3, ..least }, false),
        ("on the CPU, nothing kept", Placement { attention: LAYERS, ..least }, true),
    ];
    let weights = Throttled::new(&config)?;
    let mut progress = || Ok(());
    let own = computing::of_model(&mut gpu, &config, &weights, &rates, &mut progress);
    if let Some(own) = block_on(own)? {
        rates = rates.with(Rate::Device, own)?;
    }
    println!("{} of this model's kernels: {:.3e}", Rate::Device.what(), rates.get(Rate::Device));
    let rates = of_whole(&mut gpu, &config, &weights, rates)?;
    println!(
        "{} of this model, whole: {:.3e}",
        Rate::Operations.what(),
        rates.get(Rate::Operations)
    );
    println!("{:<26} {:<8} {:>9} {:>10} {:>10}", "placement", "", "source", "expected", "measured");
    for rate in RATES {
        let weights = Throttled { rate, ..weights.clone() };
        let rates = rates.with(Rate::Files, rate)?;
        for (name, placement, on_cpu) in places {
            let sizes = SessionOptions::new(96, PROMPT, DType::F32)
                .with_host_compute(on_cpu.then(|| HostCompute::new(0, 0)));
            let limits = DeviceLimits::of(gpu.caps());
            let placed = placed(&config, &weights, limits, sizes, placement)?;
            let outlook = Outlook::of(&placed, &rates, Room::default());
            let (measured, read) = measured(&mut gpu, &config, &weights, sizes, placement)?;
            let of_prompt = read as f64 / (placed.prompt.files + placed.prompt.ahead) as f64;
            let what = ["a token", "a prompt"].into_iter();
            for ((what, of), measured) in
                what.zip([outlook.token(on_cpu), outlook.prompt]).zip(measured)
            {
                let (rate, expected) = (rate / 1e6, of.tokens_per_second());
                let ratio = expected / measured;
                let line = format!("{name:<26} {what:<8} {rate:>4} MB/s");
                println!("{line} {expected:>10.3} {measured:>10.3} {ratio:>6.2}");
            }
            println!("{name:<26} of the expected bytes its prompt read {of_prompt:.2}");
        }
    }
    Ok(())
}

/// The same rates, with how fast the device computes prompts of this model where all of it is
/// there. Software drivers are slower with small matrices than with the large one that `tune`
/// measures, and what is to be shown here is what bringing weights takes.
fn of_whole(gpu: &mut Gpu, config: &Config, weights: &Throttled, rates: Rates) -> Result<Rates> {
    let sizes = SessionOptions::new(96, PROMPT, DType::F32);
    let limits = DeviceLimits::of(gpu.caps());
    let whole = placed(config, weights, limits, sizes, Placement::WHOLE)?;
    let outlook = Outlook::of(&whole, &rates, Room::default());
    let ([token, prompt], _) = measured(gpu, config, weights, sizes, Placement::WHOLE)?;
    let expected = outlook.token.tokens_per_second();
    println!(
        "a token, whole: {expected:.3} expected, {token:.3} measured, {:.2}",
        expected / token
    );
    let prompt = f64::from(PROMPT) / prompt - outlook.prompt.calls;
    rates.with(Rate::Operations, whole.prompt.operations as f64 / prompt)
}

/// Tokens a second: of the median generated token, and of the median prompt of one chunk. Then the
/// bytes that the last prompt read: fewer than are expected if experts are not chosen evenly.
fn measured(
    gpu: &mut Gpu,
    config: &Config,
    weights: &Throttled,
    sizes: SessionOptions,
    placement: Placement,
) -> Result<([f64; 2], u64)> {
    let mut progress = |_| Ok(());
    let load = Session::load_placed(&mut *gpu, config, weights, sizes, placement, &mut progress);
    let mut session = block_on(load)?;
    let prompt: Vec<u32> = (0..PROMPT).map(|i| i.wrapping_mul(7919) % 256).collect();
    let (mut times, mut read) = ([Vec::new(), Vec::new()], 0);
    for _ in 0..=PROMPTS {
        session.rewind(0);
        let (before, start) = (session.moved().bytes, Instant::now());
        block_on(session.prefill(&prompt, Readback::Top(1)))?;
        times[1].push(start.elapsed().as_secs_f64());
        read = session.moved().bytes - before;
    }
    for i in 0..=TOKENS {
        let start = Instant::now();
        block_on(session.decode(i * 37 % 256, Readback::Top(1)))?;
        times[0].push(start.elapsed().as_secs_f64());
    }
    drop(session);
    gpu.truncate(0);
    let median = |mut times: Vec<f64>| {
        // The first ones compile.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let [token, prompt] = times.map(median);
    Ok(([1.0 / token, f64::from(PROMPT) / prompt], read))
}
