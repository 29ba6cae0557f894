//! Element types of GGUF files, and the conversion of their blocks to the engine's.
//!
//! `Q8_0` and `Q4_0` hold the same numbers as the engine's types in another order, so conversion is
//! lossless. `Q4_K` and `Q6_K` have two levels of scales, and `Q4_K` offsets; they become `Q8`,
//! which adds little to the error that they have: see the tests.

use std::fmt;

use half::{bf16, f16};

use crate::base::{
    quant::{self, BLOCK},
    tensor::DType,
};

/// A GGML element type. The engine supports few of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgmlType {
    id: u32,
    name: &'static str,
    /// Elements of a block; 0 for an unknown type.
    pub block: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

/// GGML's number and name of each type, and the elements and bytes of its block.
const KNOWN: &[(u32, &str, u64, u64)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl GgmlType {
    /// The type with this number.
    pub fn of(id: u32) -> Self {
        match KNOWN.iter().find(|known| known.0 == id) {
            Some(&(id, name, block, bytes)) => Self { id, name, block, bytes },
            None => Self { id, name: "", block: 0, bytes: 0 },
        }
    }

    /// The format to read it as, if it is supported.
    pub fn format(self) -> Option<Format> {
        Some(match self.name {
            "F32" => Format::F32,
            "F16" => Format::F16,
            "BF16" => Format::BF16,
            "Q8_0" => Format::Q8_0,
            "Q4_0" => Format::Q4_0,
            "Q4_K" => Format::Q4K,
            "Q6_K" => Format::Q6K,
            _ => return None,
        })
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { write!(f, "type {}", self.id) } else { f.write_str(self.name) }
    }
}

/// A supported element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16: the upper half of an `f32`.
    BF16,
    /// Blocks of 32: an F16 scale, then 32 signed bytes.
    Q8_0,
    /// Blocks of 32: an F16 scale, then 16 bytes of 4-bit integers. The lower nibbles are the first
    /// 16 elements, the upper ones the others.
    Q4_0,
    /// Blocks of 256 4-bit integers; every 32 have a 6-bit scale and a 6-bit offset.
    Q4K,
    /// Blocks of 256 6-bit integers; every 16 have an 8-bit scale.
    Q6K,
}

impl Format {
    /// The engine's element type for it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::Q8_0 | Self::Q4K | Self::Q6K => DType::Q8,
            Self::Q4_0 => DType::Q4,
        }
    }

    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    /// Bytes of `cols` elements, which must be whole blocks.
    pub fn row_bytes(self, cols: u64) -> u64 {
        let (block, bytes) = self.block();
        cols / block as u64 * bytes as u64
    }
}

/// The element type that can hold all of `formats` with no loss beyond that of [`Format::dtype`].
pub fn common(formats: &[Format]) -> DType {
    let types: Vec<DType> = formats.iter().map(|format| format.dtype()).collect();
    let all = |dtypes: &[DType]| types.iter().all(|dtype| dtypes.contains(dtype));
    match types.first() {
        Some(&first) if all(&[first]) => first,
        // A 4-bit integer is also an 8-bit integer.
        Some(_) if all(&[DType::Q8, DType::Q4]) => DType::Q8,
        _ => DType::F32,
    }
}

/// Appends a row of `format`, converted to `dtype`, which is [`Format::dtype`] or the result of
/// [`common`].
pub fn convert_row(format: Format, row: &[u8], dtype: DType, into: &mut Vec<u8>) {
    match (format, dtype) {
        (Format::F32, DType::F32) | (Format::F16, DType::F16) | (Format::BF16, DType::BF16) => {
            into.extend_from_slice(row);
        }
        (Format::Q8_0 | Format::Q4_0, DType::Q8 | DType::Q4) => {
            let (integers, scales) = unpack(format, row);
            quant::store_row(dtype, &integers, &scales, into);
        }
        (_, DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2) => {
            quant::encode_row(dtype, &dequantize(format, row), into);
        }
        _ => into.extend(dequantize(format, row).into_iter().flat_map(f32::to_le_bytes)),
    }
}

/// The values of a row, exact except that those of `Q4_K` and `Q6_K` are rounded in `f32`
/// arithmetic.
pub fn dequantize(format: Format, row: &[u8]) -> Vec<f32> {
    match format {
        Format::F32 => row.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Format::F16 => row.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Format::BF16 => {
            row.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        Format::Q8_0 | Format::Q4_0 => {
            let (integers, scales) = unpack(format, row);
            let scale = |i: usize| scales[i / BLOCK].to_f32();
            integers.iter().enumerate().map(|(i, &q)| scale(i) * f32::from(q)).collect()
        }
        Format::Q4K => row.as_chunks::<144>().0.iter().flat_map(q4_k).collect(),
        Format::Q6K => row.as_chunks::<210>().0.iter().flat_map(q6_k).collect(),
    }
}

/// The integers of a row of `Q8_0` or `Q4_0`, and the scales of its blocks.
fn unpack(format: Format, row: &[u8]) -> (Vec<i8>, Vec<f16>) {
    let (_, bytes) = format.block();
    let mut integers = Vec::with_capacity(row.len() / bytes * BLOCK);
    let mut scales = Vec::with_capacity(row.len() / bytes);
    for block in row.chunks_exact(bytes) {
        scales.push(f16::from_le_bytes([block[0], block[1]]));
        let values = &block[2..];
        if format == Format::Q8_0 {
            integers.extend(values.iter().map(|byte| byte.cast_signed()));
        } else {
            integers.extend(values.iter().map(|byte| (byte & 15).cast_signed() - 8));
            integers.extend(values.iter().map(|byte| (byte >> 4).cast_signed() - 8));
        }
    }
    (integers, scales)
}

/// A block of `Q4_K`: F16 scale of scales and of offsets, twelve bytes of packed scales and
/// offsets, 128 bytes of integers. In every 32 bytes the lower nibbles are one group of 32
/// elements, the upper ones the next.
fn q4_k(block: &[u8; 144]) -> [f32; 256] {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let (d, dmin) = (half(0), half(2));
    let packed = &block[4..16];
    let mut values = [0.0; 256];
    for (part, out) in values.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = if part < 4 {
            (packed[part] & 63, packed[part + 4] & 63)
        } else {
            let both = packed[part + 4];
            (both & 15 | packed[part - 4] >> 6 << 4, both >> 4 | packed[part] >> 6 << 4)
        };
        let (scale, offset) = (d * f32::from(scale), dmin * f32::from(offset));
        let bytes = &block[16 + part / 2 * 32..];
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = scale * f32::from(byte >> (part % 2 * 4) & 15) - offset;
        }
    }
    values
}

/// A block of `Q6_K`: 128 bytes with the lower four bits, 64 with the upper two, sixteen scales, an
/// F16 scale of scales.
fn q6_k(block: &[u8; 210]) -> [f32; 256] {
    let d = f16::from_le_bytes([block[208], block[209]]).to_f32();
    let mut values = [0.0; 256];
    for (i, value) in values.iter_mut().enumerate() {
        // Every 128 elements use 64 bytes of lower bits, two to a byte, and 32 of upper bits, four
        // to a byte.
        let (group, place) = (i / 128, i % 128);
        let low = block[group * 64 + place % 64] >> (place / 64 * 4) & 15;
        let high = block[128 + group * 32 + place % 32] >> (place / 32 * 2) & 3;
        let integer = (low | high << 4).cast_signed() - 32;
        let scale = d * f32::from(block[192 + i / 16].cast_signed());
        *value = scale * f32::from(integer);
    }
    values
}
