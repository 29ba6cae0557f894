//! Rounding of blocks of weights to the quantized types: searches for the scales with the least
//! squared error.

use half::f16;

use crate::base::{
    quant::{self, BLOCK},
    tensor::{DType, Integers},
};

/// Rounds a block to `dtype`, and appends its integers and its scales. With `weights`, the squared
/// errors count so much.
pub(super) fn round(
    dtype: DType,
    block: &Block,
    weights: Option<&Block>,
    integers: &mut Vec<i8>,
    scales: &mut Vec<f16>,
) {
    let (scale, q) = match (dtype, weights) {
        (DType::Q8, _) => round_q8(block),
        (DType::Q4, None) => round_q4(block),
        (DType::Q4, Some(weights)) => round_q4_weighted(block, weights),
        (DType::Q3 | DType::Q2, _) => {
            let format = dtype.integers().expect("the type is quantized");
            let (halves, _) = block.as_chunks::<HALF>();
            for (at, half) in halves.iter().enumerate() {
                let weights = weights.map_or(&[1.0; HALF], |all| &all.as_chunks().0[at]);
                scales.push(round_half(format, half, weights, integers));
            }
            return;
        }
        (DType::F32 | DType::F16 | DType::BF16 | DType::U32, _) => panic!("{dtype} has no blocks"),
    };
    scales.push(scale);
    integers.extend(q.map(small));
}

#[expect(clippy::cast_possible_truncation, reason = "integers of a block have at most 8 bits")]
fn small(q: f32) -> i8 {
    q as i8
}

/// A block of floats, as values or as integers.
type Block = [f32; BLOCK];

/// The scale that maps the largest magnitude to 127, and the integers that it gives. If the scale
/// is subnormal in F16, it is rounded up, so that the largest value is not clipped.
fn round_q8(block: &Block) -> (f16, Block) {
    let wanted = extremes(block)[0] / 127.0;
    let mut scale = to_f16(wanted);
    if wanted > scale.to_f32() * (1.0 + 1.0 / 1024.0) && scale < f16::MAX {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    (scale, integers(block, inverse(scale), -127.0, 127.0))
}

/// The largest magnitude, and the value that has it.
fn extremes(block: &Block) -> [f32; 2] {
    let mut largest = [0.0f32; 2];
    for &v in block {
        if v.abs() > largest[0] {
            largest = [v.abs(), v];
        }
    }
    largest
}

/// Candidates of the search for a `Q4` scale: what the block's extreme value becomes before
/// rounding. Some are outside of -8..=7: they clip the extreme, and give the others finer steps.
const REACH: [f32; 32] = [
    -5.2, -5.5, -5.8, -6.1, -6.4, -6.6, -6.8, -7.0, -7.2, -7.4, -7.6, -7.8, -8.0, -8.2, -8.4, -8.6,
    -8.8, -9.1, -9.4, -9.7, -10.0, 5.2, 5.5, 5.8, 6.1, 6.4, 6.7, 7.0, 7.3, 7.6, 8.0, 8.4,
];

/// Least-squares search over the candidates of [`REACH`]. For integers `q` of values `v`, the best
/// scale is `v·q / q·q`, which leaves an error of `v·v - (v·q)² / q·q`.
fn round_q4(block: &Block) -> (f16, Block) {
    let extreme = extremes(block)[1];
    // Smaller scales are zero in F16, and their inverse may overflow F32.
    if extreme.abs() < 1e-30 {
        return (f16::ZERO, [0.0; BLOCK]);
    }
    let mut scale = extreme / -8.0;
    let mut most = 0.0;
    for reach in REACH {
        let q = integers(block, reach / extreme, -8.0, 7.0);
        let (vq, qq) = (dot(block, &q), dot(&q, &q));
        // Compares vq² / qq with the best so far, without a division.
        if vq * vq > most * qq {
            most = vq * vq / qq;
            scale = vq / qq;
        }
    }
    // Rounding the scale to F16 may change the best integers, and these the best scale.
    let mut best = (f16::ZERO, [0.0; BLOCK]);
    let mut least = f32::INFINITY;
    for _ in 0..3 {
        let stored = to_f16(scale);
        let q = integers(block, inverse(stored), -8.0, 7.0);
        let error = squared_error(block, &q, stored.to_f32());
        if error >= least {
            break;
        }
        (least, best) = (error, (stored, q));
        let qq = dot(&q, &q);
        if qq > 0.0 {
            scale = dot(block, &q) / qq;
        }
    }
    best
}

/// The same where squared errors count as much as `weights` say.
fn round_q4_weighted(block: &Block, weights: &Block) -> (f16, Block) {
    let extreme = extremes(block)[1];
    if extreme.abs() < 1e-30 {
        return (f16::ZERO, [0.0; BLOCK]);
    }
    let error_of = |q: &Block, by: f32| sum(|i| weights[i] * (block[i] - by * q[i]).powi(2));
    // What is best without weights may be missed below.
    let mut best = round_q4(block);
    let mut least = error_of(&best.1, best.0.to_f32());
    for reach in REACH {
        let mut scale = extreme / reach;
        // The best scale for these integers may have better integers.
        for _ in 0..2 {
            let stored = to_f16(scale);
            let q = integers(block, inverse(stored), -8.0, 7.0);
            let error = error_of(&q, stored.to_f32());
            if error < least {
                (least, best) = (error, (stored, q));
            }
            let qq = sum(|i| weights[i] * q[i] * q[i]);
            if qq <= 0.0 {
                break;
            }
            scale = sum(|i| weights[i] * block[i] * q[i]) / qq;
        }
    }
    best
}

/// Elements that share a scale of one byte.
const HALF: usize = 16;

/// Tries every scale that a byte can hold, of both signs, in the three octaves in which the best
/// one can be: from where the extreme value just needs no clipping, downwards.
fn round_half(
    format: Integers,
    half: &[f32; HALF],
    weights: &[f32; HALF],
    into: &mut Vec<i8>,
) -> f16 {
    let most = half.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let shorter = f32::from(format.least.unsigned_abs().min(format.most.unsigned_abs()));
    // The first byte whose scale is not below.
    let top = (1..=LARGEST_BYTE)
        .rev()
        .take_while(|&byte| quant::scale_of_byte(byte) * shorter >= most)
        .last()
        .unwrap_or(LARGEST_BYTE);
    let zero = half.iter().zip(weights).map(|(v, w)| w * v * v).sum::<f32>();
    let mut best = (zero, 0_u8);
    for byte in top.saturating_sub(OCTAVES * 4).max(1)..=top {
        for sign in [0, 0x80] {
            let scale = quant::scale_of_byte(byte | sign);
            let error = half_error(format, half, weights, scale);
            if error < best.0 {
                best = (error, byte | sign);
            }
        }
    }
    let scale = quant::scale_of_byte(best.1);
    into.extend(half.iter().map(|&v| small(nearest(format, v, scale))));
    f16::from_f32(scale)
}

/// The byte of the largest scale.
const LARGEST_BYTE: u8 = 0x7b;

/// Octaves that are searched. Beyond them almost all values would be clipped.
const OCTAVES: u8 = 3;

/// The integer of a value, if the scale is not zero.
fn nearest(format: Integers, value: f32, scale: f32) -> f32 {
    let (least, step) = (f32::from(format.least), f32::from(format.step));
    let by = if scale == 0.0 { 0.0 } else { 1.0 / (scale * step) };
    let last = (f32::from(format.most) - least) / step;
    rounded((value * by - least / step).clamp(0.0, last)) * step + least
}

fn half_error(format: Integers, half: &[f32; HALF], weights: &[f32; HALF], scale: f32) -> f32 {
    let mut parts = [0.0f32; 8];
    for from in [0, 8] {
        for (part, i) in parts.iter_mut().zip(from..) {
            let error = half[i] - scale * nearest(format, half[i], scale);
            *part += weights[i] * error * error;
        }
    }
    parts.iter().sum()
}

/// The nearest finite F16.
fn to_f16(scale: f32) -> f16 {
    f16::from_f32(scale.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() }
}

/// Values times `by`, clamped, and rounded to the nearest integer, ties to even.
fn integers(block: &Block, by: f32, least: f32, most: f32) -> Block {
    block.map(|v| rounded((v * by).clamp(least, most)))
}

/// A small number, rounded to the nearest integer, ties to even.
fn rounded(v: f32) -> f32 {
    // 1.5 * 2^23. An `f32` of this size has no fraction bits, so adding and subtracting it rounds,
    // in instructions that compilers vectorize on every target.
    const ROUND: f32 = 12_582_912.0;
    (v + ROUND) - ROUND
}

/// A sum in eight partial sums, which compilers vectorize.
fn sum(of: impl Fn(usize) -> f32) -> f32 {
    let mut parts = [0.0f32; 8];
    for i in (0..BLOCK).step_by(8) {
        for (part, at) in parts.iter_mut().zip(i..) {
            *part += of(at);
        }
    }
    let [a, b, c, d, e, f, g, h] = parts;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

fn dot(a: &Block, b: &Block) -> f32 {
    sum(|i| a[i] * b[i])
}

fn squared_error(block: &Block, q: &Block, scale: f32) -> f32 {
    sum(|i| {
        let error = block[i] - scale * q[i];
        error * error
    })
}
