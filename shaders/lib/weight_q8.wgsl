
// Weights in blocks of 32 signed bytes with a common f16 scale, sixteen bytes to a chunk. A row is
// its chunks and then its scales.
// Links: lib/weight_quantized.wgsl.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Groups of eight weights in a chunk.
const PARTS: u32 = 2u;

// Index, in a row, of the chunk that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return cols8 / PARTS + c / 16u;
}

// Which of the eight scales in it is that of chunk c.
fn scale_half(c: u32) -> u32 {
    return c / 2u % 8u;
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    return Eight(bytes_of(w[2u * part]), bytes_of(w[2u * part + 1u]));
}

// The signed bytes of a word. A sign bit that is turned over adds 128. Numbers whose last bits are
// 1 and 1/256: a byte in the place of those bits, or eight above, adds itself, and the difference
// is exact. Some GPUs convert integers slowly.
fn bytes_of(word: u32) -> vec4<f32> {
    let low = word ^ 0x80808080u;
    let high = low >> 16u;
    let places = vec4(low, low, high, high) & vec4(0xffu, 0xff00u, 0xffu, 0xff00u);
    let magic = vec4(0x4b000000u, 0x47000000u, 0x4b000000u, 0x47000000u);
    return bitcast<vec4<f32>>(places | magic) - vec4(8388736.0, 32896.0, 8388736.0, 32896.0);
}
