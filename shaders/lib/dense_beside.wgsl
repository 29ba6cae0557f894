// A product with the kernel's `weight`, and beside it one of `dense` with `dense_weight`, whose rows are
// as many and have other columns.
// Links: lib/two_sums.wgsl.

const PAIR: bool = false;
const BESIDE: bool = true;

fn w_chunk(which: u32, at: u32) -> Chunk {
    if which == 0u {
        return weight[at];
    }
    return dense_weight[at];
}

fn x_quad(which: u32, at: u32) -> vec4<f32> {
    if which == 0u {
        return x[at];
    }
    return dense[at];
}

fn cols8_of(which: u32) -> u32 {
    if which == 0u {
        return params.cols8;
    }
    return params.dense_cols8;
}
