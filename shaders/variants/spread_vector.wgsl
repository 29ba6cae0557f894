// Matrix-vector products in which each invocation computes output rows of its own; a subgroup
// shares loaded quads of x by shuffles. The workgroup's y is the item: a token, or a (token,
// expert) choice. Known as: GEMV with a row per thread and subgroup broadcast.
// Takes from the kernel: terms, term_of, PAIR, BESIDE, w_chunk, x_quad, cols8_of, finish.
// Links: lib/term.wgsl, lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_loads.wgsl.

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.x * OWN * WG + local;
    let item = group.y;

    var sums = vec2<f32>();
    let count = terms();
    for (var i = 0u; i < count; i++) {
        let term = term_of(item, i);
        sums += term.factor * dots(0u, term.x_row, term.weight0, row, lane);
    }
    var beside = vec2<f32>();
    if BESIDE {
        beside = dots(1u, item, 0u, row, lane);
    }
    if PAIR {
        put(item, row, sums.x, sums.y);
    } else {
        put(item, row, sums.x, beside.x);
        put(item, row + WG, sums.y, beside.y);
    }
}

// The dot products of a row of x with two rows from `weight0` on: two of matrix `which`, or one of
// each of a pair.
fn dots(which: u32, x_row: u32, weight0: u32, row: u32, lane: u32) -> vec2<f32> {
    let cols8 = cols8_of(which);
    let start = 2u * x_row * cols8;
    let base_a = row_at(which, weight0, row);
    let base_b = next_row_at(which, weight0, row);
    var a = vec4<f32>();
    var b = vec4<f32>();
    for (var c = 0u; c < cols8 / PARTS; c += BLOCK_CHUNKS) {
        let held = quad_of(which, start, CHUNK_QUADS * c + lane % 8u);
        a += mul_block(block_of(which, base_a, c), held);
        b += mul_block(block_of(next_of(which), base_b, c), held);
    }
    return vec2((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
}

fn put(item: u32, row: u32, first: f32, second: f32) {
    if row < params.rows {
        let at = item * params.out_rows + params.row0 + row;
        out[at] = finish(at, first, second);
    }
}
