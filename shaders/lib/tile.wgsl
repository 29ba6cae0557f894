// A tile of 32 x 32 results of a matrix product, by 8 x 8 invocations with 4 x 4 results each.
// The kernel fills `x_tile` and `w_tile` with 32 columns of 32 rows, calls `mul_tile` between two
// barriers, and goes on to the next 32 columns. Element (row, quad) is at `quad * TILE + row`, so
// that neighbouring invocations read neighbouring memory.

const TILE: u32 = 32u;
const TILE_WG: u32 = 64u;
const QUADS: u32 = 8u; // vec4 columns of a tile

var<workgroup> x_tile: array<vec4<f32>, 256>;
var<workgroup> w_tile: array<vec4<f32>, 256>;

// Chunks of a weight's row that make 32 columns.
const TILE_CHUNKS: u32 = QUADS / (2u * PARTS);

// Puts chunk 0 to TILE_CHUNKS of a row of w in place.
fn store_w(chunk: u32, row: u32, w: Chunk, scale: f32) {
    for (var part = 0u; part < PARTS; part++) {
        let e = decode(w, part);
        let at = 2u * (chunk * PARTS + part) * TILE + row;
        w_tile[at] = e.lo * scale;
        w_tile[at + TILE] = e.hi * scale;
    }
}

// Puts zeros there.
fn clear_w(chunk: u32, row: u32) {
    for (var quad = 0u; quad < 2u * PARTS; quad++) {
        w_tile[(2u * chunk * PARTS + quad) * TILE + row] = vec4<f32>();
    }
}

// Adds the product of the two tiles: column i of `acc` is row `local / 8 + 8 i` of x, its
// components are rows `local % 8 + 8 j` of w. The 32 columns are summed by themselves first: a chain
// of 8 + cols / 32 additions errs less than one of cols / 4.
fn mul_tile(local: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    let w_row = local % 8u;
    let x_row = local / 8u;
    var sum = mat4x4<f32>();
    for (var quad = 0u; quad < QUADS; quad++) {
        let w_at = quad * TILE + w_row;
        let x_at = quad * TILE + x_row;
        let w0 = w_tile[w_at];
        let w1 = w_tile[w_at + 8u];
        let w2 = w_tile[w_at + 16u];
        let w3 = w_tile[w_at + 24u];
        let x0 = x_tile[x_at];
        let x1 = x_tile[x_at + 8u];
        let x2 = x_tile[x_at + 16u];
        let x3 = x_tile[x_at + 24u];
        sum[0] += vec4(dot(x0, w0), dot(x0, w1), dot(x0, w2), dot(x0, w3));
        sum[1] += vec4(dot(x1, w0), dot(x1, w1), dot(x1, w2), dot(x1, w3));
        sum[2] += vec4(dot(x2, w0), dot(x2, w1), dot(x2, w2), dot(x2, w3));
        sum[3] += vec4(dot(x3, w0), dot(x3, w1), dot(x3, w2), dot(x3, w3));
    }
    return acc + sum;
}
