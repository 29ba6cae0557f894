//! The first half of the chosen experts' gated MLPs for single tokens.
//!
//! Known as: GEMV of `MoE` experts, gate and up projections fused with `GeGLU`.

use super::{Pick, Rows, bounds::sums};
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
        kernel::Kernel,
        shader::Shader,
    },
    params, source,
    variants::{Form, Parts, Product, Tuning, Weights},
};

/// `out[t, i, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])` with
/// `e = ids[t, i]`.
#[derive(Clone, Copy, Debug)]
pub struct ExpertGatedMatVec {
    /// Vectors: `[tokens, cols]`.
    pub x: Tensor,
    /// Chosen experts: `[tokens, chosen]`.
    pub ids: Tensor,
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

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, chosen: u32, gelu_tanh: u32 }

impl ExpertGatedMatVec {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: source!("expert_gated_matvec", "two_sums", "gate_and_up", "math"),
            form: Form::Vector,
            weight: self.gate,
            weights: Weights::Pair,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for ExpertGatedMatVec {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [experts, rows, _] = self.gate.dims()?;
        let [_, chosen, out_rows] = self.out.dims()?;
        binder
            .read("x", self.x, F32, [tokens, cols])?
            .read("ids", self.ids, U32, [tokens, chosen])?
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
                tokens * chosen,
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let [_, n, cols] = self.gate.shape.extents() else { unreachable!("dispatch checked it") };
        let (n, cols) = (*n as usize, *cols as usize);
        let [_, chosen, out_rows] = self.out.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let sums = sums(host, &self.product());
        let (gate, up) = (host.floats(self.gate), host.floats(self.up));
        let x = host.floats(self.x);
        let choices = host.ints(self.ids).iter().zip(out.chunks_exact_mut(*out_rows as usize));
        for (choice, (&expert, out)) in choices.enumerate() {
            let x = &x[choice / *chosen as usize * cols..][..cols];
            let first = expert as usize * n * cols;
            for (r, out) in out[self.row0 as usize..][..n].iter_mut().enumerate() {
                let at = first + r * cols;
                let g = sums.dot(x, &gate[at..][..cols]);
                *out = g.gelu(self.gelu).times(sums.dot(x, &up[at..][..cols]));
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("expert_gated_matvec");
    for dtype in super::WEIGHTS {
        for (n, cols) in super::edges(dtype) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {n}x{cols} {fill_name}"), move |host| {
                    case(host, dtype, [5, n, cols], fill, fill, &[[4, 0]])
                });
            }
            rows.exact(format!("{dtype} {n}x{cols} one-hot picks a column"), move |host| {
                let x = Fill::OneHot((cols - 3).into());
                let kernel = case(host, dtype, [5, n, cols], x, Fill::Index, &[[4, 1]]);
                let gate = host.filled(dtype, [5, n, cols], Fill::Constant(16.0));
                ExpertGatedMatVec { gate, ..kernel }
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 3x{cols} integers"), move |host| {
                case(host, dtype, [2, 3, cols], Fill::Sparse(4), Fill::Sparse(32), &[[1, 0]])
            });
        }
        rows.add(format!("{dtype} three tokens, tanh"), move |host| {
            let ids = [[7, 2], [2, 7], [0, 1]];
            let kernel = case(host, dtype, [8, 9, 40], Fill::Normal, Fill::Normal, &ids);
            ExpertGatedMatVec { gelu: Gelu::Tanh, ..kernel }
        });
        rows.add(format!("{dtype} second shard"), move |host| {
            let mut kernel = case(host, dtype, [3, 33, 64], Fill::Normal, Fill::Normal, &[[2, 1]]);
            kernel.out = host.unwritten([1, 2, 50]);
            ExpertGatedMatVec { row0: 11, ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        let both = [Gelu::Erf, Gelu::Tanh];
        for gelu in both.into_iter().take(if dtype == F32 { 2 } else { 1 }) {
            rows.spoiled(
                &super::SPOILS,
                format!("{dtype} 2 tokens, 5x40, {gelu:?}"),
                move |host| {
                    let ids = [[0, 1], [2, 0]];
                    let kernel = case(host, dtype, [3, 5, 40], Fill::Normal, Fill::Normal, &ids);
                    ExpertGatedMatVec { gelu, ..kernel }
                },
            );
        }
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.weight();
    let experts = pick.of(&[2, 3, 8, 16]);
    let [tokens, n, cols] = pick.product(dtype, 3);
    let ids: Vec<[u32; 2]> = (0..tokens).map(|_| pick.two(experts)).collect();
    let gelu = pick.of(&[Gelu::Erf, Gelu::Tanh]);
    let (fill_name, fill) = pick.fill();
    let name = format!("{dtype} {experts}x{n}x{cols}, experts {ids:?}, {gelu:?} {fill_name}");
    rows.add(name, move |host| ExpertGatedMatVec {
        gelu,
        ..case(host, dtype, [experts, n, cols], fill, fill, &ids)
    });
}

fn case(
    host: &mut Host,
    dtype: DType,
    [experts, n, cols]: [u32; 3],
    x: Fill,
    weight: Fill,
    ids: &[[u32; 2]],
) -> ExpertGatedMatVec {
    let cols = super::whole(dtype, cols);
    let tokens = u32::try_from(ids.len()).expect("a row has few tokens");
    ExpertGatedMatVec {
        x: host.f32([tokens, cols], x),
        ids: host.ints_from([tokens, 2], ids.concat()),
        gate: host.filled(dtype, [experts, n, cols], weight),
        up: host.filled(dtype, [experts, n, cols], weight),
        row0: 0,
        gelu: Gelu::Erf,
        out: host.unwritten([tokens, 2, n]),
    }
}
