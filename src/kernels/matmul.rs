//! Matrix product, with an optional factor and soft cap on the result.
//!
//! Known as: GEMM, or GEMV for generated tokens (`matvec` in tables and reports), fused with logit
//! soft-capping where the cap is on.

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
    variants::{Form, Parts, Product, Source, Tuning, Weights},
};

/// `out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)`, for the rows `t` that are
/// real in this step.
#[derive(Clone, Copy, Debug)]
pub struct MatMul {
    /// Whether the tokens are of a prompt or generated.
    pub form: Form,
    /// Step record.
    pub step: Tensor,
    /// Activations: `[tokens, cols]`.
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

const SOURCE: Source = source!("matmul", "step", "rows_tokens", "one_weight", "math");

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, scale: f32, cap: f32 }

impl MatMul {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: self.form.source(SOURCE, "matvec"),
            form: self.form,
            weight: self.weight,
            weights: Weights::One,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for MatMul {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [rows, _] = self.weight.dims()?;
        let [_, out_rows] = self.out.dims()?;
        binder
            .step(self.step)?
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
        let real = host.ints(self.step)[1] as usize;
        let sums = sums(host, &self.product());
        let weight = host.floats(self.weight);
        let tokens = host.floats(self.x).chunks_exact(cols).take(real);
        for (x, out) in tokens.zip(out.chunks_exact_mut(out_rows)) {
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

pub(super) fn cases(form: Form) -> Rows {
    let mut rows = Rows::of(form.source(SOURCE, "matvec").kernel);
    for dtype in super::WEIGHTS {
        for (tokens, (n, cols)) in super::tokens(form).into_iter().zip(super::edges(dtype)) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {tokens}x{n}x{cols} {fill_name}"), move |host| {
                    case(host, form, dtype, [tokens, n, cols], fill, fill)
                });
            }
            rows.exact(format!("{dtype} {tokens}x{n}x{cols} integers"), move |host| {
                case(host, form, dtype, [tokens, n, cols], Fill::Integers(8), Fill::Integers(8))
            });
            rows.exact(format!("{dtype} {tokens}x{n}x{cols} one-hot"), move |host| {
                let last = u64::from(tokens * cols) - 3;
                case(host, form, dtype, [tokens, n, cols], Fill::OneHot(last), Fill::Index)
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 3x5x{cols} integers"), move |host| {
                case(host, form, dtype, [3, 5, cols], Fill::Integers(8), Fill::Integers(8))
            });
        }
        if dtype.is_quantized() && form == Form::Matrix {
            rows.exact(format!("{dtype} 33x35x96 bytes"), move |host| {
                let kernel = case(host, form, dtype, [33, 35, 96], Fill::Index, Fill::Integers(8));
                MatMul { x: super::bytes(host, [33, 96]), ..kernel }
            });
        }
        let [tokens, real] = super::padded(form);
        rows.add(format!("{dtype} padded rows are left alone"), move |host| {
            let kernel = case(host, form, dtype, [tokens, 40, 72], Fill::Normal, Fill::Normal);
            MatMul { step: host.step(5, real), ..kernel }
        });
        rows.alike(format!("{dtype} 33x288"), move |host| {
            let kernel = case(host, form, dtype, [9, 33, 288], Fill::Normal, Fill::Normal);
            MatMul { x: super::repeated(host, &[288]), ..kernel }
        });
        rows.add(format!("{dtype} capped and scaled, second shard"), move |host| {
            let mut kernel = case(host, form, dtype, [5, 33, 64], Fill::Outliers, Fill::Normal);
            kernel.out = host.unwritten([5, 50]);
            MatMul { row0: 11, scale: 0.5, cap: 50.0, ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        rows.spoiled(&super::SPOILS, format!("{dtype} 5 tokens, 9x40, cap 30"), move |host| {
            MatMul { cap: 30.0, ..case(host, form, dtype, [5, 9, 40], Fill::Normal, Fill::Normal) }
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick, form: Form) {
    let dtype = pick.weight();
    let [tokens, n, cols] = pick.product(dtype, super::most_tokens(form));
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let (exact, fill_name, fill) = pick.fill_or_integers();
    let cap = if exact { 0.0 } else { pick.of(&[0.0, 30.0, 50.0]) };
    let [row0, extra] = [pick.of(&[0, 0, 5]), pick.of(&[0, 0, 3])];
    let name = format!(
        "{dtype} {real} of {tokens}, {n}x{cols} from {row0} of {}, cap {cap}, {fill_name}",
        row0 + n + extra
    );
    rows.push(name, exact, move |host| MatMul {
        step: host.step(3, real),
        row0,
        cap,
        out: host.unwritten([tokens, row0 + n + extra]),
        ..case(host, form, dtype, [tokens, n, cols], fill, fill)
    });
}

fn case(
    host: &mut Host,
    form: Form,
    dtype: DType,
    [tokens, n, cols]: [u32; 3],
    x: Fill,
    weight: Fill,
) -> MatMul {
    let cols = super::whole(dtype, cols);
    MatMul {
        form,
        step: host.step(0, tokens),
        x: host.f32([tokens, cols], x),
        weight: host.filled(dtype, [n, cols], weight),
        row0: 0,
        scale: 1.0,
        cap: 0.0,
        out: host.unwritten([tokens, n]),
    }
}
