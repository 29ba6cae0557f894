//! Small models of which parts lie elsewhere, what they compute, and what is counted meanwhile.

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    engine::{SessionOptions, session::Session, step::Readback},
    machine::{Machine, gpu::Gpu},
    model::{Placement, config::Config, weights::Lasting},
};
use pollster::block_on;

pub(crate) const SIZES: SessionOptions = SessionOptions::new(128, 24, DType::F32);

/// A prompt of three chunks, the last of which is short, then single tokens.
pub(crate) const PROMPT: u32 = 51;
pub(crate) const TOKENS: [u32; 6] = [3, 77, 201, 3, 130, 9];

pub(crate) const LAYERS: u32 = 3;

/// Experts beside a dense MLP, and a model that is experts by nine tenths.
pub(crate) fn configs() -> [(&'static str, Config); 2] {
    let beside = Config::preset("tiny").expect("a preset").with_layers(LAYERS);
    let mut wide = Config::preset("tiny-grok-1").expect("a preset").with_layers(LAYERS);
    let experts = wide.experts.as_mut().expect("it has experts");
    experts.width = 256;
    [("beside a dense MLP", beside), ("nine tenths experts", wide)]
}

pub(crate) fn load<M: Machine>(
    machine: M,
    config: &Config,
    weights: &impl Lasting,
    placement: Placement,
) -> Session<M> {
    let mut progress = |_| Ok(());
    let load = Session::load_placed(machine, config, weights, SIZES, placement, &mut progress);
    block_on(load).expect("loads")
}

/// The bits of the logits after the prompt and after each token, and the experts that were chosen.
pub(crate) fn bits<M: Machine>(session: &mut Session<M>) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
    let prompt: Vec<u32> = (0..PROMPT).map(|i| i.wrapping_mul(7919) % 256).collect();
    session.rewind(0);
    session.report_routes(true);
    let mut outputs = vec![block_on(session.prefill(&prompt, Readback::Logits))?];
    for id in TOKENS {
        outputs.push(block_on(session.decode(id, Readback::Logits))?);
    }
    let logits = outputs.iter().flat_map(|output| &output.candidates);
    let routes = outputs.iter().flat_map(|output| output.routes.iter().flatten());
    Ok((
        logits.map(|candidate| candidate.logit.to_bits()).collect(),
        routes.map(|route| route.experts.clone()).collect(),
    ))
}

/// What is counted while `work` runs: submissions, read-backs and what was brought.
pub(crate) fn counted(
    session: &mut Session<Gpu>,
    work: impl FnOnce(&mut Session<Gpu>),
) -> ([u64; 2], [u64; 4]) {
    let of = |session: &Session<Gpu>| {
        let (counters, moved) = (session.machine().counters(), session.moved());
        (
            [counters.submissions, counters.read_backs],
            [moved.experts, moved.found, moved.matrices, moved.bytes],
        )
    };
    let before = of(session);
    work(session);
    let after = of(session);
    (
        std::array::from_fn(|i| after.0[i] - before.0[i]),
        std::array::from_fn(|i| after.1[i] - before.1[i]),
    )
}
