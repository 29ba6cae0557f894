// Merges the partial softmaxes of the splits of `attention.wgsl`: a workgroup for each token, head
// and `QUADS` quads of the head's channels. Eight invocations share a quad, each with every eighth
// split, whose loads come first.
// Known as: the reduction of flash decoding (split-K), which rescales by each split's maximum.
//
//     out[t, h, :] = sum_i exp(m_i - m) acc[t, h, i, :] / sum_i exp(m_i - m) l_i
//
// with (m_i, l_i) = stats[t, h, i], m = max_i m_i, over the splits that hold positions up to the
// query's own, which its position alone decides; t < step.rows. Splits that are not there count as
// zeros, so all rows are summed alike. If one of these is not finite, the result is not.
// Links: lib/step.wgsl, lib/records.wgsl, lib/math.wgsl.

struct Params {
    n_heads: u32,
    dim4: u32,   // head_dim / 4
    splits: u32, // splits that acc has room for
    least: u32,  // positions of the shortest split
}

// Shapes: T tokens, H = n_heads, D = head_dim.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<uniform> rows: array<RowRecord, RECORDS>;
@group(0) @binding(3) var<storage, read> acc: array<vec4<f32>>;       // [T, H, splits, D]
@group(0) @binding(4) var<storage, read> stats: array<vec2<f32>>;     // [T, H, splits, 2]
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [T, H * D]

// Quads of a workgroup: 4 at least, so that each split has an invocation.
override QUADS: u32 = 32u;

// Invocations: eight for each quad, or one where acc has room for one split only.
override WG: u32 = 256u;

var<workgroup> maxima: array<f32, SPLITS>;
var<workgroup> weights: array<f32, SPLITS>; // exp(m_i - m)
var<workgroup> totals: array<f32, SPLITS>;  // exp(m_i - m) l_i
var<workgroup> part_totals: array<f32, 8>;
var<workgroup> part_sums: array<vec4<f32>, 256>; // [8, QUADS]

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = group.y;
    if token >= step.rows {
        return;
    }
    let pos = rows[token].pos;
    let used = pos / split_len(pos, params.least) + 1u;
    let row = token * params.n_heads + group.x;
    let p = local / QUADS;
    let quad = group.z * QUADS + local % QUADS;
    let live = p == 0u && quad < params.dim4;
    let first = row * params.splits;
    if used == 1u {
        if live {
            let weight = weight_below(stats[first].x, stats[first].x);
            put(row, quad, weight * quad_of(first, 0u, quad), weight * stats[first].y);
        }
        return;
    }

    // Splits that are not there are loaded as the last, and weigh nothing.
    let last = used - 1u;
    let a0 = quad_of(first, min(p, last), quad);
    let a1 = quad_of(first, min(p + 8u, last), quad);
    let a2 = quad_of(first, min(p + 16u, last), quad);
    let a3 = quad_of(first, min(p + 24u, last), quad);
    let stat = stats[first + min(local, last)];
    if local < used {
        maxima[local] = stat.x;
    }
    workgroupBarrier();

    if local < SPLITS {
        var weight = 0.0;
        if local < used {
            var largest = maxima[0];
            for (var i = 1u; i < used; i++) {
                largest = max(largest, maxima[i]);
            }
            weight = weight_below(stat.x, largest);
        }
        weights[local] = weight;
        totals[local] = weight * stat.y;
    }
    workgroupBarrier();

    part_sums[local] = (weights[p] * a0 + weights[p + 8u] * a1)
        + (weights[p + 16u] * a2 + weights[p + 24u] * a3);
    if local % QUADS == 0u {
        part_totals[p] = (totals[p] + totals[p + 8u]) + (totals[p + 16u] + totals[p + 24u]);
    }
    workgroupBarrier();

    if live {
        var sum = part_sums[local];
        var total = part_totals[0];
        for (var part = 1u; part < 8u; part++) {
            sum += part_sums[part * QUADS + local];
            total += part_totals[part];
        }
        put(row, quad, sum, total);
    }
}

// A quad of the weighted sum of a split.
fn quad_of(first: u32, split: u32, quad: u32) -> vec4<f32> {
    return acc[(first + split) * params.dim4 + min(quad, params.dim4 - 1u)];
}

// Writes a quad of the result. Division by an infinite total would give zero.
fn put(row: u32, quad: u32, sum: vec4<f32>, total: f32) {
    out[row * params.dim4 + quad] = select(vec4(total), sum / total, is_finite(total));
}
