// A product with one matrix, the kernel's `weight`. lib/gate_and_up.wgsl declares the same for two:
// `which` is the number of the matrix.

const PAIR: bool = false;

fn w_cell(which: u32, at: u32) -> Cell {
    return weight[at];
}

// The chunk that begins at a cell.
fn w_chunk(which: u32, at: u32) -> Chunk {
    if CELLS > 1u {
        return chunk_from(weight[at], weight[at + 1u], weight[at + 2u]);
    }
    let cell = weight[at];
    return chunk_from(cell, cell, cell);
}
