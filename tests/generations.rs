//! Many texts that are generated at once in a cache that is too small for them: each is the text
//! that it is alone, to the bit, though prompts share pages and texts lose theirs.

mod common;
#[path = "common/full.rs"]
mod full;
#[path = "common/random.rs"]
mod random;

use std::{collections::BTreeMap, ops::ControlFlow};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{
        Engine, SessionOptions,
        generation::generate,
        options::{FinishReason, Generated, Options},
        pages::Namespace,
        resume::{Change, Rebuild},
        schedule::{Id, Refusal},
        session::Session,
        texts::{Claim, News, NotTaken, Sharing, Texts},
    },
    kernels::CACHES,
    machine::{
        Machine,
        gpu::{Gpu, LimitProfile},
        host::Host,
    },
    model::{Placement, Slots, config::Config},
    text::{
        sampler::{Sampler, Sampling},
        tokenizer::{Tokenizer, synthetic_tok_json},
    },
};
use pollster::block_on;
use random::Random;

const ALONE: SessionOptions = SessionOptions::new(128, 40, DType::F32);
/// Steps of four texts, in a cache of six pages.
const TOGETHER: SessionOptions = ALONE.with_rows(5).with_cache_positions(192);

fn load<M: Machine>(machine: M, options: SessionOptions, placement: Placement) -> Engine<M> {
    let config = Config::preset("small").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::F32, 3).expect("weights");
    let mut progress = |_| Ok(());
    let engine = Engine::load_placed(machine, &config, &weights, options, placement, &mut progress);
    block_on(engine).expect("an engine")
}

fn tokenizer() -> Tokenizer {
    let json = synthetic_tok_json(512).expect("in range");
    Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
}

struct Asked {
    prompt: Vec<u32>,
    sampling: Sampling,
    options: Options,
}

impl Asked {
    fn random(random: &mut Random) -> Self {
        // Prompts begin alike, and part somewhere.
        let length = 1 + random.below(80);
        let part = random.below(90);
        let token = |at| if at < part { 200 + at % 7 } else { 300 + part };
        let sampling = Sampling {
            temperature: [0.0, 0.8, 1.3][random.below(3) as usize],
            top_k: [0, 5, 40][random.below(3) as usize],
            seed: random.below(100).into(),
            ..Sampling::GREEDY
        };
        let mut options = Options::default();
        options.max_tokens = random.below(33) as usize;
        options.logprobs = (!random.once_in(3)).then_some(2);
        options.stop_ids = (0..random.below(8)).map(|_| random.below(512)).collect();
        Self { prompt: (0..length).map(token).collect(), sampling, options }
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(self.sampling).expect("in range")
    }

    fn alone<M: Machine>(&self, session: &mut Session<M>, tokenizer: &Tokenizer) -> Generated {
        session.rewind(0);
        let mut on_event = |_: grok_wgpu::Event<'_>| Ok(ControlFlow::Continue(()));
        let mut sampler = self.sampler();
        let Self { prompt, options, .. } = self;
        block_on(generate(session, tokenizer, &mut sampler, prompt, options, &mut on_event))
            .expect("a text")
    }
}

/// What a text must be, of which only the beginning may be there.
fn check(made: &Generated, alone: &Generated) {
    let stopped = made.finish == FinishReason::Interrupted;
    assert!(stopped || made.finish == alone.finish, "{:?}, {:?}", made.finish, alone.finish);
    assert!(stopped || made.text == alone.text);
    assert!(stopped || made.tokens.len() == alone.tokens.len());
    for (made, alone) in made.tokens.iter().zip(&alone.tokens) {
        assert_eq!((made.id, &made.text), (alone.id, &alone.text));
        assert_eq!(made.logprobs, alone.logprobs);
    }
}

/// Engines for a crowd, whose devices are lost when that is asked for.
struct Maker<F> {
    open: F,
    sizes: SessionOptions,
    placement: Placement,
    destroy: Option<Box<dyn Fn()>>,
    losses: u32,
}

/// A machine, and a function that destroys it, where there is one.
type Opened<M> = (M, Option<Box<dyn Fn()>>);

impl<M: Machine, F: Fn() -> Opened<M>> Rebuild for Maker<F> {
    type Machine = M;

    async fn build(&mut self) -> Result<Engine<M>> {
        let (machine, destroy) = (self.open)();
        self.destroy = destroy;
        Ok(load(machine, self.sizes, self.placement))
    }

    fn on_change(&mut self, change: Change<'_>) {
        match change {
            Change::Lost(_) => self.losses += 1,
            Change::Restored { .. } => {}
            Change::Failed(error) => panic!("{error}"),
        }
    }
}

fn on_host() -> Opened<Host> {
    (Host::default(), None)
}

fn on_device() -> Opened<Gpu> {
    let gpu = common::open(LimitProfile::Baseline);
    let destroy = gpu.destroyer();
    (gpu, Some(Box::new(destroy)))
}

/// What happened to the texts of a crowd.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Requests.
    asked: u32,
    /// Texts that were complete, that were cancelled, and that had pages of others.
    whole: u32,
    cancelled: u32,
    hits: u32,
    preempted: u32,
    losses: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.whole += other.whole;
        self.cancelled += other.cancelled;
        self.hits += other.hits;
        self.preempted += other.preempted;
        self.losses += other.losses;
    }
}

/// Random requests on one engine, which come and go while others run, in a cache that has no room
/// for all.
struct Crowd {
    seed: u64,
    requests: u32,
    cache: DType,
    placement: Placement,
    sharing: Sharing,
}

impl Crowd {
    fn new(seed: u64, requests: u32, cache: DType) -> Self {
        let (placement, sharing) = (Placement::WHOLE, Sharing::default());
        Self { seed, requests, cache, placement, sharing }
    }

    fn sizes(&self, mut sizes: SessionOptions) -> SessionOptions {
        sizes.cache = self.cache;
        sizes
    }

    /// Runs it, and compares each text with what it is alone, in an engine of its own.
    fn run<M: Machine>(&self, open: impl Fn() -> Opened<M>) -> Counts {
        let mut random = Random::new(self.seed);
        let tokenizer = tokenizer();
        let alone_on = load(open().0, self.sizes(ALONE), Placement::WHOLE);
        let mut session = Session::from(alone_on);
        let (sizes, placement) = (self.sizes(TOGETHER), self.placement);
        let mut maker = Maker { open, sizes, placement, destroy: None, losses: 0 };
        let engine = block_on(maker.build()).expect("an engine");
        let mut texts = Texts::new(engine, &tokenizer, self.sharing).expect("texts");
        let mut alone: BTreeMap<Id, Generated> = BTreeMap::new();
        let mut counts = Counts::default();
        let (mut now, mut paused) = (0, None);
        while counts.asked < self.requests || !alone.is_empty() {
            let room = alone.len() < 10 && counts.asked < self.requests;
            if room && !random.once_in(3) {
                let text = Asked::random(&mut random);
                let copies = if random.once_in(6) { 2 } else { 1 };
                let namespace =
                    (!random.once_in(5)).then(|| Namespace::Key(random.below(2).into()));
                let claim = Claim { key: random.below(3).into(), namespace, deadline: None };
                let samplers = (0..copies).map(|_| text.sampler()).collect();
                let ids = texts.submit(&text.prompt, samplers, &text.options, claim).expect("room");
                let want = text.alone(&mut session, &tokenizer);
                alone.extend(ids.into_iter().map(|id| (id, want.clone())));
                counts.asked += 1;
                // One device is lost in any case.
                if counts.asked == self.requests / 2 {
                    lose(&mut texts, &mut maker);
                }
            }
            let some = alone.keys().copied().nth(random.below(5) as usize);
            match (random.below(120), some) {
                (0..=2, Some(id)) => {
                    let made = texts.cancel(id).expect("there is such a text");
                    check(&made, &alone.remove(&id).expect("it was asked for"));
                    counts.cancelled += 1;
                }
                (3..=11, Some(id)) if paused.is_none() => {
                    texts.pause(id, true);
                    paused = Some(id);
                }
                _ => {}
            }
            if let Some(id) = paused.filter(|_| random.once_in(8)) {
                texts.pause(id, false);
                paused = None;
            }
            let mut clock = || {
                now += 1000;
                now
            };
            let mut on_event = |_: Id, _: News<'_>| ControlFlow::Continue(());
            let ran = block_on(texts.step_on(&mut maker, &mut clock, &mut on_event));
            let ran = ran.expect("it runs");
            assert!(!ran.is_empty() || alone.is_empty() || paused.is_some(), "nothing runs");
            for (id, made) in texts.ended() {
                let made = made.expect("no text fails");
                check(&made, &alone.remove(&id).expect("it was asked for"));
                assert_ne!(made.finish, FinishReason::Interrupted);
                counts.whole += 1;
                counts.hits += u32::from(made.reused > 0);
            }
        }
        let usage = texts.scheduler().usage();
        assert_eq!((usage.used, usage.free + usage.idle), (0, 6));
        counts.preempted = u32::try_from(texts.preemptions()).expect("few");
        counts.losses += maker.losses;
        counts
    }
}

/// Has the device be lost; where none can be, the cache at least.
fn lose<M: Machine, F: Fn() -> Opened<M>>(texts: &mut Texts<'_, M>, maker: &mut Maker<F>) {
    if let Some(destroy) = &maker.destroy {
        destroy();
    } else {
        let engine = block_on(maker.build()).expect("an engine");
        texts.replace(engine).expect("an engine as before");
        maker.losses += 1;
    }
}

/// Crowds of so many requests in all, by all types of cache, with and without pages on the host.
fn crowds<M: Machine>(requests: u32, seed: u64, open: impl Fn() -> Opened<M>) -> Counts {
    let mut all = Counts::default();
    for (seed, cache) in (seed..).zip(CACHES) {
        let mut crowd = Crowd::new(seed, requests / 3, cache);
        // Without pages on the host, all tokens of a text go through the model again.
        let (bytes, keep) = [(0, false), (1 << 30, false), (0, true)][(seed % 3) as usize];
        crowd.sharing = crowd.sharing.with_host_bytes(bytes).keeping(Some(keep));
        all.add(crowd.run(&open));
    }
    eprintln!("{requests} requests: {all:?}");
    assert!(all.whole * 10 >= requests * 8 && all.losses == 3, "{all:?}");
    assert!(all.preempted * 10 >= requests && all.hits * 20 >= requests, "{all:?}");
    all
}

#[test]
fn texts_among_others_are_what_they_are_alone() {
    let requests = if full::is_full() { 1400 } else { 52 };
    let mut crowd = Crowd::new(1, requests, DType::F32);
    // The numbers of this machine are f64, and those of pages that are kept would be rounded.
    crowd.sharing = crowd.sharing.with_host_bytes(0).keeping(Some(false));
    let counts = crowd.run(on_host);
    eprintln!("{counts:?}");
    assert!(counts.preempted * 10 >= requests && counts.losses == 1, "{counts:?}");
}

/// On the adapter under test.
#[test]
fn so_they_are_on_a_device() {
    crowds(if full::is_full() { 8550 } else { 240 }, 3, on_device);
}

/// Four texts at once, with room for two experts on the device.
#[test]
fn so_they_are_with_weights_that_are_brought() {
    let mut crowd = Crowd::new(9, if full::is_full() { 60 } else { 8 }, DType::F32);
    crowd.placement = Placement::least(Slots::Shared(2));
    let counts = crowd.run(on_device);
    assert!(counts.losses == 1 && counts.whole >= 6, "{counts:?}");
}

#[test]
fn what_cannot_be_generated_is_not_taken() {
    let tokenizer = tokenizer();
    let one =
        Texts::new(load(Host::default(), ALONE, Placement::WHOLE), &tokenizer, Sharing::default());
    assert!(one.err().expect("too few rows").to_string().contains("two or more"));
    let mut texts = Texts::new(
        load(Host::default(), TOGETHER, Placement::WHOLE),
        &tokenizer,
        Sharing::default(),
    )
    .expect("texts");
    let mut submit = |prompt: &[u32]| {
        let samplers = vec![Sampler::greedy()];
        texts.submit(prompt, samplers, &Options::default(), Claim::default())
    };
    for wrong in [&[][..], &[1; 129], &[512]] {
        assert!(matches!(submit(wrong), Err(NotTaken::Wrong(_))), "{wrong:?}");
    }
    for _ in 0..64 {
        submit(&[1, 2]).expect("the queue has room");
    }
    let full = submit(&[1, 2]).expect_err("the queue is full");
    assert!(matches!(full, NotTaken::Refused(Refusal::Full { waiting: 64, .. })), "{full}");
}
