
// Weights stored as bfloat16, eight to a chunk. A bfloat16 is the upper half of an f32.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Eights of a chunk.
const PARTS: u32 = 1u;

// Chunks from one row to the next.
fn row_stride(cols8: u32) -> u32 {
    return cols8;
}

// Where in a row the scale of chunk c lies.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return c;
}

// The scale of chunk c, out of what lies there.
fn scale_of(w: Chunk, c: u32) -> f32 {
    return 1.0;
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    let even = bitcast<vec4<f32>>(w << vec4(16u));
    let odd = bitcast<vec4<f32>>(w & vec4(0xffff0000u));
    return Eight(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}
