//! The first half of the experts' gated MLPs, for tokens grouped by expert.
//!
//! Known as: grouped GEMM, or GEMV for generated tokens (`expert_gated_matvec` in tables and
//! reports), of `MoE` experts, gate and up projections fused with `GeGLU`.

use super::{
    Pick, Rows,
    bounds::sums,
    expert_groups::{ExpertGroups, max_tiles},
};
use crate::{
    base::{
        activation::Gelu,
        error::Result,
        tensor::{
            DType::{self, F32, U32},
            Tensor,
        },
    },
    machine::{
        binder::{Binder, Dispatch},
        host::{Fill, Host},
        kernel::{Executor as _, Kernel},
        shader::Shader,
    },
    params, source,
    variants::{Form, Parts, Product, Source, Tuning, Weights},
};

/// `out[s, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])` for each slot
/// `s` of a tile, with its token `t` and its expert `e`.
#[derive(Clone, Copy, Debug)]
pub struct ExpertGatedMatMul {
    /// Whether the tokens are of a prompt or generated.
    pub form: Form,
    /// Activations: `[tokens, cols]`.
    pub x: Tensor,
    /// Slots by expert: `[tokens * chosen]`.
    pub order: Tensor,
    /// Tiles of [`ExpertGroups`]: `[max_tiles, 4]`.
    pub tiles: Tensor,
    /// Rows `row0..` of each expert's gate: `[experts, rows, cols]`.
    pub gate: Tensor,
    /// The same rows of the other factor: `[experts, rows, cols]`.
    pub up: Tensor,
    /// Output row of each expert's first row.
    pub row0: u32,
    /// Activation.
    pub gelu: Gelu,
    /// Result: `[tokens, chosen, out_rows]`.
    pub out: Tensor,
}

const SOURCE: Source = source!("expert_gated_matmul", "rows_slots", "gate_and_up", "math");

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, chosen: u32, gelu_tanh: u32 }

impl ExpertGatedMatMul {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: self.form.source(SOURCE, "expert_gated_matvec"),
            form: self.form,
            weight: self.gate,
            weights: Weights::Pair,
            parts: Parts::Tile,
        }
    }
}

impl Kernel for ExpertGatedMatMul {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [experts, rows, _] = self.gate.dims()?;
        let [_, chosen, out_rows] = self.out.dims()?;
        let tiles = max_tiles(tokens * chosen, experts, self.form.tile());
        binder
            .read("x", self.x, F32, [tokens, cols])?
            .read("order", self.order, U32, [tokens * chosen])?
            .read("tiles", self.tiles, U32, [tiles, 4])?
            .weight("gate", self.gate, [experts, rows, cols])?
            .touching(tokens * chosen, experts)
            .weight("up", self.up, [experts, rows, cols])?
            .touching(tokens * chosen, experts)
            .write("out", self.out, F32, [tokens, chosen, out_rows])?
            .product(
                Params {
                    rows,
                    cols8: cols / 8,
                    row0: self.row0,
                    out_rows,
                    chosen,
                    gelu_tanh: u32::from(self.gelu == Gelu::Tanh),
                },
                &self.product(),
                tiles,
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let [_, n, cols] = self.gate.shape.extents() else { unreachable!("dispatch checked it") };
        let (n, cols) = (*n as usize, *cols as usize);
        let [_, chosen, out_rows] = self.out.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let (chosen, out_rows) = (*chosen as usize, *out_rows as usize);
        let sums = sums(host, &self.product());
        let (gate, up) = (host.floats(self.gate), host.floats(self.up));
        let x = host.floats(self.x);
        for (expert, slot) in slots(host, self.order, self.tiles) {
            let x = &x[slot / chosen * cols..][..cols];
            for r in 0..n {
                let at = (expert * n + r) * cols;
                let g = sums.dot(x, &gate[at..][..cols]).gelu(self.gelu);
                out[slot * out_rows + self.row0 as usize + r] =
                    g.times(sums.dot(x, &up[at..][..cols]));
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// Expert and slot of every entry of the tiles.
pub(super) fn slots(host: &Host, order: Tensor, tiles: Tensor) -> Vec<(usize, usize)> {
    let order = host.ints(order);
    host.ints(tiles)
        .chunks_exact(4)
        .flat_map(|tile| {
            let part = &order[tile[1] as usize..][..tile[2] as usize];
            part.iter().map(|&slot| (tile[0] as usize, slot as usize))
        })
        .collect()
}

/// Slots and tiles for `real` of `tokens` tokens that choose two of `experts` experts. Those of one
/// `kind` choose the same.
pub(super) fn grouped(
    host: &mut Host,
    form: Form,
    [tokens, real, experts]: [u32; 3],
    kind: fn(u32) -> u32,
) -> (Tensor, Tensor) {
    let height = form.tile();
    let most = max_tiles(tokens * 2, experts, height);
    let choices = |t| [(t * t + t) % experts, (t * t + t + 1) % experts];
    let ids = (0..tokens).flat_map(|t| choices(kind(t))).collect();
    let groups = ExpertGroups {
        step: host.step(0, real),
        ids: host.ints_from([tokens, 2], ids),
        experts,
        order: host.ints_from([tokens * 2], vec![0; 2 * tokens as usize]),
        height,
        tiles: host.ints_from([most, 4], vec![0; 4 * most as usize]),
    };
    host.run(&groups).expect("the groups are well formed");
    (groups.order, groups.tiles)
}

pub(super) fn cases(form: Form) -> Rows {
    let mut rows = Rows::of(form.source(SOURCE, "expert_gated_matvec").kernel);
    for dtype in super::WEIGHTS {
        for (tokens, (n, cols)) in super::tokens(form).into_iter().zip(super::edges(dtype)) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {tokens}x{n}x{cols} {fill_name}"), move |host| {
                    case(host, form, dtype, [tokens, tokens, 3], [n, cols], fill, fill)
                });
            }
            rows.exact(format!("{dtype} {tokens}x{n}x{cols} one-hot"), move |host| {
                let x = Fill::OneHot(u64::from(tokens * cols) - 3);
                let kernel =
                    case(host, form, dtype, [tokens, tokens, 3], [n, cols], x, Fill::Index);
                let gate = host.filled(dtype, [3, n, cols], Fill::Constant(16.0));
                ExpertGatedMatMul { gate, ..kernel }
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 2x3x{cols} integers"), move |host| {
                case(host, form, dtype, [2, 2, 2], [3, cols], Fill::Sparse(4), Fill::Sparse(32))
            });
        }
        if dtype.is_quantized() && form == Form::Matrix {
            rows.add(format!("{dtype} 33x35x96 bytes"), move |host| {
                let ints = Fill::Integers(8);
                let kernel = case(host, form, dtype, [33, 33, 3], [35, 96], Fill::Index, ints);
                ExpertGatedMatMul { x: super::bytes(host, [33, 96]), ..kernel }
            });
        }
        let [tokens, real] = super::padded(form);
        rows.add(format!("{dtype} padded rows, second shard, tanh"), move |host| {
            let groups = [tokens, real, 8];
            let mut kernel = case(host, form, dtype, groups, [33, 40], Fill::Normal, Fill::Normal);
            kernel.out = host.unwritten([tokens, 2, 50]);
            ExpertGatedMatMul { row0: 11, gelu: Gelu::Tanh, ..kernel }
        });
        rows.alike(format!("{dtype} 33x288"), move |host| {
            let kernel = case(host, form, dtype, [9, 9, 3], [33, 288], Fill::Normal, Fill::Normal);
            let (order, tiles) = grouped(host, form, [9, 9, 3], super::letter);
            ExpertGatedMatMul { x: super::repeated(host, &[288]), order, tiles, ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        let both = [Gelu::Erf, Gelu::Tanh];
        for gelu in both.into_iter().take(if dtype == F32 { 2 } else { 1 }) {
            rows.spoiled(
                &super::SPOILS,
                format!("{dtype} 5 tokens, 9x40, {gelu:?}"),
                move |host| {
                    let kernel =
                        case(host, form, dtype, [5, 5, 3], [9, 40], Fill::Normal, Fill::Normal);
                    ExpertGatedMatMul { gelu, ..kernel }
                },
            );
        }
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick, form: Form) {
    let dtype = pick.weight();
    let experts = pick.of(&[2, 3, 8, 16]);
    let [tokens, n, cols] = pick.product(dtype, super::most_tokens(form));
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let gelu = pick.of(&[Gelu::Erf, Gelu::Tanh]);
    let (fill_name, fill) = pick.fill();
    let name = format!("{dtype} {real} of {tokens}, {experts}x{n}x{cols} {gelu:?} {fill_name}");
    rows.add(name, move |host| ExpertGatedMatMul {
        gelu,
        ..case(host, form, dtype, [tokens, real, experts], [n, cols], fill, fill)
    });
}

fn case(
    host: &mut Host,
    form: Form,
    dtype: DType,
    groups: [u32; 3],
    [n, cols]: [u32; 2],
    x: Fill,
    weight: Fill,
) -> ExpertGatedMatMul {
    let cols = super::whole(dtype, cols);
    let [tokens, _, experts] = groups;
    let (order, tiles) = grouped(host, form, groups, |t| t);
    ExpertGatedMatMul {
        form,
        x: host.f32([tokens, cols], x),
        order,
        tiles,
        gate: host.filled(dtype, [experts, n, cols], weight),
        up: host.filled(dtype, [experts, n, cols], weight),
        row0: 0,
        gelu: Gelu::Erf,
        out: host.unwritten([tokens, 2, n]),
    }
}
