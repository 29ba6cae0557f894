//! The end of a block with experts, for many tokens: the sum of its paths, the residual sum, and
//! the next block's normalization.
//!
//! Known as: `MoE` combine, fused with residual add and `RMSNorm`.

use super::{
    Pick, Rows,
    rms_norm::{SPOILED_WIDTHS, constants},
    rms_norm_add::norm_add,
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

/// `h[t, :] = (dense[t, :] + sum_i probs[t, i] * routed[t, i, :]) * scale`, then as
/// [`RmsNormAdd`](super::RmsNormAdd) `sum += norm(h) * weight` and `out = norm(sum) * next_weight`,
/// for the rows `t` that are real in this step.
#[derive(Clone, Copy, Debug)]
pub struct CombineNorm {
    /// Step record.
    pub step: Tensor,
    /// Output of the dense path, zero where there is none: `[tokens, cols]`.
    pub dense: Tensor,
    /// Outputs of the chosen experts: `[tokens, chosen, cols]`.
    pub routed: Tensor,
    /// Their weights: `[tokens, chosen]`.
    pub probs: Tensor,
    /// Factor on the sum of the paths.
    pub scale: f32,
    /// Gain of the block's post norm: `[cols]`.
    pub weight: Tensor,
    /// Gain of the norm before the next block: `[cols]`.
    pub next_weight: Tensor,
    /// Added to each mean square.
    pub eps: f32,
    /// Residual stream, updated in place: `[tokens, cols]`.
    pub sum: Tensor,
    /// Input of the next block: `[tokens, cols]`.
    pub out: Tensor,
}

params! { cols4: u32, scale: f32, eps: f32 }

impl Kernel for CombineNorm {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("combine_norm", "step", "reduce", "quads", "norm_add", "math")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, chosen, cols] = self.routed.dims()?;
        let wide = binder.tuning().norm_workgroup;
        binder
            .step(self.step)?
            .read("dense", self.dense, F32, [tokens, cols])?
            .read("routed", self.routed, F32, [tokens, chosen, cols])?
            .read("probs", self.probs, F32, [tokens, chosen])?
            .read("weight", self.weight, F32, [cols])?
            .read("next_weight", self.next_weight, F32, [cols])?
            .write("sum", self.sum, F32, [tokens, cols])?
            .write("out", self.out, F32, [tokens, cols])?
            .constants(constants(wide, cols))
            .constant("CHOSEN", chosen)
            .dispatch(Params { cols4: cols / 4, scale: self.scale, eps: self.eps }, [tokens, 1, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let [_, chosen, cols] = self.routed.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let (chosen, cols) = (*chosen as usize, *cols as usize);
        let real = host.ints(self.step)[1] as usize;
        let (dense, routed) = (host.floats(self.dense), host.floats(self.routed));
        let probs = host.floats(self.probs);
        let mut h = Vec::with_capacity(real * cols);
        for (at, &dense) in dense.iter().enumerate().take(real * cols) {
            let (t, c) = (at / cols, at % cols);
            let mut sum = Bounded::exact(dense);
            for choice in t * chosen..(t + 1) * chosen {
                let value = Bounded::exact(routed[choice * cols + c]);
                sum = sum.plus(value.scaled(probs[choice]));
            }
            h.push(sum.scaled(self.scale.into()));
        }
        let mut sum = host.current(self.sum);
        let mut out = host.current(self.out);
        let gains = [host.floats(self.weight), host.floats(self.next_weight)];
        let normalized = norm_add(&h, &mut sum, gains, self.eps.into(), host.tuning.norm_workgroup);
        out[..normalized.len()].copy_from_slice(&normalized);
        host.write(self.sum, sum);
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("combine_norm");
    for [tokens, real, chosen, cols] in [
        [1, 1, 2, 8],
        [5, 3, 2, 260],
        [33, 33, 1, 64],
        [2, 2, 8, 8192],
        [7, 1, 2, 1000],
        [2, 1, 2, 6140],
        [2, 1, 3, 8196],
    ] {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{real} of {tokens}, {chosen}x{cols} {fill_name}"), move |host| {
                case(host, [tokens, real, chosen, cols], fill)
            });
        }
        // The norm cancels the factor, and hides much else, unless eps is as large as the mean
        // square.
        rows.add(format!("{real} of {tokens}, {chosen}x{cols} large eps"), move |host| {
            CombineNorm { eps: 1.0, ..case(host, [tokens, real, chosen, cols], Fill::Normal) }
        });
        rows.add(format!("{real} of {tokens}, {chosen}x{cols} zero"), move |host| {
            case(host, [tokens, real, chosen, cols], Fill::Constant(0.0))
        });
    }
    for expert in 0..3 {
        rows.add(format!("expert {expert} of 3 alone"), move |host| {
            let kernel = case(host, [2, 2, 3, 64], Fill::Index);
            let probs = (0..6).map(|i| f64::from(u8::from(i % 3 == expert))).collect();
            CombineNorm {
                dense: host.f32([2, 64], Fill::Constant(0.0)),
                probs: host.floats_from(F32, [2, 3], probs),
                ..kernel
            }
        });
    }
    rows.add("the dense path alone", |host| {
        let kernel = case(host, [2, 2, 3, 64], Fill::Index);
        CombineNorm { probs: host.f32([2, 3], Fill::Constant(0.0)), ..kernel }
    });
    for cols in SPOILED_WIDTHS {
        rows.spoiled(&super::SPOILS, format!("3 tokens, {cols} wide"), move |host| {
            case(host, [3, 3, 2, cols], Fill::Normal)
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [tokens, chosen, cols] = [pick.size(33), pick.size(8), pick.multiple(4, 1028)];
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let eps = pick.of(&[1e-6, 1e-5, 1.0]);
    let (fill_name, fill) = pick.fill();
    rows.add(format!("{real} of {tokens}, {chosen}x{cols}, eps {eps}, {fill_name}"), move |host| {
        CombineNorm { eps, ..case(host, [tokens, real, chosen, cols], fill) }
    });
}

fn case(host: &mut Host, [tokens, real, chosen, cols]: [u32; 4], fill: Fill) -> CombineNorm {
    CombineNorm {
        step: host.step(0, real),
        dense: host.f32([tokens, cols], fill),
        routed: host.f32([tokens, chosen, cols], fill),
        probs: host.f32([tokens, chosen], Fill::Normal),
        scale: std::f32::consts::FRAC_1_SQRT_2,
        weight: host.f32([cols], Fill::Normal),
        next_weight: host.f32([cols], Fill::Normal),
        eps: 1e-5,
        sum: host.f32([tokens, cols], Fill::Normal),
        out: host.unwritten([tokens, cols]),
    }
}
