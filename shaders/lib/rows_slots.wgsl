// A matrix product whose rows of x are slots of experts, in tiles that `expert_groups` makes. The kernel
// binds `tiles` and `order`, and says which row of x a slot reads: `x_row`.
// Links: lib/part.wgsl, lib/tile_height.wgsl.

// Part `index` of those of `height` slots, which divides a tile.
fn part_of(index: u32, height: u32) -> Part {
    let parts = TILE / height;
    let tile = tiles[index / parts];
    let begin = tile.y + index % parts * height;
    return Part(tile.x * params.rows, begin, min(begin + height, tile.y + tile.z));
}

fn out_row(s: u32) -> u32 {
    return order[s];
}
