
// Weights stored as f32, eight to a chunk. Every lib/weight_*.wgsl declares the same things.
// Links: lib/weight_whole.wgsl.

struct Chunk {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    return Eight(w.lo, w.hi);
}
