// Blocks, as in lib/spread.wgsl, of a kernel's `gate` and `up`, whose rows have `params.cols8` times
// eight columns.

// Block of `gate` at chunk c of the row at `base`. Chunks beyond the row meet activations of zero.
fn block_of_gate(base: u32, c: u32) -> Block {
    return Block(gate_at(base, c), gate_at(base, c + 1u), gate_at(base, c + 2u), gate_at(base, c + 3u));
}

fn gate_at(base: u32, c: u32) -> Scaled {
    let at = min(c, params.cols8 / PARTS - 1u);
    return Scaled(gate[base + at], scale_of(gate[base + scale_at(params.cols8, at)], at));
}

fn block_of_up(base: u32, c: u32) -> Block {
    return Block(up_at(base, c), up_at(base, c + 1u), up_at(base, c + 2u), up_at(base, c + 3u));
}

fn up_at(base: u32, c: u32) -> Scaled {
    let at = min(c, params.cols8 / PARTS - 1u);
    return Scaled(up[base + at], scale_of(up[base + scale_at(params.cols8, at)], at));
}
