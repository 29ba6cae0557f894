//! Matrix-vector product, with an optional factor and soft cap on the result.
//!
//! Known as: GEMV, fused with logit soft-capping where the cap is on.

use super::{Pick, Rows, bounds::sums};
use crate::{
    base::{
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

/// `out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)`
#[derive(Clone, Copy, Debug)]
pub struct MatVec {
    /// Vectors: `[tokens, cols]`.
    pub x: Tensor,
    /// Rows `row0..` of the matrix: `[rows, cols]`.
    pub weight: Tensor,
    /// Output row of the weight's first row.
    pub row0: u32,
    /// Factor on the product.
    pub scale: f32,
    /// Soft cap; 0 is off.
    pub cap: f32,
    /// Result: `[tokens, out_rows]`.
    pub out: Tensor,
}

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, scale: f32, cap: f32 }

impl MatVec {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: source!("matvec", "vector_tokens", "one_weight", "math"),
            form: Form::Vector,
            weight: self.weight,
            weights: Weights::One,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for MatVec {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [rows, _] = self.weight.dims()?;
        let [_, out_rows] = self.out.dims()?;
        binder
            .read("x", self.x, F32, [tokens, cols])?
            .weight("weight", self.weight, [rows, cols])?
            .write("out", self.out, F32, [tokens, out_rows])?
            .product(
                Params {
                    rows,
                    cols8: cols / 8,
                    row0: self.row0,
                    out_rows,
                    scale: self.scale,
                    cap: self.cap,
                },
                &self.product(),
                tokens,
            )
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let cols = self.weight.shape.extents()[1] as usize;
        let out_rows = self.out.shape.extents()[1] as usize;
        let sums = sums(host, &self.product());
        let weight = host.floats(self.weight);
        for (x, out) in host.floats(self.x).chunks_exact(cols).zip(out.chunks_exact_mut(out_rows)) {
            for (w, out) in weight.chunks_exact(cols).zip(&mut out[self.row0 as usize..]) {
                *out = sums.dot(x, w).scaled(self.scale.into()).softcap(self.cap.into());
            }
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("matvec");
    for dtype in super::WEIGHTS {
        for (n, cols) in super::edges(dtype) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {n}x{cols} {fill_name}"), move |host| {
                    case(host, dtype, [1, n, cols], fill, fill)
                });
            }
            rows.exact(format!("{dtype} {n}x{cols} integers"), move |host| {
                case(host, dtype, [2, n, cols], Fill::Integers(8), Fill::Integers(8))
            });
            rows.exact(format!("{dtype} {n}x{cols} one-hot picks a column"), move |host| {
                case(host, dtype, [1, n, cols], Fill::OneHot((cols - 3).into()), Fill::Index)
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 5x{cols} integers"), move |host| {
                case(host, dtype, [1, 5, cols], Fill::Integers(8), Fill::Integers(8))
            });
        }
        rows.add(format!("{dtype} capped and scaled, second shard"), move |host| {
            let mut kernel = case(host, dtype, [2, 33, 64], Fill::Outliers, Fill::Normal);
            kernel.out = host.unwritten([2, 50]);
            MatVec { row0: 11, scale: 0.5, cap: 50.0, ..kernel }
        });
        for size in [0.3, 7.0, 9.0, 15.0, 44.0, 89.0, 100.0, 1e4, 1e20, 3e37] {
            for sign in [1.0, -1.0] {
                rows.add(format!("{dtype} cap 30 at {}", sign * size), move |host| MatVec {
                    x: host.f32([1, 8], Fill::OneHot(0)),
                    weight: host.filled(F32, [3, 8], Fill::Constant(sign * size)),
                    row0: 0,
                    scale: 1.0,
                    cap: 30.0,
                    out: host.unwritten([1, 3]),
                });
            }
        }
    }
    for dtype in super::WEIGHTS {
        rows.spoiled(&super::SPOILS, format!("{dtype} 2 tokens, 9x40, cap 30"), move |host| {
            MatVec { cap: 30.0, ..case(host, dtype, [2, 9, 40], Fill::Normal, Fill::Normal) }
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let dtype = pick.weight();
    let [tokens, n, cols] = pick.product(dtype, 3);
    let (exact, fill_name, fill) = pick.fill_or_integers();
    let cap = if exact { 0.0 } else { pick.of(&[0.0, 30.0, 50.0]) };
    let [row0, extra] = [pick.of(&[0, 0, 5]), pick.of(&[0, 0, 3])];
    let name = format!(
        "{dtype} {tokens}x{n}x{cols} from {row0} of {}, cap {cap}, {fill_name}",
        row0 + n + extra
    );
    rows.push(name, exact, move |host| MatVec {
        row0,
        cap,
        out: host.unwritten([tokens, row0 + n + extra]),
        ..case(host, dtype, [tokens, n, cols], fill, fill)
    });
}

fn case(
    host: &mut Host,
    dtype: DType,
    [tokens, n, cols]: [u32; 3],
    x: Fill,
    weight: Fill,
) -> MatVec {
    let cols = super::whole(dtype, cols);
    MatVec {
        x: host.f32([tokens, cols], x),
        weight: host.filled(dtype, [n, cols], weight),
        row0: 0,
        scale: 1.0,
        cap: 0.0,
        out: host.unwritten([tokens, n]),
    }
}
