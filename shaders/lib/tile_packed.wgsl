// Tiles as in lib/tile.wgsl, with int8 dot products (dp4a, packed 4x8 dot): weights are the stored
// integers, and each block of 32 columns of x is rounded to integers up to 127 with a scale. The
// integer sums are exact; only the rounding of x loses precision.
// Links: one of lib/weight_q*.wgsl, whose blocks are 32 columns too.

const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITE: u32 = 0x7f800000u;
const QUIET: u32 = 0x00400000u;

var<workgroup> x_words: array<u32, 256>;
var<workgroup> x_scale: array<f32, TILE>;
var<workgroup> w_words: array<u32, W_TILE>;
var<workgroup> w_scale: array<Scale, ROWS>;

// Stores a chunk of a row of w in the tile, which has TILE_CHUNKS of them.
fn store_w(chunk: u32, row: u32, w: Chunk, scale: Scale) {
    for (var part = 0u; part < PARTS; part++) {
        let e = decode(w, part);
        let at = 2u * (chunk * PARTS + part) * ROWS + row;
        w_words[at] = pack4xI8(vec4<i32>(e.lo));
        w_words[at + ROWS] = pack4xI8(vec4<i32>(e.hi));
    }
    if chunk == 0u {
        w_scale[row] = scale;
    }
}

// Stores zeros in its place.
fn clear_w(chunk: u32, row: u32) {
    for (var quad = 0u; quad < 2u * PARTS; quad++) {
        w_words[(2u * chunk * PARTS + quad) * ROWS + row] = 0u;
    }
    if chunk == 0u {
        w_scale[row] = Scale();
    }
}

// Rounds the block of row t of x. If an element is not finite, the scale is NaN, so that no result
// of the block is finite. Blocks too small for the inverse become zeros.
fn round_x(t: u32) {
    var largest = 0u;
    for (var quad = 0u; quad < QUADS; quad++) {
        let bits = bitcast<vec4<u32>>(x_tile[quad * TILE + t]) & vec4(MAGNITUDE);
        largest = max(largest, max(max(bits.x, bits.y), max(bits.z, bits.w)));
    }
    var scale = 0.0;
    var inverse: f32;
    if largest >= INFINITE {
        scale = bitcast<f32>(largest | QUIET);
    } else if bitcast<f32>(largest) > 1e-35 {
        scale = bitcast<f32>(largest) / 127.0;
        inverse = 127.0 / bitcast<f32>(largest);
    }
    for (var quad = 0u; quad < QUADS; quad++) {
        let q = clamp(round(x_tile[quad * TILE + t] * inverse), vec4(-127.0), vec4(127.0));
        x_words[quad * TILE + t] = pack4xI8(vec4<i32>(q));
    }
    x_scale[t] = scale;
}

// Rounds a tile of x, once for all products with it. Ends in a barrier.
fn settle_x(local: u32) {
    for (var t = local; t < TILE; t += TILE_WG) {
        round_x(t);
    }
    workgroupBarrier();
}

// Adds the product of the two tiles: columns of `acc` are rows of x, components are rows of w.
fn mul_tile(local: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    if SCALES > 1u {
        return mul_quads(local, QUADS / 2u, QUADS, 2u, mul_quads(local, 0u, QUADS / 2u, 0u, acc));
    }
    return mul_quads(local, 0u, QUADS, 0u, acc);
}

// The same for these quads, whose scale is that of group `part`.
fn mul_quads(local: u32, first: u32, end: u32, part: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    let r = w_of(local);
    let t = x_of(local);
    var s0 = vec4<i32>();
    var s1 = vec4<i32>();
    var s2 = vec4<i32>();
    var s3 = vec4<i32>();
    for (var quad = first; quad < end; quad++) {
        let w_at = quad * ROWS + r;
        let x_at = quad * TILE + t;
        let w = vec4(
            w_words[w_at],
            w_words[w_at + ROWS / 4u],
            w_words[w_at + ROWS / 2u],
            w_words[w_at + 3u * ROWS / 4u],
        );
        s0 += dot_bytes(x_words[x_at], w);
        s1 += dot_bytes(x_words[x_at + 8u], w);
        s2 += dot_bytes(x_words[x_at + 16u], w);
        s3 += dot_bytes(x_words[x_at + 24u], w);
    }
    let w = vec4(
        scale_part(w_scale[r], part),
        scale_part(w_scale[r + ROWS / 4u], part),
        scale_part(w_scale[r + ROWS / 2u], part),
        scale_part(w_scale[r + 3u * ROWS / 4u], part),
    );
    return acc + mat4x4<f32>(
        vec4<f32>(s0) * w * x_scale[t],
        vec4<f32>(s1) * w * x_scale[t + 8u],
        vec4<f32>(s2) * w * x_scale[t + 16u],
        vec4<f32>(s3) * w * x_scale[t + 24u],
    );
}

// The products of four columns of a row of x with those of four rows of w.
fn dot_bytes(x: u32, w: vec4<u32>) -> vec4<i32> {
    return vec4(
        dot4I8Packed(x, w.x),
        dot4I8Packed(x, w.y),
        dot4I8Packed(x, w.z),
        dot4I8Packed(x, w.w),
    );
}
