// Scales of a product with one matrix of quantized weights, loaded a word at a time.
// lib/scales_pair.wgsl declares the same for two matrices.

// The scale of chunk c of the row that begins at `base`.
fn scale_in(which: u32, base: u32, c: u32) -> f32 {
    let half = scale_half(c);
    return scale_of_half(weight[base + scale_at(params.cols8, c)][half / 2u], half);
}
