// A matrix product whose rows of x are slots of experts (grouped GEMM), in the tiles of
// `expert_groups`. The kernel binds `tiles` and `order`, and maps a slot to a row of x: `x_row`.
// Links: lib/part.wgsl, lib/tile_height.wgsl or lib/columns.wgsl.

// Part `index` of `height` slots; `height` divides a tile.
fn part_of(index: u32, height: u32) -> Part {
    let parts = TILE / height;
    let tile = tiles[index / parts];
    let begin = tile.y + index % parts * height;
    return Part(tile.x * params.rows, begin, min(begin + height, tile.y + tile.z));
}

fn out_row(s: u32) -> u32 {
    return order[s];
}
