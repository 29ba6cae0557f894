//! Devices that are lost at any time, where finished pages of the cache are kept on the host: the
//! same logits, bit by bit, and no more than a page's tokens replayed.

mod common;
#[path = "common/full.rs"]
mod full;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use grok_wgpu::lab::{
    base::{
        error::Result,
        tensor::{DType, Tensor},
    },
    checkpoint::Synthetic,
    engine::{
        Engine, SessionOptions,
        resume::{Change, Rebuild, Resuming},
        sequence::{Kind, Sequence},
        step::{Input, Readback, Run, Stepper},
        store::Store,
    },
    machine::{
        Machine, Span,
        gpu::{Counters, Gpu, LimitProfile, RecordedPass},
        kernel::Executor,
    },
    model::{Placement, Slots, config::Config},
};
use pollster::block_on;

/// Positions of a page.
const PAGE: usize = 32;

/// Most tokens of a prompt at once.
const CHUNK: usize = 24;

/// Uses of devices so far, and the one at which the device is destroyed.
#[derive(Clone, Default)]
struct Fate {
    /// Runs of plans, writes and reads.
    uses: Rc<[Cell<u64>; 3]>,
    /// The kinds of use, and their numbers.
    dies_at: Rc<RefCell<Vec<(usize, u64)>>>,
    /// The write after the next device has its weights at which it is destroyed.
    dies_next: Rc<Cell<Option<u64>>>,
}

const RUN: usize = 0;
const WRITE: usize = 1;
const READ: usize = 2;

impl Fate {
    /// Counts a use; whether the device is to be destroyed before it.
    fn is_met(&self, kind: usize) -> bool {
        let count = self.uses[kind].get();
        self.uses[kind].set(count + 1);
        let mut dies_at = self.dies_at.borrow_mut();
        let before = dies_at.len();
        dies_at.retain(|&at| at != (kind, count));
        dies_at.len() < before
    }

    fn counts(&self) -> [u64; 3] {
        [RUN, WRITE, READ].map(|kind| self.uses[kind].get())
    }
}

/// A device that is destroyed when its fate says so.
struct Mortal {
    gpu: Gpu,
    fate: Fate,
}

impl Mortal {
    fn used(&self, kind: usize) {
        if self.fate.is_met(kind) {
            self.gpu.destroyer()();
        }
    }
}

impl Machine for Mortal {
    type Plan = RecordedPass;

    grok_wgpu::lab::machine::forward_machine!(gpu);

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.used(WRITE);
        self.gpu.write(tensor, offset, bytes)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        self.gpu.record(program)
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        self.used(RUN);
        self.gpu.run_plan(plan, read).await
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.used(READ);
        self.gpu.read(spans).await
    }

    fn is_lost(&self) -> bool {
        self.gpu.is_lost()
    }
}

/// What a session is made of.
#[derive(Clone)]
struct Made {
    config: Config,
    weights: Synthetic,
    sizes: SessionOptions,
    placement: Placement,
    /// Bytes of the largest binding, if the device's limit is lowered.
    binding: Option<u64>,
}

impl Made {
    /// A small model whose experts and matrices are brought, or one that is whole on the device.
    fn new(cache: DType, streams: bool) -> Self {
        let config = Config::preset("tiny").expect("a preset").with_layers(2);
        let weights = Synthetic::new(&config, DType::Q8, 11).expect("weights");
        let chunk = u32::try_from(CHUNK).expect("a chunk is short");
        let placement = if streams { Placement::least(Slots::Shared(3)) } else { Placement::WHOLE };
        let sizes = SessionOptions::new(192, chunk, cache);
        Self { config, weights, sizes, placement, binding: None }
    }

    fn engine<M: Machine>(&self, machine: M) -> Result<Engine<M>> {
        let (c, weights) = (&self.config, &self.weights);
        let mut progress = |_| Ok(());
        let load =
            Engine::load_placed(machine, c, weights, self.sizes, self.placement, &mut progress);
        block_on(load)
    }

    fn open(&self) -> Gpu {
        let mut gpu = common::open(LimitProfile::Baseline);
        if let Some(bytes) = self.binding {
            gpu.limit_bindings(bytes);
        }
        gpu
    }

    /// A session whose first device dies as `fate` says.
    fn session(&self, fate: &Fate) -> (Resuming<Maker>, Rc<Heard>) {
        let heard = Rc::<Heard>::default();
        let maker = Maker { made: self.clone(), fate: fate.clone(), heard: heard.clone() };
        (block_on(Resuming::new(maker)).expect("a session"), heard)
    }
}

/// What was heard of devices.
#[derive(Default)]
struct Heard {
    losses: Cell<u64>,
    restored: Cell<u64>,
    /// Most tokens that went through a model again after a loss.
    replayed: Cell<usize>,
}

struct Maker {
    made: Made,
    fate: Fate,
    heard: Rc<Heard>,
}

impl Rebuild for Maker {
    type Machine = Mortal;

    async fn build(&mut self) -> Result<Engine<Mortal>> {
        let fate = &self.fate;
        let engine = self.made.engine(Mortal { gpu: self.made.open(), fate: fate.clone() })?;
        if let Some(write) = fate.dies_next.take() {
            fate.dies_at.borrow_mut().push((WRITE, fate.counts()[WRITE] + write));
        }
        Ok(engine)
    }

    fn on_change(&mut self, change: Change<'_>) {
        match change {
            Change::Lost(_) => self.heard.losses.set(self.heard.losses.get() + 1),
            Change::Restored { replayed } => {
                self.heard.restored.set(self.heard.restored.get() + 1);
                self.heard.replayed.set(self.heard.replayed.get().max(replayed));
            }
            Change::Failed(error) => panic!("no device: {error}"),
        }
    }
}

/// Prompts in chunks, and tokens, one at a time. Another prompt follows; then half of it all is
/// dropped, and other tokens come.
const TEXT: [(Kind, usize, u32); 5] = [
    (Kind::Prompt, 51, 7919),
    (Kind::Generated, 20, 104_729),
    (Kind::Prompt, 30, 1299),
    (Kind::Generated, 12, 4177),
    (Kind::Generated, 21, 911),
];

/// After so many parts of the text, it is cut to so many tokens.
const CUT: (usize, usize) = (4, 70);

/// Runs the text, and calls `between` before each step. Returns the bits of the logits after each
/// step that reads some.
fn run<S: Stepper>(session: &mut S, mut between: impl FnMut(&mut S, usize)) -> Result<Vec<u32>> {
    let (mut bits, mut steps) = (Vec::new(), 0);
    for (at, &(kind, count, factor)) in TEXT.iter().enumerate() {
        if at == CUT.0 {
            session.sequence().rewind(CUT.1);
        }
        let ids: Vec<u32> = (1..).take(count).map(|i: u32| i.wrapping_mul(factor) % 256).collect();
        let mut rest = &ids[..];
        while let Some(first) = rest.first() {
            let input = match kind {
                Kind::Prompt => Input::next_chunk(rest, Readback::Logits, session.options()),
                Kind::Generated => Input::generated(first, Readback::Logits),
            };
            rest = &rest[input.ids.len()..];
            between(session, steps);
            steps += 1;
            let output = block_on(session.step(input))?;
            bits.extend(output.candidates.iter().map(|candidate| candidate.logit.to_bits()));
        }
    }
    assert_eq!(session.sequence().tokens().len(), CUT.1 + TEXT[4].1);
    Ok(bits)
}

fn undisturbed(made: &Made) -> Result<Vec<u32>> {
    let mut session: grok_wgpu::lab::engine::session::Session<Gpu> =
        made.engine(made.open())?.into();
    run(&mut session, |_, _| {})
}

/// Some numbers below `end`, evenly.
fn some(end: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |i| (2 * i + 1) * end / (2 * count))
}

/// Whatever the device was doing, of a model whose weights are brought: in a segment, while weights
/// or inputs are written, while a page is copied.
#[test]
fn a_loss_changes_no_bit_and_replays_less_than_a_page() -> Result<()> {
    let full = full::is_full();
    for cache in [DType::F32, DType::F16, DType::Q8] {
        let made = Made::new(cache, true);
        let want = undisturbed(&Made::new(cache, false))?;
        let fate = Fate::default();
        let (mut session, heard) = made.session(&fate);
        let loading = fate.counts();
        assert!(run(&mut session, |_, _| {})? == want, "{cache}: other bits without a loss");
        assert_eq!(heard.losses.get(), 0);
        let all = fate.counts();
        drop(session);
        // All kinds of use in one type of the cache, and one in each of the others.
        let (kinds, few) = match cache {
            _ if full => (&[RUN, WRITE, READ][..], 7),
            DType::Q8 => (&[RUN, WRITE, READ][..], 1),
            DType::F16 => (&[WRITE][..], 1),
            _ => (&[RUN][..], 1),
        };
        for &kind in kinds {
            for at in some(all[kind] - loading[kind], few) {
                let here = format!("{cache}, use {at} of kind {kind}");
                let fate = Fate::default();
                let (mut session, heard) = made.session(&fate);
                fate.dies_at.replace(vec![(kind, loading[kind] + at)]);
                assert!(run(&mut session, |_, _| {})? == want, "{here}: other bits");
                assert_eq!((heard.losses.get(), heard.restored.get()), (1, 1), "{here}");
                // The chunk of a step that was lost comes on top of that.
                assert!(heard.replayed.get() < PAGE, "{here}: {}", heard.replayed.get());
            }
        }
    }
    Ok(())
}

/// A cache that limits cut, a device that is lost between steps again and again, and a new one that
/// is lost while it is filled.
#[test]
fn losses_between_tokens_and_among_losses_change_no_bit() -> Result<()> {
    for streams in [true, false] {
        let mut made = Made::new(DType::Q8, streams);
        made.binding = Some(8 << 10);
        let want = undisturbed(&made)?;
        let fate = Fate::default();
        let (session, heard) = made.session(&fate);
        let mut session = session.keeping_cache((!streams).then_some(true));
        let mut lose = |_: &mut Resuming<Maker>, step: usize| {
            if step % 24 == 23 {
                // The next step's first run or write.
                let [runs, writes, _] = fate.counts();
                let next = if step % 48 == 23 { (RUN, runs) } else { (WRITE, writes) };
                fate.dies_at.replace(vec![next]);
            }
        };
        assert!(run(&mut session, &mut lose)? == want, "{streams}: other bits");
        let losses = heard.losses.get();
        assert!(losses >= 2 && heard.restored.get() == losses, "{losses} losses");
        assert!(heard.replayed.get() < PAGE, "{}", heard.replayed.get());
    }
    Ok(())
}

/// A replacement that is lost while it gets pages back: at the first write of one, among them, at
/// the last. Another one gets all of them.
#[test]
fn a_loss_while_pages_are_put_back_changes_no_bit() -> Result<()> {
    let made = Made::new(DType::Q8, false);
    let want = undisturbed(&made)?;
    // Keys and values of two layers, for each of three pages.
    for write in [0, 5, 11] {
        let fate = Fate::default();
        let (session, heard) = made.session(&fate);
        let mut session = session.keeping_cache(Some(true));
        let mut lose = |session: &mut Resuming<Maker>, _: usize| {
            if session.sequence().tokens().len() == 102 && heard.losses.get() == 0 {
                fate.dies_at.replace(vec![(RUN, fate.counts()[RUN])]);
                fate.dies_next.set(Some(write));
            }
        };
        assert!(run(&mut session, &mut lose)? == want, "write {write}: other bits");
        assert_eq!((heard.losses.get(), heard.restored.get()), (2, 1), "write {write}");
        assert_eq!(heard.replayed.get(), 102 % PAGE, "write {write}");
    }
    Ok(())
}

/// Without pages that are kept, a whole text is replayed.
#[test]
fn a_model_that_is_whole_keeps_its_cache_where_that_is_asked_for() -> Result<()> {
    let made = Made::new(DType::F16, false);
    let want = undisturbed(&made)?;
    for keeps in [true, false] {
        let fate = Fate::default();
        let (session, heard) = made.session(&fate);
        let mut session = session.keeping_cache(keeps.then_some(true));
        let mut lose = |session: &mut Resuming<Maker>, _: usize| {
            if session.sequence().tokens().len() == 102 {
                fate.dies_at.replace(vec![(RUN, fate.counts()[RUN])]);
            }
        };
        assert!(run(&mut session, &mut lose)? == want, "{keeps}: other bits");
        assert_eq!(heard.losses.get(), 1);
        assert_eq!(heard.replayed.get(), if keeps { 102 % PAGE } else { 102 }, "{keeps}");
        assert_eq!(fate.counts()[READ] > 0, keeps);
    }
    Ok(())
}

/// What keeping costs: a submission and a readback for the pages that a step finished, and nothing
/// for the others.
#[test]
fn only_steps_that_finish_a_page_ask_the_device_for_more() -> Result<()> {
    let made = Made::new(DType::Q8, true);
    let (mut plain, mut kept) = (made.engine(made.open())?, made.engine(made.open())?);
    let (mut a, mut b) = (Sequence::new(), Sequence::new());
    let mut store = Store::new(plain.cache_bytes());
    let page = kept.page_bytes();
    // Keys and values of two layers.
    assert_eq!(page, 2 * 2 * 32 * DType::Q8.row_bytes(32));
    let prompt: Vec<u32> = (0..20).collect();
    let steps = [&prompt[..], &prompt[..14]].map(|ids| Input::prompt(ids, Readback::Logits));
    let tokens = [Input::generated(&9, Readback::Top(1)); 40];
    let mut finished = 0;
    for input in steps.into_iter().chain(tokens) {
        let before = a.tokens().len() / PAGE;
        let mut counted = |engine: &mut Engine<Gpu>, sequence: &mut Sequence, keep: bool| {
            let before = engine.machine().counters();
            block_on(engine.step(&mut [Run { sequence, input }]))?.remove(0)?;
            if keep {
                block_on(engine.keep(sequence, &mut store))?;
            }
            Ok(engine.machine().counters() - before)
        };
        let without: Result<Counters> = counted(&mut plain, &mut a, false);
        let with = counted(&mut kept, &mut b, true)?;
        let without = without?;
        let new = (a.tokens().len() / PAGE - before) as u64;
        finished += new;
        let here = format!("{} tokens", a.tokens().len());
        assert_eq!(with.submissions, without.submissions + new.min(1), "{here}");
        assert_eq!(with.read_backs, without.read_backs + new.min(1), "{here}");
        assert_eq!(with.read_back_bytes, without.read_back_bytes + new * page, "{here}");
        assert_eq!(with.dispatches, without.dispatches, "{here}");
    }
    assert_eq!((finished, store.bytes()), (2, 2 * page));
    Ok(())
}

/// Texts that take turns in one cache, as those of a server: what is put back is what was taken.
#[test]
fn texts_take_turns_without_being_computed_again() -> Result<()> {
    let made = Made::new(DType::F32, false);
    let mut engine = made.engine(made.open())?;
    let mut store = Store::new(engine.cache_bytes() * 2);
    let ids = |text: u32| -> Vec<u32> { (0..64).map(|i: u32| i * (2 * text + 3) % 256).collect() };
    let write = |engine: &mut Engine<Gpu>, sequence: &mut Sequence, ids: &[u32]| {
        let output = block_on(engine.prefill(sequence, ids, Readback::Logits, false));
        output.map(|output| -> Vec<u32> {
            output.candidates.iter().map(|candidate| candidate.logit.to_bits()).collect()
        })
    };
    let mut alone = Vec::new();
    for text in 0..3 {
        let mut sequence = Sequence::new();
        write(&mut engine, &mut sequence, &ids(text))?;
        alone.push(write(&mut engine, &mut sequence, &[text])?);
    }
    let mut texts = [Sequence::new(), Sequence::new(), Sequence::new()];
    for (text, sequence) in (0..).zip(&mut texts) {
        write(&mut engine, sequence, &ids(text))?;
        assert_eq!(block_on(engine.keep(sequence, &mut store))?, 2);
        assert_eq!(block_on(engine.keep(sequence, &mut store))?, 0, "it has them");
        sequence.release();
    }
    for (text, sequence) in (0..).zip(&mut texts) {
        assert_eq!(block_on(engine.restore_from(sequence, &mut store))?, 0, "nothing is replayed");
        assert!(write(&mut engine, sequence, &[text])? == alone[text as usize], "text {text}");
        sequence.release();
    }
    Ok(())
}
