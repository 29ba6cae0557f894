//! Numbers from stored weights, 16 lanes at a time.
//!
//! A vector has 16 lanes of 32 bits, and a lane has elements of a row that follow each other: one
//! F32, two F16 or BF16, four of Q8, eight of Q4, sixteen of Q2. Of Q3 it has a block of 32 in
//! three words, so that the bits of the last eight are together. Nothing else is moved between
//! lanes; the columns are laid out for it once ([`Lane::FACTORS`]).
#![expect(clippy::inline_always, reason = "SIMD code must be in the caller that has the features")]

use fearless_simd::{
    Bytes as _, Simd, f32x16, i32x16, mask32x16, prelude::*, u8x16, u8x64, u32x4, u32x16,
};

/// Lanes of a vector, on every CPU.
pub(super) const LANES: usize = 16;

/// Bytes of a vector.
pub(super) const BYTES: usize = 4 * LANES;

/// Most vectors of scales that are made of a vector of stored ones.
pub(super) const SPREAD: usize = 16;

/// A column for a vector of rows: the `j`-th product finds the elements of all lanes at `j`.
pub(super) type Column<const P: usize> = [[f32; LANES]; P];

/// Sums of `R` rows with `C` columns, in lanes.
pub(super) type Sums<S, const R: usize, const C: usize> = [[f32x16<S>; C]; R];

/// Zeros.
#[inline(always)]
pub(super) fn zeros<S: Simd, const R: usize, const C: usize>(simd: S) -> Sums<S, R, C> {
    [[f32x16::splat(simd, 0.0); C]; R]
}

/// A vector as it is stored.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, bytes: &[u8; BYTES]) -> u32x16<S> {
    u32x16::from_bytes(u8x64::simd_from(simd, *bytes))
}

/// A type whose lanes have `P` elements, each a float by itself.
pub(super) trait Plain<const P: usize> {
    /// The elements of the lanes.
    fn parts<S: Simd>(w: u32x16<S>) -> [f32x16<S>; P];
}

/// A type whose lanes have `P` integers in `W` words, and scales for them: one, or one for each of
/// `K` equal parts.
pub(super) trait Scaled<const P: usize, const W: usize, const K: usize> {
    /// What the elements of a lane are multiplied by in [`Scaled::products`], which their columns
    /// make up for: powers of two.
    const FACTORS: [f32; P];

    /// Vectors of elements whose scales are stored in one vector.
    const GROUP: usize;

    /// The words of a vector of elements, of `W` times [`BYTES`].
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [u32x16<S>; W];

    /// The sums of the integers times columns, for each of the `K` scales.
    fn products<S: Simd, const R: usize, const C: usize>(
        simd: S,
        words: [[u32x16<S>; W]; R],
        x: [&Column<P>; C],
    ) -> [Sums<S, R, C>; K];

    /// The scales of [`Scaled::GROUP`] vectors of elements, `K` for each.
    fn spread<S: Simd>(scales: u32x16<S>, to: &mut [[f32; LANES]; SPREAD]);
}

/// F32: one float.
pub(super) struct Single;
/// F16: two halves.
pub(super) struct Half;
/// BF16: two upper halves of floats.
pub(super) struct Brain;
/// Q8: four signed bytes.
pub(super) struct Signed;
/// Q4: eight numbers of four bits, less 8.
pub(super) struct Nibbles;
/// Q3: 32 numbers of three bits, less 4.
pub(super) struct Threes;
/// Q2: sixteen numbers of two bits, times 8 and less 15.
pub(super) struct Pairs;

impl Plain<1> for Single {
    #[inline(always)]
    fn parts<S: Simd>(w: u32x16<S>) -> [f32x16<S>; 1] {
        [w.bitcast()]
    }
}

impl Plain<2> for Brain {
    #[inline(always)]
    fn parts<S: Simd>(w: u32x16<S>) -> [f32x16<S>; 2] {
        [(w << 16).bitcast(), (w & 0xffff_0000).bitcast()]
    }
}

impl Plain<2> for Half {
    #[inline(always)]
    fn parts<S: Simd>(w: u32x16<S>) -> [f32x16<S>; 2] {
        [half::<S, 0>(w << 16), half::<S, 0>(w)]
    }
}

/// The halves in the upper bits of the lanes, divided by 2 to the power of `DOWN`, exactly.
/// Infinities and NaN stay what they are.
///
/// A CPU may take a hundred times as long for a float too small to be normal, so no such number is
/// made of halves that are.
#[inline(always)]
fn half<S: Simd, const DOWN: u32>(w: u32x16<S>) -> f32x16<S> {
    // From the bias of a half's exponent to that of a float's.
    let bias = (112 - DOWN) << 23;
    let size = (w & 0x7fff_0000) >> 3;
    let number = size + bias;
    // Without an exponent a half is what its other bits add to the least one that has.
    let least = bias + (1 << 23);
    let grown: f32x16<S> = (size + least).bitcast();
    let small: u32x16<S> = (grown - f32::from_bits(least)).bitcast();
    let sizes: i32x16<S> = size.bitcast();
    let number = sizes.simd_lt(1 << 23).select(small, number);
    let number = sizes.simd_lt(0x7c00 << 13).select(number, size | 0x7f80_0000);
    let sign = w & 0x8000_0000;
    (number | sign).bitcast()
}

/// 2^23: the lowest bit of a float of this size is 1, so an integer below is put into one by its
/// bits, and what is above it is subtracted.
const MAGIC: f32 = 8_388_608.0;

/// Adds the products of `N` fields of words, each of `BITS` bits, and `x[at..][..N]`. A field is
/// 2^`FIRST` times its number, of which `offset` is subtracted; this and all is multiplied by
/// 2^`BITS` from field to field.
#[inline(always)]
fn fields<
    S: Simd,
    const BITS: usize,
    const FIRST: usize,
    const N: usize,
    const P: usize,
    const R: usize,
    const C: usize,
>(
    simd: S,
    words: [u32x16<S>; R],
    offset: f32,
    (x, at): ([&Column<P>; C], usize),
    sums: &mut Sums<S, R, C>,
) {
    for i in 0..N {
        let mask = ((1 << BITS) - 1) << (FIRST + i * BITS);
        // Both the number in the float and the rest are exact.
        let above = MAGIC + offset * (1_u32 << (i * BITS)) as f32;
        let mut parts = [f32x16::splat(simd, 0.0); R];
        for r in 0..R {
            let number: f32x16<S> = ((words[r] & mask) | MAGIC.to_bits()).bitcast();
            parts[r] = number - above;
        }
        for c in 0..C {
            let x = f32x16::simd_from(simd, x[c][at + i]);
            for r in 0..R {
                sums[r][c] = parts[r].mul_add(x, sums[r][c]);
            }
        }
    }
}

/// Powers of two that [`fields`] multiplies by, when each run of it has `n` fields.
const fn factors<const P: usize>(bits: usize, n: usize) -> [f32; P] {
    let mut factors = [1.0; P];
    let mut i = 0;
    while i < P {
        factors[i] = (1_u32 << (i % n * bits)) as f32;
        i += 1;
    }
    factors
}

/// The words of a vector that has one for each lane.
#[inline(always)]
fn one_word<S: Simd>(simd: S, bytes: &[u8]) -> [u32x16<S>; 1] {
    match bytes.first_chunk() {
        Some(bytes) => [load(simd, bytes)],
        None => [u32x16::splat(simd, 0)],
    }
}

/// `[a0, a0, a1, a1, ..]` in two vectors.
#[inline(always)]
fn twice<S: Simd>(a: f32x16<S>) -> [f32x16<S>; 2] {
    a.interleave(a).into()
}

impl Scaled<4, 1, 1> for Signed {
    const FACTORS: [f32; 4] = factors(8, 2);
    const GROUP: usize = 16;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [u32x16<S>; 1] {
        one_word(simd, bytes)
    }

    #[inline(always)]
    fn products<S: Simd, const R: usize, const C: usize>(
        simd: S,
        words: [[u32x16<S>; 1]; R],
        x: [&Column<4>; C],
    ) -> [Sums<S, R, C>; 1] {
        let mut sums = zeros(simd);
        let (mut low, mut high) = ([words[0][0]; R], [words[0][0]; R]);
        for r in 0..R {
            // From signed bytes to those that are larger by 128.
            low[r] = words[r][0] ^ 0x8080_8080;
            high[r] = low[r] >> 16;
        }
        fields::<S, 8, 0, 2, 4, R, C>(simd, low, 128.0, (x, 0), &mut sums);
        fields::<S, 8, 0, 2, 4, R, C>(simd, high, 128.0, (x, 2), &mut sums);
        [sums]
    }

    #[inline(always)]
    fn spread<S: Simd>(scales: u32x16<S>, to: &mut [[f32; LANES]; SPREAD]) {
        let fours = by_four(scales);
        for i in 0..8 {
            let [low, high] = twice(fours[i]);
            (to[2 * i], to[2 * i + 1]) = (low.into(), high.into());
        }
    }
}

impl Scaled<8, 1, 1> for Nibbles {
    const FACTORS: [f32; 8] = factors(4, 4);
    const GROUP: usize = 8;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [u32x16<S>; 1] {
        one_word(simd, bytes)
    }

    #[inline(always)]
    fn products<S: Simd, const R: usize, const C: usize>(
        simd: S,
        words: [[u32x16<S>; 1]; R],
        x: [&Column<8>; C],
    ) -> [Sums<S, R, C>; 1] {
        let mut sums = zeros(simd);
        let (mut low, mut high) = ([words[0][0]; R], [words[0][0]; R]);
        for r in 0..R {
            low[r] = words[r][0];
            high[r] = words[r][0] >> 16;
        }
        fields::<S, 4, 0, 4, 8, R, C>(simd, low, 8.0, (x, 0), &mut sums);
        fields::<S, 4, 0, 4, 8, R, C>(simd, high, 8.0, (x, 4), &mut sums);
        [sums]
    }

    #[inline(always)]
    fn spread<S: Simd>(scales: u32x16<S>, to: &mut [[f32; LANES]; SPREAD]) {
        let fours = by_four(scales);
        for i in 0..8 {
            to[i] = fours[i].into();
        }
    }
}

/// 32 scales, each in four lanes.
#[inline(always)]
fn by_four<S: Simd>(scales: u32x16<S>) -> [f32x16<S>; 8] {
    // Of two scales that follow each other, the first is in the lower bits.
    let [even, odd] = Half::parts(scales);
    let (low, high) = even.interleave(odd);
    let ([a, b], [c, d]) = (twice(low), twice(high));
    let ([a0, a1], [b0, b1]) = (twice(a), twice(b));
    let ([c0, c1], [d0, d1]) = (twice(c), twice(d));
    [a0, a1, b0, b1, c0, c1, d0, d1]
}

/// The scales in byte `I` of the lanes.
#[inline(always)]
fn of_bytes<S: Simd, const I: u32>(scales: u32x16<S>) -> f32x16<S> {
    half::<S, 8>((scales << (24 - 8 * I)) & 0xff00_0000)
}

impl Scaled<16, 1, 1> for Pairs {
    const FACTORS: [f32; 16] = factors(2, 8);
    const GROUP: usize = 4;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [u32x16<S>; 1] {
        one_word(simd, bytes)
    }

    #[inline(always)]
    fn products<S: Simd, const R: usize, const C: usize>(
        simd: S,
        words: [[u32x16<S>; 1]; R],
        x: [&Column<16>; C],
    ) -> [Sums<S, R, C>; 1] {
        let mut sums = zeros(simd);
        let (mut low, mut high) = ([words[0][0]; R], [words[0][0]; R]);
        for r in 0..R {
            // The lowest bit of a code is that of 8.
            low[r] = words[r][0] << 3;
            high[r] = words[r][0] >> 13;
        }
        fields::<S, 2, 3, 8, 16, R, C>(simd, low, 15.0, (x, 0), &mut sums);
        fields::<S, 2, 3, 8, 16, R, C>(simd, high, 15.0, (x, 8), &mut sums);
        [sums]
    }

    #[inline(always)]
    fn spread<S: Simd>(scales: u32x16<S>, to: &mut [[f32; LANES]; SPREAD]) {
        let (a, b) = (of_bytes::<S, 0>(scales), of_bytes::<S, 1>(scales));
        let (c, d) = (of_bytes::<S, 2>(scales), of_bytes::<S, 3>(scales));
        let ((ac, ac2), (bd, bd2)) = (a.interleave(c), b.interleave(d));
        let ((first, second), (third, fourth)) = (ac.interleave(bd), ac2.interleave(bd2));
        (to[0], to[1]) = (first.into(), second.into());
        (to[2], to[3]) = (third.into(), fourth.into());
    }
}

impl Scaled<32, 3, 2> for Threes {
    const FACTORS: [f32; 32] = factors(3, 4);
    const GROUP: usize = 2;

    #[inline(always)]
    fn load<S: Simd>(simd: S, bytes: &[u8]) -> [u32x16<S>; 3] {
        // Four blocks are twelve words in three vectors of four: [a0 b0 c0 a1], [b1 c1 a2 b2],
        // [c2 a3 b3 c3].
        let (u, v) = (fourth(simd, bytes, 0), fourth(simd, bytes, 16));
        let w = fourth(simd, bytes, 32);
        [
            // [a0 a3 a2 a1], [b1 b0 b3 b2], [c2 c1 c0 c3]
            within(simd, mixed(simd, u, v, w), [0, 3, 2, 1]),
            within(simd, mixed(simd, v, w, u), [1, 0, 3, 2]),
            within(simd, mixed(simd, w, u, v), [2, 1, 0, 3]),
        ]
    }

    #[inline(always)]
    fn products<S: Simd, const R: usize, const C: usize>(
        simd: S,
        words: [[u32x16<S>; 3]; R],
        x: [&Column<32>; C],
    ) -> [Sums<S, R, C>; 2] {
        let (mut first, mut second) = (zeros(simd), zeros(simd));
        let mut last = [words[0][0]; R];
        for part in 0..4 {
            let (mut low, mut high) = (last, last);
            for r in 0..R {
                let [a, b, c] = words[r];
                low[r] = match part {
                    0 => a,
                    1 => b,
                    2 => c,
                    _ => a >> 24 | (b & 0xff00_0000) >> 16 | (c & 0xff00_0000) >> 8,
                };
                high[r] = low[r] >> 12;
            }
            let sums = if part < 2 { &mut first } else { &mut second };
            fields::<S, 3, 0, 4, 32, R, C>(simd, low, 4.0, (x, 8 * part), sums);
            fields::<S, 3, 0, 4, 32, R, C>(simd, high, 4.0, (x, 8 * part + 4), sums);
            last = low;
        }
        [first, second]
    }

    #[inline(always)]
    fn spread<S: Simd>(scales: u32x16<S>, to: &mut [[f32; LANES]; SPREAD]) {
        // Two blocks in each lane, with two scales each.
        let (a, b) = (of_bytes::<S, 0>(scales), of_bytes::<S, 1>(scales));
        let (c, d) = (of_bytes::<S, 2>(scales), of_bytes::<S, 3>(scales));
        let ((first, next_first), (second, next_second)) = (a.interleave(c), b.interleave(d));
        (to[0], to[1]) = (first.into(), second.into());
        (to[2], to[3]) = (next_first.into(), next_second.into());
    }
}

/// Lanes 0 and 3 of each four of `a`, 2 of `b` and 1 of `c`.
#[inline(always)]
fn mixed<S: Simd>(simd: S, a: u32x16<S>, b: u32x16<S>, c: u32x16<S>) -> u32x16<S> {
    let mixed = mask32x16::from_bitmask(simd, 0x2222).select(c, a);
    mask32x16::from_bitmask(simd, 0x4444).select(b, mixed)
}

/// Four words of every 48 bytes, beginning with those at `at`.
#[inline(always)]
fn fourth<S: Simd>(simd: S, bytes: &[u8], at: usize) -> u32x16<S> {
    let (a, b) = (four(simd, bytes, at), four(simd, bytes, at + 48));
    let (c, d) = (four(simd, bytes, at + 96), four(simd, bytes, at + 144));
    a.combine(b).combine(c.combine(d))
}

/// The four words at `at`.
#[inline(always)]
fn four<S: Simd>(simd: S, bytes: &[u8], at: usize) -> u32x4<S> {
    let mut words = [0; 16];
    words.copy_from_slice(&bytes[at..][..16]);
    u32x4::from_bytes(u8x16::simd_from(simd, words))
}

/// Moves lanes within each four.
#[inline(always)]
fn within<S: Simd>(simd: S, words: u32x16<S>, from: [u8; 4]) -> u32x16<S> {
    let mut at = [0; BYTES];
    for (byte, at) in (0_u8..).zip(&mut at) {
        *at = 4 * from[usize::from(byte % 16 / 4)] + byte % 4;
    }
    u32x16::from_bytes(words.to_bytes().swizzle_dyn_within_blocks(u8x64::simd_from(simd, at)))
}
