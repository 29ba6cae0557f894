// What weights that are stored as they are have in common: chunks of eight, without a scale.
// lib/weight_f32.wgsl, lib/weight_f16.wgsl and lib/weight_bf16.wgsl link it.

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
