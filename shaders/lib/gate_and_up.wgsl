// A product with two matrices of one shape, the kernel's `gate` and `up`, and the same activations.

const PAIR: bool = true;

fn w_chunk(which: u32, at: u32) -> Chunk {
    if which == 0u {
        return gate[at];
    }
    return up[at];
}
