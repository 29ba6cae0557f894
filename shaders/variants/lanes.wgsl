// Matrix-vector products with `LANES` invocations for each output row, each of which has every
// `LANES`th chunk of the row. The workgroup's y is the item: a token, or a (token, expert) choice.
// Known as: GEMV with a workgroup or subgroup reduction (split along K).
// Takes from the kernel: terms, term_of, PAIR, BESIDE, w_chunk, x_quad, cols8_of, sum_of,
// finish_sum.
// Links: lib/term.wgsl, lib/lanes_tree.wgsl or lib/lanes_subgroup.wgsl.

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x * WG + local) / LANES;
    let lane = local % LANES;
    let item = group.y;

    var sums = vec2<f32>();
    if row < params.rows {
        let count = terms();
        for (var i = 0u; i < count; i++) {
            let term = term_of(item, i);
            sums += term.factor * dots(0u, term.x_row, term.weight0 + row, lane);
        }
        if BESIDE {
            sums.y = dots(1u, item, row, lane).x;
        }
    }
    let total = reduce_lanes(local, sum_of(sums.x, sums.y));
    if lane == 0u && row < params.rows {
        let at = item * params.out_rows + params.row0 + row;
        out[at] = finish_sum(at, total);
    }
}

// This lane's part of the dot product of a row of x with a row of matrix `which`; for a pair, also
// of that with the same row of the second matrix.
fn dots(which: u32, x_row: u32, row: u32, lane: u32) -> vec2<f32> {
    let cols8 = cols8_of(which);
    let base = row * row_stride(cols8);
    let start = 2u * x_row * cols8;
    var first = vec4<f32>();
    var second = vec4<f32>();
    for (var c = lane; c < cols8 / PARTS; c += LANES) {
        let scales = base + scale_at(cols8, c);
        let at = start + 2u * PARTS * c;
        let w = w_chunk(which, base + c);
        var v = w;
        if PAIR {
            v = w_chunk(1u, base + c);
        }
        var part = vec4<f32>();
        var other = vec4<f32>();
        for (var p = 0u; p < PARTS; p++) {
            let lo = x_quad(which, at + 2u * p);
            let hi = x_quad(which, at + 2u * p + 1u);
            let a = decode(w, p);
            part += lo * a.lo;
            part += hi * a.hi;
            if PAIR {
                let b = decode(v, p);
                other += lo * b.lo;
                other += hi * b.hi;
            }
        }
        first += scale_of(w_chunk(which, scales), c) * part;
        if PAIR {
            second += scale_of(w_chunk(1u, scales), c) * other;
        }
    }
    return vec2(
        (first.x + first.y) + (first.z + first.w),
        (second.x + second.y) + (second.z + second.w),
    );
}
