//! The end of a block before experts: the residual sum, the normalization for the experts, and
//! which of them a token goes to, with what weight.
//!
//! Known as: `MoE` router (softmax and top-k), fused with residual add and `RMSNorm`.

use super::{
    Pick, Rows,
    bounds::{U, dot_bounded},
    rms_norm::{SPOILED_WIDTHS, constants},
    rms_norm_add::norm_add,
};
use crate::{
    base::{
        error::Result,
        tensor::{
            DType::{F32, U32},
            Tensor,
        },
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

/// `sum += norm(h) * weight` and `out = norm(sum) * next_weight`, as
/// [`RmsNormAdd`](super::RmsNormAdd). Then the softmax over the soft-capped logits `router . out`
/// of all experts. The largest `chosen` are kept, ties to the lower index, as they are or divided
/// by their sum.
#[derive(Clone, Copy, Debug)]
pub struct NormRoute {
    /// Output of the block: `[tokens, cols]`.
    pub h: Tensor,
    /// Gain of the block's post norm: `[cols]`.
    pub weight: Tensor,
    /// Gain of the norm before the experts: `[cols]`.
    pub next_weight: Tensor,
    /// Added to each mean square.
    pub eps: f32,
    /// Router: `[experts, cols]`, at most 64 experts.
    pub router: Tensor,
    /// Soft cap of the logits; 0 is off.
    pub cap: f32,
    /// Whether the probabilities are divided by their sum.
    pub renormalize: bool,
    /// Residual stream, updated in place: `[tokens, cols]`.
    pub sum: Tensor,
    /// Input of the experts: `[tokens, cols]`.
    pub out: Tensor,
    /// Chosen experts, by falling probability: `[tokens, chosen]`.
    pub ids: Tensor,
    /// Their probabilities: `[tokens, chosen]`.
    pub probs: Tensor,
}

params! {
    cols4: u32,
    eps: f32,
    experts: u32,
    chosen: u32,
    cap: f32,
    renormalize: u32,
}

impl Kernel for NormRoute {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("norm_route", "reduce", "quads", "norm_add", "norm_input", "math")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, cols] = self.h.dims()?;
        let [experts, _] = self.router.dims()?;
        let [_, chosen] = self.ids.dims()?;
        let wide = binder.tuning().norm_workgroup;
        binder
            .read("h", self.h, F32, [tokens, cols])?
            .read("weight", self.weight, F32, [cols])?
            .read("next_weight", self.next_weight, F32, [cols])?
            .read("router", self.router, F32, [experts, cols])?
            .write("sum", self.sum, F32, [tokens, cols])?
            .write("out", self.out, F32, [tokens, cols])?
            .write("ids", self.ids, U32, [tokens, chosen])?
            .write("probs", self.probs, F32, [tokens, chosen])?
            .constants(constants(wide, cols))
            .dispatch(
                Params {
                    cols4: cols / 4,
                    eps: self.eps,
                    experts,
                    chosen,
                    cap: self.cap,
                    renormalize: self.renormalize.into(),
                },
                [tokens, 1, 1],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let [experts, cols] = self.router.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let (experts, cols) = (*experts, *cols as usize);
        let chosen = self.ids.shape.extents()[1] as usize;
        let mut sum = host.current(self.sum);
        let gains = [host.floats(self.weight), host.floats(self.next_weight)];
        let wide = host.tuning.norm_workgroup;
        let out = norm_add(&host.current(self.h), &mut sum, gains, self.eps.into(), wide);

        // An addition for each quad that an invocation owns, the sum of a vector, the tree, the
        // product.
        let lanes = f64::from(wide);
        let depth = (cols as f64 / 4.0 / lanes).ceil() + 4.0 + lanes.log2() + 1.0;
        let router = host.floats(self.router);
        let (mut ids, mut also, mut probs) = (Vec::new(), Vec::new(), Vec::new());
        for x in out.chunks_exact(cols) {
            let logits: Vec<Bounded> = router
                .chunks_exact(cols)
                .map(|w| dot_bounded(x, w, depth).softcap(self.cap.into()))
                .collect();
            // Then any experts may be chosen, but their weights must not be finite.
            if logits.iter().any(|l| !l.value.is_finite()) {
                for expert in 0..chosen {
                    ids.push(u32::try_from(expert).expect("few experts"));
                    also.push((0..experts).collect());
                    probs.push(Bounded::NOT_FINITE);
                }
                continue;
            }
            let largest =
                logits.iter().copied().reduce(|a, b| if b.value > a.value { b } else { a });
            let largest = largest.unwrap_or(Bounded::exact(0.0));
            let widest = logits.iter().map(|l| l.bound).fold(0.0, f64::max);
            let weight = |l: Bounded| {
                let gap = l.value - largest.value;
                Bounded { value: gap, bound: l.bound + widest + U * gap.abs() }.exp()
            };
            let total = logits.iter().map(|&l| weight(l)).fold(Bounded::exact(0.0), Bounded::plus);
            let mut order: Vec<u32> = (0..experts).collect();
            order.sort_by(|&a, &b| {
                logits[b as usize].value.total_cmp(&logits[a as usize].value).then(a.cmp(&b))
            });
            // Experts whose logits are within the error bounds of this one's, so that a device may
            // choose either. If all of them are exactly equal, it may not: the lower index is
            // first.
            let near = |expert: u32| -> Vec<u32> {
                let logit = logits[expert as usize];
                let gap = |other: u32| (logits[other as usize].value - logit.value).abs();
                let close = |&other: &u32| {
                    other != expert && gap(other) <= logits[other as usize].bound + logit.bound
                };
                let near: Vec<u32> = (0..experts).filter(close).collect();
                if near.iter().all(|&other| gap(other) == 0.0) { Vec::new() } else { near }
            };
            // The weight of an expert, with a bound that admits those that may be in its place.
            let either = |expert: u32, over: &dyn Fn(Bounded) -> Bounded| {
                let mut one = over(weight(logits[expert as usize]));
                for other in near(expert) {
                    let other = over(weight(logits[other as usize]));
                    one.bound = one.bound.max((other.value - one.value).abs() + other.bound);
                }
                one
            };
            let kept = order[..chosen].iter().map(|&expert| either(expert, &|weight| weight));
            let whole = if self.renormalize {
                kept.fold(Bounded::exact(0.0), Bounded::plus)
            } else {
                total
            };
            for &expert in &order[..chosen] {
                let prob = either(expert, &|weight| weight.over(whole));
                ids.push(expert);
                also.push(near(expert));
                probs.push(prob);
            }
        }
        host.write(self.sum, sum);
        host.write(self.out, out);
        host.write_choices(self.ids, ids, also);
        host.write(self.probs, probs);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("norm_route");
    for [tokens, experts, chosen, cols] in [
        [1, 8, 2, 64],
        [33, 8, 2, 264],
        [2, 8, 2, 8192],
        [3, 4, 2, 128],
        [1, 3, 2, 1032],
        [2, 64, 8, 512],
        [2, 5, 5, 32],
        [2, 9, 3, 32],
        [1, 9, 2, 6140],
        [1, 10, 3, 8196],
        [1, 1, 1, 8],
    ] {
        for cap in [0.0, 30.0, 1.0] {
            rows.add(format!("{tokens} tokens, {chosen} of {experts}, {cols} wide, cap {cap}"), {
                move |host| case(host, [tokens, experts, chosen, cols], cap, Fill::Normal, 0.3)
            });
        }
    }
    for [tokens, experts, chosen, cols] in [[1, 8, 2, 8], [3, 8, 2, 264], [1, 2, 1, 32768]] {
        let fills = super::FILLS.into_iter().skip(1);
        let also = [
            ("one-hot", Fill::OneHot((cols - 1).into())),
            ("zero", Fill::Constant(0.0)),
            ("index", Fill::Index),
        ];
        for (fill_name, fill) in fills.chain(also) {
            let name = format!("{tokens} tokens, {chosen} of {experts}, {cols} wide, {fill_name}");
            rows.add(name, move |host| {
                let sum = host.f32([tokens, cols], fill);
                NormRoute { sum, ..case(host, [tokens, experts, chosen, cols], 30.0, fill, 0.3) }
            });
        }
    }
    for cap in [0.0, 30.0] {
        rows.add(format!("large logits, cap {cap}"), move |host| {
            case(host, [4, 8, 2, 64], cap, Fill::Normal, 40.0)
        });
        if cap > 0.0 {
            for spread in [89.0, 1e20] {
                rows.add(format!("cap {cap} at {spread:e}"), move |host| {
                    plain(host, [4, 8, 2, 64], cap, spread)
                });
            }
        }
        rows.add(format!("all logits equal, cap {cap}"), move |host| {
            let router = host.f32([8, 64], Fill::Constant(0.25));
            NormRoute { router, ..plain(host, [2, 8, 2, 64], cap, 0.0) }
        });
        // Experts 2, 3 and 6 share the largest logit, the others another.
        rows.add(format!("ties go to the lower index, cap {cap}"), move |host| {
            let columns = [1., 1., 3., 3., 1., 1., 3., 1.];
            let router = columns.iter().flat_map(|&v| vec![v / 8.0; 64]).collect();
            NormRoute {
                router: host.floats_from(F32, [8, 64], router),
                ..plain(host, [2, 8, 3, 64], cap, 0.0)
            }
        });
    }
    // The softmax must subtract the maximum: each exponential by itself underflows to zero.
    rows.add("all logits far below zero", |host| {
        let router = (0..8).flat_map(|e| vec![-4.0 - f64::from(e * 5 % 8) / 64.0; 64]).collect();
        NormRoute {
            router: host.floats_from(F32, [8, 64], router),
            ..plain(host, [2, 8, 2, 64], 0.0, 0.0)
        }
    });
    for [tokens, experts, chosen, cols] in [[3, 8, 2, 64], [2, 64, 8, 512], [1, 1, 1, 8]] {
        rows.add(format!("{tokens} tokens, {chosen} of {experts}, {cols} wide, sum of 1"), {
            move |host| NormRoute {
                renormalize: true,
                ..case(host, [tokens, experts, chosen, cols], 0.0, Fill::Normal, 0.3)
            }
        });
    }
    // With this gain the normalized row is a one among zeros.
    rows.add("one-hot probes", |host| NormRoute {
        h: host.f32([1, 64], Fill::OneHot(63)),
        next_weight: host.f32([64], Fill::Constant(0.125)),
        router: host.f32([8, 64], Fill::Index),
        ..plain(host, [1, 8, 8, 64], 0.0, 0.0)
    });
    for (cap, renormalize) in [(0.0, false), (30.0, true)] {
        rows.spoiled(
            &super::SPOILS_OF_SOFTMAX,
            format!("3 tokens, 2 of 8, cap {cap}, {renormalize}"),
            move |host| NormRoute {
                renormalize,
                ..case(host, [3, 8, 2, 64], cap, Fill::Normal, 3.0)
            },
        );
    }
    let [_, wide] = SPOILED_WIDTHS;
    rows.spoiled(
        &super::SPOILS_OF_SOFTMAX,
        format!("2 tokens, 2 of 3, {wide} wide"),
        move |host| case(host, [2, 3, 2, wide], 30.0, Fill::Normal, 3.0),
    );
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let [tokens, experts] = [pick.size(33), pick.size(64)];
    let chosen = pick.size(8.min(experts));
    let most = pick.of(&[512, 512, 512, 2056]);
    let cols = pick.multiple(8, most);
    let cap = pick.of(&[0.0, 1.0, 30.0]);
    let spread = pick.of(&[0.3, 3.0, 40.0]);
    let renormalize = pick.of(&[false, true]);
    let (fill_name, fill) = pick.fill();
    let name = format!(
        "{tokens} tokens, {chosen} of {experts}, {cols} wide, cap {cap}, {spread}, {renormalize}, \
         {fill_name}"
    );
    rows.add(name, move |host| NormRoute {
        renormalize,
        ..case(host, [tokens, experts, chosen, cols], cap, fill, spread)
    });
}

/// A random block and stream, and a router of normal values times `spread / sqrt(cols)`.
fn case(
    host: &mut Host,
    [tokens, experts, chosen, cols]: [u32; 4],
    cap: f32,
    h: Fill,
    spread: f64,
) -> NormRoute {
    let normal = host.f32([experts, cols], Fill::Normal);
    let scale = spread / f64::from(cols).sqrt();
    let router = host.floats(normal).iter().map(|v| v * scale).collect();
    NormRoute {
        h: host.f32([tokens, cols], h),
        weight: host.f32([cols], Fill::Normal),
        next_weight: host.f32([cols], Fill::Normal),
        eps: 1e-5,
        router: host.floats_from(F32, [experts, cols], router),
        cap,
        renormalize: false,
        sum: host.f32([tokens, cols], Fill::Normal),
        out: host.unwritten([tokens, cols]),
        ids: host.unwritten_ints([tokens, chosen]),
        probs: host.unwritten([tokens, chosen]),
    }
}

/// The same with a block of ones, no stream and no gains, so that the experts' input is all ones.
fn plain(host: &mut Host, sizes: [u32; 4], cap: f32, spread: f64) -> NormRoute {
    let [tokens, _, _, cols] = sizes;
    NormRoute {
        weight: host.f32([cols], Fill::Constant(1.0)),
        next_weight: host.f32([cols], Fill::Constant(1.0)),
        sum: host.f32([tokens, cols], Fill::Constant(0.0)),
        ..case(host, sizes, cap, Fill::Constant(1.0), spread)
    }
}
