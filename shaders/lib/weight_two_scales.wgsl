// Common to weights in blocks of 32 with a scale for each half, a block to a chunk. A row is its
// chunks, then two bytes for each: the scales of its halves. A byte is the upper one of an f16
// (E5M2), which is 256 times the scale.
// lib/weight_q3.wgsl and lib/weight_q2.wgsl link it.

// Groups of eight weights in a chunk.
const PARTS: u32 = 4u;

// The scale of a chunk, how many numbers it has, and the one for a group of eight weights.
alias Scale = vec2<f32>;
const SCALES: u32 = 2u;

fn scale_part(scale: Scale, part: u32) -> f32 {
    return select(scale.x, scale.y, part >= 2u);
}

// The scales of chunk c, from the word that has them and those of its neighbour.
fn scale_of_word(word: u32, c: u32) -> Scale {
    let both = word >> (16u * (c % 2u));
    let halves = ((both & 0xffu) << 8u) | ((both & 0xff00u) << 16u);
    return unpack2x16float(halves) * 0.00390625;
}
