//! Passes that are cut at marks: counters of an uncut model stay the same, and cuts change no bit.

mod common;

use std::{cell::RefCell, rc::Rc};

use grok_wgpu::lab::{
    base::{
        error::Result,
        tensor::{DType, Tensor},
    },
    checkpoint::Synthetic,
    engine::{
        Engine, SessionOptions,
        segments::{Mark, Part, Runner, Segmented, Segments, Whole},
        session::Session,
        step::Readback,
    },
    machine::{
        Machine,
        counting::{Counted, Counting, DeviceLimits},
        gpu::LimitProfile,
        host::Host,
        kernel::Need,
    },
    model::{
        Model,
        config::Config,
        weights::{Lasting, Weights},
    },
};
use pollster::block_on;

const OPTIONS: SessionOptions = SessionOptions::new(64, 8, DType::F32);

/// A prompt of two chunks, then single tokens.
const PROMPT: [u32; 13] = [11, 48, 85, 122, 159, 196, 233, 14, 51, 88, 125, 162, 199];
const TOKENS: [u32; 3] = [3, 77, 201];

/// A model with a dense MLP beside the experts, and one without.
const MODELS: [&str; 2] = ["tiny", "tiny-grok-1"];

fn tiny(name: &str, num_hidden_layers: u32) -> (Config, Synthetic) {
    let preset = Config::preset(name).expect("the preset is there");
    let config = preset.with_layers(num_hidden_layers);
    let weights = Synthetic::new(&config, DType::BF16, 7).expect("weights");
    (config, weights)
}

fn session<M: Machine>(machine: M, config: &Config, weights: &impl Lasting) -> Session<M> {
    block_on(Session::load(machine, config, weights, OPTIONS, &mut |_| Ok(()))).expect("loads")
}

/// The bits of all logits after the prompt and after each token.
fn bits<M: Machine>(session: &mut Session<M>) -> Result<Vec<u32>> {
    let mut all = block_on(session.prefill(&PROMPT, Readback::Logits))?.candidates;
    for id in TOKENS {
        all.extend(block_on(session.decode(id, Readback::Logits))?.candidates);
    }
    Ok(all.iter().map(|candidate| candidate.logit.to_bits()).collect())
}

/// A runner that has room for `slots` experts at a time, or that repeats blocks needlessly.
struct Experts {
    /// Experts that are in place at the same time.
    slots: usize,
    /// How often to run each block.
    times: usize,
    /// Runs of blocks so far.
    blocks: usize,
}

impl Experts {
    /// No expert has this id.
    const ABSENT: u32 = u32::MAX;

    fn new(slots: usize, times: usize) -> Self {
        Self { slots, times, blocks: 0 }
    }

    /// Runs a block for the experts in `chosen`, `slots` at a time, with the other ids masked.
    async fn run_block<M: Machine>(
        &mut self,
        machine: &mut M,
        block: &[Part<M::Plan>],
        ids: Tensor,
        chosen: &[u8],
    ) -> Result<()> {
        let chosen: Vec<u32> = bytemuck::pod_collect_to_vec(chosen);
        let mut named = chosen.clone();
        named.sort_unstable();
        named.dedup();
        for group in named.chunks(self.slots) {
            let there = |id: &u32| if group.contains(id) { *id } else { Self::ABSENT };
            let masked: Vec<u32> = chosen.iter().map(there).collect();
            machine.write(ids, 0, bytemuck::cast_slice(&masked))?;
            for _ in 0..self.times {
                self.blocks += 1;
                for part in block {
                    let Part::Segment(plan) = part else {
                        panic!("blocks of experts hold no mark")
                    };
                    machine.run_plan(plan, &[]).await?;
                }
            }
        }
        machine.write(ids, 0, bytemuck::cast_slice(&chosen))
    }
}

impl<M: Machine> Runner<M> for Experts {
    fn cuts_at(&self, mark: Mark) -> bool {
        matches!(mark, Mark::Need(Need::Experts { .. }) | Mark::Used(Need::Experts { .. }))
    }

    async fn run(
        &mut self,
        machine: &mut M,
        pass: &Segments<M::Plan>,
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        let mut parts = &pass.parts[..];
        while let [Part::Segment(plan), rest @ ..] = parts {
            let Some((Part::Mark(mark), rest)) = rest.split_first() else {
                return machine.run_plan(plan, read).await;
            };
            let Mark::Need(need @ Need::Experts { ids, .. }) = *mark else {
                panic!("{mark:?} here")
            };
            let chosen = machine.run_plan(plan, &[ids]).await?;
            let used = Mark::Used(need);
            let closes = |part: &Part<M::Plan>| matches!(part, Part::Mark(mark) if *mark == used);
            let end = rest.iter().position(closes).expect("what is needed is used");
            self.run_block(machine, &rest[..end], ids, &chosen[0]).await?;
            parts = &rest[end + 1..];
        }
        panic!("a pass ends with a segment");
    }
}

/// Cutting passes changes no logit, whatever the number of slots and repetitions.
fn cuts_change_no_bit<M: Machine>(open: impl Fn() -> M) -> Result<()> {
    for name in MODELS {
        let layers = 2;
        let (config, weights) = tiny(name, layers);
        let want = bits(&mut session(open(), &config, &weights))?;
        let all = config.num_local_experts() as usize;
        let chosen = config.num_experts_per_tok() as usize;
        for (slots, times) in [(all, 1), (all, 3), (chosen, 1)] {
            let machine = Segmented::new(open(), Experts::new(slots, times));
            let mut cut = session(machine, &config, &weights);
            let same = bits(&mut cut)? == want;
            assert!(same, "{name}: other bits with {slots} slots, blocks {times} times");
            // At least one run for each layer, chunk of the prompt, and token.
            let least = layers as usize * (2 + TOKENS.len()) * times;
            let blocks = cut.machine().runner().blocks;
            if slots == all {
                assert_eq!(blocks, least, "{name}");
            } else {
                assert!(blocks > least, "{name}: {blocks} blocks, so all experts came at once");
            }
        }
    }
    Ok(())
}

#[test]
fn cuts_change_no_bit_on_the_host() -> Result<()> {
    cuts_change_no_bit(Host::default)
}

#[test]
fn cuts_change_no_bit_on_a_device() -> Result<()> {
    cuts_change_no_bit(|| common::open(LimitProfile::Baseline))
}

#[test]
fn a_runner_that_acts_nowhere_counts_as_none() -> Result<()> {
    for name in MODELS {
        let (config, weights) = tiny(name, 2);
        let mut plain = session(common::open(LimitProfile::Baseline), &config, &weights);
        let machine = Segmented::new(common::open(LimitProfile::Baseline), Whole);
        let mut whole = session(machine, &config, &weights);
        assert!(bits(&mut plain)? == bits(&mut whole)?, "{name}: other bits");
        let counters = plain.machine().counters();
        assert_eq!(counters, whole.machine().machine().counters(), "{name}");
        // A chunk is one submission, and so is a token; nothing is read back after the first chunk.
        let tokens = TOKENS.len() as u64;
        assert_eq!((counters.submissions, counters.read_backs), (2 + tokens, 1 + tokens));
        let logits = u64::from(config.vocab_size) * 4;
        assert_eq!(counters.read_back_bytes, (1 + tokens) * logits);
    }
    Ok(())
}

/// A pipeline stage; `handed` holds the activations for the next stage.
struct Stage {
    first: bool,
    last: bool,
    handed: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl<M: Machine> Runner<M> for Stage {
    fn begins(&self) -> bool {
        self.first
    }

    fn ends(&self) -> bool {
        self.last
    }

    async fn run(
        &mut self,
        machine: &mut M,
        pass: &Segments<M::Plan>,
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        assert_eq!((pass.received.is_none(), pass.sent.is_none()), (self.first, self.last));
        for (&tensor, bytes) in pass.received.iter().flatten().zip(self.handed.take()) {
            machine.write(tensor, 0, &bytes)?;
        }
        let plan = pass.segments().next().expect("stages are not cut");
        let Some(sent) = &pass.sent else { return machine.run_plan(plan, read).await };
        assert!(read.is_empty(), "there are no logits before the last stage");
        let handed = machine.run_plan(plan, sent).await?;
        self.handed.replace(handed);
        Ok(Vec::new())
    }
}

/// One layer of a model as a model of its own. The last norm of a stage is the first of the next.
#[derive(Clone)]
struct OneLayer {
    all: Synthetic,
    layer: u32,
    layers: u32,
}

impl OneLayer {
    fn name(&self, name: &str) -> String {
        match name.strip_prefix("model.layers.0.") {
            Some(rest) => format!("model.layers.{}.{rest}", self.layer),
            None if name == "model.norm.weight" && self.layer + 1 < self.layers => {
                format!("model.layers.{}.pre_attn_norm.weight", self.layer + 1)
            }
            None => name.to_owned(),
        }
    }
}

impl Weights for OneLayer {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.all.dtype(&self.name(name))
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.all.read_rows(&self.name(name), row0, rows, into).await
    }
}

/// Logits after the prompt and after each token: of a whole model, and of a pipeline with a stage
/// for each layer.
fn whole_and_in_stages<M: Machine>(name: &str, open: impl Fn() -> M) -> Result<[Vec<f32>; 2]> {
    let layers = 3;
    let (config, weights) = tiny(name, layers);
    let whole = bits(&mut session(open(), &config, &weights))?;
    let handed = Rc::new(RefCell::new(Vec::new()));
    let one = config.with_layers(1);
    let mut stages: Vec<_> = (0..layers)
        .map(|layer| {
            let (first, last) = (layer == 0, layer + 1 == layers);
            let stage = Stage { first, last, handed: handed.clone() };
            let weights = OneLayer { all: weights.clone(), layer, layers };
            session(Segmented::new(open(), stage), &one, &weights)
        })
        .collect();
    let mut staged = Vec::new();
    let prompt = PROMPT.chunks(OPTIONS.prefill as usize).map(|ids| (ids, false));
    for (ids, decode) in prompt.chain(TOKENS.chunks(1).map(|ids| (ids, true))) {
        for (stage, layer) in stages.iter_mut().zip(1..) {
            // No logits are read before the end of the prompt.
            let wanted = decode || ids.len() < OPTIONS.prefill as usize;
            let read = if layer == layers && wanted { Readback::Logits } else { Readback::Nothing };
            let output = if decode {
                block_on(stage.decode(ids[0], read))?
            } else {
                block_on(stage.prefill(ids, read))?
            };
            staged.extend(output.candidates.iter().map(|c| c.logit));
        }
    }
    Ok([whole.into_iter().map(f32::from_bits).collect(), staged])
}

#[test]
fn stages_in_a_row_give_the_bits_of_the_whole() -> Result<()> {
    let [whole, staged] = whole_and_in_stages("tiny", || common::open(LimitProfile::Baseline))?;
    assert_eq!(staged.len(), whole.len());
    for (at, (a, b)) in whole.iter().zip(&staged).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "logit {at}: {a} whole, {b} in stages");
    }
    Ok(())
}

/// The host computes in f64, but stages exchange activations in f32.
#[test]
fn stages_on_the_host_differ_by_what_they_round() -> Result<()> {
    for name in MODELS {
        let [whole, staged] = whole_and_in_stages(name, Host::default)?;
        assert_eq!(staged.len(), whole.len());
        for (at, (a, b)) in whole.iter().zip(&staged).enumerate() {
            assert!((a - b).abs() < 1e-5, "{name}, logit {at}: {a} whole, {b} in stages");
        }
    }
    Ok(())
}

/// The segments that `runner` gets for a decode step, with their counts.
fn counted<R: Runner<Counting>>(runner: R) -> Result<Vec<Counted>> {
    let (config, weights) = tiny("tiny", 2);
    let mut machine = Segmented::new(Counting::new(DeviceLimits::BASELINE), runner);
    let model = Model::alloc(&mut machine, &config, &weights)?;
    let mut engine = Engine::with_model(machine, model, OPTIONS)?;
    Ok(engine.decode_plan(0, Readback::Top(1))?.segments().cloned().collect())
}

#[test]
fn segments_lie_between_the_marks_that_are_asked_for() -> Result<()> {
    let whole = counted(Whole)?;
    assert_eq!(whole.len(), 1);
    let cut = counted(Experts::new(1, 1))?;
    assert_eq!(cut.len(), 2 * 2 + 1, "a block for each of two layers, and what is around them");
    let dispatches: u64 = cut.iter().map(|segment| segment.dispatches).sum();
    assert_eq!(dispatches, whole[0].dispatches);
    for block in [&cut[1], &cut[3]] {
        assert!(block.kernels.iter().all(|(label, _)| label.contains("expert")), "{block:?}");
    }
    Ok(())
}

#[test]
fn only_the_first_stage_embeds_and_only_the_last_has_logits() -> Result<()> {
    let runs = |segments: &[Counted], kernel: &str| {
        segments.iter().flat_map(|s| &s.kernels).any(|(label, _)| label.starts_with(kernel))
    };
    for (first, last) in [(true, true), (true, false), (false, true), (false, false)] {
        let segments = counted(Stage { first, last, handed: Rc::default() })?;
        let found = ["embed", "topk", "attention"].map(|kernel| runs(&segments, kernel));
        assert_eq!(found, [first, last, true]);
    }
    Ok(())
}
