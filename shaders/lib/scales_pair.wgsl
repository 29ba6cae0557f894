// The same as lib/scales_one.wgsl for two matrices, `gate` and `up`.

fn scale_in(which: u32, base: u32, c: u32) -> f32 {
    let half = scale_half(c);
    let at = base + scale_at(params.cols8, c);
    if which == 0u {
        return scale_of_half(gate[at][half / 2u], half);
    }
    return scale_of_half(up[at][half / 2u], half);
}
