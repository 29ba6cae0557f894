// Matrix products in which each invocation computes output rows of its own for `FOURS` groups of
// four rows of x; a subgroup shares loaded quads of x by shuffles.
// Known as: GEMM with register tiling (register blocking) and subgroup broadcast.
// Takes from the kernel: part_of, out_row, PAIR, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/tile_height.wgsl, lib/starts.wgsl, lib/shuffle.wgsl, lib/spread.wgsl,
// lib/spread_loads.wgsl.

override FOURS: u32 = 2u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.y * OWN * WG + local;
    let part = part_of(group.x, 4u * FOURS);
    if part.begin >= part.end {
        return;
    }
    let base_a = row_at(part.weight0, row);
    let base_b = next_row_at(part.weight0, row);
    let base_c = row_at(part.weight0, row + 2u * WG);
    let starts_near = starts_of(part, 0u);
    let starts_mid = starts_of(part, 4u);
    let starts_far = starts_of(part, 8u);

    // Sums: a column for each of the `OWN` rows of the weights, or for one row of each of a pair.
    var near = mat3x4<f32>();
    var mid = mat3x4<f32>();
    var far = mat3x4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let quad = CHUNK_QUADS * c + lane % 8u;
        let x_near = quads_of(starts_near, quad);
        let x_mid = quads_of(starts_mid, quad);
        let a = block_of(0u, base_a, c);
        let b = block_of(next_matrix(), base_b, c);
        near[0] += mul_block_four(a, x_near);
        near[1] += mul_block_four(b, x_near);
        mid[0] += mul_block_four(a, x_mid);
        mid[1] += mul_block_four(b, x_mid);
        if OWN == 3u {
            let d = block_of(0u, base_c, c);
            near[2] += mul_block_four(d, x_near);
            mid[2] += mul_block_four(d, x_mid);
        }
        if FOURS == 3u {
            let x_far = quads_of(starts_far, quad);
            far[0] += mul_block_four(a, x_far);
            far[1] += mul_block_four(b, x_far);
        }
    }

    put_four(part, 0u, row, near);
    put_four(part, 4u, row, mid);
    if FOURS == 3u {
        put_four(part, 8u, row, far);
    }
}

// One quad of each of the four rows of x that begin at `starts`.
fn quads_of(starts: vec4<u32>, quad: u32) -> mat4x4<f32> {
    return mat4x4(
        quad_of(starts.x, quad),
        quad_of(starts.y, quad),
        quad_of(starts.z, quad),
        quad_of(starts.w, quad),
    );
}

// Stores this invocation's results for four rows of x.
fn put_four(part: Part, skip: u32, row: u32, sums: mat3x4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        let s = part.begin + skip + j;
        if PAIR {
            put(s, part.end, row, sums[0][j], sums[1][j]);
        } else {
            put(s, part.end, row, sums[0][j], 0.0);
            put(s, part.end, row + WG, sums[1][j], 0.0);
            if OWN == 3u {
                put(s, part.end, row + 2u * WG, sums[2][j], 0.0);
            }
        }
    }
}

fn put(s: u32, end: u32, row: u32, first: f32, second: f32) {
    if s < end && row < params.rows {
        let at = out_row(s) * params.out_rows + params.row0 + row;
        out[at] = finish(at, first, second);
    }
}
