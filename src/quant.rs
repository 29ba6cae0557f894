//! Weights in blocks of 32 small integers that share a scale.
//!
//! A row of `cols` elements is stored by itself: first all integers in order, then one F16 scale for
//! each block, then zeros up to a multiple of 16 bytes. `Q8` has a signed byte for each element,
//! `Q4` four bits that are the element plus 8, the first of two in the lower half of a byte. An
//! element is its integer times its scale, which is exact in `f32`.

use half::f16;

use crate::DType;

/// Elements of a block.
pub const BLOCK: usize = 32;

/// Appends a row of `values`, rounded to `dtype`.
///
/// # Panics
///
/// If `dtype` is not quantized or the row is not made of whole blocks: callers check both.
pub fn encode_row(dtype: DType, values: &[f32], into: &mut Vec<u8>) {
    let blocks = values.chunks_exact(BLOCK).map(|block| match dtype {
        DType::Q8 => round_q8(block),
        _ => round_q4(block),
    });
    let (scales, integers): (Vec<f16>, Vec<Vec<i8>>) = blocks.unzip();
    store_row(dtype, &integers.concat(), &scales, into);
}

/// Appends a row of integers with the scales of its blocks.
///
/// # Panics
///
/// As [`encode_row`].
pub fn store_row(dtype: DType, integers: &[i8], scales: &[f16], into: &mut Vec<u8>) {
    assert!(dtype.is_quantized(), "{dtype} has no blocks");
    assert_eq!(integers.len(), scales.len() * BLOCK, "a row is made of whole blocks");
    let start = into.len();
    if dtype == DType::Q8 {
        into.extend(integers.iter().map(|q| q.to_le_bytes()[0]));
    } else {
        let nibble = |q: i8| (q + 8).to_le_bytes()[0];
        into.extend(integers.chunks_exact(2).map(|pair| nibble(pair[0]) | nibble(pair[1]) << 4));
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
    assert!(dtype.is_quantized(), "{dtype} has no blocks");
    let integers = if dtype == DType::Q8 { cols } else { cols / 2 };
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    let mut values = Vec::with_capacity(bytes.len() / row_bytes.max(1) * cols);
    for row in bytes.chunks_exact(row_bytes) {
        let scale = |i: usize| {
            let at = integers + i / BLOCK * 2;
            f16::from_le_bytes([row[at], row[at + 1]]).to_f32()
        };
        let integer = |i: usize| match dtype {
            DType::Q8 => i8::from_le_bytes([row[i]]),
            _ => (row[i / 2] >> (i % 2 * 4) & 15).cast_signed() - 8,
        };
        values.extend((0..cols).map(|i| scale(i) * f32::from(integer(i))));
    }
    values
}

/// The nearest scale that F16 has, and what division by it gives; zero scales give zeros.
fn round_q8(block: &[f32]) -> (f16, Vec<i8>) {
    let largest = block.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let scale = f16::from_f32(largest / 127.0);
    (scale, integers(block, scale, -127.0, 127.0))
}

/// Of several scales, the one with the least squared error.
fn round_q4(block: &[f32]) -> (f16, Vec<i8>) {
    let extreme = block.iter().fold(0.0f32, |most, v| if v.abs() > most.abs() { *v } else { most });
    let mut best = (f16::ZERO, vec![0; block.len()]);
    let mut least = f32::INFINITY;
    // The extreme value goes to -8, or somewhat beyond or short of it.
    for steps in [-8.0, -7.6, -7.3, -7.0, -8.4, -8.8, 7.0, 7.4] {
        let mut scale = f16::from_f32(extreme / steps);
        for _ in 0..2 {
            let q = integers(block, scale, -8.0, 7.0);
            let error: f32 = block
                .iter()
                .zip(&q)
                .map(|(v, &q)| (v - scale.to_f32() * f32::from(q)).powi(2))
                .sum();
            let (dot, square) = block.iter().zip(&q).fold((0.0, 0.0), |(dot, square), (v, &q)| {
                (dot + v * f32::from(q), square + f32::from(q).powi(2))
            });
            if error < least {
                (least, best) = (error, (scale, q));
            }
            // What least squares make of these integers.
            if square > 0.0 {
                scale = f16::from_f32(dot / square);
            }
        }
    }
    best
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to a few bits")]
fn integers(block: &[f32], scale: f16, least: f32, most: f32) -> Vec<i8> {
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    block.iter().map(|v| (v * inverse).round_ties_even().clamp(least, most) as i8).collect()
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
            // Rounding again finds the same values, or others as near to what was meant.
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
                crate::host::round((x - 0.5) * 2.0)
            })
            .collect();
        let error: f32 = round_trip(DType::Q4, &values)
            .iter()
            .zip(&values)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f32>()
            / values.iter().map(|v| v.powi(2)).sum::<f32>();
        // Sixteen levels over an even spread: a variance of step squared over twelve.
        assert!(error < 0.006, "{error}");
    }
}
