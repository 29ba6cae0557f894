// Matrix products in blocks of `TOKENS` rows of x by `ROWS` rows of w: each workgroup computes one,
// with 32 results in registers for each invocation. What the next step multiplies is loaded before
// this one multiplies, so that the products hide the loads.
// Known as: tiled GEMM (shared-memory tiles, register tiles of 8 x 4 results, and prefetch into
// registers).
// Takes from the kernel: part_of, x_row, out_row, PAIR, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/tile_height.wgsl, lib/block.wgsl, lib/block_square.wgsl or
// lib/block_wide.wgsl.

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y * OUT_ROWS;
    let part = part_of(group.x, TOKENS);
    if part.begin >= part.end {
        return;
    }

    let places = places_of(local, part, row);
    let last = (params.cols8 - 1u) / 4u * 4u;
    var total = Sums();
    var x = load_x(local, places.x, 0u);
    var first = piece_of(local, 0u, places, 0u);
    var second = second_of(local, places, 0u, first);
    for (var c = 0u; c < params.cols8; c += 4u) {
        workgroupBarrier();
        let sums = settle(local, c, x, first, second);
        workgroupBarrier();
        let next = min(c + 4u, last);
        x = load_x(local, places.x, next);
        first = piece_of(local, 0u, places, next);
        second = second_of(local, places, next, first);
        // The 32 columns are summed by themselves first: a chain of 32 + cols / 32 additions errs
        // less than one of cols.
        total = add(total, mul_tiles(local, sums));
    }
    put_all(local, part, row, total);
}
