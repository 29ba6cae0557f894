
// Weights stored as bfloat16, eight to a chunk. A bfloat16 is the upper half of an f32.
// Links: lib/weight_whole.wgsl.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    let even = bitcast<vec4<f32>>(w << vec4(16u));
    let odd = bitcast<vec4<f32>>(w & vec4(0xffff0000u));
    return Eight(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}
