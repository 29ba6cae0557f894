
// Weights in blocks of 32 four-bit integers with a common f16 scale, a block to a chunk. A row is
// its chunks, then its scales. What is stored is the integer plus 8.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Groups of eight weights in a chunk.
const PARTS: u32 = 4u;

// Chunks from one row to the next: one for each block, and one for each eight scales.
fn row_stride(cols8: u32) -> u32 {
    return cols8 / PARTS + (cols8 / 4u + 7u) / 8u;
}

// Index, in a row, of the chunk that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return cols8 / PARTS + c / 8u;
}

// The scale of chunk c; w is the chunk that has it.
fn scale_of(w: Chunk, c: u32) -> f32 {
    let block = c % 8u;
    let pair = unpack2x16float(w[block / 2u]);
    return select(pair.x, pair.y, block % 2u == 1u);
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    let word = w[part];
    let lo = (vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
    let hi = (vec4(word) >> vec4(16u, 20u, 24u, 28u)) & vec4(15u);
    return Eight(vec4<f32>(lo) - vec4(8.0), vec4<f32>(hi) - vec4(8.0));
}
