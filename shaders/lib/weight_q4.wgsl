
// Weights in blocks of 32 four-bit integers with a common f16 scale, a block to a chunk. A row is
// its chunks, then its scales. What is stored is the integer plus 8.
// Links: lib/weight_quantized.wgsl.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Groups of eight weights in a chunk.
const PARTS: u32 = 4u;

// Index, in a row, of the chunk that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return cols8 / PARTS + c / 8u;
}

// Which of the eight scales in it is that of chunk c.
fn scale_half(c: u32) -> u32 {
    return c % 8u;
}

// Eight neighbouring weights of a chunk, without their scale. `magic` has numbers whose last bits
// are 1, 1/16, 1/256 and so on: an integer below 16 in bits 4k to 4k + 3 of such a number adds
// itself, and the difference to the number plus 8 is exact.
fn decode(w: Chunk, part: u32) -> Eight {
    let magic = vec4(0x4b000000u, 0x49000000u, 0x47000000u, 0x45000000u);
    let word = w[part];
    let lo = (vec4(word) & vec4(0xfu, 0xf0u, 0xf00u, 0xf000u)) | magic;
    let fourth = (word & 0xf0000u) | 0x43000000u;
    let top = (vec3(word >> 20u) & vec3(0xfu, 0xf0u, 0xf00u)) | magic.xyz;
    let eights = vec4(8388616.0, 524296.0, 32776.0, 2056.0);
    return Eight(
        bitcast<vec4<f32>>(lo) - eights,
        vec4(bitcast<f32>(fourth) - 136.0, bitcast<vec3<f32>>(top) - eights.xyz),
    );
}
