//! Joins the dense path and the routed experts of many tokens.

use super::{Pick, Rows};
use crate::{
    Binder, Bounded, DType::F32, Dispatch, Fill, Host, Kernel, Result, Shader, Tensor, Tuning,
    params, shader,
};

/// `out[t, c] = (dense[t, c] + sum_i probs[t, i] * routed[t, i, c]) * scale`, for the rows `t` that
/// are real in this step.
#[derive(Clone, Copy, Debug)]
pub struct Combine {
    /// Step record.
    pub step: Tensor,
    /// Output of the dense path, zero where there is none: `[tokens, cols]`.
    pub dense: Tensor,
    /// Outputs of the chosen experts: `[tokens, chosen, cols]`.
    pub routed: Tensor,
    /// Their weights: `[tokens, chosen]`.
    pub probs: Tensor,
    /// Factor on the sum.
    pub scale: f32,
    /// Result: `[tokens, cols]`.
    pub out: Tensor,
}

params! { cols4: u32, chosen: u32, scale: f32 }

impl Kernel for Combine {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("combine", "step")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, chosen, cols] = self.routed.dims()?;
        binder
            .step(self.step)?
            .read("dense", self.dense, F32, [tokens, cols])?
            .read("routed", self.routed, F32, [tokens, chosen, cols])?
            .read("probs", self.probs, F32, [tokens, chosen])?
            .write("out", self.out, F32, [tokens, cols])?
            .dispatch(Params { cols4: cols / 4, chosen, scale: self.scale }, [tokens, 1, 1])
    }

    fn oracle(&self, host: &mut Host) {
        let mut out = host.current(self.out);
        let real = host.ints(self.step)[1] as usize;
        let [_, chosen, cols] = self.routed.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let (chosen, cols) = (*chosen as usize, *cols as usize);
        let (dense, routed) = (host.floats(self.dense), host.floats(self.routed));
        let probs = host.floats(self.probs);
        for (at, out) in out.iter_mut().enumerate().take(real * cols) {
            let (t, c) = (at / cols, at % cols);
            let mut sum = Bounded::exact(dense[at]);
            for choice in t * chosen..(t + 1) * chosen {
                let value = Bounded::exact(routed[choice * cols + c]);
                sum = sum.plus(value.scaled(probs[choice]));
            }
            *out = sum.scaled(self.scale.into());
        }
        host.write(self.out, out);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("combine");
    for [tokens, real, chosen, cols] in
        [[1, 1, 2, 8], [5, 3, 2, 260], [33, 33, 1, 64], [2, 2, 8, 8192]]
    {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{real} of {tokens}, {chosen}x{cols} {fill_name}"), move |host| {
                case(host, [tokens, real, chosen, cols], fill, std::f32::consts::FRAC_1_SQRT_2)
            });
        }
        rows.exact(format!("{real} of {tokens}, {chosen}x{cols} integers"), move |host| {
            let kernel = case(host, [tokens, real, chosen, cols], Fill::Integers(8), 1.0);
            Combine { probs: host.f32([tokens, chosen], Fill::Integers(4)), ..kernel }
        });
    }
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [tokens, chosen, cols] = [pick.size(33), pick.size(8), pick.multiple(4, 1028)];
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let (fill_name, fill) = pick.fill();
    rows.add(format!("{real} of {tokens}, {chosen}x{cols} {fill_name}"), move |host| {
        case(host, [tokens, real, chosen, cols], fill, std::f32::consts::FRAC_1_SQRT_2)
    });
}

fn case(
    host: &mut Host,
    [tokens, real, chosen, cols]: [u32; 4],
    fill: Fill,
    scale: f32,
) -> Combine {
    Combine {
        step: host.step(0, real),
        dense: host.f32([tokens, cols], fill),
        routed: host.f32([tokens, chosen, cols], fill),
        probs: host.f32([tokens, chosen], Fill::Normal),
        scale,
        out: host.unwritten([tokens, cols]),
    }
}
