//! How many positions the shortest split of decode attention should have on a device: measured.
//!
//! Known as: choosing `num_splits` of flash decoding (split-K over KV positions).

use super::{lengths::Timed, stage_last};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::SessionOptions,
    machine::{
        Machine as _,
        gpu::{Gpu, RecordedPass},
        step,
    },
    model::{Brought, LayerCache, Phase, Reach, Scratch, alloc_cache, attend, config::Config},
};

/// The lengths that are compared, in positions.
pub const LENGTHS: [u32; 5] = [32, 64, 128, 256, 512];

/// Numbers of positions that a token attends to: a short, a middling and a long text.
const POSITIONS: [u32; 3] = [512, 2048, 4096];

/// Layers that attend one after another. Each has keys and values of its own, as in a model, so
/// that they are not all in the device's caches already.
const LAYERS: usize = 4;

/// The times of attention with one length of splits.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Positions of the shortest split.
    pub length: u32,
    /// For each number of positions that a token attends to: seconds of a layer's attention with
    /// the merge of its splits, the least of all rounds.
    pub times: Vec<(u32, f64)>,
}

impl Split {
    /// The sum of the times. It is what a text pays, at the beginning, in the middle and at the
    /// end: a tenth less of a long attention is worth more than a tenth less of a short one, since
    /// the rest of a token takes the same time.
    pub fn timed(&self) -> Timed {
        Timed { length: self.length, seconds: self.times.iter().map(|(_, seconds)| seconds).sum() }
    }
}

/// What models have in common for which one length is measured: their heads, and the type of the
/// cache.
pub fn class(c: &Config, cache: DType) -> String {
    let (heads, kv_heads) = (c.num_attention_heads, c.num_key_value_heads);
    format!("{heads} on {kv_heads} heads of {}, {cache}", c.head_dim)
}

/// Measures attention of a generated token with each of [`LENGTHS`], at 512, 2048 and 4096
/// positions, as far as the model's context and the device's memory allow: `rounds` times each,
/// after a round that does not count. All are measured by turns, so that what disturbs a device for
/// a while disturbs all. Work is divided as the device's tuning says. Of lengths that cut all those
/// positions alike there is one; nothing is measured where there is no choice. The device's tensors
/// are those from before. `progress` is called after each length in each round; an error from it
/// stops the work.
///
/// # Errors
///
/// [`Error::Usage`] if the device has no timestamps; errors of the device and of `progress`.
pub async fn measure(
    gpu: &mut Gpu,
    c: &Config,
    cache: DType,
    rounds: u32,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Split>> {
    let keep = gpu.tensor_count();
    let measured = measured_at(gpu, c, cache, rounds, progress).await;
    gpu.truncate(keep);
    measured
}

async fn measured_at(
    gpu: &mut Gpu,
    c: &Config,
    cache: DType,
    rounds: u32,
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Split>> {
    let one = c.clone().with_layers(1);
    let mut all = positions(c.max_position_embeddings);
    let caches = caches(gpu, &one, cache, &mut all).await?;
    let lengths = choice(&all);
    if lengths.len() < 2 {
        return Ok(Vec::new());
    }
    let mut splits = Vec::new();
    let mut plans = Vec::new();
    for length in lengths {
        splits.push(Split { length, times: all.iter().map(|&at| (at, f64::INFINITY)).collect() });
        let s =
            Scratch::alloc(gpu, (&one, Brought::default()), Phase::Decode, 1, &caches[0], length)?;
        let plan = |&positions: &u32| {
            let reach = Reach::of_one(positions);
            gpu.record(&mut |exec| {
                caches.iter().try_for_each(|kv| attend(exec, &one, &s, kv, reach))
            })
        };
        let of_length = all.iter().map(plan).collect::<Result<Vec<RecordedPass>>>()?;
        plans.push((s, of_length));
    }
    gpu.flush().await?;
    for round in 0..=rounds {
        for (split, (s, of_length)) in splits.iter_mut().zip(&plans) {
            for ((positions, least), plan) in split.times.iter_mut().zip(of_length) {
                stage_last(gpu, &one, s, &[0], *positions)?;
                let time = gpu.time_whole(plan, false).await?.device_seconds / LAYERS as f64;
                if round > 0 {
                    *least = least.min(time);
                }
            }
            progress()?;
        }
    }
    Ok(splits)
}

/// Keys and values of each layer for the longest of `all` for which the device has memory. Longer
/// ones are taken from the list.
async fn caches(
    gpu: &mut Gpu,
    one: &Config,
    cache: DType,
    all: &mut Vec<u32>,
) -> Result<Vec<LayerCache>> {
    let keep = gpu.tensor_count();
    loop {
        let longest = all.last().copied().unwrap_or(1);
        let made = async {
            let layers = (0..LAYERS).map(|_| alloc_cache(gpu, one, longest, cache));
            let layers = layers.collect::<Result<Vec<_>>>()?;
            // Browsers report errors of allocations only here.
            gpu.flush().await?;
            Ok(layers)
        };
        match made.await {
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) if all.len() > 1 => {
                gpu.truncate(keep);
                all.pop();
            }
            made => return made,
        }
    }
}

/// Numbers of positions to measure at, for a model that has at most so many.
fn positions(most: u32) -> Vec<u32> {
    let all: Vec<u32> = POSITIONS.into_iter().filter(|&positions| positions <= most).collect();
    if all.is_empty() { vec![most] } else { all }
}

/// The lengths to compare, rising. Of those that cut all of the positions alike there is one: the
/// default, or else the shortest.
fn choice(all: &[u32]) -> Vec<u32> {
    let cuts = |length| all.iter().map(|positions| step::splits(positions - 1, length)).collect();
    let (mut known, mut lengths) = (Vec::<Vec<u32>>::new(), Vec::new());
    for length in std::iter::once(SessionOptions::SPLIT).chain(LENGTHS) {
        let cut = cuts(length);
        if !known.contains(&cut) {
            known.push(cut);
            lengths.push(length);
        }
    }
    lengths.sort_unstable();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{measure::lengths::best, variants::is_split};

    #[test]
    fn lengths_that_cut_alike_are_measured_once() {
        assert!(LENGTHS.into_iter().all(is_split) && LENGTHS.contains(&SessionOptions::SPLIT));
        let of = |most| choice(&positions(most));
        assert_eq!(of(1 << 17), LENGTHS);
        assert_eq!(of(4095), LENGTHS);
        assert_eq!((positions(4095), positions(300)), (vec![512, 2048], vec![300]));
        // From 128 positions on there is one split.
        assert_eq!(of(128), [32, 64, 128]);
        assert_eq!(of(64), [32, 128]);
        assert_eq!(of(32), [128]);
        assert_eq!(of(1), [128]);
    }

    #[test]
    fn the_times_of_all_positions_decide() {
        let split = |length, times: [f64; 2]| {
            Split { length, times: [512, 2048].into_iter().zip(times).collect() }.timed()
        };
        // Twice as fast where it takes little, and slower where it takes long.
        let timed = [split(32, [1.0, 11.0]), split(128, [2.0, 8.0])];
        assert_eq!(best(&timed, SessionOptions::SPLIT), Some(128));
        assert_eq!(best(&timed[..1], SessionOptions::SPLIT), Some(32));
    }

    #[test]
    fn heads_and_the_cache_are_a_class() {
        let grok = Config::preset("grok-2").expect("a preset");
        assert_eq!(class(&grok, DType::F32), "64 on 8 heads of 128, F32");
        assert_eq!(class(&grok, DType::F32), class(&grok.clone().with_layers(2), DType::F32));
        assert_ne!(class(&grok, DType::F32), class(&grok, DType::Q8));
    }
}
