//! Block quantization: weights in blocks of 32 small integers that share a scale.
//!
//! Each row of `cols` elements is stored by itself: all integers in order, then one F16 scale for
//! each block, then zeros up to a multiple of 16 bytes. `Q8` has a signed byte for each element.
//! `Q4` has four bits, which are the integer plus 8; of two, the first is in the low half of the
//! byte. An element is its integer times its scale, which is exact in `f32`.

use half::f16;

use crate::base::tensor::{DType, Integers};

/// Elements of a block.
pub const BLOCK: usize = 32;

/// The largest magnitude that a block can hold.
pub fn largest(dtype: DType) -> f32 {
    f16::MAX.to_f32() * f32::from(integers_of(dtype).most)
}

/// Appends a row of `values`, rounded to `dtype`. Values should be finite and not beyond
/// [`largest`].
///
/// # Panics
///
/// If `dtype` is not quantized or the row is not made of whole blocks: callers check both.
pub fn encode_row(dtype: DType, values: &[f32], into: &mut Vec<u8>) {
    let round = rounding(dtype);
    let (blocks, []) = values.as_chunks::<BLOCK>() else {
        panic!("a row is made of whole blocks");
    };
    let mut integers = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (scale, q) = round(block);
        scales.push(scale);
        integers.extend(q.map(small));
    }
    store_row(dtype, &integers, &scales, into);
}

/// Appends a row of integers with the scales of its blocks.
///
/// # Panics
///
/// As [`encode_row`].
pub fn store_row(dtype: DType, integers: &[i8], scales: &[f16], into: &mut Vec<u8>) {
    let format = integers_of(dtype);
    assert_eq!(integers.len(), scales.len() * BLOCK, "a row is made of whole blocks");
    let start = into.len();
    match format.bits {
        8 => into.extend(integers.iter().map(|q| q.to_le_bytes()[0])),
        4 => {
            let nibble = |q: i8| (q - format.least).to_le_bytes()[0];
            let pairs = integers.chunks_exact(2);
            into.extend(pairs.map(|pair| nibble(pair[0]) | nibble(pair[1]) << 4));
        }
        bits => panic!("no integers have {bits} bits"),
    }
    into.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
    let len = into.len() - start;
    into.resize(start + len.next_multiple_of(16), 0);
}

/// The values of stored rows of `cols` elements each.
///
/// # Panics
///
/// If `dtype` is not quantized.
pub fn decode_rows(dtype: DType, cols: usize, bytes: &[u8]) -> Vec<f32> {
    let format = integers_of(dtype);
    let block_bytes = BLOCK * format.bits as usize / 8;
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    let mut values = Vec::with_capacity(bytes.len() / row_bytes.max(1) * cols);
    for row in bytes.chunks_exact(row_bytes.max(1)) {
        let (integers, scales) = row.split_at(cols / BLOCK * block_bytes);
        for (block, scale) in integers.chunks_exact(block_bytes).zip(scales.as_chunks::<2>().0) {
            let scale = f16::from_le_bytes(*scale).to_f32();
            match format.bits {
                8 => values.extend(block.iter().map(|&q| scale * f32::from(q.cast_signed()))),
                4 => {
                    let value = |q: u8| scale * f32::from(q.cast_signed() + format.least);
                    values.extend(block.iter().flat_map(|&q| [value(q & 15), value(q >> 4)]));
                }
                bits => panic!("no integers have {bits} bits"),
            }
        }
    }
    values
}

/// The scales of each of the stored rows of `cols` elements.
///
/// # Panics
///
/// If `dtype` is not quantized.
pub fn scales_of_rows(dtype: DType, cols: usize, bytes: &[u8]) -> impl Iterator<Item = &[[u8; 2]]> {
    let before = cols / BLOCK * (BLOCK * integers_of(dtype).bits as usize / 8);
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    bytes
        .chunks_exact(row_bytes.max(1))
        .map(move |row| &row[before..].as_chunks::<2>().0[..cols / BLOCK])
}

/// The integers of a quantized type.
fn integers_of(dtype: DType) -> Integers {
    dtype.integers().unwrap_or_else(|| panic!("{dtype} has no blocks"))
}

/// What rounds a block to `dtype`.
fn rounding(dtype: DType) -> fn(&Block) -> (f16, Block) {
    match dtype {
        DType::Q8 => round_q8,
        DType::Q4 => round_q4,
        DType::F32 | DType::F16 | DType::BF16 | DType::U32 => panic!("{dtype} has no blocks"),
    }
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

/// The nearest finite F16.
fn to_f16(scale: f32) -> f16 {
    f16::from_f32(scale.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() }
}

/// Values times `by`, clamped, and rounded to the nearest integer, ties to even.
fn integers(block: &Block, by: f32, least: f32, most: f32) -> Block {
    // 1.5 * 2^23. An `f32` of this size has no fraction bits, so adding and subtracting it rounds,
    // in instructions that compilers vectorize on every target.
    const ROUND: f32 = 12_582_912.0;
    block.map(|v| ((v * by).clamp(least, most) + ROUND) - ROUND)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(dtype: DType, values: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        encode_row(dtype, values, &mut bytes);
        assert_eq!(bytes.len() as u64, dtype.row_bytes(values.len() as u64));
        decode_rows(dtype, values.len(), &bytes)
    }

    fn wavy(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7).sin() * (1.0 + (i / 32) as f32)).collect()
    }

    #[test]
    fn values_come_back_within_a_step() {
        let values = wavy(320);
        for (dtype, step) in [(DType::Q8, 1.0 / 127.0), (DType::Q4, 1.0 / 7.0)] {
            for (block, back) in values.chunks(32).zip(round_trip(dtype, &values).chunks(32)) {
                let most = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (a, b) in block.iter().zip(back) {
                    assert!((a - b).abs() <= 0.7 * step * most, "{dtype}: {a} became {b}");
                }
            }
        }
    }

    #[test]
    fn what_is_stored_is_kept() {
        for dtype in [DType::Q8, DType::Q4] {
            let once = round_trip(dtype, &wavy(96));
            let error = |a: &[f32], b: &[f32]| -> f32 {
                a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
            };
            // Quantizing again finds the same values, or others that are about as close.
            assert!(error(&once, &round_trip(dtype, &once)) <= 1e-4 * error(&once, &[0.0; 96]));
            assert_eq!(round_trip(dtype, &[0.0; 32]), [0.0; 32]);
        }
    }

    #[test]
    fn places_are_those_of_the_format() {
        let integers: Vec<i8> = (0..64).map(|i| i % 16 - 8).collect();
        let scales = [f16::from_f32(0.5), f16::from_f32(-2.0)];
        let mut bytes = Vec::new();
        store_row(DType::Q4, &integers, &scales, &mut bytes);
        assert_eq!(bytes.len(), 48);
        assert_eq!(bytes[..3], [0x10, 0x32, 0x54]);
        assert_eq!(bytes[32..36], [0x00, 0x38, 0x00, 0xc0]);
        let values = decode_rows(DType::Q4, 64, &bytes);
        assert_eq!((values[0], values[15], values[32], values[47]), (-4.0, 3.5, 16.0, -14.0));

        let integers: Vec<i8> = (0..32).map(|i| i - 127).collect();
        let mut bytes = Vec::new();
        store_row(DType::Q8, &integers, &scales[..1], &mut bytes);
        assert_eq!((bytes.len(), bytes[0], bytes[31]), (48, 0x81, 0xa0));
        assert_eq!(decode_rows(DType::Q8, 32, &bytes)[..2], [-63.5, -63.0]);
    }

    #[test]
    fn four_bits_lose_little() {
        let values: Vec<f32> = (0u32..32 * 64)
            .map(|i| {
                let x = f64::from(i.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
                crate::base::num::round((x - 0.5) * 2.0)
            })
            .collect();
        let error: f32 = round_trip(DType::Q4, &values)
            .iter()
            .zip(&values)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f32>()
            / values.iter().map(|v| v.powi(2)).sum::<f32>();
        // Sixteen levels over a uniform distribution: the error's variance is step² / 12.
        assert!(error < 0.006, "{error}");
    }
}
