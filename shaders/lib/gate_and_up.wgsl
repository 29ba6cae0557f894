// A product with two matrices of one shape, the kernel's `gate` and `up`, and the same activations.
// Links: lib/two_sums.wgsl.

const PAIR: bool = true;
const BESIDE: bool = false;

fn w_chunk(which: u32, at: u32) -> Chunk {
    if which == 0u {
        return gate[at];
    }
    return up[at];
}

fn x_quad(which: u32, at: u32) -> vec4<f32> {
    return x[at];
}

fn cols8_of(which: u32) -> u32 {
    return params.cols8;
}
