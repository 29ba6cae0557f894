// Blocks, as in lib/spread.wgsl, of a kernel's `weight`, whose rows have `params.cols8` times eight
// columns.

// Block of `weight` at chunk c of the row at `base`. Chunks beyond the row meet activations of zero.
fn block_of_weight(base: u32, c: u32) -> Block {
    return Block(weight_at(base, c), weight_at(base, c + 1u), weight_at(base, c + 2u), weight_at(base, c + 3u));
}

fn weight_at(base: u32, c: u32) -> Scaled {
    let at = min(c, params.cols8 / PARTS - 1u);
    return Scaled(weight[base + at], scale_of(weight[base + scale_at(params.cols8, at)], at));
}
