// Weights in blocks of 32 two-bit codes with a scale for each half, a block to a chunk. Code k is
// the integer 8 k - 15.
// Links: lib/weight_two_scales.wgsl.

alias Chunk = vec2<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// What the array of a binding has, how many of them are a chunk, and the chunk that they are.
alias Cell = Chunk;
const CELLS: u32 = 1u;

fn chunk_from(a: Cell, b: Cell, c: Cell) -> Chunk {
    return a;
}

// Cells from one row to the next: 10 bytes for each chunk, and then up to a multiple of 16.
fn row_stride(cols8: u32) -> u32 {
    return (5u * (cols8 / PARTS) + 7u) / 8u * 2u;
}

// Index, in a row, of the cell that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return cols8 / PARTS + c / 4u;
}

// The scale of chunk c; w is the cell that has it.
fn scale_of(w: Cell, c: u32) -> Scale {
    return scale_of_word(w[c / 2u % 2u], c);
}

// Eight neighbouring weights of a chunk, without their scale. A code stands where the numbers in
// `magic` have their bits for 8 and 16, and so adds eight times itself; the difference to the
// number plus 15 is exact. Three bits below are free for that 15.
fn decode(w: Chunk, part: u32) -> Eight {
    let word = w[part / 2u];
    let bits = vec4(select(word << 3u, word >> 13u, part % 2u == 1u));
    let lo = (bits & vec4(0x18u, 0x60u, 0x180u, 0x600u))
        | vec4(0x4b000000u, 0x4a000000u, 0x49000000u, 0x48000000u);
    let hi = (bits & vec4(0x1800u, 0x6000u, 0x18000u, 0x60000u))
        | vec4(0x47000000u, 0x46000000u, 0x45000000u, 0x44000000u);
    return Eight(
        bitcast<vec4<f32>>(lo) - vec4(8388623.0, 2097167.0, 524303.0, 131087.0),
        bitcast<vec4<f32>>(hi) - vec4(32783.0, 8207.0, 2063.0, 527.0),
    );
}
