// Matrix products in tiles of `TILE` rows of x by `ROWS` output rows: each workgroup, of 2 ROWS
// invocations, computes one, with 4 x 4 results for each invocation.
// Known as: tiled GEMM (shared-memory tiles, and register tiles of 4 x 4 results).
// Takes from the kernel: part_of, x_row, out_row, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/tile_height.wgsl, lib/tile.wgsl, lib/tile_float.wgsl or
// lib/tile_packed.wgsl, lib/tile_one.wgsl or lib/tile_pair.wgsl.

@compute @workgroup_size(TILE_WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * ROWS;
    let part = part_of(group.y, TILE);
    if part.begin >= part.end {
        return;
    }

    var first = mat4x4<f32>();
    var second = mat4x4<f32>();
    for (var c = 0u; c < params.cols8; c += QUADS / 2u) {
        load_x(local, part, c);
        load_w(local, 0u, part.weight0, row, c);
        workgroupBarrier();
        settle_x(local);
        first = mul_tile(local, first);
        workgroupBarrier();
        second = mul_second(local, part, row, c, second);
    }

    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let s = part.begin + x_of(local) + 8u * i;
            let r = row + w_of(local) + ROWS / 4u * j;
            if s < part.end && r < params.rows {
                let at = out_row(s) * params.out_rows + params.row0 + r;
                out[at] = finish(at, first[i][j], second[i][j]);
            }
        }
    }
}

// Loads 32 columns of the part's rows of x, from column 8 c on, into the tile; zeros beyond the
// end.
fn load_x(local: u32, part: Part, c: u32) {
    for (var i = local; i < TILE * QUADS; i += TILE_WG) {
        let quad = i % QUADS;
        let t = i / QUADS;
        var v = vec4<f32>();
        if part.begin + t < part.end && 2u * c + quad < 2u * params.cols8 {
            v = x[2u * (x_row(part.begin + t) * params.cols8 + c) + quad];
        }
        x_tile[quad * TILE + t] = v;
    }
}

// Loads these columns of `ROWS` rows of a weight, from `row` on. The matrix, of which there is one
// for each expert, has the `params.rows` rows from `weight0` on.
fn load_w(local: u32, which: u32, weight0: u32, row: u32, c: u32) {
    for (var i = local; i < ROWS * TILE_CHUNKS; i += TILE_WG) {
        let chunk = i % TILE_CHUNKS;
        let r = i / TILE_CHUNKS;
        let at = c / PARTS + chunk;
        if row + r < params.rows && at * PARTS < params.cols8 {
            let base = (weight0 + row + r) * row_stride(params.cols8);
            let scale = scale_of(w_cell(which, base + scale_at(params.cols8, at)), at);
            store_w(chunk, r, w_chunk(which, base + CELLS * at), scale);
        } else {
            clear_w(chunk, r);
        }
    }
}
