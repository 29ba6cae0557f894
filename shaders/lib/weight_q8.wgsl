
// Weights in blocks of 32 signed bytes with a common f16 scale, sixteen bytes to a chunk. A row is
// its chunks and then its scales.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Groups of eight weights in a chunk.
const PARTS: u32 = 2u;

// Chunks from one row to the next: two for each block, and one for each eight scales.
fn row_stride(cols8: u32) -> u32 {
    return cols8 / PARTS + (cols8 / 4u + 7u) / 8u;
}

// Index, in a row, of the chunk that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return cols8 / PARTS + c / 16u;
}

// The scale of chunk c; w is the chunk that has it.
fn scale_of(w: Chunk, c: u32) -> f32 {
    let block = c / 2u % 8u;
    let pair = unpack2x16float(w[block / 2u]);
    return select(pair.x, pair.y, block % 2u == 1u);
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    return Eight(bytes_of(w[2u * part]), bytes_of(w[2u * part + 1u]));
}

fn bytes_of(word: u32) -> vec4<f32> {
    // Each byte is shifted to the top of a word, then down again, which extends its sign.
    let high = bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u));
    return vec4<f32>(high >> vec4(24u));
}
