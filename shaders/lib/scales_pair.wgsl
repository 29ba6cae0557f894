// The same as lib/scales_one.wgsl for two matrices, `gate` and `up`. Links: lib/scale_word.wgsl.

fn scale_in(which: u32, base: u32, c: u32) -> f32 {
    let at = scale_place(base, c);
    if which == 0u {
        return scale_in_word(gate[at.chunk][at.word], at);
    }
    return scale_in_word(up[at.chunk][at.word], at);
}
