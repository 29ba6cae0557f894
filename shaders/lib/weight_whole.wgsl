// Common to weights that are not quantized: chunks of eight, without a scale.
// lib/weight_f32.wgsl, lib/weight_f16.wgsl and lib/weight_bf16.wgsl link it.
// Links: lib/weight_one_scale.wgsl.

// Groups of eight weights in a chunk.
const PARTS: u32 = 1u;

// Chunks from one row to the next.
fn row_stride(cols8: u32) -> u32 {
    return cols8;
}

// Index, in a row, of the chunk that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return c;
}

// The scale of chunk c; w is the chunk that has it.
fn scale_of(w: Cell, c: u32) -> f32 {
    return 1.0;
}
