//! The second half of the dense MLP and of the chosen experts for single tokens, in one kernel.
//!
//! Known as: fused GEMVs of the down projections of a dense MLP and of `MoE` experts.

use super::{
    Pick, Rows,
    bounds::{sums, sums_of},
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

/// `out[t, row0 + r] = (dot(dense[t, :], dense_weight[r, :]) + sum_i probs[t, i] dot(x[t, i, :],
/// weight[e, r, :])) * scale` with `e = ids[t, i]`.
///
/// It computes what [`MatVec`](super::MatVec) and [`ExpertMatVec`](super::ExpertMatVec) do, in the
/// same order of operations. Both weights must have one type and be cut into shards at the same
/// rows.
#[derive(Clone, Copy, Debug)]
pub struct DenseExpertMatVec {
    /// Activations of the dense path: `[tokens, dense_cols]`.
    pub dense: Tensor,
    /// Rows `row0..` of its matrix: `[rows, dense_cols]`.
    pub dense_weight: Tensor,
    /// Activations of the chosen experts: `[tokens, chosen, cols]`.
    pub x: Tensor,
    /// Chosen experts: `[tokens, chosen]`.
    pub ids: Tensor,
    /// Their weights: `[tokens, chosen]`.
    pub probs: Tensor,
    /// Rows `row0..` of each expert: `[experts, rows, cols]`.
    pub weight: Tensor,
    /// Output row of the first row of both.
    pub row0: u32,
    /// Factor on the sum.
    pub scale: f32,
    /// Result: `[tokens, out_rows]`.
    pub out: Tensor,
}

params! {
    rows: u32,
    dense_cols8: u32,
    cols8: u32,
    row0: u32,
    out_rows: u32,
    chosen: u32,
    scale: f32,
}

impl DenseExpertMatVec {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: source!("dense_expert_matvec", "vector_experts", "two_sums", "dense_beside"),
            form: Form::Vector,
            weight: self.weight,
            weights: Weights::Beside,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for DenseExpertMatVec {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, dense_cols] = self.dense.dims()?;
        let [_, chosen, cols] = self.x.dims()?;
        let [experts, rows, _] = self.weight.dims()?;
        let [_, out_rows] = self.out.dims()?;
        binder
            .read("dense", self.dense, F32, [tokens, dense_cols])?
            .weight("dense_weight", self.dense_weight, [rows, dense_cols])?
            .read("x", self.x, F32, [tokens, chosen, cols])?
            .read("ids", self.ids, U32, [tokens, chosen])?
            .read("probs", self.probs, F32, [tokens, chosen])?
            .weight("weight", self.weight, [experts, rows, cols])?
            .touching(tokens * chosen, experts)
            .write("out", self.out, F32, [tokens, out_rows])?
            .product(
                Params {
                    rows,
                    dense_cols8: dense_cols / 8,
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
        let dense_cols = self.dense.shape.extents()[1];
        let out_rows = self.out.shape.extents()[1] as usize;
        let chosen = self.ids.shape.extents()[1] as usize;
        let product = self.product();
        let dense_sums = sums_of(host, &product, dense_cols);
        // A routed sum has one more product and addition for each expert: the lanes are summed
        // after the experts are weighted.
        let routed_sums = sums(host, &product).longer(2.0 * chosen as f64);
        let (dense, dense_weight) = (host.floats(self.dense), host.floats(self.dense_weight));
        let (x, weight) = (host.floats(self.x), host.floats(self.weight));
        let (ids, probs) = (host.ints(self.ids), host.floats(self.probs));
        let dense_cols = dense_cols as usize;
        for (t, out) in out.chunks_exact_mut(out_rows).enumerate() {
            let dense = &dense[t * dense_cols..][..dense_cols];
            for r in 0..n {
                let mut routed = Bounded::exact(0.0);
                for choice in t * chosen..(t + 1) * chosen {
                    let w = &weight[(ids[choice] as usize * n + r) * cols..][..cols];
                    let part = routed_sums.dot(&x[choice * cols..][..cols], w);
                    routed.value += probs[choice] * part.value;
                    routed.bound += probs[choice].abs() * part.bound;
                }
                let w = &dense_weight[r * dense_cols..][..dense_cols];
                let total = dense_sums.dot(dense, w).plus(routed);
                out[self.row0 as usize + r] = total.scaled(self.scale.into());
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("dense_expert_matvec");
    for dtype in super::WEIGHTS {
        // The paths differ in width.
        for ((n, cols), (_, wide)) in super::edges(dtype).into_iter().zip(swapped(dtype)) {
            let sizes = [5, n, wide, cols];
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {n}x{wide}+{cols} {fill_name}"), move |host| {
                    case(host, dtype, sizes, [fill; 2], &[[4, 0]])
                });
            }
            rows.exact(format!("{dtype} {n}x{wide}+{cols} integers"), move |host| {
                let kernel = case(host, dtype, sizes, [Fill::Integers(4); 2], &[[3, 1], [0, 4]]);
                DenseExpertMatVec {
                    probs: host.floats_from(F32, [2, 2], vec![0.5, 0.25, 1.0, 0.0]),
                    scale: 0.5,
                    ..kernel
                }
            });
            rows.exact(format!("{dtype} {n}x{wide}+{cols} one-hot picks a column"), move |host| {
                let fills = [Fill::OneHot(u64::from(wide) - 3), Fill::Index];
                let kernel = case(host, dtype, sizes, fills, &[[3, 1]]);
                let second = Fill::OneHot(u64::from(2 * cols) - 5);
                let [_, _, whole] = kernel.x.dims().expect("three axes");
                DenseExpertMatVec {
                    x: host.f32([1, 2, whole], second),
                    probs: host.floats_from(F32, [1, 2], vec![0.5, 0.25]),
                    scale: 0.5,
                    ..kernel
                }
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 3x{cols} integers"), move |host| {
                let fills = [Fill::Integers(4); 2];
                let kernel = case(host, dtype, [2, 3, cols, cols], fills, &[[1, 0]]);
                DenseExpertMatVec {
                    probs: host.floats_from(F32, [1, 2], vec![0.5, 0.25]),
                    scale: 1.0,
                    ..kernel
                }
            });
        }
        rows.add(format!("{dtype} second shard"), move |host| {
            let kernel = case(host, dtype, [3, 33, 96, 64], [Fill::Normal; 2], &[[2, 1]]);
            DenseExpertMatVec { row0: 11, out: host.unwritten([1, 50]), ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        rows.spoiled(&super::SPOILS, format!("{dtype} 2 tokens, 5x40"), move |host| {
            case(host, dtype, [3, 5, 40, 24], [Fill::Normal; 2], &[[0, 1], [2, 0]])
        });
    }
    rows
}

/// The sizes of [`edges`](super::edges) from the last to the first.
fn swapped(dtype: DType) -> [(u32, u32); 6] {
    let mut edges = super::edges(dtype);
    edges.reverse();
    edges
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.weight();
    let experts = pick.of(&[2, 3, 8, 16]);
    let [tokens, n, cols] = pick.product(dtype, 3);
    let dense = pick.multiple(dtype.block().max(8), 544);
    let ids: Vec<[u32; 2]> = (0..tokens).map(|_| pick.two(experts)).collect();
    let (fill_name, fill) = pick.fill();
    let name = format!("{dtype} {n}x{dense}+{experts}x{cols}, experts {ids:?}, {fill_name}");
    rows.add(name, move |host| case(host, dtype, [experts, n, dense, cols], [fill; 2], &ids));
}

fn case(
    host: &mut Host,
    dtype: DType,
    [experts, n, dense_cols, cols]: [u32; 4],
    [x, weight]: [Fill; 2],
    ids: &[[u32; 2]],
) -> DenseExpertMatVec {
    let [dense_cols, cols] = [dense_cols, cols].map(|cols| super::whole(dtype, cols));
    let tokens = u32::try_from(ids.len()).expect("a row has few tokens");
    let probs = (0..2 * tokens).map(|i| 0.6 / f64::from(i + 1)).collect();
    DenseExpertMatVec {
        dense: host.f32([tokens, dense_cols], x),
        dense_weight: host.filled(dtype, [n, dense_cols], weight),
        x: host.f32([tokens, 2, cols], x),
        ids: host.ints_from([tokens, 2], ids.concat()),
        probs: host.floats_from(F32, [tokens, 2], probs),
        weight: host.filled(dtype, [experts, n, cols], weight),
        row0: 0,
        scale: std::f32::consts::FRAC_1_SQRT_2,
        out: host.unwritten([tokens, n]),
    }
}
