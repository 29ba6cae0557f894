// Blocks as in lib/block.wgsl of 32 rows of x, as a tile of an expert has, by 128 rows of w: of a
// pair, 64 of each. The tiles have 16 columns, as the 16 KiB that every device has do not hold 32;
// an invocation loads 32 at a time all the same.

const TOKENS: u32 = 32u;
const ROWS: u32 = 128u;
const X_GROUPS: u32 = 4u;
const W_GROUPS: u32 = 32u;
const QUADS: u32 = 4u;
const TURN: u32 = 2u;

// An invocation has columns of both halves.
const EIGHT_STEP: u32 = SHARERS;
const SHARER_STEP: u32 = 1u;

var<workgroup> x_tile: array<array<array<vec4<f32>, 4>, 8>, 4>;
var<workgroup> w_tile: array<array<array<vec4<f32>, 32>, 4>, 4>;

// An invocation loads two quads of a row of x, one of each half.
fn starts_of(local: u32, part: Part) -> vec4<u32> {
    let s = min(part.begin + local / 4u, part.end - 1u);
    return vec4(2u * params.cols8 * x_row(s));
}

fn load_x(local: u32, starts: vec4<u32>, c: u32) -> mat4x4<f32> {
    let quad = 2u * c + local % 4u;
    let zero = vec4<f32>();
    return mat4x4(quad_of(starts.x, quad), quad_of(starts.x, quad + 4u), zero, zero);
}

// Multiplies the first half of 32 columns, from column 8 c on, and stores the second in the tiles.
fn settle(local: u32, c: u32, x: mat4x4<f32>, first: Piece, second: Piece) -> Sums {
    let scale = scale_in(first.scale, c);
    var next_scale = scale;
    store_x(local / 4u, 2u * c, local % 4u, x[0]);
    if PAIR {
        next_scale = scale_in(second.scale, c);
        store_half(local, 0u, first.c0, first.c0, scale, 0u);
        store_half(local, OUT_ROWS, second.c0, second.c0, next_scale, 0u);
    } else {
        store_half(local, 0u, first.c0, first.c1, scale, 0u);
    }
    workgroupBarrier();
    let sums = mul_tiles(local, Sums());
    workgroupBarrier();
    store_x(local / 4u, 2u * c + 4u, local % 4u, x[1]);
    if PAIR {
        store_half(local, 0u, first.c1, first.c1, scale, 1u);
        store_half(local, OUT_ROWS, second.c1, second.c1, next_scale, 1u);
    } else {
        store_half(local, 0u, first.c2, first.c3, scale, 2u);
    }
    return sums;
}

// Stores what an invocation has of a half: one group of eight columns or two, from number k on.
fn store_half(local: u32, row0: u32, w: Chunk, next: Chunk, scale: Scale, k: u32) {
    let row = local % OUT_ROWS + row0;
    let sharer = local / OUT_ROWS;
    store_w(row, sharer, eight_of(w, scale, sharer, k));
    if EIGHTS > 2u {
        store_w(row, 1u, eight_of(next, scale, sharer, k + 1u));
    }
}
