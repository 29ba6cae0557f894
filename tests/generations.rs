//! Many texts that are generated at once in a cache that is too small for them: each is the text
//! that it is alone, to the bit, though prompts share pages and texts lose theirs.

mod common;
#[path = "common/random.rs"]
mod random;

use std::{collections::BTreeMap, ops::ControlFlow};

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::Synthetic,
    engine::{
        Engine, SessionOptions,
        generation::generate,
        options::{FinishReason, Generated, Options},
        pages::Namespace,
        schedule::{Id, Refusal},
        session::Session,
        texts::{Claim, News, NotTaken, Sharing, Texts},
    },
    machine::{Machine, gpu::LimitProfile, host::Host},
    model::config::Config,
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

fn load<M: Machine>(machine: M, options: SessionOptions) -> Engine<M> {
    let config = Config::preset("small").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::F32, 3).expect("weights");
    block_on(Engine::load(machine, &config, &weights, options, &mut |_| Ok(()))).expect("an engine")
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
        options.max_tokens = random.below(70) as usize;
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

/// Runs random texts; returns how many were whole, preempted, and had pages of others.
fn crowd<M: Machine>(seed: u64, count: usize, host_bytes: u64, open: impl Fn() -> M) -> [u32; 3] {
    let mut random = Random::new(seed);
    let tokenizer = tokenizer();
    let mut session = Session::from(load(open(), ALONE));
    let sharing = Sharing::default().with_host_bytes(host_bytes);
    let mut texts = Texts::new(load(open(), TOGETHER), &tokenizer, sharing).expect("texts");
    let mut alone: BTreeMap<Id, Generated> = BTreeMap::new();
    let [mut whole, mut hits] = [0; 2];
    let (mut asked, mut now, mut paused) = (0, 0, None);
    while asked < count || !alone.is_empty() {
        if asked < count && !random.once_in(3) {
            let text = Asked::random(&mut random);
            let copies = if random.once_in(6) { 2 } else { 1 };
            let namespace = (!random.once_in(5)).then(|| Namespace::Key(random.below(2).into()));
            let claim = Claim { key: random.below(3).into(), namespace, deadline: None };
            let samplers = (0..copies).map(|_| text.sampler()).collect();
            let ids = texts.submit(&text.prompt, samplers, &text.options, claim).expect("room");
            let want = text.alone(&mut session, &tokenizer);
            alone.extend(ids.into_iter().map(|id| (id, want.clone())));
            asked += 1;
        }
        let some = alone.keys().copied().nth(random.below(5) as usize);
        match (random.below(40), some) {
            (0, Some(id)) => {
                let made = texts.cancel(id).expect("there is such a text");
                check(&made, &alone.remove(&id).expect("it was asked for"));
            }
            (1..=3, Some(id)) => {
                texts.pause(id, true);
                paused = Some(id);
            }
            (4, _) => texts.replace(load(open(), TOGETHER)).expect("an engine as before"),
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
        let ran = block_on(texts.step(&mut clock, &mut on_event)).expect("it runs");
        assert!(!ran.is_empty() || alone.is_empty() || paused.is_some(), "nothing runs");
        for (id, made) in texts.ended() {
            let made = made.expect("no text fails");
            check(&made, &alone.remove(&id).expect("it was asked for"));
            assert_ne!(made.finish, FinishReason::Interrupted);
            whole += 1;
            hits += u32::from(made.reused > 0);
        }
    }
    let usage = texts.scheduler().usage();
    assert_eq!((usage.used, usage.free + usage.idle), (0, 6));
    let preempted = u32::try_from(texts.preemptions()).expect("few");
    [whole, preempted, hits]
}

#[test]
fn texts_among_others_are_what_they_are_alone() {
    let mut sums = [0; 3];
    for seed in [1, 2, 4] {
        // The numbers of this machine are f64, and those of pages that are kept would be rounded.
        for (sum, count) in sums.iter_mut().zip(crowd(seed, 16, 0, Host::default)) {
            *sum += count;
        }
    }
    eprintln!("whole, preempted, with pages of others: {sums:?}");
    assert!(sums[0] >= 20 && sums[1] >= 5 && sums[2] >= 3, "{sums:?}");
}

#[test]
fn so_they_are_on_a_device() {
    crowd(3, 12, 1 << 30, || common::open(LimitProfile::Baseline));
}

#[test]
fn what_cannot_be_generated_is_not_taken() {
    let tokenizer = tokenizer();
    let one = Texts::new(load(Host::default(), ALONE), &tokenizer, Sharing::default());
    assert!(one.err().expect("too few rows").to_string().contains("two or more"));
    let mut texts =
        Texts::new(load(Host::default(), TOGETHER), &tokenizer, Sharing::default()).expect("texts");
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
