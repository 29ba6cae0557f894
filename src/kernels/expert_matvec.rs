//! The second half of the chosen experts for single tokens, added to the dense path.
//!
//! Known as: GEMV of `MoE` experts, down projection fused with the combine.

use super::{
    Pick, Rows,
    bounds::{U, sums},
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
        host::{Bounded, Fill, Host},
        kernel::Kernel,
        shader::Shader,
    },
    params, source,
    variants::{Form, Parts, Product, Tuning, Weights},
};

/// `out[t, row0 + r] = (dense[t, row0 + r] + sum_i probs[t, i] dot(x[t, i, :], weight[e, r, :])) *
/// scale` with `e = ids[t, i]`.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMatVec {
    /// Activations of the chosen experts: `[tokens, chosen, cols]`.
    pub x: Tensor,
    /// Chosen experts: `[tokens, chosen]`.
    pub ids: Tensor,
    /// Their weights: `[tokens, chosen]`.
    pub probs: Tensor,
    /// Rows `row0..` of each expert: `[experts, rows, cols]`.
    pub weight: Tensor,
    /// Output of the dense path, zero where there is none: `[tokens, out_rows]`.
    pub dense: Tensor,
    /// Output row of each expert's first row.
    pub row0: u32,
    /// Factor on the sum.
    pub scale: f32,
    /// Result: `[tokens, out_rows]`.
    pub out: Tensor,
}

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, chosen: u32, scale: f32 }

impl ExpertMatVec {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: source!("expert_matvec", "vector_experts", "one_weight"),
            form: Form::Vector,
            weight: self.weight,
            weights: Weights::One,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for ExpertMatVec {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, chosen, cols] = self.x.dims()?;
        let [experts, rows, _] = self.weight.dims()?;
        let [_, out_rows] = self.out.dims()?;
        binder
            .read("x", self.x, F32, [tokens, chosen, cols])?
            .read("ids", self.ids, U32, [tokens, chosen])?
            .read("probs", self.probs, F32, [tokens, chosen])?
            .weight("weight", self.weight, [experts, rows, cols])?
            .touching(tokens * chosen, experts)
            .read("dense", self.dense, F32, [tokens, out_rows])?
            .write("out", self.out, F32, [tokens, out_rows])?
            .product(
                Params {
                    rows,
                    cols8: cols / 8,
                    row0: self.row0,
                    out_rows,
                    chosen,
                    scale: self.scale,
                },
                &self.product(),
                tokens,
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let [_, n, cols] = self.weight.shape.extents() else { unreachable!("dispatch checked it") };
        let (n, cols) = (*n as usize, *cols as usize);
        let out_rows = self.out.shape.extents()[1] as usize;
        let chosen = self.ids.shape.extents()[1] as usize;
        // The lanes are summed after the experts are weighted: a chain of the same length, and one
        // more product and addition for each expert.
        let sums = sums(host, &self.product()).longer(2.0 * chosen as f64);
        let (x, weight) = (host.floats(self.x), host.floats(self.weight));
        let (ids, probs) = (host.ints(self.ids), host.floats(self.probs));
        let dense = host.floats(self.dense);
        for (t, out) in out.chunks_exact_mut(out_rows).enumerate() {
            for r in 0..n {
                let mut sum = Bounded::exact(0.0);
                for choice in t * chosen..(t + 1) * chosen {
                    let w = &weight[(ids[choice] as usize * n + r) * cols..][..cols];
                    let part = sums.dot(&x[choice * cols..][..cols], w);
                    let p = probs[choice];
                    sum = Bounded {
                        value: sum.value + p * part.value,
                        bound: sum.bound + p.abs() * part.bound,
                    };
                }
                let at = self.row0 as usize + r;
                let total = sum.plus(Bounded::exact(dense[t * out_rows + at]));
                out[at] = total.scaled(self.scale.into());
                out[at].bound += U * out[at].value.abs();
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("expert_matvec");
    for dtype in super::WEIGHTS {
        for (n, cols) in super::edges(dtype) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {n}x{cols} {fill_name}"), move |host| {
                    case(host, dtype, [5, n, cols], fill, fill, &[[4, 0]])
                });
            }
            rows.exact(format!("{dtype} {n}x{cols} integers"), move |host| {
                let ints = Fill::Integers(4);
                let kernel = case(host, dtype, [5, n, cols], ints, ints, &[[3, 1], [0, 4]]);
                ExpertMatVec {
                    probs: host.floats_from(F32, [2, 2], vec![0.5, 0.25, 1.0, 0.0]),
                    scale: 0.5,
                    ..kernel
                }
            });
        }
        for (n, cols) in super::edges(dtype) {
            rows.exact(format!("{dtype} {n}x{cols} one-hot picks a column"), move |host| {
                let x = Fill::OneHot(u64::from(2 * cols) - 3);
                let kernel = case(host, dtype, [5, n, cols], x, Fill::Index, &[[3, 1]]);
                let probs = host.floats_from(F32, [1, 2], vec![0.5, 0.25]);
                ExpertMatVec { probs, scale: 0.5, ..kernel }
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 3x{cols} integers"), move |host| {
                let ints = Fill::Integers(4);
                let kernel = case(host, dtype, [2, 3, cols], ints, ints, &[[1, 0]]);
                ExpertMatVec {
                    probs: host.floats_from(F32, [1, 2], vec![0.5, 0.25]),
                    scale: 1.0,
                    ..kernel
                }
            });
        }
        rows.add(format!("{dtype} second shard"), move |host| {
            let mut kernel = case(host, dtype, [3, 33, 64], Fill::Normal, Fill::Normal, &[[2, 1]]);
            kernel.out = host.unwritten([1, 50]);
            kernel.dense = host.f32([1, 50], Fill::Normal);
            ExpertMatVec { row0: 11, ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        rows.spoiled(&super::SPOILS, format!("{dtype} 2 tokens, 5x40"), move |host| {
            case(host, dtype, [3, 5, 40], Fill::Normal, Fill::Normal, &[[0, 1], [2, 0]])
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.weight();
    let experts = pick.of(&[2, 3, 8, 16]);
    let [tokens, n, cols] = pick.product(dtype, 3);
    let ids: Vec<[u32; 2]> = (0..tokens).map(|_| pick.two(experts)).collect();
    let (fill_name, fill) = pick.fill();
    let name = format!("{dtype} {experts}x{n}x{cols}, experts {ids:?}, {fill_name}");
    rows.add(name, move |host| case(host, dtype, [experts, n, cols], fill, fill, &ids));
}

fn case(
    host: &mut Host,
    dtype: DType,
    [experts, n, cols]: [u32; 3],
    x: Fill,
    weight: Fill,
    ids: &[[u32; 2]],
) -> ExpertMatVec {
    let cols = super::whole(dtype, cols);
    let tokens = u32::try_from(ids.len()).expect("a row has few tokens");
    let probs = (0..2 * tokens).map(|i| 0.6 / f64::from(i + 1)).collect();
    ExpertMatVec {
        x: host.f32([tokens, 2, cols], x),
        ids: host.ints_from([tokens, 2], ids.concat()),
        probs: host.floats_from(F32, [tokens, 2], probs),
        weight: host.filled(dtype, [experts, n, cols], weight),
        dense: host.f32([tokens, n], Fill::Integers(8)),
        row0: 0,
        scale: std::f32::consts::FRAC_1_SQRT_2,
        out: host.unwritten([tokens, n]),
    }
}
