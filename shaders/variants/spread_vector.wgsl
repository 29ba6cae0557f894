// Matrix-vector products in which each invocation computes output rows of its own; a subgroup
// shares loaded quads of x by shuffles. A loaded weight serves up to four rows of x.
// Known as: GEMV with a row per thread and subgroup broadcast.
// Takes from the kernel: part_of, out_row, PAIR, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/columns.wgsl, lib/starts.wgsl, lib/shuffle.wgsl, lib/spread.wgsl,
// lib/spread_loads.wgsl.

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let part = part_of(group.x, COLUMNS);
    if part.begin >= part.end {
        return;
    }
    let row = group.y * OWN * WG + local;
    let base_a = row_at(part.weight0, row);
    let base_b = next_row_at(part.weight0, row);
    let starts = starts_of(part, 0u);
    let count = part.end - part.begin;

    // Sums of this invocation's two rows of the weights, or of its row of each of a pair, by
    // column.
    var a = vec4<f32>();
    var b = vec4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let quad = CHUNK_QUADS * c + lane % 8u;
        let block_a = block_of(0u, base_a, c);
        let block_b = block_of(next_matrix(), base_b, c);
        let x_0 = quad_of(starts.x, quad);
        a.x += mul_block(block_a, x_0);
        b.x += mul_block(block_b, x_0);
        if count > 1u {
            let x_1 = quad_of(starts.y, quad);
            a.y += mul_block(block_a, x_1);
            b.y += mul_block(block_b, x_1);
        }
        if count > 2u {
            let x_2 = quad_of(starts.z, quad);
            a.z += mul_block(block_a, x_2);
            b.z += mul_block(block_b, x_2);
        }
        if count > 3u {
            let x_3 = quad_of(starts.w, quad);
            a.w += mul_block(block_a, x_3);
            b.w += mul_block(block_b, x_3);
        }
    }
    put(part, 0u, row, a, b);
    put(part, 1u, row, a, b);
    put(part, 2u, row, a, b);
    put(part, 3u, row, a, b);
}

// Stores this invocation's results of a column, if it is a real one.
fn put(part: Part, column: u32, row: u32, a: vec4<f32>, b: vec4<f32>) {
    let s = part.begin + column;
    if s >= part.end {
        return;
    }
    if PAIR {
        put_row(s, row, a[column], b[column]);
    } else {
        put_row(s, row, a[column], 0.0);
        put_row(s, row + WG, b[column], 0.0);
    }
}

fn put_row(s: u32, row: u32, first: f32, second: f32) {
    if row < params.rows {
        let at = out_row(s) * params.out_rows + params.row0 + row;
        out[at] = finish(at, first, second);
    }
}
