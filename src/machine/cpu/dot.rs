//! Dot products of stored rows with prepared columns, in a fixed order of sums.
//!
//! A row is loaded 64 bytes at a time, as 16 lanes of 32 bits. A lane has `P` elements that follow
//! each other: one F32, two F16 or BF16, four of Q8, eight of Q4. So nothing is moved between
//! lanes; the columns are laid out for it once ([`prepare`]). The lanes are summed at the end, in
//! pairs. Every multiply-add is fused, so each operation is rounded as IEEE 754 says, and all CPUs
//! give the same bits, whatever their vectors' length.
#![expect(clippy::inline_always, reason = "SIMD code must be in the caller that has the features")]

use fearless_simd::{Bytes as _, Simd, f32x4, f32x8, f32x16, prelude::*, u8x64, u32x16};

use crate::base::{
    quant::{self, BLOCK},
    tensor::DType,
};

/// Lanes of a vector, on every CPU.
pub(super) const LANES: usize = 16;

/// Bytes of a vector.
const BYTES: usize = 4 * LANES;

/// Scales that are converted together: those of a vector of bytes.
const SCALES: usize = 32;

/// Most columns that are multiplied at a time with a row.
const TOGETHER: usize = 4;

/// Elements of each lane, and how their numbers are made.
trait Lane<const P: usize> {
    /// What the elements of each lane are multiplied by, which their columns make up for.
    const FACTORS: [f32; P];

    /// The elements of the lanes.
    fn parts<S: Simd>(simd: S, w: u32x16<S>) -> [f32x16<S>; P];
}

/// One float.
struct Single;
/// Two halves.
struct Half;
/// Two upper halves of floats.
struct Brain;
/// Four signed bytes.
struct Signed;
/// Eight numbers of four bits, less 8.
struct Nibbles;

impl Lane<1> for Single {
    const FACTORS: [f32; 1] = [1.0];

    #[inline(always)]
    fn parts<S: Simd>(_: S, w: u32x16<S>) -> [f32x16<S>; 1] {
        [w.bitcast()]
    }
}

impl Lane<2> for Brain {
    const FACTORS: [f32; 2] = [1.0; 2];

    #[inline(always)]
    fn parts<S: Simd>(_: S, w: u32x16<S>) -> [f32x16<S>; 2] {
        [(w << 16).bitcast(), (w & 0xffff_0000).bitcast()]
    }
}

impl Lane<2> for Half {
    const FACTORS: [f32; 2] = [1.0; 2];

    #[inline(always)]
    fn parts<S: Simd>(simd: S, w: u32x16<S>) -> [f32x16<S>; 2] {
        [half(simd, w & 0xffff), half(simd, w >> 16)]
    }
}

/// The halves in the lower bits of the lanes, exactly. Infinities and NaN stay what they are.
#[inline(always)]
fn half<S: Simd>(_: S, h: u32x16<S>) -> f32x16<S> {
    /// 2^112: from the bias of a float's exponent to that of a half's.
    const BIAS: f32 = f32::from_bits(0x7780_0000);
    let size = (h & 0x7fff) << 13;
    let scaled: f32x16<S> = size.bitcast();
    let finite: u32x16<S> = (scaled * BIAS).bitcast();
    let sign = (h & 0x8000) << 16;
    let size = (h & 0x7fff).simd_ge(0x7c00).select(size | 0x7f80_0000, finite);
    (size | sign).bitcast()
}

/// 2^23: the lowest bit of a float of this size is 1, so an integer below is put into one by its
/// bits, and what is above it is subtracted.
const MAGIC: f32 = 8_388_608.0;

/// The field of `mask` as a float, less `offset`. Both are exact.
#[inline(always)]
fn field<S: Simd>(_: S, w: u32x16<S>, mask: u32, offset: f32) -> f32x16<S> {
    let number: f32x16<S> = ((w & mask) | MAGIC.to_bits()).bitcast();
    number - (MAGIC + offset)
}

impl Lane<4> for Signed {
    const FACTORS: [f32; 4] = [1.0, 256.0, 1.0, 256.0];

    #[inline(always)]
    fn parts<S: Simd>(simd: S, w: u32x16<S>) -> [f32x16<S>; 4] {
        // From signed bytes to those that are larger by 128.
        let low = w ^ 0x8080_8080;
        let high = low >> 16;
        [
            field(simd, low, 0xff, 128.0),
            field(simd, low, 0xff00, 32_768.0),
            field(simd, high, 0xff, 128.0),
            field(simd, high, 0xff00, 32_768.0),
        ]
    }
}

impl Lane<8> for Nibbles {
    const FACTORS: [f32; 8] = [1.0, 16.0, 256.0, 4096.0, 1.0, 16.0, 256.0, 4096.0];

    #[inline(always)]
    fn parts<S: Simd>(simd: S, w: u32x16<S>) -> [f32x16<S>; 8] {
        let (low, high) = (w, w >> 16);
        [
            field(simd, low, 0xf, 8.0),
            field(simd, low, 0xf0, 128.0),
            field(simd, low, 0xf00, 2048.0),
            field(simd, low, 0xf000, 32_768.0),
            field(simd, high, 0xf, 8.0),
            field(simd, high, 0xf0, 128.0),
            field(simd, high, 0xf00, 2048.0),
            field(simd, high, 0xf000, 32_768.0),
        ]
    }
}

/// Elements that a lane has of this type.
fn per_lane(dtype: DType) -> usize {
    match dtype {
        DType::F16 | DType::BF16 => 2,
        DType::Q8 => 4,
        DType::Q4 => 8,
        // What has no way of its own is decoded to floats.
        _ => 1,
    }
}

/// Elements of a prepared column of `cols`: whole vectors.
pub(super) fn prepared_len(dtype: DType, cols: usize) -> usize {
    cols.next_multiple_of(LANES * per_lane(dtype))
}

/// The most roundings that an element of a row of `cols` goes through: those of its product and of
/// the sums that it is in.
pub(super) fn depth(dtype: DType, cols: usize) -> usize {
    let per_lane = per_lane(dtype);
    let vectors = cols.div_ceil(LANES * per_lane);
    let lanes = LANES.ilog2() as usize;
    match dtype {
        DType::Q8 | DType::Q4 => per_lane + vectors + lanes,
        _ => per_lane * vectors + lanes,
    }
}

/// Lays out a column for rows of this type: element `j` of lane `l` of a vector is where the
/// vector's `j`-th product finds it. What is missing to whole vectors is zero.
pub(super) fn prepare(dtype: DType, column: &[f32], into: &mut Vec<f32>) {
    let factors: &[f32] = match dtype {
        DType::F16 | DType::BF16 => &Half::FACTORS,
        DType::Q8 => &Signed::FACTORS,
        DType::Q4 => &Nibbles::FACTORS,
        _ => &Single::FACTORS,
    };
    let per_lane = factors.len();
    for chunk in column.chunks(LANES * per_lane) {
        for (j, factor) in factors.iter().enumerate() {
            // The factors are powers of two.
            let inverse = 1.0 / factor;
            let at = |lane| chunk.get(lane * per_lane + j).map_or(0.0, |x| x * inverse);
            into.extend((0..LANES).map(at));
        }
    }
}

/// The products of stored rows with prepared columns: `out[row, column]`. A row has `cols` elements
/// of `dtype`, and a column [`prepared_len`] floats.
#[inline(always)]
pub(super) fn rows<S: Simd>(
    simd: S,
    (dtype, cols): (DType, usize),
    bytes: &[u8],
    columns: &[f32],
    out: &mut [f32],
) {
    let len = prepared_len(dtype, cols);
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    let count = (columns.len() / len.max(1)).max(1);
    let rows = bytes.chunks_exact(row_bytes.max(1));
    for (row, out) in rows.zip(out.chunks_exact_mut(count)) {
        let groups = columns.chunks(TOGETHER * len).zip(out.chunks_mut(TOGETHER));
        for (columns, out) in groups {
            match out.len() {
                1 => some::<S, 1>(simd, (dtype, cols), row, columns, out),
                2 => some::<S, 2>(simd, (dtype, cols), row, columns, out),
                3 => some::<S, 3>(simd, (dtype, cols), row, columns, out),
                _ => some::<S, TOGETHER>(simd, (dtype, cols), row, columns, out),
            }
        }
    }
}

/// The products of a row with `C` columns.
#[inline(always)]
fn some<S: Simd, const C: usize>(
    simd: S,
    (dtype, cols): (DType, usize),
    row: &[u8],
    columns: &[f32],
    out: &mut [f32],
) {
    let len = prepared_len(dtype, cols);
    let x: [&[f32]; C] = std::array::from_fn(|c| &columns[c * len..][..len]);
    let sums = match dtype {
        DType::F16 => plain::<S, Half, 2, C>(simd, row, x),
        DType::BF16 => plain::<S, Brain, 2, C>(simd, row, x),
        DType::Q8 => scaled::<S, Signed, 4, C>(simd, row, cols, x),
        DType::Q4 => scaled::<S, Nibbles, 8, C>(simd, row, cols, x),
        other if other.is_quantized() => decoded(simd, other, cols, row, x),
        _ => plain::<S, Single, 1, C>(simd, row, x),
    };
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = total(sum.into());
    }
}

/// A row of a type that has no way of its own, decoded to floats first.
#[inline(always)]
fn decoded<S: Simd, const C: usize>(
    simd: S,
    dtype: DType,
    cols: usize,
    row: &[u8],
    x: [&[f32]; C],
) -> [f32x16<S>; C] {
    let floats = quant::decode_rows(dtype, cols, row);
    plain::<S, Single, 1, C>(simd, bytemuck::cast_slice(&floats), x)
}

/// The sum of the lanes, in pairs.
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        half /= 2;
    }
    lanes[0]
}

/// A vector of a row; zeros follow what there is.
#[inline(always)]
fn load<S: Simd>(simd: S, bytes: &[u8]) -> u32x16<S> {
    if let Some(whole) = bytes.first_chunk::<BYTES>() {
        return u32x16::from_bytes(u8x64::simd_from(simd, *whole));
    }
    let mut padded = [0; BYTES];
    padded[..bytes.len()].copy_from_slice(bytes);
    u32x16::from_bytes(u8x64::simd_from(simd, padded))
}

/// The vectors of a column.
#[inline(always)]
fn vectors(column: &[f32]) -> &[[f32; LANES]] {
    column.as_chunks().0
}

/// The lanes of a row of floats times columns.
#[inline(always)]
fn plain<S: Simd, L: Lane<P>, const P: usize, const C: usize>(
    simd: S,
    row: &[u8],
    x: [&[f32]; C],
) -> [f32x16<S>; C] {
    let mut sums = [f32x16::splat(simd, 0.0); C];
    for (at, chunk) in row.chunks(BYTES).enumerate() {
        let parts = L::parts(simd, load(simd, chunk));
        for (sum, x) in sums.iter_mut().zip(&x) {
            for (part, x) in parts.iter().zip(&vectors(x)[at * P..][..P]) {
                *sum = part.mul_add(f32x16::from_slice(simd, x), *sum);
            }
        }
    }
    sums
}

/// The lanes of a row of blocks of integers times columns: the integers of each vector first, then
/// their scales.
#[inline(always)]
fn scaled<S: Simd, L: Lane<P>, const P: usize, const C: usize>(
    simd: S,
    row: &[u8],
    cols: usize,
    x: [&[f32]; C],
) -> [f32x16<S>; C] {
    let mut sums = [f32x16::splat(simd, 0.0); C];
    // A lane has 32 bits, `P` elements.
    let (integers, scales) = row.split_at(cols / P * 4);
    let scales = &scales[..cols / BLOCK * 2];
    let group = SCALES * BLOCK / (LANES * P);
    let mut at = 0;
    for (integers, scales) in integers.chunks(group * BYTES).zip(scales.chunks(BYTES)) {
        // Of two scales that follow each other, the first is in the first vector.
        let [even, odd] = Half::parts(simd, load(simd, scales));
        let scales: [[f32; LANES]; 2] = [even.into(), odd.into()];
        for (index, chunk) in integers.chunks(BYTES).enumerate() {
            let scale = spread(simd, &scales, index, P);
            let parts = L::parts(simd, load(simd, chunk));
            for (sum, x) in sums.iter_mut().zip(&x) {
                let x = &vectors(x)[at * P..][..P];
                let mut product = parts[0] * f32x16::from_slice(simd, &x[0]);
                for (part, x) in parts.iter().zip(x).skip(1) {
                    product = part.mul_add(f32x16::from_slice(simd, x), product);
                }
                *sum = scale.mul_add(product, *sum);
            }
            at += 1;
        }
    }
    sums
}

/// The scales of a vector of blocks, each in the lanes of its block: four blocks of Q4, two of Q8.
#[inline(always)]
fn spread<S: Simd>(simd: S, scales: &[[f32; LANES]; 2], at: usize, per_lane: usize) -> f32x16<S> {
    let [even, odd] = scales;
    if per_lane == 8 {
        let first = 2 * at % LANES;
        let (a, b) = (f32x4::splat(simd, even[first]), f32x4::splat(simd, odd[first]));
        let (c, d) = (f32x4::splat(simd, even[first + 1]), f32x4::splat(simd, odd[first + 1]));
        a.combine(b).combine(c.combine(d))
    } else {
        let (a, b) = (f32x8::splat(simd, even[at % LANES]), f32x8::splat(simd, odd[at % LANES]));
        a.combine(b)
    }
}

#[cfg(test)]
mod tests {
    use fearless_simd::{Level, dispatch};
    use half::f16;

    use super::*;

    /// Every half, by its bits.
    #[test]
    fn halves_are_exact() {
        dispatch!(Level::new(), simd => {
            for first in (0..=u16::MAX).step_by(2 * LANES) {
                let bytes: Vec<u8> =
                    (first..=first + 31).flat_map(u16::to_le_bytes).collect();
                let parts = Half::parts(simd, load(simd, &bytes)).map(<[f32; LANES]>::from);
                for (lane, bits) in (first..=first + 31).enumerate() {
                    let (got, want) = (parts[lane % 2][lane / 2], f16::from_bits(bits).to_f32());
                    assert!(got.to_bits() == want.to_bits() || want.is_nan() && got.is_nan());
                }
            }
        });
    }

    /// Whole numbers are exact in any order, so what is decoded gives the bits of the type's own
    /// way.
    #[test]
    fn decoded_rows_give_the_same() {
        for dtype in [DType::Q8, DType::Q4] {
            let integers: Vec<i8> = (0_i8..96).map(|i| i % 15 - 7).collect();
            let mut row = Vec::new();
            quant::store_row(dtype, &integers, &[f16::ONE; 3], &mut row);
            let x: Vec<f32> = (0_u8..96).map(|i| f32::from(i % 11) - 5.0).collect();
            let want: f32 = integers.iter().zip(&x).map(|(&q, x)| f32::from(q) * x).sum();
            dispatch!(Level::new(), simd => {
                let mut column = Vec::new();
                prepare(DType::F32, &x, &mut column);
                let [sum] = decoded(simd, dtype, 96, &row, [&column[..]]);
                assert_eq!(total(sum.into()).to_bits(), want.to_bits(), "{dtype} decoded");
                let mut column = Vec::new();
                prepare(dtype, &x, &mut column);
                let mut out = [0.0];
                rows(simd, (dtype, 96), &row, &column, &mut out);
                assert_eq!(out[0].to_bits(), want.to_bits(), "{dtype}");
            });
        }
    }
}
