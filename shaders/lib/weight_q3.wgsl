// Weights in blocks of 32 three-bit integers with a scale for each half. A chunk is a vector of
// three words, which are loaded one by one, as they may begin at any word: the 24 bits of a group
// of eight are those of a word, and for the fourth group the upper bytes of all three. What is
// stored is the integer plus 4.
// Links: lib/weight_two_scales.wgsl.

alias Chunk = vec3<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// What the array of a binding has, how many of them are a chunk, and the chunk that they are.
alias Cell = u32;
const CELLS: u32 = 3u;

fn chunk_from(a: Cell, b: Cell, c: Cell) -> Chunk {
    return vec3(a, b, c);
}

// Cells from one row to the next: 14 bytes for each chunk, and then up to a multiple of 16.
fn row_stride(cols8: u32) -> u32 {
    return (7u * (cols8 / PARTS) + 7u) / 8u * 4u;
}

// Index, in a row, of the cell that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return CELLS * (cols8 / PARTS) + c / 2u;
}

// The scale of chunk c; w is the cell that has it.
fn scale_of(w: Cell, c: u32) -> Scale {
    return scale_of_word(w, c);
}

// Eight neighbouring weights of a chunk, without their scale. The last bits of the numbers in
// `magic` are 1, 1/8, 1/64 and 1/512: an integer below 8 in the place of those bits, or three, six
// or nine above, adds itself, and the difference to the number plus 4 is exact.
fn decode(w: Chunk, part: u32) -> Eight {
    let places = vec4(0x7u, 0x38u, 0x1c0u, 0xe00u);
    let magic = vec4(0x4b000000u, 0x49800000u, 0x48000000u, 0x46800000u);
    let fours = vec4(8388612.0, 1048580.0, 131076.0, 16388.0);
    let bits = bits_of(w, part);
    return Eight(
        bitcast<vec4<f32>>((vec4(bits) & places) | magic) - fours,
        bitcast<vec4<f32>>((vec4(bits >> 12u) & places) | magic) - fours,
    );
}

// The bits of a group of eight; those above the 24th are not its own.
fn bits_of(w: Chunk, part: u32) -> u32 {
    if part == 3u {
        return (w.x >> 24u) | ((w.y >> 16u) & 0xff00u) | ((w.z >> 8u) & 0xff0000u);
    }
    return w[part];
}
