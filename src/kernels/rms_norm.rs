//! Root-mean-square normalization of the rows of a matrix.
//!
//! Known as: `RMSNorm`.

use super::{
    Pick, Rows,
    bounds::{FLUSHED, U},
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

/// `out[r, c] = x[r, c] / sqrt(mean(x[r, :]^2) + eps) * weight[c]`
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// Rows to normalize: `[rows, cols]`.
    pub x: Tensor,
    /// Gain per column: `[cols]`.
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f32,
    /// Result, shaped like `x`.
    pub out: Tensor,
}

params! { cols4: u32, eps: f32 }

impl Kernel for RmsNorm {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("rms_norm", "reduce", "quads", "math")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [rows, cols] = self.x.dims()?;
        let wide = binder.tuning().norm_workgroup;
        binder
            .read("x", self.x, F32, [rows, cols])?
            .read("weight", self.weight, F32, [cols])?
            .write("out", self.out, F32, [rows, cols])?
            .constants(constants(wide, cols))
            .dispatch(Params { cols4: cols / 4, eps: self.eps }, [rows, 1, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let x = host.current(self.x);
        let weight = host.floats(self.weight);
        let out = x
            .chunks_exact(weight.len())
            .flat_map(|row| normalize(row, weight, self.eps.into(), host.tuning.norm_workgroup))
            .collect();
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

/// The constants of programs that link `shaders/lib/quads.wgsl`, for rows of `cols` columns and
/// workgroups of `wide` invocations: its width, and the quads that an invocation owns, if there are
/// so few that they fit registers.
pub(super) fn constants(wide: u32, cols: u32) -> Vec<(&'static str, u32)> {
    let own = (cols / 4).div_ceil(wide);
    vec![("WG", wide), ("OWN", if own <= 8 { own } else { 0 })]
}

/// A row normalized by a workgroup of `wide` invocations.
pub(super) fn normalize(row: &[Bounded], weight: &[f64], eps: f64, wide: u32) -> Vec<Bounded> {
    let cols = row.len() as f64;
    let squares: f64 = row.iter().map(|x| x.value.powi(2)).sum();
    // A sum beyond f32 is an infinity on a device, and must show in the whole row.
    if squares.is_nan() || squares > f32::MAX.into() {
        return vec![Bounded::NOT_FINITE; row.len()];
    }
    // Error of the sum: each element's own, then one addition per vector of four and invocation,
    // the sum in a vector, the tree, the product.
    let carried: f64 = row.iter().map(|x| 2.0 * x.value.abs() * x.bound + x.bound.powi(2)).sum();
    let chain = (cols / 4.0 / f64::from(wide)).ceil() + 4.0 + f64::from(wide).log2();
    let mean = squares / cols + eps;
    let relative = (carried + chain * U * squares + cols * FLUSHED) / cols / mean + 4.0 * U;
    // The square root halves the relative error; then its own two units.
    let scale = Bounded {
        value: 1.0 / mean.sqrt(),
        bound: (0.5 * relative + relative.powi(2) + 2.0 * U) / mean.sqrt(),
    };
    row.iter().zip(weight).map(|(&x, &w)| x.times(scale).scaled(w)).collect()
}

/// Rows and columns: around a vector and a workgroup; as large as models, with quads that not every
/// invocation has; one quad beyond what registers hold on GPUs; and far beyond it.
pub(super) const SIZES: [(u32, u32); 7] =
    [(1, 8), (3, 264), (7, 1000), (2, 6140), (2, 8192), (1, 8196), (1, 32768)];

/// Widths of rows with an element that is not finite: the first fits registers under every tuning,
/// the second not under that of CPUs.
pub(super) const SPOILED_WIDTHS: [u32; 2] = [264, 516];

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("rms_norm");
    for (n, cols) in SIZES {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{n}x{cols} {fill_name}"), move |host| case(host, n, cols, fill));
        }
        rows.add(format!("{n}x{cols} one-hot"), move |host| {
            case(host, n, cols, Fill::OneHot((cols - 1).into()))
        });
        rows.add(format!("{n}x{cols} zero"), move |host| case(host, n, cols, Fill::Constant(0.0)));
        rows.add(format!("{n}x{cols} index"), move |host| case(host, n, cols, Fill::Index));
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

fn case(host: &mut Host, rows: u32, cols: u32, fill: Fill) -> RmsNorm {
    RmsNorm {
        x: host.f32([rows, cols], fill),
        weight: host.f32([cols], Fill::Normal),
        eps: 1e-5,
        out: host.unwritten([rows, cols]),
    }
}
