// A tile of a matrix product: `TILE` rows of x by `ROWS` rows of w, by 8 x ROWS / 4 invocations
// with 4 x 4 results each. For every 32 columns, the tiles of x and w are loaded, then `settle_x`
// and `mul_tile` of lib/tile_float.wgsl or lib/tile_packed.wgsl are called. Element (row, quad) of
// a tile is at `quad * TILE + row` or `quad * ROWS + row`, so that neighbouring invocations read
// neighbouring memory.
// Links: lib/tile_height.wgsl.

override ROWS: u32 = 32u;
override TILE_WG: u32 = 64u; // 2 ROWS
override W_TILE: u32 = 256u; // 8 ROWS
const QUADS: u32 = 8u; // vec4 columns of a tile

var<workgroup> x_tile: array<vec4<f32>, 256>;

// Chunks of a weight's row that make 32 columns.
const TILE_CHUNKS: u32 = QUADS / (2u * PARTS);

// This invocation's results are those of rows `x_of(local) + 8 i` of x and
// `w_of(local) + ROWS / 4 j` of w, i and j from 0 to 3.
fn x_of(local: u32) -> u32 {
    return local / (ROWS / 4u);
}

fn w_of(local: u32) -> u32 {
    return local % (ROWS / 4u);
}
