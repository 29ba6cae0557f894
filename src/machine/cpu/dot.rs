//! Dot products of stored rows with prepared columns, in a fixed order of sums.
//!
//! A row is taken 16 lanes of 32 bits at a time ([`super::lanes`]), and its products are added up
//! lane by lane; the lanes are summed at the end, in pairs. Integers with a scale are first
//! multiplied and added up without it, as many as a lane has. Every multiply-add is fused, so each
//! operation is rounded as IEEE 754 says, and all CPUs give the same bits, whatever their vectors'
//! length. How many rows and columns are worked on together decides only how often something is
//! loaded.
#![expect(clippy::inline_always, reason = "SIMD code must be in the caller that has the features")]

use fearless_simd::{Simd, f32x16, prelude::*, u32x16};

use super::lanes::{
    BYTES, Brain, Column, Half, LANES, Nibbles, Pairs, Plain, SPREAD, Scaled, Signed, Single, Sums,
    Threes, load, zeros,
};
use crate::base::{quant::BLOCK, tensor::DType};

/// Most columns that are multiplied at a time with a row.
const TOGETHER: usize = 4;

/// Rows that are multiplied at a time with one column: each of its vectors is loaded once for all.
const ROWS: usize = 2;

/// Elements of a lane, and what they are multiplied by, which columns make up for.
fn factors(dtype: DType) -> &'static [f32] {
    match dtype {
        DType::F16 | DType::BF16 => &[1.0; 2],
        DType::Q8 => &Signed::FACTORS,
        DType::Q4 => &Nibbles::FACTORS,
        DType::Q3 => &Threes::FACTORS,
        DType::Q2 => &Pairs::FACTORS,
        _ => &[1.0],
    }
}

/// Elements of a prepared column of `cols`: whole vectors.
pub(super) fn prepared_len(dtype: DType, cols: usize) -> usize {
    cols.next_multiple_of(LANES * factors(dtype).len())
}

/// The most roundings that an element of a row of `cols` goes through: those of its product and of
/// the sums that it is in.
pub(super) fn depth(dtype: DType, cols: usize) -> usize {
    let per_lane = factors(dtype).len();
    let vectors = cols.div_ceil(LANES * per_lane);
    let lanes = LANES.ilog2() as usize;
    match dtype {
        // A lane's two halves have scales of their own.
        DType::Q3 => per_lane / 2 + 2 * vectors + lanes,
        DType::Q8 | DType::Q4 | DType::Q2 => per_lane + vectors + lanes,
        _ => per_lane * vectors + lanes,
    }
}

/// Lays out a column for rows of this type: element `j` of lane `l` of a vector is where the
/// vector's `j`-th product finds it. What is missing to whole vectors is zero.
pub(super) fn prepare(dtype: DType, column: &[f32], into: &mut Vec<f32>) {
    let factors = factors(dtype);
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
    let row_bytes = usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX).max(1);
    let count = columns.len() / len.max(1);
    let groups = bytes.chunks(ROWS * row_bytes);
    for (rows, out) in groups.zip(out.chunks_mut(ROWS * count)) {
        let of = Of { dtype, cols, rows, row_bytes, len, count };
        // Few numbers of columns, since each is machine code for every type and level.
        let mut at = 0;
        while at + TOGETHER <= count {
            for row in 0..out.len() / count {
                some::<S, 1, TOGETHER>(simd, &of, columns, (row, at), out);
            }
            at += TOGETHER;
        }
        if at + 2 <= count {
            for row in 0..out.len() / count {
                some::<S, 1, 2>(simd, &of, columns, (row, at), out);
            }
            at += 2;
        }
        if at < count {
            some::<S, ROWS, 1>(simd, &of, columns, (0, at), out);
        }
    }
}

/// A few rows, and columns for them.
struct Of<'a> {
    dtype: DType,
    cols: usize,
    rows: &'a [u8],
    row_bytes: usize,
    /// Floats of a prepared column.
    len: usize,
    /// Columns.
    count: usize,
}

/// The products of `R` rows with `C` columns, from this row and column on: `out[row, column]`. A
/// row that is not there is the last one again.
#[inline(always)]
fn some<S: Simd, const R: usize, const C: usize>(
    simd: S,
    of: &Of<'_>,
    columns: &[f32],
    (row, column): (usize, usize),
    out: &mut [f32],
) {
    let last = out.len() / of.count - 1;
    let rows: [&[u8]; R] =
        std::array::from_fn(|r| &of.rows[(row + r).min(last) * of.row_bytes..][..of.row_bytes]);
    let x: [&[f32]; C] = std::array::from_fn(|c| &columns[(column + c) * of.len..][..of.len]);
    let cols = of.cols;
    let sums = match of.dtype {
        DType::F16 => plain::<S, Half, 2, R, C>(simd, rows, x),
        DType::BF16 => plain::<S, Brain, 2, R, C>(simd, rows, x),
        DType::Q8 => scaled::<S, Signed, 4, 1, 1, R, C>(simd, rows, cols, x),
        DType::Q4 => scaled::<S, Nibbles, 8, 1, 1, R, C>(simd, rows, cols, x),
        DType::Q3 => scaled::<S, Threes, 32, 3, 2, R, C>(simd, rows, cols, x),
        DType::Q2 => scaled::<S, Pairs, 16, 1, 1, R, C>(simd, rows, cols, x),
        _ => plain::<S, Single, 1, R, C>(simd, rows, x),
    };
    for r in 0..R {
        for c in 0..C {
            out[(row + r).min(last) * of.count + column + c] = total(sums[r][c].into());
        }
    }
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

/// Bytes, with zeros after them.
#[inline(always)]
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

/// The vectors of prepared columns, each with `P` elements of each lane.
#[inline(always)]
fn vectors<const P: usize, const C: usize>(x: [&[f32]; C]) -> [&[Column<P>]; C] {
    x.map(|x| x.as_chunks::<LANES>().0.as_chunks::<P>().0)
}

/// The lanes of rows of floats times columns.
#[inline(always)]
fn plain<S: Simd, L: Plain<P>, const P: usize, const R: usize, const C: usize>(
    simd: S,
    rows: [&[u8]; R],
    x: [&[f32]; C],
) -> Sums<S, R, C> {
    let mut sums = zeros(simd);
    let x = vectors::<P, C>(x);
    let whole = rows.map(|row| row.as_chunks::<BYTES>().0);
    let rest = rows.map(|row| padded::<BYTES>(row.as_chunks::<BYTES>().1));
    let count = whole[0].len();
    let rest: [&[[u8; BYTES]]; R] =
        std::array::from_fn(|r| &std::slice::from_ref(&rest[r])[..x[0].len() - count]);
    for (rows, first) in [(whole, 0), (rest, count)] {
        let count = rows[0].len();
        let x = x.map(|x| &x[first..][..count]);
        let rows = rows.map(|row| &row[..count]);
        for at in 0..count {
            let mut parts = [[f32x16::splat(simd, 0.0); P]; R];
            for r in 0..R {
                parts[r] = L::parts(load(simd, &rows[r][at]));
            }
            for j in 0..P {
                for c in 0..C {
                    let x = f32x16::simd_from(simd, x[c][at][j]);
                    for r in 0..R {
                        sums[r][c] = parts[r][j].mul_add(x, sums[r][c]);
                    }
                }
            }
        }
    }
    sums
}

/// The lanes of rows of blocks of integers times columns: the integers of each vector first, then
/// their scales.
#[inline(always)]
fn scaled<
    S: Simd,
    L: Scaled<P, W, K>,
    const P: usize,
    const W: usize,
    const K: usize,
    const R: usize,
    const C: usize,
>(
    simd: S,
    rows: [&[u8]; R],
    cols: usize,
    x: [&[f32]; C],
) -> Sums<S, R, C> {
    let mut sums = zeros(simd);
    let x = vectors::<P, C>(x);
    // A lane has `P` elements in `W` words.
    let bytes = cols / P * W * 4 + cols % P * W * 4 / P;
    let integers = rows.map(|row| &row[..bytes]);
    let scales = rows.map(|row| &row[bytes..][..cols / BLOCK * 2]);
    let step = W * BYTES;
    let mut first = 0;
    while first < x[0].len() {
        let mut spread = [[[0.0; LANES]; SPREAD]; R];
        for r in 0..R {
            let scales = &scales[r][first / L::GROUP * BYTES..];
            let scales = match scales.first_chunk() {
                Some(scales) => load(simd, scales),
                None => load(simd, &padded(scales)),
            };
            L::spread(scales, &mut spread[r]);
        }
        let count = L::GROUP.min(x[0].len() - first);
        let x = x.map(|x| &x[first..][..count]);
        for at in 0..count {
            let mut words = [[u32x16::splat(simd, 0); W]; R];
            for r in 0..R {
                let row = &integers[r][(first + at) * step..];
                words[r] = if row.len() >= step {
                    L::load(simd, &row[..step])
                } else {
                    L::load(simd, &padded::<{ 3 * BYTES }>(row)[..step])
                };
            }
            let x = x.map(|x| &x[at]);
            let products = L::products(simd, words, x);
            for k in 0..K {
                for r in 0..R {
                    let scale = f32x16::simd_from(simd, spread[r][at * K + k]);
                    for c in 0..C {
                        sums[r][c] = scale.mul_add(products[k][r][c], sums[r][c]);
                    }
                }
            }
        }
        first += L::GROUP;
    }
    sums
}

#[cfg(test)]
mod tests {
    use fearless_simd::{Level, dispatch};
    use half::f16;

    use super::*;
    use crate::base::quant;

    /// Every half, by its bits.
    #[test]
    fn halves_are_exact() {
        dispatch!(Level::new(), simd => {
            for first in (0..=u16::MAX).step_by(2 * LANES) {
                let bytes: Vec<u8> =
                    (first..=first + 31).flat_map(u16::to_le_bytes).collect();
                let bytes = bytes.first_chunk().expect("32 halves");
                let parts = Half::parts(load(simd, bytes)).map(<[f32; LANES]>::from);
                for (lane, bits) in (first..=first + 31).enumerate() {
                    let (got, want) = (parts[lane % 2][lane / 2], f16::from_bits(bits).to_f32());
                    assert!(got.to_bits() == want.to_bits() || want.is_nan() && got.is_nan());
                }
            }
        });
    }

    /// Whole numbers are exact in any order, so every element and scale is where it should be.
    /// Rows end in the midst of a vector and of a vector of scales, and begin new ones.
    #[test]
    fn integers_and_scales_are_where_they_are_stored() {
        for dtype in [DType::Q8, DType::Q4, DType::Q3, DType::Q2] {
            let format = dtype.integers().expect("has integers");
            let width = i16::from(format.most) - i16::from(format.least);
            let count = u32::from((width / i16::from(format.step) + 1).unsigned_abs());
            for cols in [32_usize, 96, 544, 1056, 2080] {
                let mut row = Vec::new();
                let codes = (0_u32..).map(|i| (i * 7 + i / 11 % 5) % count);
                let integer = |code: u32| {
                    let code = i16::try_from(code).expect("few codes");
                    let integer = i16::from(format.least) + code * i16::from(format.step);
                    i8::try_from(integer).expect("an integer of the type")
                };
                let integers: Vec<i8> = codes.take(cols).map(integer).collect();
                let scale = |i: u8| f16::from_f32([1.0, 0.5, -2.0, 0.25, 4.0][usize::from(i % 5)]);
                let scales: Vec<f16> =
                    (0..=255).cycle().take(cols / format.share as usize).map(scale).collect();
                quant::store_row(dtype, &integers, &scales, &mut row);
                let x: Vec<f32> =
                    (0_u8..=250).cycle().take(cols).map(|i| f32::from(i % 11) - 5.0).collect();
                let values = quant::decode_rows(dtype, cols, &row);
                let want: f64 = values.iter().zip(&x).map(|(&w, &x)| f64::from(w * x)).sum();
                dispatch!(Level::new(), simd => {
                    let mut column = Vec::new();
                    prepare(dtype, &x, &mut column);
                    let mut out = [0.0; 3];
                    rows(simd, (dtype, cols), &row.repeat(3), &column, &mut out);
                    for out in out {
                        assert!(f64::from(out).total_cmp(&want).is_eq(), "{dtype}, {cols}: {out}");
                    }
                });
            }
        }
    }
}
