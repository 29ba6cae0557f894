//! Block quantization: weights in blocks of 32 small integers that share scales.
//!
//! Each row of `cols` elements is stored by itself: all integers in order, then the scales, two
//! bytes for each block, then zeros up to a multiple of 16 bytes. An element is its integer times
//! its scale, which is exact in `f32`.
//!
//! - `Q8` has a signed byte for each element, and an F16 scale for each block.
//! - `Q4` has four bits, which are the integer plus 8; of two, the first is in the low half of the
//!   byte. It has the same scales.
//! - `Q3` has three bits, which are the integer plus 4. A block is three 32-bit words. The lower 24
//!   bits of each have eight integers, the first the lowest; the upper bytes of the three are the
//!   24 bits of the last eight. Each half of a block has a scale of one byte, the upper one of an
//!   F16 (E5M2), which is 256 times the scale: blocks of 16 follow the sizes of weights more
//!   closely, which is worth more than the bits that the scales lose.
//! - `Q2` has two bits, the first the lowest. Code k is the integer 8 k - 15, that is, an
//!   eighth of it goes from -1.875 to 1.125 in steps of one. A scale may be negative, and then the
//!   long side is the positive one. For normally distributed weights the squared error is 7 % less
//!   than with -2 to 1, and 12 % less than with -1.5 to 1.5. Scales are those of `Q3`.

use half::f16;

use crate::base::{
    rounding,
    tensor::{DType, Integers},
};

/// Elements of a block.
pub const BLOCK: usize = 32;

/// A scale that is stored in a byte is this many times as large there: F16 has more large numbers
/// than weights do.
const BYTE_SCALE: f32 = 256.0;

/// The largest magnitude that a block can hold.
pub fn largest(dtype: DType) -> f32 {
    let format = integers_of(dtype);
    largest_scale(format) * f32::from(format.least.unsigned_abs().min(format.most.unsigned_abs()))
}

fn largest_scale(format: Integers) -> f32 {
    if has_byte_scales(format) {
        f16::from_bits(0x7b00).to_f32() / BYTE_SCALE
    } else {
        f16::MAX.to_f32()
    }
}

/// Whether each half of a block has a scale of one byte.
fn has_byte_scales(format: Integers) -> bool {
    (format.share as usize) < BLOCK
}

/// The scale that is stored in a byte.
pub(super) fn scale_of_byte(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32() / BYTE_SCALE
}

/// The byte of a scale. Those that no byte holds lose their last bits.
fn byte_of_scale(scale: f16) -> u8 {
    f16::from_f32(scale.to_f32() * BYTE_SCALE).to_bits().to_be_bytes()[0]
}

/// Whether `value` is a scale that `dtype` can hold.
pub fn is_scale(dtype: DType, value: f64) -> bool {
    let scale = f16::from_f64(value);
    let stored = if has_byte_scales(integers_of(dtype)) {
        scale_of_byte(byte_of_scale(scale)).into()
    } else {
        scale.to_f64()
    };
    stored.to_bits() == value.to_bits()
}

/// Whether zero is one of the integers of `dtype`.
pub fn has_zero(dtype: DType) -> bool {
    let format = integers_of(dtype);
    format.least % format.step == 0
}

/// Appends a row of `values`, rounded to `dtype`. Values should be finite and not beyond
/// [`largest`].
///
/// # Panics
///
/// If `dtype` is not quantized or the row is not made of whole blocks: callers check both.
pub fn encode_row(dtype: DType, values: &[f32], into: &mut Vec<u8>) {
    encode_weighted(dtype, values, None, into);
}

/// The same with an importance for each element: squared errors are multiplied by it before
/// they are added up. It is positive; only ratios inside of a block count. `Q8` ignores it, as its
/// errors are small.
///
/// # Panics
///
/// As [`encode_row`], and if there are as many importances as values.
pub fn encode_weighted(
    dtype: DType,
    values: &[f32],
    importance: Option<&[f32]>,
    into: &mut Vec<u8>,
) {
    let (blocks, []) = values.as_chunks::<BLOCK>() else {
        panic!("a row is made of whole blocks");
    };
    let weights = importance.map(|all| {
        assert_eq!(all.len(), values.len(), "each element has an importance");
        all.as_chunks::<BLOCK>().0
    });
    let mut integers = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(2 * blocks.len());
    for (at, block) in blocks.iter().enumerate() {
        let weights = weights.map(|all| &all[at]);
        rounding::round(dtype, block, weights, &mut integers, &mut scales);
    }
    store_row(dtype, &integers, &scales, into);
}

/// Appends a row of integers with their scales: one for each block, or for each half of one.
///
/// # Panics
///
/// As [`encode_row`].
pub fn store_row(dtype: DType, integers: &[i8], scales: &[f16], into: &mut Vec<u8>) {
    let format = integers_of(dtype);
    assert_eq!(integers.len(), scales.len() * format.share as usize, "wanted whole blocks");
    let start = into.len();
    // Steps above the least integer, which may be more than an i8 holds.
    let code = |q: i8| {
        u8::try_from((i16::from(q) - i16::from(format.least)) / i16::from(format.step))
            .expect("integers are those of the type")
    };
    match format.bits {
        8 => into.extend(integers.iter().map(|q| q.to_le_bytes()[0])),
        3 => {
            for block in integers.chunks_exact(BLOCK) {
                into.extend(words_of_three(block, code).iter().flat_map(|word| word.to_le_bytes()));
            }
        }
        bits => {
            let in_byte = integers.chunks_exact(8 / bits as usize);
            into.extend(
                in_byte
                    .map(|some| some.iter().rev().fold(0, |byte: u8, &q| byte << bits | code(q))),
            );
        }
    }
    if has_byte_scales(format) {
        into.extend(scales.iter().map(|&scale| byte_of_scale(scale)));
    } else {
        into.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
    }
    let len = into.len() - start;
    into.resize(start + len.next_multiple_of(16), 0);
}

/// The words of a block of `Q3`.
fn words_of_three(block: &[i8], code: impl Fn(i8) -> u8) -> [u32; 3] {
    let eight = |part: usize| {
        let codes = block[8 * part..8 * part + 8].iter().rev();
        codes.fold(0, |bits: u32, &q| bits << 3 | u32::from(code(q)))
    };
    let last = eight(3).to_le_bytes();
    [0, 1, 2].map(|part| eight(part) | u32::from(last[part]) << 24)
}

/// The code of element `i` of a block of `Q3`.
fn code_of_three(words: &[u8], i: usize) -> u8 {
    let at = |byte: usize| u32::from(words[byte]);
    let bits = if i < 24 {
        let first = i / 8 * 4;
        at(first) | at(first + 1) << 8 | at(first + 2) << 16
    } else {
        at(3) | at(7) << 8 | at(11) << 16
    };
    (bits >> (i % 8 * 3)).to_le_bytes()[0] & 7
}

/// The values of stored rows of `cols` elements each.
///
/// # Panics
///
/// If `dtype` is not quantized.
pub fn decode_rows(dtype: DType, cols: usize, bytes: &[u8]) -> Vec<f32> {
    let format = integers_of(dtype);
    let (least, step) = (f32::from(format.least), f32::from(format.step));
    let block_bytes = BLOCK * format.bits as usize / 8;
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    let mut values = Vec::with_capacity(bytes.len() / row_bytes.max(1) * cols);
    for row in bytes.chunks_exact(row_bytes.max(1)) {
        let (integers, scales) = row.split_at(cols / BLOCK * block_bytes);
        for (block, pair) in integers.chunks_exact(block_bytes).zip(scales.as_chunks::<2>().0) {
            let scale = f16::from_le_bytes(*pair).to_f32();
            match format.bits {
                8 => values.extend(block.iter().map(|&q| scale * f32::from(q.cast_signed()))),
                4 => {
                    let value = |q: u8| scale * f32::from(q.cast_signed() + format.least);
                    values.extend(block.iter().flat_map(|&q| [value(q & 15), value(q >> 4)]));
                }
                bits => {
                    let scales = pair.map(scale_of_byte);
                    values.extend((0..BLOCK).map(|i| {
                        let code = match bits {
                            3 => code_of_three(block, i),
                            _ => block[i / 4] >> (i % 4 * 2) & 3,
                        };
                        scales[i / 16] * (f32::from(code) * step + least)
                    }));
                }
            }
        }
    }
    values
}

/// The scales of each of the stored rows of `cols` elements, as they are stored.
///
/// # Panics
///
/// If `dtype` is not quantized.
pub fn scales_of_rows(dtype: DType, cols: usize, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let before = integer_bytes(dtype, cols);
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    bytes.chunks_exact(row_bytes.max(1)).map(move |row| &row[before..][..cols / BLOCK * 2])
}

/// Replaces the scale of an element of a stored row, which may be NaN or infinite.
///
/// # Panics
///
/// If `dtype` is not quantized, or the row is shorter.
pub fn set_scale(dtype: DType, cols: usize, row: &mut [u8], element: usize, scale: f16) {
    let format = integers_of(dtype);
    let scales = &mut row[integer_bytes(dtype, cols)..];
    let at = element / format.share as usize;
    if has_byte_scales(format) {
        scales[at] = byte_of_scale(scale);
    } else {
        scales[2 * at..2 * at + 2].copy_from_slice(&scale.to_le_bytes());
    }
}

fn integer_bytes(dtype: DType, cols: usize) -> usize {
    cols / BLOCK * (BLOCK * integers_of(dtype).bits as usize / 8)
}

/// The integers of a quantized type.
fn integers_of(dtype: DType) -> Integers {
    dtype.integers().unwrap_or_else(|| panic!("{dtype} has no blocks"))
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

    /// Types of few bits take the scale with the least squared error. One that they try is that of
    /// the extreme value, at most a quarter larger as it has a byte. With it, Q3 is off by half a
    /// step, or by a quarter of the extreme value at the other end, and Q2 by four of its scales
    /// or by two fifths of the extreme value.
    #[test]
    fn few_bits_are_as_good_as_the_plainest_scale() {
        for (dtype, most) in [(DType::Q3, 0.25), (DType::Q2, 0.4)] {
            let values = wavy(320);
            for (half, back) in values.chunks(16).zip(round_trip(dtype, &values).chunks(16)) {
                let extreme = half.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let squares: f32 = half.iter().zip(back).map(|(a, b)| (a - b).powi(2)).sum();
                let error = (squares / 16.0).sqrt();
                assert!(error <= most * extreme, "{dtype}: {error} of {extreme}");
            }
        }
    }

    #[test]
    fn what_is_stored_is_kept() {
        for dtype in [DType::Q8, DType::Q4, DType::Q3, DType::Q2] {
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
    fn places_of_few_bits_are_those_of_the_format() {
        let scales = [0.5, -1.25].map(f16::from_f32);
        let integers: Vec<i8> = (0..8).cycle().take(32).map(|i: i8| i * 5 % 8 - 4).collect();
        let mut bytes = Vec::new();
        store_row(DType::Q3, &integers, &scales, &mut bytes);
        assert_eq!(bytes.len(), 16);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        for part in 0..4 {
            let bits = match part {
                3 => word(0) >> 24 | word(4) >> 24 << 8 | word(8) >> 24 << 16,
                _ => word(4 * part) & 0xff_ffff,
            };
            for k in 0..8 {
                let code = (bits >> (3 * k) & 7) as i8;
                assert_eq!(code - 4, integers[8 * part + k], "{part} {k}");
            }
        }
        assert_eq!(bytes[12..], [0x58, 0xdd, 0, 0]);
        let values = decode_rows(DType::Q3, 32, &bytes);
        for (i, value) in values.iter().enumerate() {
            let wanted: f32 = scales[i / 16].to_f32() * f32::from(integers[i]);
            assert_eq!(value.to_bits(), wanted.to_bits());
        }

        let integers: Vec<i8> = (0..32).map(|i| 8 * (i * 3 % 4) - 15).collect();
        let mut bytes = Vec::new();
        store_row(DType::Q2, &integers, &scales, &mut bytes);
        assert_eq!(bytes.len(), 16);
        assert_eq!(bytes[..3], [0b01_10_11_00; 3]);
        assert_eq!(bytes[8..], [0x58, 0xdd, 0, 0, 0, 0, 0, 0]);
        let values = decode_rows(DType::Q2, 32, &bytes);
        assert_eq!(values[..4], [-7.5, 4.5, 0.5, -3.5]);
        assert_eq!(values[16..17], [1.25 * 15.0]);
    }

    #[test]
    fn rows_are_three_and_a_half_and_two_and_a_half_bits() {
        assert_eq!(DType::Q3.row_bytes(256), 256 * 7 / 16);
        assert_eq!(DType::Q2.row_bytes(512), 512 * 5 / 16);
        assert_eq!((DType::Q3.row_bytes(32), DType::Q2.row_bytes(96)), (16, 32));
        assert_eq!((DType::Q8.row_bytes(64), DType::Q4.row_bytes(64)), (80, 48));
    }

    /// The error of a type relative to the values: `Sum w (a - b)^2 / Sum w a^2`.
    fn loss(values: &[f32], back: &[f32], weights: &[f32]) -> f32 {
        let sum =
            |of: &dyn Fn(usize) -> f32| (0..values.len()).map(|i| weights[i] * of(i)).sum::<f32>();
        sum(&|i| (values[i] - back[i]).powi(2)) / sum(&|i| values[i].powi(2))
    }

    #[test]
    fn few_bits_lose_little() {
        let uniform = |i: u32| {
            let x = f64::from(i.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
            crate::base::num::round((x - 0.5) * 2.0)
        };
        let even: Vec<f32> = (0u32..32 * 64).map(uniform).collect();
        let ones = vec![1.0; even.len()];
        // Sixteen levels over a uniform distribution: the error's variance is step² / 12.
        let error = loss(&even, &round_trip(DType::Q4, &even), &ones);
        assert!(error < 0.006, "{error}");
        // Sums of twelve uniform numbers are about normally distributed.
        let normal: Vec<f32> =
            (0u32..32 * 64).map(|i| (0..12).map(|k| uniform(12 * i + k)).sum()).collect();
        for (dtype, most) in [(DType::Q4, 0.009), (DType::Q3, 0.024), (DType::Q2, 0.092)] {
            let error = loss(&normal, &round_trip(dtype, &normal), &ones);
            assert!(error < most, "{dtype}: {error}");
        }
    }

    #[test]
    fn importance_moves_the_error_to_where_it_does_not_count() {
        let values = wavy(320);
        let weights: Vec<f32> = (0..320).map(|i| [0.01, 1.0, 30.0][i % 3]).collect();
        for dtype in [DType::Q4, DType::Q3, DType::Q2] {
            let mut bytes = Vec::new();
            encode_weighted(dtype, &values, Some(&weights), &mut bytes);
            let weighted = loss(&values, &decode_rows(dtype, 320, &bytes), &weights);
            let plain = loss(&values, &round_trip(dtype, &values), &weights);
            assert!(weighted < 0.9 * plain, "{dtype}: {weighted}, not weighted {plain}");
        }
    }

    #[test]
    fn scales_of_one_byte_reach_far() {
        for dtype in [DType::Q3, DType::Q2] {
            for size in [largest(dtype), 1.0, 1e-3, 1e-5] {
                let values: Vec<f32> = wavy(32).iter().map(|v| v * size).collect();
                let error = loss(&values, &round_trip(dtype, &values), &[1.0; 32]);
                assert!(error < 0.12, "{dtype} of {size}: {error}");
            }
            assert!(is_scale(dtype, 2.0) && !is_scale(dtype, 1.1) && !is_scale(dtype, 1e4));
            let mut row = vec![0; 48];
            set_scale(dtype, 96, &mut row, 17, f16::NAN);
            set_scale(dtype, 96, &mut row, 80, f16::NEG_INFINITY);
            let values = decode_rows(dtype, 96, &row);
            assert!(values[16..32].iter().all(|v| v.is_nan()), "{dtype}");
            assert!(values[80..96].iter().all(|v| v.is_infinite()), "{dtype}");
            assert!(
                values[..16].iter().chain(&values[32..80]).all(|value| value.to_bits() << 1 == 0)
            );
        }
    }
}
