// Scales of a product with one matrix of quantized weights, loaded a word at a time. Links:
// lib/scale_word.wgsl. lib/scales_pair.wgsl declares the same for two matrices.

// The scale of chunk c of the row that begins at `base`.
fn scale_in(which: u32, base: u32, c: u32) -> f32 {
    let at = scale_place(base, c);
    return scale_in_word(weight[at.chunk][at.word], at);
}
