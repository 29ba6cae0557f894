//! Contexts of 131,072 positions: one layer of a small Grok-2, against logits and error bounds of
//! an independent program in f64 (`data/make_long.py`), at positions from 1 to 131,071.
//!
//! The cache is in eight shards, and prompts go in by chunks. Late positions, from 65,537 on
//! with `GROK_WGPU_FULL=true`, are reached by passes that leave out attention before the last
//! chunk: in a model of one layer no key and no value depends on it. Up to 8193 passes are whole in
//! two tests, and with `GROK_WGPU_FULL=true` in all.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/full.rs"]
mod full;
mod without;

use std::path::Path;

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{
        SessionOptions,
        session::Session,
        step::{Readback, Stepper as _},
    },
    kernels::CACHES,
    machine::{
        gpu::{Gpu, LimitProfile},
        step::PAGE,
    },
    model::config::{Config, RopeType},
    selftest::compare_logits,
};
use pollster::block_on;
use safetensors::SafeTensors;
use without::Without;

const CONTEXT: u32 = 131_072;
/// Positions of a shard of the cache, as in `data/make_long.py`, whose bounds depend on it.
const SEGMENT: u64 = 16_384;
/// Tokens of the last chunk of a prompt: a tile that is whole and one that is not, and more.
const LAST: usize = 77;
/// Positions that are looked at in every run. The last is where passes begin to be cut short.
const NEAR: usize = 8193;

/// Logits of a position with their bounds.
struct Row {
    position: usize,
    logits: Vec<f64>,
    bounds: Vec<f64>,
}

/// A model, and what `data/make_long.py` found.
struct Golden {
    config: Config,
    file: Vec<u8>,
}

impl Golden {
    fn read(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/long");
        let json = folder.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&json).expect("the config is there");
        let (config, _) = Config::from_json(&json, &text).expect("the config is good");
        assert_eq!(config.max_position_embeddings, CONTEXT);
        let file = std::fs::read(folder.join(format!("{name}.safetensors")));
        Self { config, file: file.expect("the golden file is there") }
    }

    /// The rows for a type of cache, by rising position: all of them, or those to [`NEAR`].
    fn rows(&self, cache: DType) -> Vec<Row> {
        let file = SafeTensors::deserialize(&self.file).expect("the golden file is good");
        let vocab = self.config.vocab_size as usize;
        let floats = |what: &str| -> Vec<Vec<f64>> {
            let name = format!("{}.{what}", cache.name().to_lowercase());
            let tensor = file.tensor(&name).expect("the tensor is there");
            let (values, rest) = tensor.data().as_chunks::<8>();
            assert!(rest.is_empty());
            let values: Vec<f64> = values.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
            values.chunks(vocab).map(<[f64]>::to_vec).collect()
        };
        let positions = file.tensor("positions").expect("the tensor is there");
        let positions = positions.data().as_chunks::<4>().0.iter();
        let positions: Vec<usize> = positions.map(|&b| u32::from_le_bytes(b) as usize).collect();
        assert_eq!(positions, [1, 1025, NEAR, 65_537, 131_071]);
        let rows = positions.into_iter().zip(floats("logits")).zip(floats("bounds"));
        let rows = rows.map(|((position, logits), bounds)| Row { position, logits, bounds });
        rows.filter(|row| full::is_full() || row.position <= NEAR).collect()
    }

    fn session(&self, cache: DType) -> Session<Without> {
        load(&self.config, cache, common::open(LimitProfile::Baseline))
    }
}

fn load(config: &Config, cache: DType, mut gpu: Gpu) -> Session<Without> {
    let width = u64::from(config.num_key_value_heads * config.head_dim);
    gpu.limit_bindings(SEGMENT * cache.row_bytes(width));
    let weights = Synthetic::new(config, DType::F32, 0).expect("weights");
    let sizes = SessionOptions::new(CONTEXT, SessionOptions::PREFILL, cache);
    let mut progress = |_| Ok(());
    let load = Session::load(Without::nothing(gpu), config, &weights, sizes, &mut progress);
    block_on(load).expect("loads")
}

/// The ids of all positions, as in `data/make_long.py`.
fn ids() -> Vec<u32> {
    let id = |position: u32| {
        let mut x = position + 6_000_018;
        x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
        x = (x ^ (x >> 12)).wrapping_mul(0x297a_2d39);
        x >> 26
    };
    (0..CONTEXT).map(id).collect()
}

/// Logits of a position, of its token as the last of a prompt and as a generated one.
type Both = [Vec<f32>; 2];

/// Brings the session's text, which is a prompt, to the position, and returns its logits. With
/// `short` the passes before the last chunk have no attention.
fn logits_at(session: &mut Session<Without>, position: usize, short: bool) -> Result<Both> {
    let ids = ids();
    let last = (position + 1).saturating_sub(LAST).max(session.tokens().len());
    if short {
        session.engine().change_machine(|machine| machine.skips = true);
    }
    let before = &ids[session.tokens().len()..last];
    if !before.is_empty() {
        block_on(session.prefill(before, Readback::Nothing))?;
    }
    if short {
        session.engine().change_machine(|machine| machine.skips = false);
    }
    let mut both = [vec![], vec![]];
    let prompt = block_on(session.prefill(&ids[last..=position], Readback::Logits))?;
    session.rewind(position);
    let generated = block_on(session.decode(ids[position], Readback::Logits))?;
    // A prompt goes on after a prompt.
    session.rewind(position);
    for (logits, output) in both.iter_mut().zip([prompt, generated]) {
        logits.extend(output.candidates.iter().map(|candidate| candidate.logit));
    }
    Ok(both)
}

/// The largest error, in bounds. It is infinite if a number is not finite.
fn off(got: &[f32], row: &Row) -> f64 {
    assert_eq!(got.len(), row.logits.len());
    let errors = got.iter().zip(&row.logits).zip(&row.bounds);
    let error = |((&got, want), bound): ((&f32, &f64), &f64)| {
        let off = (f64::from(got) - want).abs() / bound;
        if off.is_finite() { off } else { f64::INFINITY }
    };
    errors.map(error).fold(0.0, f64::max)
}

/// All positions of a model with one type of cache. Beyond 1025, passes are whole up to [`NEAR`] if
/// `whole`.
fn every_position(name: &'static str, cache: DType, whole: bool) -> Result<()> {
    let golden = Golden::read(name);
    let mut session = golden.session(cache);
    for row in golden.rows(cache) {
        let short = row.position > if whole || full::is_full() { NEAR } else { 1025 };
        let both = logits_at(&mut session, row.position, short)?;
        for (what, got) in ["prompt", "generated token"].into_iter().zip(&both) {
            let off = off(got, &row);
            let at = format!("{name}, {cache} cache, {what} at position {}", row.position);
            eprintln!("{at}: {off:.4} of the bound");
            assert!(off <= 1.0, "{at}: {off} bounds away from the f64 program");
            // Rounded keys may go to another neighbour than in f64, and then more than arithmetic
            // differs.
            if cache == DType::F32 {
                compare_logits(got, &row.logits).unwrap_or_else(|what| panic!("{at}: {what}"));
            }
        }
    }
    Ok(())
}

#[test]
fn the_released_rule_with_f32() -> Result<()> {
    every_position("released", DType::F32, false)
}

#[test]
fn the_released_rule_with_f16() -> Result<()> {
    every_position("released", DType::F16, false)
}

#[test]
fn the_released_rule_with_q8() -> Result<()> {
    every_position("released", DType::Q8, true)
}

#[test]
fn interpolated_positions_with_f32() -> Result<()> {
    every_position("interpolated", DType::F32, true)
}

#[test]
fn interpolated_positions_with_f16() -> Result<()> {
    every_position("interpolated", DType::F16, false)
}

#[test]
fn interpolated_positions_with_q8() -> Result<()> {
    every_position("interpolated", DType::Q8, false)
}

#[test]
fn yarn_with_q8() -> Result<()> {
    every_position("yarn", DType::Q8, false)
}

/// A rule that is not the model's is seen wherever it differs.
#[test]
fn another_rule_is_seen() -> Result<()> {
    let cache = DType::Q8;
    let mut gpu = Some(common::open(LimitProfile::Baseline));
    for (name, other, temperature_len) in [
        ("released", RopeType::Linear, 1024),
        ("released", RopeType::Original, 0),
        ("released", RopeType::Original, 2048),
        ("interpolated", RopeType::Original, 1024),
        ("interpolated", RopeType::Yarn, 1024),
        ("yarn", RopeType::Original, 1024),
    ] {
        let golden = Golden::read(name);
        let mut config = golden.config.clone();
        (config.ropes[0].rope_type, config.attention.temperature_len) = (other, temperature_len);
        assert_ne!(config, golden.config, "it is another rule");
        let mut session = load(&config, cache, gpu.take().expect("a device"));
        for row in golden.rows(cache).iter().filter(|row| row.position >= NEAR) {
            for got in &logits_at(&mut session, row.position, true)? {
                let off = off(got, row);
                let at = format!(
                    "{name} as {other:?} with temperature from {temperature_len}, position {}",
                    row.position
                );
                eprintln!("{at}: {off:.1} bounds away");
                assert!(off > 1.0, "{at}: only {off} bounds away, so nobody would see it");
            }
        }
        let mut machine = session.into_machine();
        machine.clear();
        gpu = Some(machine.gpu);
    }
    Ok(())
}

/// With pages in reverse order, and so shards, results have the same bits, and passes without
/// attention leave the same cache as whole ones.
#[test]
fn pages_in_reverse_give_the_same_bits() -> Result<()> {
    let golden = Golden::read("interpolated");
    let (caches, far) =
        if full::is_full() { (&CACHES[..], 131_071) } else { (&[DType::Q8][..], NEAR) };
    let bits = |both: Both| both.map(|row| row.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    for &cache in caches {
        let mut session = golden.session(cache);
        let early = bits(logits_at(&mut session, 1025, false)?);
        let late = bits(logits_at(&mut session, far, true)?);
        session.rewind(0);
        session.sequence().release();
        let pages: Vec<u32> = (0..CONTEXT / PAGE).rev().collect();
        session.engine().lay(&pages)?;
        assert!(early == bits(logits_at(&mut session, 1025, false)?), "{cache}, whole passes");
        assert!(late == bits(logits_at(&mut session, far, true)?), "{cache}, position {far}");
        session.rewind(0);
        assert!(early == bits(logits_at(&mut session, 1025, true)?), "{cache}, cut passes");
        let error = session.engine().lay(&pages).expect_err("a text is in the cache");
        assert_eq!(error.code(), "usage");
        session.rewind(0);
        session.sequence().release();
        for wrong in [&pages[1..], &[&pages[1..], &pages[..1]].concat()] {
            let error = session.engine().lay(wrong).expect_err("no such order");
            assert_eq!(error.code(), "usage");
        }
    }
    Ok(())
}
