//! Normalization of a block's output, the residual sum, and the next block's normalization.
//!
//! Known as: `RMSNorm` fused with residual add (post-norm, then the next pre-norm).

use super::{
    Pick, Rows,
    rms_norm::{SIZES, SPOILED_WIDTHS, constants, normalize},
};
use crate::{
    base::{
        error::Result,
        tensor::{DType::F32, Tensor},
    },
    machine::{
        binder::{Binder, Dispatch},
        host::{Bounded, Fill, Host},
        kernel::Kernel,
        shader::Shader,
    },
    params, shader,
    variants::Tuning,
};

/// `sum += norm(h) * weight`, then `out = norm(sum) * next_weight`, where
/// `norm(x) = x / sqrt(mean(x^2) + eps)` by rows.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormAdd {
    /// Output of the block: `[rows, cols]`.
    pub h: Tensor,
    /// Gain of the block's post norm: `[cols]`.
    pub weight: Tensor,
    /// Gain of the norm before the next block: `[cols]`.
    pub next_weight: Tensor,
    /// Added to each mean square.
    pub eps: f32,
    /// Residual stream, updated in place: `[rows, cols]`.
    pub sum: Tensor,
    /// Input of the next block: `[rows, cols]`.
    pub out: Tensor,
}

params! { cols4: u32, eps: f32 }

impl Kernel for RmsNormAdd {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("rms_norm_add", "reduce", "quads", "norm_add", "norm_input", "math")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [rows, cols] = self.h.dims()?;
        let wide = binder.tuning().norm_workgroup;
        binder
            .read("h", self.h, F32, [rows, cols])?
            .read("weight", self.weight, F32, [cols])?
            .read("next_weight", self.next_weight, F32, [cols])?
            .write("sum", self.sum, F32, [rows, cols])?
            .write("out", self.out, F32, [rows, cols])?
            .constants(constants(wide, cols))
            .dispatch(Params { cols4: cols / 4, eps: self.eps }, [rows, 1, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let mut sum = host.current(self.sum);
        let gains = [host.floats(self.weight), host.floats(self.next_weight)];
        let wide = host.tuning.norm_workgroup;
        let out = norm_add(&host.current(self.h), &mut sum, gains, self.eps.into(), wide);
        host.write(self.sum, sum);
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// `sum += norm(h) * weight` and `norm(sum) * next_weight`, a workgroup of `wide` invocations for
/// each row of `h`.
pub(super) fn norm_add(
    h: &[Bounded],
    sum: &mut [Bounded],
    [weight, next_weight]: [&[f64]; 2],
    eps: f64,
    wide: u32,
) -> Vec<Bounded> {
    let cols = weight.len();
    let mut out = Vec::with_capacity(h.len());
    for (h, sum) in h.chunks_exact(cols).zip(sum.chunks_exact_mut(cols)) {
        for (sum, h) in sum.iter_mut().zip(normalize(h, weight, eps, wide)) {
            *sum = sum.plus(h);
        }
        out.extend(normalize(sum, next_weight, eps, wide));
    }
    out
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("rms_norm_add");
    for (n, cols) in SIZES {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{n}x{cols} {fill_name}"), move |host| case(host, n, cols, fill));
        }
        for (fill_name, fill) in [
            ("one-hot", Fill::OneHot((cols - 1).into())),
            ("zero", Fill::Constant(0.0)),
            ("index", Fill::Index),
        ] {
            rows.add(format!("{n}x{cols} {fill_name}"), move |host| {
                let sum = host.f32([n, cols], fill);
                RmsNormAdd { sum, ..case(host, n, cols, fill) }
            });
        }
    }
    for cols in SPOILED_WIDTHS {
        rows.spoiled(&super::SPOILS, format!("3x{cols}"), move |host| {
            case(host, 3, cols, Fill::Normal)
        });
    }
    rows.add("squares beyond f32", |host| case(host, 2, 264, Fill::Constant(1e20)));
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [n, cols] = [pick.size(17), pick.multiple(4, 2052)];
    let (fill_name, fill) = pick.fill();
    rows.add(format!("{n}x{cols} {fill_name}"), move |host| case(host, n, cols, fill));
}

fn case(host: &mut Host, n: u32, cols: u32, fill: Fill) -> RmsNormAdd {
    RmsNormAdd {
        h: host.f32([n, cols], fill),
        weight: host.f32([cols], Fill::Normal),
        next_weight: host.f32([cols], Fill::Normal),
        eps: 1e-5,
        sum: host.f32([n, cols], Fill::Normal),
        out: host.unwritten([n, cols]),
    }
}
