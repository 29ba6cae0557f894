// Common to weights of 8 and of 4 bits. A row is its chunks, then its scales: f16, eight a chunk,
// one for each 32 integers.
// lib/weight_q8.wgsl and lib/weight_q4.wgsl link it, with PARTS and `scale_half`.
// Links: lib/weight_one_scale.wgsl.

// Chunks from one row to the next: those of the integers, and one for each eight scales.
fn row_stride(cols8: u32) -> u32 {
    return cols8 / PARTS + (cols8 / 4u + 7u) / 8u;
}

// The scale of chunk c; w is the chunk that has it.
fn scale_of(w: Cell, c: u32) -> f32 {
    let half = scale_half(c);
    return scale_of_half(w[half / 2u], half);
}

// Number `half` of a chunk of scales, from the word that has it.
fn scale_of_half(word: u32, half: u32) -> f32 {
    return unpack2x16float(word >> (16u * (half % 2u))).x;
}
