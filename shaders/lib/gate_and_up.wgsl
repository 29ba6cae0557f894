// A product with two matrices of one shape, the kernel's `gate` and `up`, and the same activations.

const PAIR: bool = true;

fn w_cell(which: u32, at: u32) -> Cell {
    if which == 0u {
        return gate[at];
    }
    return up[at];
}

// The chunk that begins at a cell.
fn w_chunk(which: u32, at: u32) -> Chunk {
    if CELLS > 1u {
        if which == 0u {
            return chunk_from(gate[at], gate[at + 1u], gate[at + 2u]);
        }
        return chunk_from(up[at], up[at + 1u], up[at + 2u]);
    }
    let cell = w_cell(which, at);
    return chunk_from(cell, cell, cell);
}
