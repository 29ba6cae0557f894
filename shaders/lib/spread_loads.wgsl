// Loads of weights and activations for lib/spread.wgsl.
// Takes from the kernel: PAIR, w_cell, w_chunk.

// Output rows of an invocation, which are `WG` apart. Of a pair, it has one row of each matrix.
override OWN: u32 = 2u;

// First chunk of a row of the weights. Rows beyond the last are clamped to it.
fn row_at(weight0: u32, row: u32) -> u32 {
    return (weight0 + min(row, params.rows - 1u)) * row_stride(params.cols8);
}

// The same for the second row of an invocation: the next one of its own, or that of the other
// matrix of a pair.
fn next_row_at(weight0: u32, row: u32) -> u32 {
    if PAIR {
        return row_at(weight0, row);
    }
    return row_at(weight0, row + WG);
}

// The matrix of this second row.
fn next_matrix() -> u32 {
    return u32(PAIR);
}

// Quad number `quad` of the row of activations whose first is `start`; zero beyond the end.
fn quad_of(start: u32, quad: u32) -> vec4<f32> {
    let quads = 2u * params.cols8;
    return select(vec4<f32>(), x[start + min(quad, quads - 1u)], quad < quads);
}

// Block of a matrix from chunk c of the row at `base` on. Chunks beyond the row are clamped to its
// last; their activations are zero.
fn block_of(which: u32, base: u32, c: u32) -> Block {
    return Block(
        scaled_at(which, base, c),
        scaled_at(which, base, c + 1u),
        scaled_at(which, base, c + 2u),
        scaled_at(which, base, c + 3u),
    );
}

fn scaled_at(which: u32, base: u32, c: u32) -> Scaled {
    let at = min(c, params.cols8 / PARTS - 1u);
    return Scaled(
        w_chunk(which, base + CELLS * at),
        scale_of(w_cell(which, base + scale_at(params.cols8, at)), at),
    );
}
