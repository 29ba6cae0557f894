// A tile of 32 rows of x by `ROWS` rows of w, results of a matrix product, by 8 x ROWS / 4 invocations
// with 4 x 4 results each. The kernel fills `x_tile` and `w_tile` with 32 columns, calls `settle_x` after
// a barrier, then `mul_tile`, and goes on to the next 32 columns after another. Element (row, quad) is at
// `quad * TILE + row` or `quad * ROWS + row`, so that neighbouring invocations read neighbouring memory.

const TILE: u32 = 32u; // rows of x
override ROWS: u32 = 32u;
override TILE_WG: u32 = 64u; // 2 ROWS
override W_TILE: u32 = 256u; // 8 ROWS
const QUADS: u32 = 8u; // vec4 columns of a tile

var<workgroup> x_tile: array<vec4<f32>, 256>;
var<workgroup> w_tile: array<vec4<f32>, W_TILE>;

// Chunks of a weight's row that make 32 columns.
const TILE_CHUNKS: u32 = QUADS / (2u * PARTS);

// Puts chunk 0 to TILE_CHUNKS of a row of w in place.
fn store_w(chunk: u32, row: u32, w: Chunk, scale: f32) {
    for (var part = 0u; part < PARTS; part++) {
        let e = decode(w, part);
        let at = 2u * (chunk * PARTS + part) * ROWS + row;
        w_tile[at] = e.lo * scale;
        w_tile[at + ROWS] = e.hi * scale;
    }
}

// Puts zeros there.
fn clear_w(chunk: u32, row: u32) {
    for (var quad = 0u; quad < 2u * PARTS; quad++) {
        w_tile[(2u * chunk * PARTS + quad) * ROWS + row] = vec4<f32>();
    }
}

// Where this invocation's results are: row `x_row(local) + 8 i` of x and `w_row(local) + ROWS / 4 j` of
// w, i and j from 0 to 3.
fn x_row(local: u32) -> u32 {
    return local / (ROWS / 4u);
}

fn w_row(local: u32) -> u32 {
    return local % (ROWS / 4u);
}

// What is to be done once for each tile of x, before its products: nothing here.
fn settle_x(local: u32) {}

// Adds the product of the two tiles: columns of `acc` are rows of x, components are rows of w. The 32
// columns are summed by themselves first: a chain of 8 + cols / 32 additions errs less than one of
// cols / 4.
fn mul_tile(local: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    var sum = mat4x4<f32>();
    for (var quad = 0u; quad < QUADS; quad++) {
        let w_at = quad * ROWS + w_row(local);
        let x_at = quad * TILE + x_row(local);
        let w0 = w_tile[w_at];
        let w1 = w_tile[w_at + ROWS / 4u];
        let w2 = w_tile[w_at + ROWS / 2u];
        let w3 = w_tile[w_at + 3u * (ROWS / 4u)];
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
