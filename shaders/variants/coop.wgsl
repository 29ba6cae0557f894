// Matrix products in blocks of `TOKENS` rows of x by 64 rows of w, by the units that multiply small
// matrices of halves (f16). Every number is split into an upper and a lower half, whose products
// are exact in f32. A block has four areas of 32 rows of w by `TOKENS / 2` rows of x: a subgroup
// computes one, or two in turn if there are two subgroups.
// Known as: GEMM on tensor cores (cooperative matrices, simdgroup matrices), with split or emulated
// single precision.
// Takes from the kernel: part_of, x_row, out_row, PAIR, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/tile_height.wgsl, lib/powers.wgsl.

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

// From one row of a tile to the next: 16 halves, and eight so that rows are in different banks.
const STRIDE: u32 = 6u;
// Sixteen rows.
const HIGH: u32 = 16u * STRIDE;

// Tiles of 16 columns. Sizes are multiples of 16 bytes, on which matrices must begin.
var<workgroup> x_upper: array<vec4<f16>, 384>;
var<workgroup> x_lower: array<vec4<f16>, 384>;
var<workgroup> w_upper: array<vec4<f16>, 384>;
var<workgroup> w_lower: array<vec4<f16>, 384>;

// Where an invocation loads from: a quad of one or two rows of x, and eight columns of a row of w.
struct Places {
    near: u32,
    far: u32,
    w: u32,
}

// What it loads of 16 columns.
struct Piece {
    near: vec4<f32>,
    far: vec4<f32>,
    w: Chunk,
    scale: Cell, // the cell that has it
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let row = group.y * OUT_ROWS;
    let part = part_of(group.x, TOKENS);
    // naga wants to see that a workgroup returns as a whole where it has matrices.
    if local == 0u {
        stage[0] = f32(part.begin < part.end);
    }
    if workgroupUniformLoad(&stage[0]) == 0.0 {
        return;
    }

    let exponent = find_powers(local, part, row);
    var powers = vec3(power(stage[local / 4u]), 0.0, power(stage[64u + local % 64u]));
    if TOKENS > 32u {
        powers.y = power(stage[32u + local / 4u]);
    }
    let places = Places(
        x_start(part, local / 4u),
        x_start(part, 32u + local / 4u),
        w_start(part, row, local % 64u),
    );
    let last = (params.cols8 - 1u) / 2u * 2u;
    for (var first = 0u; first < 4u; first += subgroups) {
        let area = first + subgroup;
        let x_at = area / 2u * (TOKENS / 32u) * HIGH;
        let w_at = area % 2u * 2u * HIGH;
        var c00 = Sum();
        var c01 = Sum();
        var c10 = Sum();
        var c11 = Sum();
        var piece = load(local, places, 0u);
        for (var c = 0u; c < params.cols8; c += 2u) {
            workgroupBarrier();
            settle(local, c, piece, powers);
            workgroupBarrier();
            piece = load(local, places, min(c + 2u, last));
            let b0 = coopLoad<Right>(&w_upper[w_at], STRIDE);
            let b1 = coopLoad<Right>(&w_upper[w_at + HIGH], STRIDE);
            let a0 = coopLoadT<Left>(&x_upper[x_at], STRIDE);
            let l0 = coopLoadT<Left>(&x_lower[x_at], STRIDE);
            // Sums of lower halves are small, so they come first. The 16 columns are summed by
            // themselves: devices add to an f32 with less care in a product than by itself.
            var s00 = coopMultiplyAdd(l0, b0, Sum());
            var s01 = coopMultiplyAdd(l0, b1, Sum());
            if PARTS > 1u {
                s00 = coopMultiplyAdd(a0, coopLoad<Right>(&w_lower[w_at], STRIDE), s00);
                s01 = coopMultiplyAdd(a0, coopLoad<Right>(&w_lower[w_at + HIGH], STRIDE), s01);
            }
            c00 = c00 + coopMultiplyAdd(a0, b0, s00);
            c01 = c01 + coopMultiplyAdd(a0, b1, s01);
            if TOKENS > 32u {
                let a1 = coopLoadT<Left>(&x_upper[x_at + HIGH], STRIDE);
                let l1 = coopLoadT<Left>(&x_lower[x_at + HIGH], STRIDE);
                var s10 = coopMultiplyAdd(l1, b0, Sum());
                var s11 = coopMultiplyAdd(l1, b1, Sum());
                if PARTS > 1u {
                    s10 = coopMultiplyAdd(a1, coopLoad<Right>(&w_lower[w_at], STRIDE), s10);
                    s11 = coopMultiplyAdd(a1, coopLoad<Right>(&w_lower[w_at + HIGH], STRIDE), s11);
                }
                c10 = c10 + coopMultiplyAdd(a1, b0, s10);
                c11 = c11 + coopMultiplyAdd(a1, b1, s11);
            }
        }

        // The tiles are free now, and take the exponents.
        workgroupBarrier();
        x_upper[local] = vec4(f16(exponent));
        let slot = 256u * subgroup;
        for (var tile = 0u; tile < TOKENS / 16u; tile++) {
            if tile == 0u {
                coopStoreT(c00, &stage[slot], 16u);
            } else if tile == 1u {
                coopStoreT(c01, &stage[slot], 16u);
            } else if tile == 2u {
                coopStoreT(c10, &stage[slot], 16u);
            } else {
                coopStoreT(c11, &stage[slot], 16u);
            }
            workgroupBarrier();
            let slots = min(subgroups, 4u);
            for (var i = local; i < 256u * slots / (1u + u32(PAIR)); i += 128u) {
                put(part, row, first, tile, i);
            }
            workgroupBarrier();
        }
    }
}

// Loads 16 columns from column 8 c on. Only the last step can go beyond the end of a row, where it
// has its last eight columns again.
fn load(local: u32, places: Places, c: u32) -> Piece {
    let quad = min(2u * c + local % 4u, 2u * params.cols8 - 1u);
    let near = x[places.near + quad];
    var far = near;
    if TOKENS > 32u {
        far = x[places.far + quad];
    }
    let which = local % 64u / OUT_ROWS;
    let at = eight_of(local, c) / PARTS;
    let w = w_chunk(which, places.w + CELLS * at);
    if PARTS > 1u {
        return Piece(near, far, w, w_cell(which, places.w + scale_at(params.cols8, at)));
    }
    return Piece(near, far, w, Cell());
}

// The group of eight columns of w that an invocation loads.
fn eight_of(local: u32, c: u32) -> u32 {
    return min(c + local / 64u, params.cols8 - 1u);
}

// Stores what was loaded of 16 columns in the tiles, as halves. Columns of x beyond the end are
// zeros.
fn settle(local: u32, c: u32, piece: Piece, powers: vec3<f32>) {
    let quad = local % 4u;
    let is_there = 2u * c + quad < 2u * params.cols8;
    let at = local / 4u * STRIDE + quad;
    store_x(at, select(vec4<f32>(), piece.near * powers.x, is_there));
    if TOKENS > 32u {
        store_x(at + 2u * HIGH, select(vec4<f32>(), piece.far * powers.y, is_there));
    }
    let eight = eight_of(local, c);
    let e = decode(piece.w, eight % PARTS);
    let own = scale_part(scale_of(piece.scale, eight / PARTS), eight % PARTS);
    let scale = own * powers.z;
    let to = local % 64u * STRIDE + local / 64u * 2u;
    store_w(to, e.lo * scale);
    store_w(to + 1u, e.hi * scale);
}

fn store_x(at: u32, v: vec4<f32>) {
    let upper = vec4<f16>(v);
    x_upper[at] = upper;
    x_lower[at] = vec4<f16>(v - vec4<f32>(upper));
}

// Weights without a scale are halves as they are.
fn store_w(at: u32, v: vec4<f32>) {
    let upper = vec4<f16>(v);
    w_upper[at] = upper;
    if PARTS > 1u {
        w_lower[at] = vec4<f16>(v - vec4<f32>(upper));
    }
}

// Stores result i of one of the tiles of 16 x 16 that the areas from `first` on have; of a pair of
// matrices, that of two areas.
fn put(part: Part, row: u32, first: u32, tile: u32, i: u32) {
    let slot = i / 256u * (1u + u32(PAIR));
    let area = first + slot;
    let t = area / 2u * (TOKENS / 2u) + tile / 2u * 16u + i / 16u % 16u;
    let r = area % 2u * 32u + tile % 2u * 16u + i % 16u;
    let s = part.begin + t;
    if s < part.end && row + r < params.rows {
        let at = out_row(s) * params.out_rows + params.row0 + row + r;
        let own = 256u * slot + i % 256u;
        var second = 0.0;
        if PAIR {
            second = result(own + 256u, t, r + 32u);
        }
        out[at] = finish(at, result(own, t, r), second);
    }
}

// A sum without its powers. The smaller factor comes first: so nothing overflows that does not in
// the end.
fn result(at: u32, t: u32, r: u32) -> f32 {
    let of_x = f32(x_upper[t].x);
    let of_w = f32(x_upper[64u + r].x);
    let sum = stage[at] * inverse_power(min(of_x, of_w));
    return sum * inverse_power(max(of_x, of_w));
}
