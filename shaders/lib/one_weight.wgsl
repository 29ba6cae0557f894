// A product with one matrix, the kernel's `weight`. Every lib/*_weight*.wgsl of this kind declares the
// same things: `which` counts the matrices.

const PAIR: bool = false;
const BESIDE: bool = false;

// What lanes sum up.
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
