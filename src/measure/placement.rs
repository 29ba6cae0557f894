//! Which weights of a model a device should hold, if it cannot hold all.

use super::capacity::{MemoryPlan, Planner};
use crate::{
    base::error::{Error, Result},
    engine::SessionOptions,
    machine::counting::DeviceLimits,
    model::{Matrix, Model, Placement, Slots, config::Config, weights::Weights},
};

/// A placement, with the memory that it takes and the bytes that move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What is on the device.
    pub placement: Placement,
    /// The memory of the device that it takes.
    pub plan: MemoryPlan,
    /// Bytes that are where.
    pub bytes: Bytes,
}

/// Bytes of weights, by where they are. Of an embedding table that is fetched only the row counts
/// that a token needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// On the device.
    pub device: u64,
    /// In the model's files, from which they are read whenever they are needed.
    pub files: u64,
    /// Of those on the device, what a generated token needs.
    pub token_device: u64,
    /// Of those in files, what a generated token needs, if none of its experts is there already.
    pub token_files: u64,
}

impl Bytes {
    fn of(model: &Model) -> Self {
        let (mut files, mut token_files) = (0, 0);
        for (i, layer) in model.layers.iter().enumerate() {
            let whole: u64 = model.brought_whole(i).iter().map(|matrix| matrix.bytes()).sum();
            files += whole;
            token_files += whole;
            let brought = layer.feed_forward.routed().filter(|routed| routed.slots.is_some());
            if let Some(routed) = brought {
                let experts: u64 = routed.experts.matrices().map(Matrix::bytes).iter().sum();
                files += experts;
                let of_one = experts / u64::from(routed.rule.count.max(1));
                token_files += of_one * u64::from(routed.rule.chosen);
            }
        }
        let token = model.needed_bytes(1);
        Self {
            device: model.all_bytes() - files,
            files,
            token_device: token.saturating_sub(token_files),
            token_files,
        }
    }

    /// Whether something has to be read from files while the model runs.
    pub fn moves(&self) -> bool {
        self.files > 0
    }
}

/// Lays a model out under device limits, so that it takes at most `memory` bytes: what a token uses
/// most comes first. Each matrix of attention and of the dense MLPs is used once for a token, an
/// expert only now and then: so first attention, then dense MLPs, then experts, each by layers.
///
/// # Errors
///
/// [`Error::Limit`] with the least memory that would do, if this is less; those of
/// [`Planner::new`] and [`Planner::plan`].
pub fn choose(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    memory: u64,
) -> Result<Placed> {
    let of = |placement| placed(config, weights, limits, sizes, placement);
    let fits = |placement| Ok::<_, Error>(of(placement)?.plan.total() <= memory);
    let whole = of(Placement::WHOLE)?;
    if whole.plan.total() <= memory {
        return Ok(whole);
    }
    let mut placement = least(config);
    let needed = of(placement)?.plan.total();
    if needed > memory {
        return Err(Error::Limit {
            what: "the least device memory for this model, in bytes".into(),
            got: needed,
            limit: memory,
        });
    }
    let layers = config.num_hidden_layers();
    let with = |set: fn(&mut Placement, u32), mut placement: Placement, count: u32| {
        set(&mut placement, count);
        placement
    };
    let parts: [fn(&mut Placement, u32); 3] = [
        |placement, count| placement.attention = count,
        |placement, count| placement.dense = count,
        |placement, count| placement.experts = count,
    ];
    for set in parts {
        // The most layers that fit. Less of a part leaves no room for more of the next.
        let (mut low, mut high) = (0, layers);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(with(set, placement, middle))? {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        set(&mut placement, low);
        if low < layers {
            break;
        }
    }
    // What is left makes room for more experts at a time, so that prompts take fewer rounds.
    for slots in (config.num_experts_per_tok()..=config.num_local_experts()).rev() {
        let more = Placement { slots: Slots::Shared(slots), ..placement };
        let placed = of(more)?;
        if placed.plan.total() <= memory {
            return Ok(placed);
        }
    }
    of(placement)
}

/// As little on a device as can be, with room for the experts of a token.
pub fn least(config: &Config) -> Placement {
    Placement::least(Slots::Shared(config.num_experts_per_tok()))
}

/// What a placement takes, and what moves.
///
/// # Errors
///
/// Those of [`Planner::placed`] and [`Planner::plan`].
pub fn placed(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    placement: Placement,
) -> Result<Placed> {
    let planner = Planner::placed(config, weights, limits, placement)?;
    let plan = planner.plan(sizes)?;
    Ok(Placed { placement, plan, bytes: Bytes::of(planner.model()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::tensor::DType, checkpoint::Synthetic};

    const SIZES: SessionOptions = SessionOptions::new(128, 32, DType::F32);

    fn chosen(name: &str, memory: u64) -> Result<Placed> {
        let config = Config::preset(name).expect("a preset");
        let weights = Synthetic::new(&config, DType::Q8, 0).expect("weights");
        choose(&config, &weights, DeviceLimits::BASELINE, SIZES, memory)
    }

    #[test]
    fn more_memory_holds_more_of_a_model() {
        for name in ["tiny", "tiny-grok-1"] {
            let whole = chosen(name, u64::MAX).expect("fits");
            assert_eq!(whole.placement, Placement::WHOLE);
            assert!(!whole.bytes.moves() && whole.bytes.token_files == 0);
            let all = whole.plan.total();
            let error = chosen(name, 1).expect_err("nothing fits");
            let Error::Limit { got: least, limit: 1, .. } = error else { panic!("{error}") };
            assert!(least < all);
            assert!(chosen(name, least - 1).is_err());
            let mut before = chosen(name, least).expect("the least fits");
            assert_eq!(before.plan.total(), least);
            let sum = |bytes: Bytes| bytes.device + bytes.files;
            let mut seen = 0;
            for step in 1..=200 {
                let memory = least + (all - least) * step / 200;
                let now = chosen(name, memory).expect("fits");
                assert!(now.plan.total() <= memory, "{name} {step}");
                assert_eq!(sum(now.bytes), sum(whole.bytes));
                assert!(now.bytes.token_files <= before.bytes.token_files, "{name} {step}");
                let token = now.bytes.token_device + now.bytes.token_files;
                assert_eq!(token, whole.bytes.token_device, "{name} {step}");
                seen += u32::from(now.placement != before.placement);
                before = now;
            }
            assert!(seen > 3, "{name}: only {seen} placements");
            assert_eq!(before.placement, Placement::WHOLE);
            assert!(chosen(name, all - 1).expect("fits").bytes.moves());
        }
    }

    #[test]
    fn attention_comes_first_and_experts_last() {
        let all = chosen("tiny", u64::MAX).expect("fits").plan.total();
        let mut states = Vec::new();
        for step in 1..=400 {
            let Ok(placed) = chosen("tiny", all * step / 400) else { continue };
            let Placement { attention, dense, experts, .. } = placed.placement;
            states.push([attention.min(2), dense.min(2), experts.min(2)]);
        }
        states.dedup();
        let mut sorted = states.clone();
        sorted.sort_unstable();
        assert_eq!(states, sorted);
        for [attention, dense, experts] in states {
            assert!(dense == 0 || attention == 2, "{attention} {dense}");
            assert!(experts == 0 || dense == 2, "{dense} {experts}");
        }
    }

    /// The least for Grok-2, and what a 24 GB card holds of it.
    #[test]
    fn the_released_model_runs_on_small_devices() {
        let config = Config::preset("grok-2").expect("a preset");
        let weights = Synthetic::new(&config, DType::Q4, 0).expect("weights");
        let sizes = SessionOptions::new(8192, 256, DType::Q8);
        let of = |memory| choose(&config, &weights, DeviceLimits::BASELINE, sizes, memory);
        let Err(Error::Limit { got: least, .. }) = of(1 << 30) else { panic!("it cannot fit") };
        assert!(least < 3_200_000_000, "{least}");
        let card = of(24_000_000_000).expect("fits");
        assert_eq!(card.placement.attention, 64);
        assert!((30..50).contains(&card.placement.dense), "{:?}", card.placement);
        assert_eq!(card.placement.experts, 0);
        assert!(card.bytes.token_files > 38_000_000_000, "{:?}", card.bytes);
    }
}
