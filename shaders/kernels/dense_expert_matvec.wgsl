// The second half of the dense MLP and of the chosen experts for single tokens, joined, `LANES`
// invocations per output row. With e = ids[t, i]:
//
//     out[t, row0 + r] = (dot(dense[t, :], dense_weight[r, :])
//                         + sum_i probs[t, i] * dot(x[t, i, :], weight[e, r, :])) * scale
//
// Links: lib/lanes.wgsl, lib/lanes_weight.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,        // of the dense weight and of each expert, in this shard
    dense_cols8: u32, // columns / 8 of the dense path
    cols8: u32,       // columns / 8 of the experts
    row0: u32,        // first output row of this shard
    out_rows: u32,
    chosen: u32,      // experts per token
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dense: array<vec4<f32>>;     // [tokens, dense_cols]
@group(0) @binding(2) var<storage, read> dense_weight: array<Chunk>;  // [rows, dense_cols]
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;         // [tokens, chosen, cols]
@group(0) @binding(4) var<storage, read> ids: array<u32>;             // [tokens, chosen]
@group(0) @binding(5) var<storage, read> probs: array<f32>;           // [tokens, chosen]
@group(0) @binding(6) var<storage, read> weight: array<Chunk>;        // [experts, rows, cols]
@group(0) @binding(7) var<storage, read_write> out: array<f32>;       // [tokens, out_rows]

// Of the dense path, and of the experts.
alias Sum = vec2<f32>;

// What a lane adds to the dot product of the dense path, as `dot_weight` does for an expert.
fn dot_dense(base: u32, start: u32, lane: u32) -> f32 {
    var sum = vec4<f32>();
    for (var c = lane; c < params.dense_cols8 / PARTS; c += LANES) {
        let w = dense_weight[base + c];
        let scale = scale_of(dense_weight[base + scale_at(params.dense_cols8, c)], c);
        let at = start + 2u * PARTS * c;
        var part = vec4<f32>();
        for (var p = 0u; p < PARTS; p++) {
            let e = decode(w, p);
            part += dense[at + 2u * p] * e.lo;
            part += dense[at + 2u * p + 1u] * e.hi;
        }
        sum += scale * part;
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * (WG / LANES) + local / LANES;
    let lane = local % LANES;
    let token = group.y;

    var sums = vec2<f32>();
    if row < params.rows {
        let dense_base = row * row_stride(params.dense_cols8);
        sums.x = dot_dense(dense_base, 2u * token * params.dense_cols8, lane);
        for (var i = 0u; i < params.chosen; i++) {
            let choice = token * params.chosen + i;
            let base = (ids[choice] * params.rows + row) * row_stride(params.cols8);
            sums.y += probs[choice] * dot_weight(base, 2u * choice * params.cols8, lane);
        }
    }
    let total = reduce_lanes(local, sums);
    if lane == 0u && row < params.rows {
        let at = token * params.out_rows + params.row0 + row;
        out[at] = (total.x + total.y) * params.scale;
    }
}
