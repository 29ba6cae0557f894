// Tiles as in lib/tile.wgsl, of f32.

var<workgroup> w_tile: array<vec4<f32>, W_TILE>;

// Stores a chunk of a row of w in the tile, which has TILE_CHUNKS of them.
fn store_w(chunk: u32, row: u32, w: Chunk, scale: Scale) {
    for (var part = 0u; part < PARTS; part++) {
        let e = decode(w, part);
        let at = 2u * (chunk * PARTS + part) * ROWS + row;
        let own = scale_part(scale, part);
        w_tile[at] = e.lo * own;
        w_tile[at + ROWS] = e.hi * own;
    }
}

// Stores zeros in its place.
fn clear_w(chunk: u32, row: u32) {
    for (var quad = 0u; quad < 2u * PARTS; quad++) {
        w_tile[(2u * chunk * PARTS + quad) * ROWS + row] = vec4<f32>();
    }
}

// Prepares a tile of x, once for all products with it: nothing to do here.
fn settle_x(local: u32) {}

// Adds the product of the two tiles: columns of `acc` are rows of x, components are rows of w. The
// 32 columns are summed by themselves first: a chain of 8 + cols / 32 additions errs less than one
// of cols / 4.
fn mul_tile(local: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    var sum = mat4x4<f32>();
    for (var quad = 0u; quad < QUADS; quad++) {
        let w_at = quad * ROWS + w_of(local);
        let x_at = quad * TILE + x_of(local);
        let w0 = w_tile[w_at];
        let w1 = w_tile[w_at + ROWS / 4u];
        let w2 = w_tile[w_at + ROWS / 2u];
        let w3 = w_tile[w_at + 3u * ROWS / 4u];
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
