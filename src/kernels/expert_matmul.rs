//! The second half of the experts' MLPs, for tokens grouped by expert.
//!
//! Known as: grouped GEMM, or GEMV for generated tokens (`expert_matvec` in tables and reports),
//! of `MoE` experts, down projection.

use super::{
    Pick, Rows,
    bounds::sums,
    expert_gated_matmul::{grouped, slots},
    expert_groups::max_tiles,
};
use crate::{
    base::{
        error::Result,
        tensor::{
            DType::{self, F32, U32},
            Tensor,
        },
    },
    machine::{
        binder::{Binder, Dispatch},
        host::{Fill, Host},
        kernel::Kernel,
        shader::Shader,
    },
    params, source,
    variants::{Form, Parts, Product, Source, Tuning, Weights},
};

/// `out[s, row0 + r] = dot(x[s, :], weight[e, r, :])` for each slot `s` of a tile of expert `e`.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMatMul {
    /// Whether the tokens are of a prompt or generated.
    pub form: Form,
    /// Activations of the slots: `[tokens, chosen, cols]`.
    pub x: Tensor,
    /// Slots by expert: `[tokens * chosen]`.
    pub order: Tensor,
    /// Tiles of [`super::ExpertGroups`]: `[max_tiles, 4]`.
    pub tiles: Tensor,
    /// Rows `row0..` of each expert: `[experts, rows, cols]`.
    pub weight: Tensor,
    /// Output row of each expert's first row.
    pub row0: u32,
    /// Result: `[tokens, chosen, out_rows]`.
    pub out: Tensor,
}

const SOURCE: Source = source!("expert_matmul", "rows_slots", "one_weight");

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32 }

impl ExpertMatMul {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: self.form.source(SOURCE, "expert_matvec"),
            form: self.form,
            weight: self.weight,
            weights: Weights::One,
            parts: Parts::Tile,
        }
    }
}

impl Kernel for ExpertMatMul {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, chosen, cols] = self.x.dims()?;
        let [experts, rows, _] = self.weight.dims()?;
        let [_, _, out_rows] = self.out.dims()?;
        let tiles = max_tiles(tokens * chosen, experts, self.form.tile());
        binder
            .read("x", self.x, F32, [tokens, chosen, cols])?
            .read("order", self.order, U32, [tokens * chosen])?
            .read("tiles", self.tiles, U32, [tiles, 4])?
            .weight("weight", self.weight, [experts, rows, cols])?
            .touching(tokens * chosen, experts)
            .write("out", self.out, F32, [tokens, chosen, out_rows])?
            .product(
                Params { rows, cols8: cols / 8, row0: self.row0, out_rows },
                &self.product(),
                tiles,
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let [_, n, cols] = self.weight.shape.extents() else { unreachable!("dispatch checked it") };
        let (n, cols) = (*n as usize, *cols as usize);
        let out_rows = self.out.shape.extents()[2] as usize;
        let sums = sums(host, &self.product());
        let (x, weight) = (host.floats(self.x), host.floats(self.weight));
        for (expert, slot) in slots(host, self.order, self.tiles) {
            for r in 0..n {
                let w = &weight[(expert * n + r) * cols..][..cols];
                out[slot * out_rows + self.row0 as usize + r] =
                    sums.dot(&x[slot * cols..][..cols], w);
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases(form: Form) -> Rows {
    let mut rows = Rows::of(form.source(SOURCE, "expert_matvec").kernel);
    for dtype in super::WEIGHTS {
        for (tokens, (n, cols)) in super::tokens(form).into_iter().zip(super::edges(dtype)) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {tokens}x{n}x{cols} {fill_name}"), move |host| {
                    case(host, form, dtype, [tokens, tokens, 3], [n, cols], fill, fill)
                });
            }
            rows.exact(format!("{dtype} {tokens}x{n}x{cols} integers"), move |host| {
                let ints = Fill::Integers(8);
                case(host, form, dtype, [tokens, tokens, 8], [n, cols], ints, ints)
            });
        }
        for (tokens, (n, cols)) in super::tokens(form).into_iter().zip(super::edges(dtype)) {
            rows.exact(format!("{dtype} {tokens}x{n}x{cols} one-hot"), move |host| {
                let x = Fill::OneHot(u64::from(2 * tokens * cols) - 3);
                case(host, form, dtype, [tokens, tokens, 3], [n, cols], x, Fill::Index)
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 2x3x{cols} integers"), move |host| {
                case(host, form, dtype, [2, 2, 2], [3, cols], Fill::Integers(8), Fill::Integers(8))
            });
        }
        if dtype.is_quantized() && form == Form::Matrix {
            rows.exact(format!("{dtype} 33x35x96 bytes"), move |host| {
                let ints = Fill::Integers(8);
                let kernel = case(host, form, dtype, [33, 33, 3], [35, 96], Fill::Index, ints);
                ExpertMatMul { x: super::bytes(host, [33, 2, 96]), ..kernel }
            });
        }
        let [tokens, real] = super::padded(form);
        rows.add(format!("{dtype} padded rows, second shard"), move |host| {
            let groups = [tokens, real, 8];
            let mut kernel = case(host, form, dtype, groups, [33, 40], Fill::Normal, Fill::Normal);
            kernel.out = host.unwritten([tokens, 2, 50]);
            ExpertMatMul { row0: 11, ..kernel }
        });
        rows.alike(format!("{dtype} 33x288"), move |host| {
            let kernel = case(host, form, dtype, [9, 9, 3], [33, 288], Fill::Normal, Fill::Normal);
            let (order, tiles) = grouped(host, form, [9, 9, 3], super::letter);
            ExpertMatMul { x: super::repeated(host, &[2, 288]), order, tiles, ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        rows.spoiled(&super::SPOILS, format!("{dtype} 5 tokens, 9x40"), move |host| {
            case(host, form, dtype, [5, 5, 3], [9, 40], Fill::Normal, Fill::Normal)
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick, form: Form) {
    let dtype = pick.weight();
    let experts = pick.of(&[2, 3, 8, 16]);
    let [tokens, n, cols] = pick.product(dtype, super::most_tokens(form));
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let (exact, fill_name, fill) = pick.fill_or_integers();
    let name = format!("{dtype} {real} of {tokens}, {experts}x{n}x{cols} {fill_name}");
    rows.push(name, exact, move |host| {
        case(host, form, dtype, [tokens, real, experts], [n, cols], fill, fill)
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
) -> ExpertMatMul {
    let cols = super::whole(dtype, cols);
    let [tokens, _, experts] = groups;
    let (order, tiles) = grouped(host, form, groups, |t| t);
    ExpertMatMul {
        form,
        x: host.f32([tokens, 2, cols], x),
        order,
        tiles,
        weight: host.filled(dtype, [experts, n, cols], weight),
        row0: 0,
        out: host.unwritten([tokens, 2, n]),
    }
}
