//! What test rows put into tensors: random, structured and exact values.

use super::{Host, cols, len};
use crate::base::{
    quant,
    tensor::{DType, Integers, Shape, Tensor},
};

/// What a test row puts into a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Normally distributed, standard deviation 1.
    Normal,
    /// Normal with one element in 64 a thousand times larger.
    Outliers,
    /// Normal, scaled to about 1e-15: products come near the smallest normal numbers.
    Tiny,
    /// Pairs that cancel: large values of alternating sign with a small remainder.
    Cancelling,
    /// Integers from `-n` to `n`: sums stay exact in `f32` however they are ordered.
    Integers(u32),
    /// Zero everywhere but for a one at this flat index.
    OneHot(u64),
    /// Ones among zeros, one in so many.
    Sparse(u32),
    /// The flat index modulo 4096, plus one: proves addressing.
    Index,
    /// The same value everywhere.
    Constant(f64),
}

impl Host {
    /// A tensor of `dtype` filled as `fill` says, every value exact in that type.
    pub fn filled(&mut self, dtype: DType, shape: impl Into<Shape>, fill: Fill) -> Tensor {
        let shape = shape.into();
        let count = len(shape);
        if self.only_shapes {
            return self.zeros(dtype, shape);
        }
        let values: Vec<f64> = (0..count as u64).map(|i| self.draw(fill, i)).collect();
        if dtype.is_quantized() {
            match fill {
                Fill::OneHot(_) | Fill::Sparse(_) if !quant::has_zero(dtype) => {
                    return self.few_halves(dtype, shape, &values);
                }
                Fill::Integers(_) | Fill::Index | Fill::OneHot(_) | Fill::Sparse(_) => {
                    return self.in_blocks(dtype, shape, &values, [1.0, 2.0, 4.0, 8.0]);
                }
                Fill::Constant(value) if quant::is_scale(dtype, value) => {
                    let ones = vec![1.0; count];
                    return self.in_blocks(dtype, shape, &ones, [value; 4]);
                }
                _ => {}
            }
        }
        self.floats_from(dtype, shape, values)
    }

    /// Integers wrapped into the range of `dtype`, in blocks that have these scales in turn. With
    /// powers of two as scales, sums stay exact and a wrong scale is noticed.
    fn in_blocks(&mut self, dtype: DType, shape: Shape, values: &[f64], by: [f64; 4]) -> Tensor {
        let format = dtype.integers().expect("the type has blocks");
        let mut stored = Vec::new();
        for row in values.chunks_exact(cols(shape)) {
            let integers: Vec<i8> = row.iter().map(|v| wrapped(*v, format)).collect();
            let scales: Vec<half::f16> = (0..row.len() / format.share as usize)
                .map(|at| half::f16::from_f64(by[at % 4]))
                .collect();
            quant::store_row(dtype, &integers, &scales, &mut stored);
        }
        self.stored(dtype, shape, stored)
    }

    /// Ones among zeros in a type without a zero: nines among ones, in every seventh part that
    /// shares a scale and has a nine. The scales of the others are zero.
    fn few_halves(&mut self, dtype: DType, shape: Shape, values: &[f64]) -> Tensor {
        let share = dtype.integers().expect("the type has blocks").share as usize;
        let mut stored = Vec::new();
        for row in values.chunks_exact(cols(shape)) {
            let integers: Vec<i8> = row.iter().map(|&v| if v > 0.0 { 9 } else { 1 }).collect();
            let parts = row.chunks_exact(share).enumerate();
            let kept = |(at, part): (usize, &[f64])| at % 7 == 0 && part.iter().any(|&v| v > 0.0);
            let scale = |part: (usize, &[f64])| {
                [1.0, 2.0, 4.0][part.0 % 3] * f32::from(u8::from(kept(part)))
            };
            let scales: Vec<half::f16> =
                parts.map(|part| half::f16::from_f32(scale(part))).collect();
            quant::store_row(dtype, &integers, &scales, &mut stored);
        }
        self.stored(dtype, shape, stored)
    }

    fn draw(&mut self, fill: Fill, i: u64) -> f64 {
        match fill {
            Fill::Normal => self.normal(),
            Fill::Outliers => {
                self.normal() * if self.next().is_multiple_of(64) { 1000.0 } else { 1.0 }
            }
            Fill::Tiny => self.normal() * 1e-15,
            Fill::Cancelling => {
                let sign = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
                sign * 1000.0 + self.normal()
            }
            Fill::Integers(n) => (self.next() % u64::from(2 * n + 1)) as f64 - f64::from(n),
            Fill::OneHot(at) => f64::from(u8::from(i == at)),
            Fill::Sparse(n) => f64::from(u8::from(self.next().is_multiple_of(n.into()))),
            Fill::Index => (i % 4096 + 1) as f64,
            Fill::Constant(value) => value,
        }
    }

    fn normal(&mut self) -> f64 {
        // Box-Muller transform of two uniform numbers, the first of which is not 0.
        let u = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let v = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// One of a type's integers for a whole number: itself if it can be, and else one that neighbours
/// do not have.
#[expect(clippy::cast_possible_truncation, reason = "the range is that of a byte")]
fn wrapped(value: f64, integers: Integers) -> i8 {
    let [least, most, step] = [integers.least, integers.most, integers.step].map(f64::from);
    let count = (most - least) / step + 1.0;
    let number =
        if (value - least).rem_euclid(step) > 0.0 { value } else { (value - least) / step };
    (number.rem_euclid(count) * step + least) as i8
}
