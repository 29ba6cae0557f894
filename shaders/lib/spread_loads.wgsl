// Loads of products whose invocations own output rows, as in lib/spread.wgsl.
// Takes from the kernel: PAIR, w_chunk, x_quad, cols8_of.

// Output rows of an invocation, which are a workgroup apart; of a pair it has one row of both.
override OWN: u32 = 2u;

// Where a row of the weights begins; those beyond the last are taken for it.
fn row_at(which: u32, weight0: u32, row: u32) -> u32 {
    return (weight0 + min(row, params.rows - 1u)) * row_stride(cols8_of(which));
}

// The same of what an invocation multiplies beside it: the next of its rows, or the other weight's.
fn next_row_at(which: u32, weight0: u32, row: u32) -> u32 {
    if PAIR {
        return row_at(which, weight0, row);
    }
    return row_at(which, weight0, row + WG);
}

// And the matrix that is in.
fn next_of(which: u32) -> u32 {
    if PAIR {
        return 1u;
    }
    return which;
}

// A quad of activations, `start` being the first of its row; zero beyond the end.
fn quad_of(which: u32, start: u32, quad: u32) -> vec4<f32> {
    let quads = 2u * cols8_of(which);
    return select(vec4<f32>(), x_quad(which, start + min(quad, quads - 1u)), quad < quads);
}

// Block of a matrix at chunk c of the row at `base`. Chunks beyond the row meet activations of zero.
fn block_of(which: u32, base: u32, c: u32) -> Block {
    return Block(
        scaled_at(which, base, c),
        scaled_at(which, base, c + 1u),
        scaled_at(which, base, c + 2u),
        scaled_at(which, base, c + 3u),
    );
}

fn scaled_at(which: u32, base: u32, c: u32) -> Scaled {
    let cols8 = cols8_of(which);
    let at = min(c, cols8 / PARTS - 1u);
    return Scaled(w_chunk(which, base + at), scale_of(w_chunk(which, base + scale_at(cols8, at)), at));
}
