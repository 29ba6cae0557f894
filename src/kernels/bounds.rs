//! Running error analysis: the error that WGSL's accuracy rules allow each operation, propagated.
//!
//! Source: WGSL, section "Floating Point Accuracy". Basic operations are correctly rounded, but in
//! either direction, so one operation may err by a whole unit in the last place.

use half::f16;

use crate::{
    base::{activation::Gelu, num::round, quant, tensor::DType},
    machine::host::{Bounded, Host},
    variants::{Product, Sums},
};

/// One unit in the last place of 1: WGSL leaves the direction of rounding open.
pub(crate) const U: f64 = 1.0 / 8_388_608.0;

/// Room for results that a device may flush to zero.
pub(crate) const FLUSHED: f64 = 1.0e-36;

impl Bounded {
    /// `self + other`.
    pub(crate) fn plus(self, other: Self) -> Self {
        let value = self.value + other.value;
        Self { value, bound: self.bound + other.bound + U * value.abs() }
    }

    /// `self * other`.
    pub(crate) fn times(self, other: Self) -> Self {
        let value = self.value * other.value;
        let bound = self.bound * other.value.abs()
            + other.bound * self.value.abs()
            + self.bound * other.bound
            + U * value.abs()
            + FLUSHED;
        Self { value, bound }
    }

    /// `self * factor`, the factor being exact.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        self.times(Self::exact(factor))
    }

    /// `self / other`, for a positive `other` well above its own error.
    pub(crate) fn over(self, other: Self) -> Self {
        let value = self.value / other.value;
        let relative = other.bound / other.value;
        let bound = (self.bound / other.value + value.abs() * relative) / (1.0 - relative)
            + 2.5 * U * value.abs()
            + FLUSHED;
        Self { value, bound }
    }

    /// `exp(self)` as `lib/math.wgsl` computes it: its polynomial and three roundings, and one more
    /// of the argument if a compiler joins the two parts of its reduction.
    pub(crate) fn exp(self) -> Self {
        let value = self.value.exp();
        let own = (4.0 + self.value.abs()) * U;
        Self { value, bound: value * (self.bound.exp_m1() + own) + FLUSHED }
    }

    /// The result where an input or an intermediate result is not finite.
    pub(crate) const NOT_FINITE: Self = Self { value: f64::NAN, bound: 0.0 };

    /// `cap * tanh(self / cap)` as `lib/math.wgsl` computes it; `self` if `cap` is 0 or `self` is
    /// not finite.
    pub(crate) fn softcap(self, cap: f64) -> Self {
        if cap <= 0.0 || !self.value.is_finite() {
            return self;
        }
        let z = self.value / cap;
        let value = cap * z.tanh();
        // The effect of the argument's own error, which is small where tanh is flat.
        let end = |argument: f64| (cap * (argument / cap).tanh() - value).abs();
        let carried = end(self.value - self.bound).max(end(self.value + self.bound));
        // Then its division, and either the polynomial, which rounds twice what is near z, or the
        // quotient of exponentials: about eight units of 1.
        let polynomial = z.abs() + self.bound / cap < 0.249;
        let bound = carried
            + 2.5 * U * self.value.abs().min(cap)
            + U * cap * if polynomial { 3.0 * z.abs() } else { 8.0 }
            + U * value.abs()
            + FLUSHED;
        Self { value, bound }
    }

    /// The activation of the gated MLPs as `lib/math.wgsl` computes it.
    pub(crate) fn gelu(self, kind: Gelu) -> Self {
        let x = self.value;
        let slope = 1.13 * self.bound;
        match kind {
            Gelu::Erf => {
                let z = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
                let tail = 0.5 * libm::erfc(z);
                let value = if x > 0.0 { x * (1.0 - tail) } else { x * tail };
                // The fit is good to one unit; its exponential carries the error of z squared.
                let relative = (26.0 + 7.0 * z.min(9.0).powi(2)) * U;
                let bound = slope + x.abs() * tail * relative + 3.0 * U * value.abs() + FLUSHED;
                Self { value, bound }
            }
            Gelu::Tanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                let value = 0.5 * x * (1.0 + inner.tanh());
                Self { value, bound: slope + 8.0 * U * x.abs() + FLUSHED }
            }
        }
    }
}

/// A dot product whose longest chain of roundings has `longest` links.
pub(crate) fn dot(x: &[f64], w: &[f64], longest: f64) -> Bounded {
    let (mut value, mut size) = (0.0, 0.0);
    for (x, w) in x.iter().zip(w) {
        value += x * w;
        size += (x * w).abs();
    }
    Bounded { value, bound: longest * U * size + x.len() as f64 * FLUSHED }
}

/// The same of values that are not exact.
pub(crate) fn dot_bounded(x: &[Bounded], w: &[f64], longest: f64) -> Bounded {
    let (mut value, mut bound) = (0.0, 0.0);
    for (x, w) in x.iter().zip(w) {
        value += x.value * w;
        bound += x.bound * w.abs() + longest * U * (x.value.abs() + x.bound) * w.abs() + FLUSHED;
    }
    Bounded { value, bound }
}

/// How a product is summed under the host's tuning. Notes in `host.rounds` if it rounds
/// activations, since no row is exact then.
pub(crate) fn sums(host: &mut Host, product: &Product) -> Sums {
    let sums = host.tuning.setting(product).sums(product, product.cols());
    host.rounds |= sums.rounds;
    sums
}

impl Sums {
    /// The dot product of a row of x and a row of the weight.
    pub(crate) fn dot(self, x: &[f64], w: &[f64]) -> Bounded {
        let mut sum = dot(x, w, self.depth);
        if self.rounds {
            for (x, w) in x.chunks(quant::BLOCK).zip(w.chunks(quant::BLOCK)) {
                sum.bound += half_step(x) * w.iter().map(|w| w.abs()).sum::<f64>();
            }
        }
        if let Some(integer) = self.halves {
            sum.bound += lost_of_halves(x, w, integer);
        }
        sum
    }
}

/// What a dot product loses where `variants/coop.wgsl` has halves (f16) too small to be normal,
/// which a device may take for zero.
///
/// Each row of x and w is multiplied by a power of two, its largest element to less than 2^15; a
/// `unit` is one of the product in numbers of the row. The power of quantized weights follows from
/// their largest scale, as if it were multiplied by the largest `integer`; at least one is.
fn lost_of_halves(x: &[f64], w: &[f64], integer: f64) -> f64 {
    const SMALLEST: f64 = 1.0 / 16_384.0;
    let largest = |row: &[f64]| row.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let sum = |row: &[f64]| row.iter().map(|v| v.abs()).sum::<f64>();
    let unit = |largest: f64| (largest * SMALLEST).max(f64::from(f32::MIN_POSITIVE));
    let (of_x, of_w) = (unit(largest(x)), unit(integer * largest(w)));
    let both = 1.0 + x.len() as f64 * SMALLEST * SMALLEST;
    SMALLEST * (of_x * sum(w) + of_w * sum(x)) + of_x * of_w * both
}

/// The most by which rounding a block of activations to int8 changes each of them.
///
/// `lib/tile_packed.wgsl` multiplies by an inverse. The inverse errs by two and a half units, as
/// the scale does, and the product by one. That changes a number up to 127 by far less than a half
/// before it is rounded. So a block of integers whose largest is exactly 127 stays as it is.
fn half_step(block: &[f64]) -> f64 {
    let largest = block.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    if largest.total_cmp(&127.0).is_eq() && block.iter().all(|x| x.fract() == 0.0) {
        return 0.0;
    }
    // Blocks below the shader's limit become zeros.
    if largest < 1.001e-35 {
        return largest;
    }
    largest / 127.0 * (0.5 + 127.0 * 8.0 * U)
}

/// A row of the cache as `lib/cache_store_*.wgsl` stores it in `dtype`.
///
/// Rounding is monotone. So what a device may store lies between the rounded ends of the value's
/// interval (value ± bound), and nothing is assumed about ties.
pub(crate) fn stored(dtype: DType, row: &[Bounded]) -> Vec<Bounded> {
    match dtype {
        DType::F16 => row.iter().map(|x| stored_half(*x)).collect(),
        DType::Q8 => row.chunks(quant::BLOCK).flat_map(stored_block).collect(),
        _ => row.to_vec(),
    }
}

/// The value with the farthest of its `ends` as its bound.
fn between(value: f64, ends: impl IntoIterator<Item = f64>) -> Bounded {
    Bounded { value, bound: ends.into_iter().map(|end| (end - value).abs()).fold(0.0, f64::max) }
}

fn stored_half(x: Bounded) -> Bounded {
    if !x.value.is_finite() {
        return Bounded::NOT_FINITE;
    }
    let half = |x: f64| nearest_half(x).to_f64();
    between(half(x.value), [half(x.value - x.bound), half(x.value + x.bound)])
}

/// The nearest finite f16. A device rounds from f32, so this does too.
fn nearest_half(x: f64) -> f16 {
    f16::from_f32(round(x).clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

fn stored_block(block: &[Bounded]) -> Vec<Bounded> {
    if block.iter().any(|x| !x.value.is_finite()) {
        return vec![Bounded::NOT_FINITE; block.len()];
    }
    let largest = |size: fn(&Bounded) -> f64| block.iter().map(size).fold(0.0, f64::max);
    let scale = block_scale(largest(|x| x.value.abs())).to_f64();
    // A product and a comparison, each of which may round.
    let least = largest(|x| x.value.abs() - x.bound) * (1.0 - 4.0 * U) - FLUSHED;
    let most = largest(|x| x.value.abs() + x.bound) * (1.0 + 4.0 * U);
    let scales = block_scale(least.max(0.0)).to_bits()..=block_scale(most).to_bits();
    let scales: Vec<f64> = scales.map(|bits| f16::from_bits(bits).to_f64()).collect();
    let integer = |x: f64| x.clamp(-127.0, 127.0);
    let ends = |x: &Bounded, scale: f64| {
        if scale == 0.0 {
            return [0.0; 2];
        }
        // Room for the errors of the scale's inverse and of the product with it.
        let [low, high] = [x.value - x.bound, x.value + x.bound].map(|x| x / scale);
        let slack = 4.0 * U * low.abs().max(high.abs());
        let (low, high) = ((low - slack - 0.5).ceil(), (high + slack + 0.5).floor());
        [integer(low) * scale, integer(high) * scale]
    };
    block
        .iter()
        .map(|x| {
            let q = if scale == 0.0 { 0.0 } else { integer((x.value / scale).round_ties_even()) };
            between(q * scale, scales.iter().flat_map(|&scale| ends(x, scale)))
        })
        .collect()
}

/// The scale of a block with this largest magnitude.
fn block_scale(largest: f64) -> f16 {
    let wanted = largest / 127.0;
    let nearest = nearest_half(wanted);
    let short = wanted > nearest.to_f64() * (1.0 + 1.0 / 1024.0) && nearest < f16::MAX;
    f16::from_bits(nearest.to_bits() + u16::from(short))
}
