// Two products side by side: of `x` with the kernel's `weight`, and of `dense` with `dense_weight`,
// which has as many rows, but a number of columns of its own.
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
