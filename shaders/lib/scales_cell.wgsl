// The same as lib/scales_one.wgsl and lib/scales_pair.wgsl, for weights whose scales lie in small
// cells.
// Links: lib/one_weight.wgsl or lib/gate_and_up.wgsl.

fn scale_in(which: u32, base: u32, c: u32) -> Scale {
    return scale_of(w_cell(which, base + scale_at(params.cols8, c)), c);
}
