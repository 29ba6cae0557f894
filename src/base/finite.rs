//! Finds numbers that are not finite in stored weights.

use half::{bf16, f16};

use crate::base::{
    quant::{self, BLOCK},
    tensor::DType,
};

/// Bytes that are looked at before the first decision.
const TOGETHER: usize = 4096;

/// The elements of some rows that are NaN or infinite. At least one is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// How many: all of a block whose scale is not finite.
    pub count: u64,
    /// Index of the first one.
    pub first: usize,
    /// Its value; the scale, if it lies in such a block.
    pub value: f32,
}

/// The elements that are not finite in stored rows of `cols` elements each, if there are any.
pub fn not_finite(dtype: DType, cols: usize, bytes: &[u8]) -> Option<NotFinite> {
    match dtype {
        DType::F32 => search(bytes.as_chunks().0, 1, F32),
        DType::F16 => search(bytes.as_chunks().0, 1, F16),
        DType::BF16 => search(bytes.as_chunks().0, 1, BF16),
        DType::Q8 | DType::Q4 => in_scales(dtype, cols, bytes, BLOCK, F16),
        DType::Q3 | DType::Q2 => in_scales(dtype, cols, bytes, BLOCK / 2, UPPER_OF_F16),
        DType::U32 => None,
    }
}

/// Numbers of `N` bytes, whose exponent is next to the sign, which is the highest bit.
#[derive(Clone, Copy)]
struct Format<const N: usize> {
    /// The bits of the exponent, all of which a number has that is not finite.
    exponent: [u8; N],
    value: fn([u8; N]) -> f32,
}

const F32: Format<4> =
    Format { exponent: 0x7f80_0000_u32.to_le_bytes(), value: f32::from_le_bytes };
const F16: Format<2> = Format { exponent: 0x7c00_u16.to_le_bytes(), value: f16_value };
const BF16: Format<2> = Format {
    exponent: 0x7f80_u16.to_le_bytes(),
    value: |bytes| bf16::from_le_bytes(bytes).to_f32(),
};
/// The upper byte of an F16, which has its exponent.
const UPPER_OF_F16: Format<1> = Format { exponent: [0x7c], value: |[byte]| f16_value([0, byte]) };

impl<const N: usize> Format<N> {
    fn is_finite(self, number: &[u8; N]) -> bool {
        number.iter().zip(self.exponent).any(|(&byte, exponent)| byte & exponent != exponent)
    }

    /// Whether all of these numbers are finite. They are looked at eight bytes at a time, in
    /// registers of any CPU and of WebAssembly: the lowest bit of an exponent is added to it, and
    /// where all of its bits are set that carries to the sign's place, and no further.
    fn are_finite(self, numbers: &[[u8; N]]) -> bool {
        let exponents = u64::from_le_bytes(repeated(self.exponent));
        let mut sign = [0; N];
        sign[N - 1] = 0x80;
        let signs = u64::from_le_bytes(repeated(sign));
        let carries = |word: [u8; 8]| (u64::from_le_bytes(word) & exponents) + (signs - exponents);
        let (words, rest) = numbers.as_flattened().as_chunks();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let all = words.iter().fold(carries(last), |all, &word| all | carries(word));
        all & signs == 0
    }
}

/// These bytes again and again.
fn repeated<const N: usize>(bytes: [u8; N]) -> [u8; 8] {
    std::array::from_fn(|i| bytes[i % N])
}

/// Looks at the scales of rows, which each stand for `elements` elements.
fn in_scales<const N: usize>(
    dtype: DType,
    cols: usize,
    bytes: &[u8],
    elements: usize,
    format: Format<N>,
) -> Option<NotFinite> {
    let mut found: Option<NotFinite> = None;
    for (row, scales) in quant::scales_of_rows(dtype, cols, bytes).enumerate() {
        if let Some(here) = search(scales.as_chunks().0, elements, format) {
            let first = NotFinite { count: 0, first: row * cols + here.first, ..here };
            found.get_or_insert(first).count += here.count;
        }
    }
    found
}

/// Looks at numbers that each stand for `elements` elements.
fn search<const N: usize>(
    numbers: &[[u8; N]],
    elements: usize,
    format: Format<N>,
) -> Option<NotFinite> {
    let together = TOGETHER / N;
    let from = numbers.chunks(together).position(|some| !format.are_finite(some))? * together;
    let infinite = |number: &&[u8; N]| !format.is_finite(number);
    let first = from + numbers[from..].iter().position(|number| infinite(&number))?;
    let count = numbers[first..].iter().filter(infinite).count() * elements;
    let value = (format.value)(numbers[first]);
    Some(NotFinite { count: count as u64, first: first * elements, value })
}

fn f16_value(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::{NotFinite, not_finite};
    use crate::base::{
        quant,
        tensor::DType::{self, BF16, F16, F32, Q2, Q3, Q4, Q8},
    };

    /// `rows` rows of `cols` finite elements, stored.
    fn stored(dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
        let values: Vec<f32> = (0..rows * cols).map(|i| 0.5 - (i % 7) as f32).collect();
        let mut bytes = Vec::new();
        for row in values.chunks_exact(cols) {
            match dtype {
                F16 => bytes.extend(row.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
                BF16 => bytes.extend(row.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
                Q8 | Q4 | Q3 | Q2 => quant::encode_row(dtype, row, &mut bytes),
                _ => bytes.extend(row.iter().flat_map(|v| v.to_le_bytes())),
            }
        }
        bytes
    }

    #[test]
    fn largest_numbers_are_finite() {
        for dtype in DType::WEIGHTS {
            assert_eq!(not_finite(dtype, 96, &stored(dtype, 60, 96)), None, "{dtype}");
            assert_eq!(not_finite(dtype, 96, &[]), None, "{dtype}");
        }
        for largest in [f32::MAX, -f32::MAX, f32::from_bits(1), -0.0] {
            assert_eq!(not_finite(F32, 1, &largest.to_le_bytes()), None);
        }
        assert_eq!(not_finite(F16, 1, &f16::MAX.to_le_bytes()), None);
        assert_eq!(not_finite(BF16, 1, &bf16::MAX.to_le_bytes()), None);
        assert_eq!(not_finite(DType::U32, 1, &[0xff; 4]), None);
    }

    #[test]
    fn each_place_is_found() {
        let (rows, cols) = (60, 96);
        for at in [0, 1, 2, 3, 1023, 1024, 1025, 2047, 2048, 2049, rows * cols - 1] {
            for bits in [0x7fc0_0000, 0xffff_ffff, 0x7f80_0000, 0xff80_0000, 0x7f80_0001_u32] {
                let mut bytes = stored(F32, rows, cols);
                bytes[4 * at..4 * at + 4].copy_from_slice(&bits.to_le_bytes());
                let found = not_finite(F32, cols, &bytes).expect("it is there");
                assert_eq!((found.count, found.first), (1, at));
                assert_eq!(found.value.to_bits(), bits);
            }
            for (dtype, bits) in [(F16, 0x7c00_u16), (F16, 0xfe01), (BF16, 0x7f80), (BF16, 0xffc1)]
            {
                let mut bytes = stored(dtype, rows, cols);
                bytes[2 * at..2 * at + 2].copy_from_slice(&bits.to_le_bytes());
                let found = not_finite(dtype, cols, &bytes).expect("it is there");
                assert_eq!((found.count, found.first), (1, at), "{dtype}");
                assert!(!found.value.is_finite(), "{dtype}");
            }
        }
    }

    #[test]
    fn every_pattern_of_16_bits_is_judged_wherever_it_lies() {
        for bits in 0..=u16::MAX {
            for (dtype, finite) in
                [(F16, f16::from_bits(bits).is_finite()), (BF16, bf16::from_bits(bits).is_finite())]
            {
                for (at, len) in [(0, 1), (3, 5), (4, 5), (5, 9)] {
                    // Neighbours with the largest exponent there is, and all else set.
                    let largest = if dtype == F16 { 0xfbff_u16 } else { 0xff7f };
                    let mut numbers = vec![largest; len];
                    numbers[at] = bits;
                    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
                    let found = not_finite(dtype, len, &bytes).map(|found| found.first);
                    assert_eq!(found, (!finite).then_some(at), "{dtype} {bits:#x} at {at}");
                }
            }
        }
    }

    #[test]
    fn all_are_counted() {
        let mut bytes = stored(F32, 2, 3000);
        for at in [5, 2999, 3000, 5999] {
            bytes[4 * at..4 * at + 4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        }
        let all = NotFinite { count: 4, first: 5, value: f32::NEG_INFINITY };
        assert_eq!(not_finite(F32, 3000, &bytes), Some(all));
    }

    #[test]
    fn a_scale_stands_for_its_block() {
        for dtype in [Q8, Q4] {
            let (rows, cols) = (3, 96);
            let mut bytes = stored(dtype, rows, cols);
            let row_bytes = bytes.len() / rows;
            let scales = cols * dtype.integers().expect("it has blocks").bits as usize / 8;
            for (row, block) in [(1, 2), (2, 0)] {
                let at = row * row_bytes + scales + 2 * block;
                bytes[at..at + 2].copy_from_slice(&f16::INFINITY.to_le_bytes());
            }
            let all = NotFinite { count: 64, first: 96 + 64, value: f32::INFINITY };
            assert_eq!(not_finite(dtype, cols, &bytes), Some(all), "{dtype}");
        }
        for dtype in [Q3, Q2] {
            let mut bytes = stored(dtype, 3, 96);
            let row_bytes = bytes.len() / 3;
            quant::set_scale(dtype, 96, &mut bytes[row_bytes..], 80, f16::INFINITY);
            quant::set_scale(dtype, 96, &mut bytes[2 * row_bytes..], 0, f16::NAN);
            let found = not_finite(dtype, 96, &bytes).expect("it is there");
            assert_eq!((found.count, found.first), (32, 96 + 80), "{dtype}");
        }
    }
}
