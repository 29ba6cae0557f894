//! Which weights of a model a device should hold, if it cannot hold all.

use super::{
    capacity::{MemoryPlan, Planner, most},
    traffic::Traffic,
};
use crate::{
    base::error::{Error, Result},
    engine::SessionOptions,
    machine::counting::DeviceLimits,
    model::{Matrix, Mlp, Model, Placement, Routed, Slots, config::Config, weights::Weights},
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
    /// What a generated token reads from where.
    pub token: Traffic,
    /// The same if the CPU computes the experts and dense MLPs that would be brought.
    pub on_cpu: Traffic,
    /// What the longest chunk of a prompt reads from where.
    pub prompt: Traffic,
}

/// Memory that a model may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of the device's memory; [`u64::MAX`] where nobody knows how much there is.
    pub device: u64,
    /// Bytes of pinned memory of the host, which the device reads. Machines that pin nothing have
    /// none ([`Machine::pins`](crate::machine::Machine::pins)).
    pub host: u64,
}

impl Budget {
    /// So much memory of the device, and none of the host's.
    pub const fn of_device(device: u64) -> Self {
        Self { device, host: 0 }
    }
}

/// Bytes of weights, by where they are. Of an embedding table that is fetched only the row counts
/// that a token needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// On the device.
    pub device: u64,
    /// In pinned memory of the host, where the device reads them.
    pub host: u64,
    /// In the model's files, from which they are read whenever they are needed.
    pub files: u64,
    /// Of those on the device, what a generated token needs.
    pub token_device: u64,
    /// Of those in pinned memory, what a generated token needs.
    pub token_host: u64,
    /// Of those in files, what a generated token needs, if none of its experts is there already.
    pub token_files: u64,
}

impl Bytes {
    fn of(model: &Model) -> Self {
        let mut of = Self::default();
        let mut add = |matrix: &Matrix, used: fn(u64, &Routed) -> u64, routed: Option<&Routed>| {
            let all = matrix.bytes();
            let token = routed.map_or(all, |routed| used(all, routed));
            if matrix.is_pinned() {
                of.host += all;
                of.token_host += token;
            } else if matrix.is_brought() {
                of.files += all;
                of.token_files += token;
            }
        };
        let chosen = |all: u64, routed: &Routed| {
            all / u64::from(routed.rule.count.max(1)) * u64::from(routed.rule.chosen)
        };
        for layer in &model.layers {
            let dense = layer.feed_forward.dense().into_iter().flat_map(Mlp::matrices);
            for matrix in [&layer.qkv_proj, &layer.o_proj].into_iter().chain(dense) {
                add(matrix, chosen, None);
            }
            let routed = layer.feed_forward.routed();
            for matrix in routed.into_iter().flat_map(|routed| routed.experts.matrices()) {
                add(matrix, chosen, routed);
            }
        }
        let token = model.needed_bytes(1);
        of.device = model.all_bytes() - of.host - of.files;
        of.token_device = token.saturating_sub(of.token_host + of.token_files);
        of
    }

    /// Whether something has to be read from files while the model runs.
    pub fn moves(&self) -> bool {
        self.files > 0
    }

    /// Whether all is on the device.
    pub fn is_whole(&self) -> bool {
        self.files == 0 && self.host == 0
    }
}

/// Sets a count of a placement.
type Set = fn(&mut Placement, u32);

/// Lays a model out under device limits, so that it takes no more than `budget`: what a token uses
/// most comes first, to the device and then to pinned memory. Each matrix of attention and of the
/// dense MLPs is used once for a token, an expert only now and then: so first attention, then dense
/// MLPs, then experts, each by layers.
///
/// # Errors
///
/// [`Error::Limit`] with the least memory of the device that would do, if this is less; those of
/// [`Planner::new`] and [`Planner::plan`].
pub fn choose(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    budget: Budget,
) -> Result<Placed> {
    let memory = budget.device;
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
    let with = |set: Set, mut placement: Placement, count: u32| {
        set(&mut placement, count);
        placement
    };
    let parts: [Set; 3] = [
        |placement, count| placement.attention = count,
        |placement, count| placement.dense = count,
        |placement, count| placement.experts = count,
    ];
    for set in parts {
        // Less of a part leaves no room for more of the next.
        let count = most(layers, |count| fits(with(set, placement, count)))?;
        set(&mut placement, count);
        if count < layers {
            break;
        }
    }
    // What is left makes room for more experts at a time, so that prompts take fewer rounds.
    for slots in (config.num_experts_per_tok()..=config.num_local_experts()).rev() {
        let more = Placement { slots: Slots::Shared(slots), ..placement };
        if fits(more)? {
            placement = more;
            break;
        }
    }
    let parts: [(u32, Set); 3] = [
        (placement.attention, |placement, count| placement.pinned.attention = count),
        (placement.dense, |placement, count| placement.pinned.dense = count),
        (placement.experts, |placement, count| placement.pinned.experts = count),
    ];
    for (before, set) in parts {
        let rest = layers.saturating_sub(before);
        let count = most(rest, |count| {
            let placement = with(set, placement, count);
            let planner = Planner::placed(config, weights, limits, placement)?;
            Ok(planner.model().pinned_bytes() <= budget.host)
        })?;
        set(&mut placement, count);
        if count < rest {
            break;
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
    let (model, dispatches) = (planner.model(), plan.decode.dispatches);
    Ok(Placed {
        placement,
        bytes: Bytes::of(model),
        token: Traffic::of_token(model, dispatches, false),
        on_cpu: Traffic::of_token(model, dispatches, true),
        prompt: Traffic::of_prompt(model, dispatches, sizes.prefill),
        plan,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::tensor::DType, checkpoint::Synthetic};

    const SIZES: SessionOptions = SessionOptions::new(128, 32, DType::F32);

    fn within(name: &str, budget: Budget) -> Result<Placed> {
        let config = Config::preset(name).expect("a preset");
        let weights = Synthetic::new(&config, DType::Q8, 0).expect("weights");
        choose(&config, &weights, DeviceLimits::BASELINE, SIZES, budget)
    }

    fn chosen(name: &str, memory: u64) -> Result<Placed> {
        within(name, Budget::of_device(memory))
    }

    #[test]
    fn what_the_device_does_not_hold_is_pinned_as_far_as_it_may_be() {
        for name in ["tiny", "tiny-grok-1"] {
            let Err(Error::Limit { got: device, .. }) = chosen(name, 1) else { panic!("{name}") };
            let none = chosen(name, device).expect("fits");
            let mut before = none.clone();
            let mut seen = 0;
            for step in 0..=100 {
                let host = none.bytes.files * step / 100;
                let now = within(name, Budget { device, host }).expect("fits");
                assert!(now.plan.pinned <= host && now.plan.total() <= device, "{name} {step}");
                assert_eq!(now.bytes.host, now.plan.pinned, "{name} {step}");
                assert_eq!(now.bytes.device, none.bytes.device);
                assert_eq!(now.bytes.host + now.bytes.files, none.bytes.files);
                let token = [now.bytes.token_host, now.bytes.token_files];
                assert_eq!(token.iter().sum::<u64>(), none.bytes.token_files, "{name} {step}");
                assert!(now.bytes.token_files <= before.bytes.token_files, "{name} {step}");
                seen += u32::from(now.placement != before.placement);
                before = now;
            }
            assert!(seen > 3, "{name}: only {seen} placements");
            assert!(!before.bytes.moves() && !before.bytes.is_whole());
            // No more is pinned than does not fit on the device.
            let all = within(name, Budget { device: u64::MAX, host: u64::MAX }).expect("fits");
            assert!(all.bytes.is_whole());
        }
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
        let of = |memory| {
            let budget = Budget::of_device(memory);
            choose(&config, &weights, DeviceLimits::BASELINE, sizes, budget)
        };
        let Err(Error::Limit { got: least, .. }) = of(1 << 30) else { panic!("it cannot fit") };
        assert!(least < 3_200_000_000, "{least}");
        let card = of(24_000_000_000).expect("fits");
        assert_eq!(card.placement.attention, 64);
        assert!((30..50).contains(&card.placement.dense), "{:?}", card.placement);
        assert_eq!(card.placement.experts, 0);
        assert!(card.bytes.token_files > 38_000_000_000, "{:?}", card.bytes);
    }
}
