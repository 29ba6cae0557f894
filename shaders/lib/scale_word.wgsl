// Where the scale of a chunk of quantized weights is: a half of a word.
// Links: lib/weight_q8.wgsl or lib/weight_q4.wgsl.

struct ScalePlace {
    chunk: u32,
    word: u32,
    shift: u32,
}

// Of chunk c of the row that begins at `base`.
fn scale_place(base: u32, c: u32) -> ScalePlace {
    let block = c * PARTS / 4u;
    let at = base + scale_at(params.cols8, c);
    return ScalePlace(at, block % 8u / 2u, 16u * (block % 2u));
}

fn scale_in_word(word: u32, at: ScalePlace) -> f32 {
    return unpack2x16float(word >> at.shift).x;
}
