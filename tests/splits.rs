//! Decode attention in splits of several lengths: whole models on the adapter under test.

mod common;

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{SessionOptions, session::Session, step::Readback},
    machine::gpu::{Gpu, LimitProfile},
    model::config::Config,
};
use pollster::block_on;

const CONTEXT: u32 = 800;
const SIZES: SessionOptions = SessionOptions::new(CONTEXT, 256, DType::F32);
/// Tokens of the prompt: generated tokens are in the last positions of a split of 128, and in the
/// first of the next.
const PROMPT: u32 = 636;
/// Tokens that are generated.
const TOKENS: usize = 8;

fn session(sizes: SessionOptions) -> Session<Gpu> {
    let config = Config::preset("tiny").expect("a preset").with_layers(2);
    let weights = Synthetic::new(&config, DType::BF16, 7).expect("weights");
    let gpu = common::open(LimitProfile::Baseline);
    block_on(Session::load(gpu, &config, &weights, sizes, &mut |_| Ok(()))).expect("loads")
}

/// Logits after a prompt, and after each token that is generated greedily.
fn logits(session: &mut Session<Gpu>) -> Result<(Vec<u32>, Vec<Vec<f32>>)> {
    let vocab = session.config().vocab_size;
    let prompt: Vec<u32> = (0..PROMPT).map(|i| i.wrapping_mul(7919) % vocab).collect();
    let (last, before) = prompt.split_last().expect("a prompt");
    for part in before.chunks(SIZES.prefill as usize) {
        block_on(session.prefill(part, Readback::Nothing))?;
    }
    let mut reply = block_on(session.prefill(&[*last], Readback::Logits))?;
    let (mut ids, mut all) = (Vec::new(), Vec::new());
    while ids.len() < TOKENS {
        let logits = reply.candidates.iter().map(|candidate| candidate.logit).collect();
        let best = reply.candidates.iter().max_by(|a, b| a.logit.total_cmp(&b.logit));
        ids.push(best.expect("logits").id);
        all.push(logits);
        reply = block_on(session.decode(ids[ids.len() - 1], Readback::Logits))?;
    }
    Ok((ids, all))
}

#[test]
fn splits_of_any_length_give_the_same_tokens() -> Result<()> {
    assert_eq!(SIZES.split, SessionOptions::SPLIT);
    let (tokens, wanted) = logits(&mut session(SIZES))?;
    for split in [32, 64, 256] {
        let mut session = session(SIZES.with_split(split));
        assert_eq!(session.options().split, split);
        let (ids, found) = logits(&mut session)?;
        assert_eq!(ids, tokens, "splits of {split}");
        // The prompt has a split a segment whatever those of decode are.
        assert_eq!(found[0], wanted[0], "splits of {split}");
        for (a, b) in found.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((a - b).abs() <= 2e-5, "{a} with splits of {split}, {b} with those of 128");
        }
        // Nor does the context change a bit. One length shows it.
        if split == 32 {
            let longer = SessionOptions::new(2 * CONTEXT, SIZES.prefill, DType::F32);
            session.resize(longer.with_split(split))?;
            assert_eq!(logits(&mut session)?, (ids, found), "splits of {split}");
        }
    }
    Ok(())
}

#[test]
fn a_split_that_is_no_power_of_two_or_no_page_is_refused() -> Result<()> {
    let sizes = SessionOptions::new(64, 64, DType::F32);
    let mut session = session(sizes);
    for split in [0, 1, 16, 31, 48, 96, 2048, u32::MAX] {
        let error = session.resize(sizes.with_split(split)).expect_err("it is refused");
        assert_eq!(error.code(), "usage");
        let wanted = format!("has {split} positions, expected a power of two from 32 to 1024");
        assert!(error.to_string().contains(&wanted), "{error}");
    }
    for split in [32, 64, 128, 256, 512, 1024] {
        session.resize(sizes.with_split(split))?;
        assert_eq!(session.options().split, split);
    }
    Ok(())
}
