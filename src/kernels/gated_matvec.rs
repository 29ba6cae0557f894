//! The first half of a gated MLP for single tokens.
//!
//! Known as: GEMV of the gate and up projections, fused with `GeGLU`.

use super::{Pick, Rows, bounds::sums};
use crate::{
    base::{
        activation::Gelu,
        error::Result,
        tensor::{
            DType::{self, F32},
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

/// `out[t, row0 + r] = gelu(dot(x[t, :], gate[r, :])) * dot(x[t, :], up[r, :])`
#[derive(Clone, Copy, Debug)]
pub struct GatedMatVec {
    /// Vectors: `[tokens, cols]`.
    pub x: Tensor,
    /// Rows `row0..` of the gate: `[rows, cols]`.
    pub gate: Tensor,
    /// The same rows of the other factor: `[rows, cols]`.
    pub up: Tensor,
    /// Output row of the weights' first row.
    pub row0: u32,
    /// Activation.
    pub gelu: Gelu,
    /// Result: `[tokens, out_rows]`.
    pub out: Tensor,
}

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, gelu_tanh: u32 }

impl GatedMatVec {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: source!("gated_matvec", "vector_tokens", "two_sums", "gate_and_up", "math"),
            form: Form::Vector,
            weight: self.gate,
            weights: Weights::Pair,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for GatedMatVec {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [rows, _] = self.gate.dims()?;
        let [_, out_rows] = self.out.dims()?;
        binder
            .read("x", self.x, F32, [tokens, cols])?
            .weight("gate", self.gate, [rows, cols])?
            .weight("up", self.up, [rows, cols])?
            .write("out", self.out, F32, [tokens, out_rows])?
            .product(
                Params {
                    rows,
                    cols8: cols / 8,
                    row0: self.row0,
                    out_rows,
                    gelu_tanh: u32::from(self.gelu == Gelu::Tanh),
                },
                &self.product(),
                tokens,
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let cols = self.gate.shape.extents()[1] as usize;
        let out_rows = self.out.shape.extents()[1] as usize;
        let sums = sums(host, &self.product());
        let (gate, up) = (host.floats(self.gate), host.floats(self.up));
        for (x, out) in host.floats(self.x).chunks_exact(cols).zip(out.chunks_exact_mut(out_rows)) {
            let weights = gate.chunks_exact(cols).zip(up.chunks_exact(cols));
            for ((g, u), out) in weights.zip(&mut out[self.row0 as usize..]) {
                *out = sums.dot(x, g).gelu(self.gelu).times(sums.dot(x, u));
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("gated_matvec");
    for dtype in super::WEIGHTS {
        for (n, cols) in super::edges(dtype) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {n}x{cols} {fill_name}"), move |host| {
                    case(host, dtype, [1, n, cols], fill, fill, Gelu::Erf)
                });
            }
            rows.add(format!("{dtype} {n}x{cols} tanh"), move |host| {
                case(host, dtype, [2, n, cols], Fill::Normal, Fill::Normal, Gelu::Tanh)
            });
        }
        // A gate of at least 16 passes the activation unchanged, so integers stay exact.
        for (n, cols) in super::edges(dtype) {
            rows.exact(format!("{dtype} {n}x{cols} one-hot picks a column"), move |host| {
                let x = Fill::OneHot((cols - 3).into());
                let kernel = case(host, dtype, [1, n, cols], x, Fill::Index, Gelu::Erf);
                GatedMatVec { gate: host.filled(dtype, [n, cols], Fill::Constant(16.0)), ..kernel }
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 5x{cols} integers"), move |host| {
                case(host, dtype, [1, 5, cols], Fill::Sparse(4), Fill::Sparse(32), Gelu::Erf)
            });
        }
        rows.add(format!("{dtype} second shard"), move |host| {
            let mut kernel = case(host, dtype, [1, 33, 64], Fill::Normal, Fill::Normal, Gelu::Erf);
            kernel.out = host.unwritten([1, 50]);
            GatedMatVec { row0: 11, ..kernel }
        });
        for gelu in [Gelu::Erf, Gelu::Tanh] {
            rows.add(format!("{dtype} {gelu:?} over a range"), move |host| {
                let cols = super::whole(dtype, 8);
                let x = host.f32([1, cols], Fill::OneHot(0));
                let range = (-120..=120).map(|i| f64::from(i) / 8.0);
                let row = |g| std::iter::once(g).chain((1..cols).map(|_| 0.0));
                let gate: Vec<f64> = range.flat_map(row).collect();
                GatedMatVec {
                    x,
                    gate: host.floats_from(dtype, [241, cols], gate),
                    up: host.filled(dtype, [241, cols], Fill::Constant(1.0)),
                    row0: 0,
                    gelu,
                    out: host.unwritten([1, 241]),
                }
            });
        }
    }
    for dtype in super::WEIGHTS {
        let both = [Gelu::Erf, Gelu::Tanh];
        for gelu in both.into_iter().take(if dtype == F32 { 2 } else { 1 }) {
            rows.spoiled(
                &super::SPOILS,
                format!("{dtype} 2 tokens, 9x40, {gelu:?}"),
                move |host| case(host, dtype, [2, 9, 40], Fill::Normal, Fill::Normal, gelu),
            );
        }
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.weight();
    let [tokens, n, cols] = pick.product(dtype, 3);
    let gelu = pick.of(&[Gelu::Erf, Gelu::Tanh]);
    let (fill_name, fill) = pick.fill();
    rows.add(format!("{dtype} {tokens}x{n}x{cols} {gelu:?} {fill_name}"), move |host| {
        case(host, dtype, [tokens, n, cols], fill, fill, gelu)
    });
}

fn case(
    host: &mut Host,
    dtype: DType,
    [tokens, n, cols]: [u32; 3],
    x: Fill,
    weight: Fill,
    gelu: Gelu,
) -> GatedMatVec {
    let cols = super::whole(dtype, cols);
    GatedMatVec {
        x: host.f32([tokens, cols], x),
        gate: host.filled(dtype, [n, cols], weight),
        up: host.filled(dtype, [n, cols], weight),
        row0: 0,
        gelu,
        out: host.unwritten([tokens, n]),
    }
}
