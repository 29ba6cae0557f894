//! The first half of a gated MLP.
//!
//! Known as: GEMM, or GEMV for generated tokens (`gated_matvec` in tables and reports), of the
//! gate and up projections, fused with `GeGLU`.

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
    variants::{Form, Parts, Product, Source, Tuning, Weights},
};

/// `out[t, row0 + r] = gelu(dot(x[t, :], gate[r, :])) * dot(x[t, :], up[r, :])`, for the rows `t`
/// that are real in this step.
#[derive(Clone, Copy, Debug)]
pub struct GatedMatMul {
    /// Whether the tokens are of a prompt or generated.
    pub form: Form,
    /// Step record.
    pub step: Tensor,
    /// Activations: `[tokens, cols]`.
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

const SOURCE: Source = source!("gated_matmul", "step", "rows_tokens", "gate_and_up", "math");

params! { rows: u32, cols8: u32, row0: u32, out_rows: u32, gelu_tanh: u32 }

impl GatedMatMul {
    /// What is multiplied.
    fn product(&self) -> Product {
        Product {
            source: self.form.source(SOURCE, "gated_matvec"),
            form: self.form,
            weight: self.gate,
            weights: Weights::Pair,
            parts: Parts::Tokens,
        }
    }
}

impl Kernel for GatedMatMul {
    fn shader(&self, tuning: &Tuning) -> Shader {
        Shader::of(&self.product(), tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.x.dims()?;
        let [rows, _] = self.gate.dims()?;
        let [_, out_rows] = self.out.dims()?;
        binder
            .step(self.step)?
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
        let real = host.ints(self.step)[1] as usize;
        let sums = sums(host, &self.product());
        let (gate, up) = (host.floats(self.gate), host.floats(self.up));
        let tokens = host.floats(self.x).chunks_exact(cols).take(real);
        for (x, out) in tokens.zip(out.chunks_exact_mut(out_rows)) {
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

pub(super) fn cases(form: Form) -> Rows {
    let mut rows = Rows::of(form.source(SOURCE, "gated_matvec").kernel);
    for dtype in super::WEIGHTS {
        for (tokens, (n, cols)) in super::tokens(form).into_iter().zip(super::edges(dtype)) {
            for (fill_name, fill) in super::FILLS {
                rows.add(format!("{dtype} {tokens}x{n}x{cols} {fill_name}"), move |host| {
                    case(host, form, dtype, [tokens, n, cols], fill, fill, Gelu::Erf)
                });
            }
        }
        rows.add(format!("{dtype} tanh"), move |host| {
            case(host, form, dtype, [40, 40, 40], Fill::Normal, Fill::Normal, Gelu::Tanh)
        });
        // A gate of at least 16 passes the activation unchanged, so integers stay exact.
        for (tokens, (n, cols)) in super::tokens(form).into_iter().zip(super::edges(dtype)) {
            rows.exact(format!("{dtype} {tokens}x{n}x{cols} one-hot"), move |host| {
                let x = Fill::OneHot(u64::from(tokens * cols) - 3);
                let kernel = case(host, form, dtype, [tokens, n, cols], x, Fill::Index, Gelu::Erf);
                GatedMatMul { gate: host.filled(dtype, [n, cols], Fill::Constant(16.0)), ..kernel }
            });
        }
        for cols in [8192, 16384, 32768] {
            rows.exact(format!("{dtype} 3x5x{cols} integers"), move |host| {
                case(host, form, dtype, [3, 5, cols], Fill::Sparse(4), Fill::Sparse(32), Gelu::Erf)
            });
        }
        if dtype.is_quantized() && form == Form::Matrix {
            rows.add(format!("{dtype} 33x35x96 bytes"), move |host| {
                let ints = Fill::Integers(8);
                let kernel = case(host, form, dtype, [33, 35, 96], Fill::Index, ints, Gelu::Erf);
                GatedMatMul { x: super::bytes(host, [33, 96]), ..kernel }
            });
        }
        let [tokens, real] = super::padded(form);
        let (normal, erf) = (Fill::Normal, Gelu::Erf);
        rows.add(format!("{dtype} padded rows, second shard"), move |host| {
            let mut kernel = case(host, form, dtype, [tokens, 33, 72], normal, normal, erf);
            kernel.out = host.unwritten([tokens, 50]);
            GatedMatMul { step: host.step(5, real), row0: 11, ..kernel }
        });
        rows.alike(format!("{dtype} 33x288"), move |host| {
            let kernel = case(host, form, dtype, [9, 33, 288], normal, normal, erf);
            GatedMatMul { x: super::repeated(host, &[288]), ..kernel }
        });
    }
    for dtype in super::WEIGHTS {
        let both = [Gelu::Erf, Gelu::Tanh];
        for gelu in both.into_iter().take(if dtype == F32 { 2 } else { 1 }) {
            rows.spoiled(
                &super::SPOILS,
                format!("{dtype} 5 tokens, 9x40, {gelu:?}"),
                move |host| case(host, form, dtype, [5, 9, 40], Fill::Normal, Fill::Normal, gelu),
            );
        }
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick, form: Form) {
    let dtype = pick.weight();
    let [tokens, n, cols] = pick.product(dtype, super::most_tokens(form));
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let gelu = pick.of(&[Gelu::Erf, Gelu::Tanh]);
    let (fill_name, fill) = pick.fill();
    let name = format!("{dtype} {real} of {tokens}, {n}x{cols} {gelu:?} {fill_name}");
    rows.add(name, move |host| GatedMatMul {
        step: host.step(3, real),
        ..case(host, form, dtype, [tokens, n, cols], fill, fill, gelu)
    });
}

fn case(
    host: &mut Host,
    form: Form,
    dtype: DType,
    [tokens, n, cols]: [u32; 3],
    x: Fill,
    weight: Fill,
    gelu: Gelu,
) -> GatedMatMul {
    let cols = super::whole(dtype, cols);
    GatedMatMul {
        form,
        step: host.step(0, tokens),
        x: host.f32([tokens, cols], x),
        gate: host.filled(dtype, [n, cols], weight),
        up: host.filled(dtype, [n, cols], weight),
        row0: 0,
        gelu,
        out: host.unwritten([tokens, n]),
    }
}
