//! What to do where a model does not fit in the memory that it may take.

use grok_wgpu::lab::{
    base::tensor::DType,
    engine::SessionOptions,
    machine::counting::DeviceLimits,
    measure::{
        capacity::{Planner, cache_position_bytes, most},
        placement,
    },
    model::{config::Config, weights::Weights},
};

use super::units::short_size;

/// What to do if even the least placement, of `needed` bytes, is more than `memory`: the least
/// memory, what keys and values take of it, and the longest contexts that would fit.
pub(crate) fn too_little(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    (needed, memory): (u64, u64),
) -> String {
    let (context, cache) = (sizes.context, sizes.cache);
    let position = cache_position_bytes(config, cache);
    let longest = |cache| longest(config, weights, limits, (sizes, cache), memory);
    let of_q8 = if cache == DType::Q8 { None } else { longest(DType::Q8) };
    let would = match (longest(cache), of_q8) {
        (None, None) => "No context would fit in this memory.".to_owned(),
        (Some(most), None) => format!("At most --context {most} would fit in this memory."),
        (None, Some(q8)) => format!("At most --context {q8} would fit, with --cache q8."),
        (Some(most), Some(q8)) => {
            format!("At most --context {most} would fit in this memory, {q8} with --cache q8.")
        }
    };
    format!(
        "The least is --device-memory {needed}B ({}). Keys and values take {} a position as \
         {cache}, {} for --context {context}. {would} A smaller --prefill or a copy from \
         `quantize --type q4` needs less.",
        short_size(needed),
        short_size(position),
        short_size(u64::from(context) * position)
    )
}

/// The longest context of the least placement in `memory` with such a cache, if there is one.
/// Chunks of a prompt are no longer than it, as they are where nobody asks for a length.
fn longest(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    (sizes, cache): (SessionOptions, DType),
    memory: u64,
) -> Option<u32> {
    let least = Planner::placed(config, weights, limits, placement::least(config)).ok()?;
    let of =
        |context, prefill| SessionOptions::new(context, prefill, cache).with_split(sizes.split);
    let longest = least.longest_context(memory, of(1, sizes.prefill)).ok()?;
    if longest >= sizes.prefill {
        return Some(longest);
    }
    let fits = |context| least.plan(of(context, context)).is_ok_and(|plan| plan.total() <= memory);
    let most = most(sizes.prefill.saturating_sub(1), |context| Ok(fits(context))).ok()?;
    (most > 0).then_some(most)
}
