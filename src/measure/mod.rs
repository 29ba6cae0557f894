//! What a model needs of a device, and which variants, chunks and splits are fastest on one.

pub mod attention;
pub mod autotune;
pub mod bandwidth;
pub mod calibrate;
pub mod capacity;
pub mod chunks;
pub mod computing;
pub mod device;
pub mod fit;
pub mod kernels;
pub mod lengths;
pub mod perplexity;
pub mod placement;
pub mod rates;
pub mod splits;
pub mod traffic;
pub mod transfers;
pub mod work;

use crate::{
    base::error::Result,
    engine::step::{Staged, Text, stage},
    machine::{
        gpu::Gpu,
        host::{Fill, Host},
        step::PAGE,
    },
    model::{Scratch, config::Config, rope},
};

/// Writes the inputs of a pass over the last of a text's `positions`, whose tokens are `ids`. The
/// text is on the first pages of the caches. Where the embedding table is not on the device, their
/// rows of it are random, so that experts are chosen as differently as they can be.
fn stage_last(gpu: &mut Gpu, c: &Config, s: &Scratch, ids: &[u32], positions: u32) -> Result<()> {
    let tokens = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let pages: Vec<u32> = (0..positions.div_ceil(PAGE)).collect();
    let mut host = Host::with_seed(1);
    let embedded = s.embedded.map(|tensor| {
        let made = host.filled(tensor.dtype, [tokens, c.hidden_size], Fill::Normal);
        host.bytes(made)
    });
    let embedded = embedded.as_deref().unwrap_or_default();
    let text = Text { ids, position: positions - tokens, pages: &pages, wanted: true };
    stage(gpu, c, &rope::Angles::of(c), s, Staged { texts: &[text], embedded })
}
