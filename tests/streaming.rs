//! Models of which parts are brought while they run: equal bits wherever weights lie, and counts of
//! what moves.

mod common;
#[path = "common/full.rs"]
mod full;
#[path = "common/placed.rs"]
mod placed;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::Synthetic,
    engine::{
        Engine, Heed, HostCompute,
        options::{Event, FinishReason, Options},
        sequence::Sequence,
        session::Session,
        step::Readback,
    },
    machine::{Machine, counting::DeviceLimits, gpu::LimitProfile, host::Host},
    measure::{capacity::Planner, placement::placed as plan},
    model::{Placement, Slots, config::Config, schema::EMBEDDING, weights::Weights},
    text::{
        sampler::{Sampler, Sampling},
        tokenizer::{Tokenizer, synthetic_tok_json},
    },
};
use placed::{LAYERS, PROMPT, SIZES, TOKENS, bits, configs, counted, load};
use pollster::block_on;

/// Places in which nothing, the experts, the dense MLPs or all of a model is brought.
fn placements() -> Vec<Placement> {
    let slots = [2, 3, 4, 8].into_iter().flat_map(|n| [Slots::Each(n), Slots::Shared(n)]);
    let mut all: Vec<Placement> = slots
        .map(|slots| Placement {
            attention: LAYERS,
            dense: LAYERS,
            experts: 0,
            ..Placement::least(slots)
        })
        .collect();
    let slots = Slots::Shared(3);
    all.extend([
        Placement { attention: LAYERS, dense: LAYERS, experts: 1, ..Placement::least(slots) },
        Placement { attention: LAYERS, dense: 1, experts: 0, ..Placement::least(slots) },
        Placement { attention: 2, dense: 1, experts: 2, ..Placement::least(slots) },
        Placement { attention: LAYERS, dense: 0, experts: LAYERS, ..Placement::least(slots) },
        Placement::least(slots),
        Placement::least(Slots::Each(2)),
    ]);
    all
}

fn every_placement_gives_the_bits_of_the_whole(types: &[DType], binding: Option<u64>) {
    let mut gpu = common::open(LimitProfile::Baseline);
    if let Some(bytes) = binding {
        gpu.limit_bindings(bytes);
    }
    for (name, config) in configs() {
        for &dtype in types {
            let weights = Synthetic::new(&config, dtype, 11).expect("weights");
            let mut whole = load(&mut gpu, &config, &weights, Placement::WHOLE);
            let cuts = whole.model().cuts();
            assert_eq!(cuts > 0, binding.is_some(), "{name} {dtype}: {cuts} cuts");
            let want = bits(&mut whole).expect("runs");
            let keep = whole.model().bytes();
            assert_eq!(whole.moved().bytes, 0);
            drop(whole);
            gpu.truncate(0);
            for placement in placements() {
                let here = format!("{name} {dtype} {placement:?}");
                let mut session = load(&mut gpu, &config, &weights, placement);
                assert!(session.model().bytes() <= keep, "{here}");
                let got = bits(&mut session).expect("runs");
                assert!(got == want, "{here}: other bits or routes");
                // Once more, with whatever is in the slots by now.
                assert!(bits(&mut session).expect("runs") == want, "{here}: other bits again");
                assert!(session.moved().bytes > 0 || session.model().bytes() == keep, "{here}");
                drop(session);
                gpu.truncate(0);
            }
        }
    }
}

#[test]
fn every_placement_gives_the_bits_of_the_whole_in_bf16() {
    every_placement_gives_the_bits_of_the_whole(&[DType::BF16], None);
}

#[test]
fn every_placement_gives_the_bits_of_the_whole_in_q8_and_q4() {
    every_placement_gives_the_bits_of_the_whole(&[DType::Q8, DType::Q4], None);
}

#[test]
fn every_placement_gives_the_bits_of_the_whole_that_limits_cut() {
    every_placement_gives_the_bits_of_the_whole(&[DType::BF16, DType::Q4], Some(16 << 10));
}

#[test]
fn a_model_runs_in_a_third_of_its_bytes() {
    let (_, config) = &configs()[1];
    let weights = Synthetic::new(config, DType::BF16, 11).expect("weights");
    let mut whole = load(common::open(LimitProfile::Baseline), config, &weights, Placement::WHOLE);
    let gpu = common::open(LimitProfile::Baseline);
    let mut least = load(gpu, config, &weights, Placement::least(Slots::Shared(2)));
    let [all, some] = [whole.model().bytes(), least.model().bytes()];
    assert!(some * 3 < all, "{some} of {all} bytes");
    assert!(bits(&mut whole).expect("runs") == bits(&mut least).expect("runs"));
}

/// Bytes of an expert in Q4.
fn bytes_of_expert(config: &Config) -> u64 {
    let (hidden, width) = (u64::from(config.hidden_size), config.moe_intermediate_size());
    2 * u64::from(width) * DType::Q4.row_bytes(hidden) + hidden * DType::Q4.row_bytes(width.into())
}

#[test]
fn what_moves_is_what_is_missing() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::Q4, 11).expect("weights");
    let [count, chosen] = [config.num_local_experts(), config.num_experts_per_tok()].map(u64::from);
    let expert = bytes_of_expert(config);
    let layers = u64::from(LAYERS);
    for (placement, partial, matrices) in [
        (Placement::WHOLE, 0, 0),
        (Placement { experts: 1, slots: Slots::Each(2), ..Placement::WHOLE }, layers - 1, 0),
        (Placement { experts: 0, slots: Slots::Each(8), ..Placement::WHOLE }, layers, 0),
        // The MLP of a layer takes the place of that of another.
        (
            Placement { dense: 1, experts: 0, slots: Slots::Shared(4), ..Placement::WHOLE },
            layers,
            6,
        ),
        (Placement::least(Slots::Shared(4)), layers, 15),
    ] {
        let gpu = common::open(LimitProfile::Baseline);
        let mut session = load(gpu, config, &weights, placement);
        let prompt: Vec<u32> = (0..24).map(|i| i * 7 % 256).collect();
        let (_, [experts, found, ..]) = counted(&mut session, |session| {
            block_on(session.prefill(&prompt, Readback::Top(1))).expect("runs");
        });
        // A chunk brings each expert once.
        assert!(experts + found <= partial * count, "{placement:?}: {experts} {found}");
        assert!(partial == 0 || experts > partial * chosen, "{placement:?}: {experts}");
        block_on(session.decode(9, Readback::Top(1))).expect("runs");
        for id in TOKENS {
            let ([submissions, read_backs], [experts, found, moved, bytes]) =
                counted(&mut session, |session| {
                    block_on(session.decode(id, Readback::Top(1))).expect("runs");
                });
            assert_eq!((submissions, read_backs), (partial + 1, partial + 1), "{placement:?}");
            assert_eq!(experts + found, partial * chosen, "{placement:?}");
            assert_eq!(moved, matrices, "{placement:?}");
            if matrices == 0 {
                assert_eq!(bytes, experts * expert, "{placement:?}");
            } else {
                assert!(bytes > experts * expert, "{placement:?}");
            }
        }
        let made = session.machine().made();
        block_on(session.decode(1, Readback::Top(1))).expect("runs");
        assert_eq!(session.machine().made(), made, "{placement:?}: something was made");
    }
}

#[test]
fn a_plan_of_a_placement_is_what_is_allocated() {
    for (name, config) in configs() {
        let weights = Synthetic::new(&config, DType::Q8, 11).expect("weights");
        for placement in placements() {
            let gpu = common::open(LimitProfile::Baseline);
            let limits = DeviceLimits::of(gpu.caps());
            let planner = Planner::placed(&config, &weights, limits, placement).expect("fits");
            let plan = planner.plan(SIZES).expect("fits");
            let mut session = load(gpu, &config, &weights, placement);
            assert_eq!(session.model().bytes(), plan.weights, "{name} {placement:?}");
            block_on(session.prepare(1, Readback::Top(40))).expect("compiles");
            let got = session.machine().allocated_bytes();
            assert!(got <= plan.total(), "{name} {placement:?}: {got}, {}", plan.total());
        }
    }
}

/// On the host, too, where there are no buffers that share memory by accident.
#[test]
fn the_host_brings_weights_like_a_device() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::BF16, 11).expect("weights");
    let want = bits(&mut load(Host::default(), config, &weights, Placement::WHOLE));
    let least = Placement::least(Slots::Shared(2));
    let got = bits(&mut load(Host::default(), config, &weights, least));
    assert!(got.expect("runs") == want.expect("runs"));
}

/// Weights of which a read fails.
#[derive(Clone)]
struct Failing {
    weights: Synthetic,
    reads: Arc<AtomicU64>,
    fails_at: u64,
}

impl Weights for Failing {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == self.fails_at {
            return Err(Error::Usage(format!("`{name}` was not read")));
        }
        self.weights.read_rows(name, row0, rows, into).await
    }
}

/// Whichever read fails, the step fails and leaves the text as it was, and the next attempt gives
/// the bits that it would have had.
#[test]
fn a_read_that_fails_leaves_nothing_half_way() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::BF16, 11).expect("weights");
    let placement = Placement::least(Slots::Shared(2));
    let mut host = load(common::open(LimitProfile::Baseline), config, &weights, placement);
    let want = bits(&mut host).expect("runs").0;
    let mut gpu = common::open(LimitProfile::Baseline);
    let mut failed = 0;
    for at in (0..400).step_by(23) {
        let reads = Arc::new(AtomicU64::new(0));
        let failing =
            Failing { weights: weights.clone(), reads: reads.clone(), fails_at: u64::MAX };
        let mut session = load(&mut gpu, config, &failing, placement);
        let loading = reads.load(Ordering::Relaxed);
        drop(session);
        gpu.truncate(0);
        reads.store(0, Ordering::Relaxed);
        let failing = Failing { fails_at: loading + at, ..failing };
        session = load(&mut gpu, config, &failing, placement);
        let mut all = Vec::new();
        let prompt: Vec<u32> = (0..PROMPT).map(|i| i.wrapping_mul(7919) % 256).collect();
        for (ids, generated) in
            [(&prompt[..], false)].into_iter().chain(TOKENS.chunks(1).map(|ids| (ids, true)))
        {
            let before = session.tokens().len();
            let mut run = || {
                if generated {
                    block_on(session.decode(ids[0], Readback::Logits))
                } else {
                    let rest = &ids[session.tokens().len()..];
                    block_on(session.prefill(rest, Readback::Logits))
                }
            };
            let output = match run() {
                Ok(output) => output,
                Err(error) => {
                    assert!(error.to_string().contains("was not read"), "{error}");
                    failed += 1;
                    run().expect("the next attempt succeeds")
                }
            };
            assert_eq!(session.tokens().len(), before + ids.len());
            all.extend(output.candidates.iter().map(|candidate| candidate.logit.to_bits()));
        }
        assert!(all == want, "after read {at} failed");
        drop(session);
        gpu.truncate(0);
    }
    assert!(failed > 10, "only {failed} reads failed");
}

#[test]
fn a_token_needs_room_for_its_experts() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::BF16, 11).expect("weights");
    let placement = Placement::least(Slots::Shared(1));
    let mut progress = |_| Ok(());
    let load =
        Session::load_placed(Host::default(), config, &weights, SIZES, placement, &mut progress);
    let error = block_on(load).expect_err("one slot is too few");
    assert!(error.to_string().contains("room for 1 experts"), "{error}");
}

/// A text ends where its step is asked to stop while weights come, with what it had; and goes on
/// after that as if nothing had been.
#[test]
fn a_step_that_brings_weights_can_be_asked_to_stop() {
    let config = Config::preset("small").expect("a preset").with_layers(2);
    let weights = Synthetic::new(&config, DType::BF16, 11).expect("weights");
    let json = synthetic_tok_json(config.vocab_size).expect("in range");
    let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid");
    let placement = Placement::least(Slots::Shared(2));
    let mut progress = |_| Ok(());
    let load =
        Engine::load_placed(Host::default(), &config, &weights, SIZES, placement, &mut progress);
    let mut engine = block_on(load).expect("loads");
    let text = |engine: &mut Engine<Host>, sequence: &mut Sequence| {
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let mut options = Options::default();
        options.max_tokens = 5;
        let prompt = [200, 201, 202];
        let event = |_: Event<'_>| ControlFlow::Continue(());
        let made = engine.generate(sequence, &tokenizer, &mut sampler, &prompt, &options, event);
        let made = block_on(made).expect("a text");
        let ids: Vec<u32> = made.tokens.iter().map(|token| token.id).collect();
        (made.finish, ids)
    };
    let calls = Arc::new(AtomicU64::new(0));
    let heard = |stop_at: u64| -> Box<Heed> {
        let calls = calls.clone();
        calls.store(0, Ordering::Relaxed);
        Box::new(move |_| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            if call == stop_at { Err(Error::Interrupted) } else { Ok(()) }
        })
    };
    engine.while_bringing(Some(heard(u64::MAX)));
    let whole = text(&mut engine, &mut Sequence::new());
    assert_eq!((whole.0, whole.1.len()), (FinishReason::Length, 5));
    let all = calls.load(Ordering::Relaxed);
    assert!(all > 20, "{all} calls");
    for stop_at in [0, all / 2, all - 1] {
        let mut sequence = Sequence::new();
        engine.while_bringing(Some(heard(stop_at)));
        let (finish, ids) = text(&mut engine, &mut sequence);
        assert_eq!(finish, FinishReason::Interrupted, "{stop_at} of {all}");
        assert!(ids.len() < 5 && whole.1.starts_with(&ids), "{stop_at}: {ids:?}");
        engine.while_bringing(None);
        assert_eq!(text(&mut engine, &mut sequence), whole, "{stop_at}");
    }
}

/// Weights that count the bytes that are read of them.
#[derive(Clone)]
struct Counted {
    weights: Synthetic,
    bytes: Arc<AtomicU64>,
}

impl Weights for Counted {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.weights.read_rows(name, row0, rows, into).await?;
        // Rows of the embedding table come with the ids.
        if name != EMBEDDING {
            self.bytes.fetch_add(into.len() as u64, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Places in which it is known how many experts are in their slots: none, as each layer has its
/// turn before a slot is used again, or all.
///
/// Two models take turns, unless all are wanted.
fn placements_of_known_slots(model: usize) -> Vec<Placement> {
    let none = Slots::Shared(2);
    let all = Placement { attention: LAYERS, dense: LAYERS, ..Placement::least(none) };
    let placements = [
        Placement::WHOLE,
        all,
        Placement { experts: 1, ..all },
        Placement { dense: 1, ..all },
        // A matrix that has its room alone stays there.
        Placement { dense: LAYERS - 1, ..all },
        Placement { attention: LAYERS - 1, dense: 0, ..all },
        Placement { experts: LAYERS, dense: 0, attention: 1, ..all },
        Placement { experts: LAYERS, attention: 0, ..all },
        Placement::least(none),
        Placement { slots: Slots::Each(8), ..all },
        Placement::least(Slots::Each(8)),
    ];
    let full = full::is_full();
    let is_wanted = |at: usize| full || at % 2 == model % 2;
    placements.into_iter().enumerate().filter(|&(at, _)| is_wanted(at)).map(|(_, it)| it).collect()
}

#[test]
fn what_is_expected_is_what_is_counted() -> Result<()> {
    for (model, (name, config)) in configs().into_iter().enumerate() {
        let weights = Synthetic::new(&config, DType::Q4, 11)?;
        let weights = Counted { weights, bytes: Arc::default() };
        for placement in placements_of_known_slots(model) {
            let here = format!("{name} {placement:?}");
            let gpu = common::open(LimitProfile::Baseline);
            let limits = DeviceLimits::of(gpu.caps());
            let placed = plan(&config, &weights, limits, SIZES, placement)?;
            let want = placed.token;
            let mut session = load(gpu, &config, &weights, placement);
            warm(&mut session)?;
            for id in TOKENS {
                let before = weights.bytes.load(Ordering::SeqCst);
                let ([submissions, _], [.., bytes]) = counted(&mut session, |session| {
                    block_on(session.decode(id, Readback::Top(1))).expect("runs");
                });
                let read = weights.bytes.load(Ordering::SeqCst) - before;
                assert_eq!(submissions, want.segments, "{here}");
                assert_eq!(read, want.files + want.ahead, "{here}");
                assert_eq!(bytes, read, "{here}");
            }
            let moves = placed.bytes.token_files;
            assert!(want.files + want.ahead <= moves, "{here}");
            assert_eq!(want.stored, placed.bytes.files, "{here}");
        }
    }
    Ok(())
}

/// A prompt that chooses all experts, and a token: what can stay is there then.
fn warm<M: Machine>(session: &mut Session<M>) -> Result<()> {
    let prompt: Vec<u32> = (0..2 * SIZES.prefill).map(|i| i.wrapping_mul(7919) % 256).collect();
    block_on(session.prefill(&prompt, Readback::Top(1)))?;
    block_on(session.decode(9, Readback::Top(1)))?;
    Ok(())
}

#[test]
fn a_prompt_brings_each_expert_once() -> Result<()> {
    for (name, config) in configs() {
        let weights = Synthetic::new(&config, DType::Q4, 11)?;
        let weights = Counted { weights, bytes: Arc::default() };
        for slots in [2, 3, 4] {
            let placement = Placement::least(Slots::Shared(slots));
            let here = format!("{name} {slots}");
            let gpu = common::open(LimitProfile::Baseline);
            let placed = plan(&config, &weights, DeviceLimits::of(gpu.caps()), SIZES, placement)?;
            let mut session = load(gpu, &config, &weights, placement);
            warm(&mut session)?;
            session.rewind(0);
            let prompt: Vec<u32> = (0..SIZES.prefill).map(|i| i * 37 % 256).collect();
            let before = weights.bytes.load(Ordering::SeqCst);
            let ([submissions, _], [experts, ..]) = counted(&mut session, |session| {
                block_on(session.prefill(&prompt, Readback::Top(1))).expect("runs");
            });
            let read = weights.bytes.load(Ordering::SeqCst) - before;
            let want = placed.prompt;
            assert_eq!(want.tokens, SIZES.prefill, "{here}");
            // While a round of experts runs, two of the next one are read, in three parts each.
            let rounds = u64::from(config.num_local_experts().div_ceil(slots));
            let ahead = u64::from(LAYERS) * (rounds - 1) * 2 * bytes_of_expert(&config);
            assert!(want.ahead >= ahead && want.under < want.active, "{here}: {want:?}");
            // So many tokens choose all experts on average, and these nearly all. An expert that
            // nobody chose may have been read ahead.
            let missing = u64::from(LAYERS * config.num_local_experts()) - experts;
            assert!(missing <= 2, "{here}: {missing}");
            let unread = (0..=missing).map(|count| count * bytes_of_expert(&config));
            let mut sums = unread.map(|unread| read + unread);
            let all = want.files + want.ahead;
            assert!(sums.any(|sum| sum == all), "{here}: {read} of {all}");
            let rounds = want.segments - missing..=want.segments;
            assert!(rounds.contains(&submissions), "{here}: {submissions} of {}", want.segments);
        }
    }
    Ok(())
}

/// With nothing in memory, so that all is read each time.
#[test]
fn what_the_cpu_computes_is_expected_too() -> Result<()> {
    for (model, (name, config)) in configs().into_iter().enumerate() {
        let weights = Synthetic::new(&config, DType::Q4, 11)?;
        let weights = Counted { weights, bytes: Arc::default() };
        let sizes = SIZES.with_host_compute(Some(HostCompute::new(1, 0)));
        for placement in placements_of_known_slots(model) {
            let here = format!("{name} {placement:?}");
            let gpu = common::open(LimitProfile::Baseline);
            let placed = plan(&config, &weights, DeviceLimits::of(gpu.caps()), sizes, placement)?;
            let want = placed.on_cpu;
            let mut progress = |_| Ok(());
            let load =
                Session::load_placed(gpu, &config, &weights, sizes, placement, &mut progress);
            let mut session = block_on(load)?;
            warm(&mut session)?;
            for id in TOKENS {
                let before = weights.bytes.load(Ordering::SeqCst);
                let ([submissions, _], _) = counted(&mut session, |session| {
                    block_on(session.decode(id, Readback::Top(1))).expect("runs");
                });
                let read = weights.bytes.load(Ordering::SeqCst) - before;
                assert_eq!(submissions, want.segments, "{here}");
                assert_eq!(read, want.files + want.ahead + want.cpu, "{here}");
            }
        }
    }
    Ok(())
}
