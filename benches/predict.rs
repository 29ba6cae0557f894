//! How near the expected rate of tokens is to the measured one, where weights come from a slow
//! source: `GROK_WGPU_ADAPTER=NAME cargo bench --bench predict`.
//!
//! All threads share the source, as they share a disk. The rates of the device are measured first,
//! as `tune --rates` does. A line for each placement and each rate of the source.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::{
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
        placement::placed,
        rates::{Kind, Outlook, Rate, Rates, Room},
        transfers,
    },
    model::{Placement, Slots, config::Config, weights::Weights},
};
use pollster::block_on;

const TYPE: DType = DType::Q4;
const LAYERS: u32 = 6;
const TOKENS: u32 = 24;

/// Bytes a second that the source gives.
const RATES: [f64; 3] = [0.5e6, 2e6, 8e6];

/// Weights that come as slowly as from a disk of some rate.
#[derive(Clone)]
struct Throttled {
    weights: Synthetic,
    rate: f64,
    /// When the disk has nothing to do again.
    free: Arc<Mutex<Instant>>,
}

impl Weights for Throttled {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.weights.read_rows(name, row0, rows, into).await?;
        let takes = Duration::from_secs_f64(into.len() as f64 / self.rate);
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
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
    let config = Config::preset("tiny").expect("a preset").with_layers(LAYERS);
    let least = Placement::least(Slots::Shared(2));
    let places = [
        ("experts are brought", Placement { attention: LAYERS, dense: LAYERS, ..least }, false),
        ("experts and dense MLPs", Placement { attention: LAYERS, ..least }, false),
        ("all that can be", least, false),
        ("half of the experts", Placement { attention: 6, dense: 6, experts: 3, ..least }, false),
        ("on the CPU, nothing kept", Placement { attention: LAYERS, ..least }, true),
    ];
    println!("{:<26} {:>9} {:>10} {:>10} {:>6}", "placement", "source", "expected", "measured", "");
    for rate in RATES {
        let weights = Synthetic::new(&config, TYPE, 11)?;
        let weights = Throttled { weights, rate, free: Arc::new(Mutex::new(Instant::now())) };
        let rates = rates.with(Rate::Files, rate)?;
        for (name, placement, on_cpu) in places {
            let sizes = SessionOptions::new(64, 24, DType::F32)
                .with_host_compute(on_cpu.then(|| HostCompute::new(0, 0)));
            let limits = DeviceLimits::of(gpu.caps());
            let outlook = Outlook::of(
                &placed(&config, &weights, limits, sizes, placement)?,
                &rates,
                Room::default(),
            );
            let expected = outlook.on_cpu.filter(|_| on_cpu).unwrap_or(outlook.token);
            let fast = Throttled { rate: 1e12, ..weights.clone() };
            let measured = measured(&mut gpu, &config, (&weights, &fast), sizes, placement)?;
            let expected = expected.tokens_per_second();
            println!(
                "{name:<26} {:>4} MB/s {expected:>10.3} {measured:>10.3} {:>6.2}",
                rate / 1e6,
                expected / measured
            );
        }
    }
    Ok(())
}

/// Generated tokens a second, of the median token.
fn measured(
    gpu: &mut Gpu,
    config: &Config,
    (weights, _): (&Throttled, &Throttled),
    sizes: SessionOptions,
    placement: Placement,
) -> Result<f64> {
    let mut progress = |_| Ok(());
    let load = Session::load_placed(&mut *gpu, config, weights, sizes, placement, &mut progress);
    let mut session = block_on(load)?;
    block_on(session.prefill(&[5, 17, 200, 3], Readback::Top(1)))?;
    block_on(session.decode(7, Readback::Top(1)))?;
    let mut times = Vec::new();
    for i in 0..TOKENS {
        let start = Instant::now();
        block_on(session.decode(i * 37 % 256, Readback::Top(1)))?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    drop(session);
    gpu.truncate(0);
    Ok(1.0 / times[times.len() / 2])
}
