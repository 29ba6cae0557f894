// A block of a matrix product: `TOKENS` rows of x by `ROWS` rows of w, by 128 invocations with 32
// results each. An element of a tile in workgroup memory is a vec4 along the columns, as loaded.
// lib/block_square.wgsl and lib/block_wide.wgsl have the two shapes, with their tiles.
// Takes from the kernel: PAIR, w_cell, w_chunk, x_row, out_row, finish.
// Links: lib/part.wgsl, one of lib/weight_*.wgsl.

// Output rows of a block, and so the rows that it has of each matrix.
const OUT_ROWS: u32 = ROWS / (1u + u32(PAIR));
// Invocations that load 32 columns of a row of a matrix together: each has a part of them.
const SHARERS: u32 = 128u / OUT_ROWS;
// Groups of eight columns of such a part. They are `EIGHT_STEP` apart.
const EIGHTS: u32 = 4u / SHARERS;

// Sums of an invocation. The shape says which is which.
struct Sums {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
    s4: vec4<f32>,
    s5: vec4<f32>,
    s6: vec4<f32>,
    s7: vec4<f32>,
}

// Four columns of four rows of w: a component is a row.
struct Columns {
    x: vec4<f32>,
    y: vec4<f32>,
    z: vec4<f32>,
    w: vec4<f32>,
}

// What an invocation loads of 32 columns of a row of a matrix, as stored: what waits for a load
// must come after the products that hide it.
struct Piece {
    c0: Chunk,
    c1: Chunk,
    c2: Chunk,
    c3: Chunk,
    scale: Cell, // the cell that has it
}

// Where it loads from.
struct Places {
    x: vec4<u32>, // first quads of its rows of x
    w: u32,       // first chunk of its row of a matrix
}

// The group of rows of x, and that of rows of w, that this invocation's results are of: rows
// `x_of(local) + X_GROUPS i` and `w_of(local) + W_GROUPS j`. Neighbours by one have the same rows
// of x, and neighbours by two the same rows of w, so that few of the words that a quarter of a
// subgroup reads at once are different.
fn x_of(local: u32) -> u32 {
    return (((local >> 1u) & 1u) | ((local >> 3u) & 2u) | ((local >> 4u) & 4u)) % X_GROUPS;
}

fn w_of(local: u32) -> u32 {
    return ((local & 1u) | ((local >> 1u) & 6u) | ((local >> 2u) & 24u)) % W_GROUPS;
}

// Rows beyond the last are clamped to it.
fn places_of(local: u32, part: Part, row: u32) -> Places {
    let own = part.weight0 + min(row + local % OUT_ROWS, params.rows - 1u);
    return Places(starts_of(local, part), own * row_stride(params.cols8));
}

// Quad number `quad` of the row of x whose first is `start`. Only the last of several steps can go
// beyond the end, where it is the last; with blocks of 32 columns none does.
fn quad_of(start: u32, quad: u32) -> vec4<f32> {
    if PARTS > 1u {
        return x[start + quad];
    }
    return x[start + min(quad, 2u * params.cols8 - 1u)];
}

// Loads an invocation's part of 32 columns of a matrix, from column 8 c on. The groups of eight
// columns of a piece may be in one chunk.
fn piece_of(local: u32, which: u32, places: Places, c: u32) -> Piece {
    let eight = c + local / OUT_ROWS * SHARER_STEP;
    let c0 = chunk_of(which, places.w, eight);
    var c1 = c0;
    if EIGHTS > 1u && PARTS < 2u * EIGHT_STEP {
        c1 = chunk_of(which, places.w, eight + EIGHT_STEP);
    }
    var c2 = c0;
    var c3 = c0;
    if EIGHTS > 2u && PARTS < 4u {
        c2 = chunk_of(which, places.w, eight + 2u * EIGHT_STEP);
        c3 = c2;
        if PARTS == 1u {
            c3 = chunk_of(which, places.w, eight + 3u * EIGHT_STEP);
        }
    }
    var scale = Cell();
    if PARTS > 1u {
        scale = w_cell(which, places.w + scale_at(params.cols8, c / PARTS));
    }
    return Piece(c0, c1, c2, c3, scale);
}

// The same of the second matrix. Where there is one matrix, it is `first`, which is not used.
fn second_of(local: u32, places: Places, c: u32, first: Piece) -> Piece {
    if PAIR {
        return piece_of(local, 1u, places, c);
    }
    return first;
}

// The chunk with these eight columns. Beyond the row's end it is its last, whose columns of x are
// zero then.
fn chunk_of(which: u32, start: u32, eight: u32) -> Chunk {
    if PARTS > 1u {
        return w_chunk(which, start + CELLS * (eight / PARTS));
    }
    return w_chunk(which, start + min(eight, params.cols8 - 1u));
}

// The scale of 32 columns from column 8 c on, in the cell that has it.
fn scale_in(w: Cell, c: u32) -> Scale {
    return scale_of(w, c / PARTS);
}

// The columns of a piece in a group of eight, number k.
fn eight_of(w: Chunk, scale: Scale, sharer: u32, k: u32) -> Eight {
    var part = k * EIGHT_STEP % PARTS;
    if SHARER_STEP % PARTS > 0u {
        part += sharer * SHARER_STEP % PARTS;
    }
    let e = decode(w, part);
    if PARTS > 1u {
        let own = scale_part(scale, part);
        return Eight(e.lo * own, e.hi * own);
    }
    return e;
}

// Stores a quad of row t of x: number `quad` of the tile, which begins at number `first` of the
// row. Zero beyond its end.
fn store_x(t: u32, first: u32, quad: u32, x: vec4<f32>) {
    let at = t ^ (quad * TURN);
    let is_there = PARTS > 1u || first + quad < 2u * params.cols8;
    x_tile[quad][at / X_GROUPS][at % X_GROUPS] = select(vec4<f32>(), x, is_there);
}

// Stores eight columns, of group `eight` of the tile, of a row of w.
fn store_w(row: u32, eight: u32, e: Eight) {
    w_tile[2u * eight][row / W_GROUPS][row % W_GROUPS] = e.lo;
    w_tile[2u * eight + 1u][row / W_GROUPS][row % W_GROUPS] = e.hi;
}

// Adds the products of the tiles.
fn mul_tiles(local: u32, sums: Sums) -> Sums {
    let a = x_of(local);
    let b = w_of(local);
    var s = mul_quad(0u, a, b, sums);
    s = mul_quad(1u, a, b, s);
    s = mul_quad(2u, a, b, s);
    s = mul_quad(3u, a, b, s);
    if QUADS > 4u {
        s = mul_quad(4u, a, b, s);
        s = mul_quad(5u, a, b, s);
        s = mul_quad(6u, a, b, s);
        s = mul_quad(7u, a, b, s);
    }
    return s;
}

fn mul_quad(q: u32, a: u32, b: u32, s: Sums) -> Sums {
    let w0 = w_tile[q][0][b];
    let w1 = w_tile[q][1][b];
    let w2 = w_tile[q][2][b];
    let w3 = w_tile[q][3][b];
    let w = Columns(
        vec4(w0.x, w1.x, w2.x, w3.x),
        vec4(w0.y, w1.y, w2.y, w3.y),
        vec4(w0.z, w1.z, w2.z, w3.z),
        vec4(w0.w, w1.w, w2.w, w3.w),
    );
    let i = q * TURN / X_GROUPS;
    let g = a ^ (q * TURN % X_GROUPS);
    return Sums(
        mul_add(x_tile[q][i][g], w, s.s0),
        mul_add(x_tile[q][i ^ 1u][g], w, s.s1),
        mul_add(x_tile[q][i ^ 2u][g], w, s.s2),
        mul_add(x_tile[q][i ^ 3u][g], w, s.s3),
        mul_add(x_tile[q][i ^ 4u][g], w, s.s4),
        mul_add(x_tile[q][i ^ 5u][g], w, s.s5),
        mul_add(x_tile[q][i ^ 6u][g], w, s.s6),
        mul_add(x_tile[q][i ^ 7u][g], w, s.s7),
    );
}

// Adds the products of four columns of a row of x with those of four rows of w.
fn mul_add(x: vec4<f32>, w: Columns, s: vec4<f32>) -> vec4<f32> {
    return fma(vec4(x.w), w.w, fma(vec4(x.z), w.z, fma(vec4(x.y), w.y, fma(vec4(x.x), w.x, s))));
}

fn add(a: Sums, b: Sums) -> Sums {
    return Sums(
        a.s0 + b.s0,
        a.s1 + b.s1,
        a.s2 + b.s2,
        a.s3 + b.s3,
        a.s4 + b.s4,
        a.s5 + b.s5,
        a.s6 + b.s6,
        a.s7 + b.s7,
    );
}

// Stores the results: a vec4 for each row of x. The sums move up by one, as an index that is no
// constant would put them in memory.
fn put_all(local: u32, part: Part, row: u32, sums: Sums) {
    let r = row + w_of(local);
    var t = sums;
    for (var i = 0u; i < 8u; i++) {
        let s = part.begin + x_of(local) + X_GROUPS * i;
        if PAIR {
            put(s, part.end, r, t.s0.x, t.s0.z);
            put(s, part.end, r + W_GROUPS, t.s0.y, t.s0.w);
        } else {
            put(s, part.end, r, t.s0.x, 0.0);
            put(s, part.end, r + W_GROUPS, t.s0.y, 0.0);
            put(s, part.end, r + 2u * W_GROUPS, t.s0.z, 0.0);
            put(s, part.end, r + 3u * W_GROUPS, t.s0.w, 0.0);
        }
        t = Sums(t.s1, t.s2, t.s3, t.s4, t.s5, t.s6, t.s7, t.s0);
    }
}

fn put(s: u32, end: u32, row: u32, first: f32, second: f32) {
    if row < params.rows && s < end {
        let at = out_row(s) * params.out_rows + params.row0 + row;
        out[at] = finish(at, first, second);
    }
}
