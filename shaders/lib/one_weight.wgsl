// A product with one matrix, the kernel's `weight`. lib/gate_and_up.wgsl declares the same for two:
// `which` is the number of the matrix.

const PAIR: bool = false;

fn w_chunk(which: u32, at: u32) -> Chunk {
    return weight[at];
}
