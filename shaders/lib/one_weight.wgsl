// A product with one matrix, the kernel's `weight`. lib/gate_and_up.wgsl and lib/dense_beside.wgsl,
// with lib/two_sums.wgsl, declare the same things for two: `which` is the number of the matrix.

const PAIR: bool = false;
const BESIDE: bool = false;

// What is summed over lanes.
alias Sum = f32;

fn w_chunk(which: u32, at: u32) -> Chunk {
    return weight[at];
}

fn x_quad(which: u32, at: u32) -> vec4<f32> {
    return x[at];
}

// Columns / 8 of a matrix.
fn cols8_of(which: u32) -> u32 {
    return params.cols8;
}

fn sum_of(first: f32, second: f32) -> Sum {
    return first;
}

fn finish_sum(at: u32, sum: Sum) -> f32 {
    return finish(at, sum, 0.0);
}
