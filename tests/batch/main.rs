//! Many texts at once: each has the bits that it has alone, in an engine of its own, whatever else
//! is in its steps, wherever its pages lie, and whoever comes, goes, or loses its pages.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/full.rs"]
mod full;
mod schedule;
mod step;

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::Synthetic,
    engine::{Engine, SessionOptions},
    kernels::CACHES,
    machine::{Machine, gpu::LimitProfile, host::Host},
    model::{Placement, Slots, config::Config},
    variants::Tuning,
};
use pollster::block_on;
use schedule::{Counts, Random, Script, alone, run};

/// Texts that share a cache of five pages.
const ALONE: SessionOptions = SessionOptions::new(96, 40, DType::F32);
const TOGETHER: SessionOptions = ALONE.with_rows(6).with_cache_positions(160);

fn tiny(name: &str, layers: u32) -> Config {
    Config::preset(name).expect("a preset").with_layers(layers)
}

fn load<M: Machine>(
    machine: M,
    config: &Config,
    options: SessionOptions,
    placement: Placement,
) -> Engine<M> {
    let weights = Synthetic::new(config, DType::BF16, 7).expect("weights");
    let mut progress = |_| Ok(());
    let engine = Engine::load_placed(machine, config, &weights, options, placement, &mut progress);
    block_on(engine).expect("loads")
}

/// Runs random texts by random schedules, and compares them with what each is alone.
struct Trial {
    config: Config,
    /// Sizes of the engine that has a text alone, and of the one that has all.
    sizes: [SessionOptions; 2],
    placement: Placement,
    /// How many schedules, of how many texts of at most how many tokens.
    schedules: usize,
    texts: usize,
    longest: usize,
    /// Whether pages are given out in a random order.
    scattered: bool,
    seed: u64,
}

impl Trial {
    fn new(config: Config, cache: DType, seed: u64) -> Self {
        let sizes = [ALONE, TOGETHER].map(|mut sizes| {
            sizes.cache = cache;
            sizes
        });
        let (schedules, texts, longest) = if full::is_full() { (40, 12, 60) } else { (1, 7, 40) };
        let placement = Placement::WHOLE;
        Self { config, sizes, placement, schedules, texts, longest, scattered: true, seed }
    }

    fn run<M: Machine>(&self, open: impl Fn() -> M) -> Counts {
        let [mut one, mut all] = [(0, Placement::WHOLE), (1, self.placement)]
            .map(|(i, placement)| load(open(), &self.config, self.sizes[i], placement));
        let mut random = Random::new(self.seed);
        let mut counts = Counts::default();
        for _ in 0..self.schedules {
            let scripts: Vec<Script> = (0..self.texts)
                .map(|_| Script::random(&mut random, self.config.vocab_size, self.longest))
                .collect();
            let want: Vec<_> = scripts.iter().map(|script| alone(&mut one, script)).collect();
            if self.scattered {
                let mut pages: Vec<u32> = (0..self.sizes[1].positions().div_ceil(32)).collect();
                random.shuffle(&mut pages);
                all.lay(&pages).expect("no text is in the cache");
            }
            run(&mut all, &scripts, &want, &mut random, &mut counts);
        }
        counts
    }
}

#[test]
fn texts_together_are_those_alone_on_the_host() {
    let mut counts = Counts::default();
    for (cache, seed) in CACHES.into_iter().zip(1..) {
        counts += Trial::new(tiny("tiny", 1), cache, seed).run(Host::default);
    }
    counts.check();
}

#[test]
fn texts_together_are_those_alone_on_a_device() {
    let mut counts = Counts::default();
    for name in ["tiny", "tiny-grok-1"] {
        for (cache, seed) in CACHES.into_iter().zip(11..) {
            let open = || common::open(LimitProfile::Baseline);
            counts += Trial::new(tiny(name, 2), cache, seed).run(open);
        }
    }
    counts.check();
}

/// As products and attention are divided where there are no subgroups, and on GPUs.
#[test]
fn texts_together_are_those_alone_however_work_is_divided() {
    for (tuning, seed) in [Tuning::cpu(), Tuning::default()].into_iter().zip(31..) {
        let open = || {
            let mut gpu = common::open(LimitProfile::Baseline);
            gpu.set_tuning(tuning.clone());
            gpu
        };
        Trial::new(tiny("tiny", 2), DType::F32, seed).run(open);
    }
}

/// The binding limit cuts the cache into four shards, in which a text's segments lie anywhere.
#[test]
fn texts_together_are_those_alone_in_a_cache_that_limits_cut() {
    let open = || {
        let mut gpu = common::open(LimitProfile::Baseline);
        gpu.limit_bindings(8 << 10);
        gpu
    };
    let alone = SessionOptions::new(192, 48, DType::F16);
    let together = alone.with_rows(4).with_cache_positions(512);
    let mut engine = load(open(), &tiny("tiny", 1), together, Placement::WHOLE);
    // A text's first four pages in four shards.
    let turns: Vec<u32> = (0..16).map(|page| page % 4 * 4 + page / 4).collect();
    let error = engine.lay(&turns).expect_err("a segment is in one shard");
    assert!(error.to_string().contains("segment 0 of the text"), "{error}");
    drop(engine);
    let counts = Trial {
        sizes: [alone, together],
        texts: 5,
        longest: 180,
        // The order of pages must have segments in shards.
        scattered: false,
        ..Trial::new(tiny("tiny", 1), DType::F16, 41)
    }
    .run(open);
    assert!(counts.rows.iter().any(|&rows| rows > 1), "{counts:?}");
}

/// Four texts at once, with room for two experts.
#[test]
fn texts_together_are_those_of_a_whole_model_while_weights_are_brought() {
    let mut config = tiny("tiny", 2);
    for (slots, seed) in [(Slots::Shared(2), 51), (Slots::Each(3), 52)] {
        for placement in
            [Placement::least(slots), Placement { experts: 0, slots, ..Placement::WHOLE }]
        {
            let trial = Trial { placement, ..Trial::new(config.clone(), DType::F32, seed) };
            let counts = trial.run(|| common::open(LimitProfile::Baseline));
            assert!(counts.rows.iter().any(|&rows| rows > 3), "{counts:?}");
        }
        config = tiny("tiny-grok-1", 2);
    }
}
