//! Sorts the slots of a step by expert, in tiles.
//!
//! Known as: `MoE` expert dispatch (token permutation by a counting sort) for a grouped GEMM or
//! GEMV.

use super::{Pick, Rows};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType::U32, Tensor},
    },
    machine::{
        binder::{Binder, Dispatch},
        host::Host,
        kernel::Kernel,
        shader::Shader,
    },
    params, shader,
    variants::{Form, Tuning},
};

/// Orders the slots `t * chosen + i` of the real tokens by expert, then by slot, and cuts each
/// expert's share into tiles `(expert, start, count, 0)`.
#[derive(Clone, Copy, Debug)]
pub struct ExpertGroups {
    /// Step record.
    pub step: Tensor,
    /// Chosen experts: `[tokens, chosen]`.
    pub ids: Tensor,
    /// Experts of the layer, at most 64.
    pub experts: u32,
    /// Slots in a full tile: [`Form::tile`](crate::variants::Form::tile) of the products.
    pub height: u32,
    /// Slots by expert: `[tokens * chosen]`.
    pub order: Tensor,
    /// Tiles: `[max_tiles, 4]`; see [`max_tiles`].
    pub tiles: Tensor,
}

/// The shader counts slots in 16 bits. A step has at most 4,096 rows of eight choices.
const MAX_SLOTS: u32 = 1 << 16;

params! { experts: u32, chosen: u32, tiles: u32, height: u32 }

/// The most tiles of `height` slots that `slots` slots of `experts` experts can need.
pub fn max_tiles(slots: u32, experts: u32, height: u32) -> u32 {
    slots / height + experts.min(slots)
}

impl Kernel for ExpertGroups {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("expert_groups", "step")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, chosen] = self.ids.dims()?;
        let slots = tokens.saturating_mul(chosen);
        if slots >= MAX_SLOTS {
            return Err(Error::Usage(format!(
                "expert_groups: {slots} slots, expected fewer than {MAX_SLOTS}"
            )));
        }
        let tiles = max_tiles(slots, self.experts, self.height);
        // All prompts have one program, however long their buffers are.
        let invocations = if self.height <= Form::Vector.tile() { 32 } else { 256 };
        binder
            .step(self.step)?
            .read("ids", self.ids, U32, [tokens, chosen])?
            .write("order", self.order, U32, [slots])?
            .write("tiles", self.tiles, U32, [tiles, 4])?
            .constant("WG", invocations)
            .dispatch(
                Params { experts: self.experts, chosen, tiles, height: self.height },
                [1, 1, 1],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let chosen = self.ids.shape.extents()[1];
        let slots = host.ints(self.step)[1] * chosen;
        let ids = host.ints(self.ids);
        let mut order = host.ints(self.order).to_vec();
        let mut tiles = vec![0; host.ints(self.tiles).len()];
        let (mut start, mut tile) = (0, 0);
        for expert in 0..self.experts {
            let mine: Vec<u32> = (0..slots).filter(|&s| ids[s as usize] == expert).collect();
            for part in mine.chunks(self.height as usize) {
                let count = u32::try_from(part.len()).expect("at most a tile");
                order[start as usize..][..part.len()].copy_from_slice(part);
                tiles[4 * tile..][..4].copy_from_slice(&[expert, start, count, 0]);
                start += count;
                tile += 1;
            }
        }
        host.write_ints(self.order, order);
        host.write_ints(self.tiles, tiles);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("expert_groups");
    for (tokens, real, experts, chosen) in [
        (1, 1, 8, 2),
        (5, 5, 8, 2),
        (40, 40, 8, 2),
        (64, 33, 8, 2),
        (256, 256, 8, 2),
        (2048, 2047, 8, 2),
        (300, 257, 20, 3),
        (32, 32, 1, 1),
        (33, 33, 64, 8),
        (64, 64, 2, 2),
        (16, 0, 8, 2),
    ] {
        let name = format!("{real} of {tokens} tokens, {chosen} of {experts}");
        for form in Form::ALL {
            let (name, height) = (format!("{name}, tiles of {}", form.tile()), form.tile());
            rows.exact(format!("{name}, mixed"), move |host| {
                let pick = |t, i| (t * t + 3 * t + i * 5) % experts;
                case(host, [tokens, real, experts, chosen], height, pick)
            });
            rows.exact(format!("{name}, one expert takes all"), move |host| {
                let pick = |_, i| (experts - 1 + i) % experts;
                case(host, [tokens, real, experts, chosen], height, pick)
            });
            rows.exact(format!("{name}, some ids of no expert"), move |host| {
                let pick = |t, i| if t % 3 == 0 { experts + t } else { (t + i) % experts };
                case(host, [tokens, real, experts, chosen], height, pick)
            });
        }
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [tokens, experts] = [pick.size(257), pick.size(64)];
    let chosen = pick.size(8.min(experts));
    let real = tokens - if pick.once_in(2) { pick.below(tokens + 1) } else { 0 };
    let (from, by) = (pick.below(experts), pick.below(9));
    let height = pick.of(&Form::ALL).tile();
    let name = format!(
        "{real} of {tokens} tokens, {chosen} of {experts} from {from} by {by}, tiles of {height}"
    );
    rows.exact(name, move |host| {
        let pick = |t, i| (from + t * t * by + i) % experts;
        case(host, [tokens, real, experts, chosen], height, pick)
    });
}

fn case(
    host: &mut Host,
    [tokens, real, experts, chosen]: [u32; 4],
    height: u32,
    pick: impl Fn(u32, u32) -> u32,
) -> ExpertGroups {
    let pick = &pick;
    let ids = (0..tokens).flat_map(|t| (0..chosen).map(move |i| pick(t, i))).collect();
    ExpertGroups {
        step: host.step(0, real),
        ids: host.ints_from([tokens, chosen], ids),
        experts,
        height,
        order: host.unwritten_ints([tokens * chosen]),
        tiles: host.unwritten_ints([max_tiles(tokens * chosen, experts, height), 4]),
    }
}
