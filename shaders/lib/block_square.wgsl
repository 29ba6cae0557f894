// Blocks as in lib/block.wgsl of 64 rows of x by 64 rows of w: of a pair, 32 of each. The tiles
// fill the 16 KiB that every device has.

const TOKENS: u32 = 64u;
const ROWS: u32 = 64u;
const X_GROUPS: u32 = 8u;
const W_GROUPS: u32 = 16u;
const QUADS: u32 = 8u;
const TURN: u32 = 1u;

// An invocation's columns of a row of w are neighbours.
const EIGHT_STEP: u32 = 1u;
const SHARER_STEP: u32 = EIGHTS;

var<workgroup> x_tile: array<array<array<vec4<f32>, 8>, 8>, 8>;
var<workgroup> w_tile: array<array<array<vec4<f32>, 16>, 4>, 8>;

// An invocation loads one quad of four rows of x, which are 16 apart.
fn starts_of(local: u32, part: Part) -> vec4<u32> {
    let at = part.begin + local / 8u + vec4(0u, 16u, 32u, 48u);
    let s = min(at, vec4(part.end - 1u));
    return 2u * params.cols8 * vec4(x_row(s.x), x_row(s.y), x_row(s.z), x_row(s.w));
}

fn load_x(local: u32, starts: vec4<u32>, c: u32) -> mat4x4<f32> {
    let quad = 2u * c + local % 8u;
    return mat4x4(
        quad_of(starts.x, quad),
        quad_of(starts.y, quad),
        quad_of(starts.z, quad),
        quad_of(starts.w, quad),
    );
}

// Stores 32 columns, from column 8 c on, in the tiles. Nothing is multiplied yet.
fn settle(local: u32, c: u32, x: mat4x4<f32>, first: Piece, second: Piece) -> Sums {
    let quad = local % 8u;
    let t = local / 8u;
    store_x(t, 2u * c, quad, x[0]);
    store_x(t + 16u, 2u * c, quad, x[1]);
    store_x(t + 32u, 2u * c, quad, x[2]);
    store_x(t + 48u, 2u * c, quad, x[3]);
    store_piece(local, c, 0u, first);
    if PAIR {
        store_piece(local, c, OUT_ROWS, second);
    }
    return Sums();
}

fn store_piece(local: u32, c: u32, row0: u32, piece: Piece) {
    let scale = scale_in(piece.scale, c);
    let row = local % OUT_ROWS + row0;
    let sharer = local / OUT_ROWS;
    store_w(row, sharer * SHARER_STEP, eight_of(piece.c0, scale, sharer, 0u));
    if EIGHTS > 1u {
        store_w(row, sharer * SHARER_STEP + 1u, eight_of(piece.c1, scale, sharer, 1u));
    }
}
