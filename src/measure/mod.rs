//! What a model needs of a device, and which variants, chunks and splits are fastest on one.

pub mod attention;
pub mod autotune;
pub mod bandwidth;
pub mod capacity;
pub mod chunks;
pub mod device;
pub mod fit;
pub mod kernels;
pub mod lengths;
pub mod perplexity;
pub mod splits;
pub mod work;

use crate::{
    base::error::Result,
    engine::step::{Row, stage},
    machine::{gpu::Gpu, step::PAGE},
    model::{Scratch, config::Config, rope},
};

/// Writes the inputs of a pass over the last of a text's `positions`, whose tokens are `ids`. The
/// text is on the first pages of the caches.
fn stage_last(gpu: &mut Gpu, c: &Config, s: &Scratch, ids: &[u32], positions: u32) -> Result<()> {
    let rows: Vec<Row> = ids
        .iter()
        .zip((0..positions).skip(positions as usize - ids.len()))
        .map(|(&id, position)| Row { id, position })
        .collect();
    let pages: Vec<u32> = (0..positions.div_ceil(PAGE)).collect();
    stage(gpu, c, &rope::Angles::of(c), s, &rows, &pages)
}
