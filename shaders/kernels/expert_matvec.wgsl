// The second half of the chosen experts for single tokens, weighted by the router and joined with
// the dense path, `LANES` invocations per output row. With e = ids[t, i]:
//
//     out[t, row0 + r] = (dense[t, row0 + r]
//                         + sum_i probs[t, i] * dot(x[t, i, :], weight[e, r, :])) * scale
//
// Links: lib/lanes.wgsl, lib/lanes_weight.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,     // of each expert, in this shard
    cols8: u32,    // columns / 8
    row0: u32,     // first output row of this shard
    out_rows: u32,
    chosen: u32,   // experts per token
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;    // [tokens, chosen, cols]
@group(0) @binding(2) var<storage, read> ids: array<u32>;        // [tokens, chosen]
@group(0) @binding(3) var<storage, read> probs: array<f32>;      // [tokens, chosen]
@group(0) @binding(4) var<storage, read> weight: array<Chunk>;   // [experts, rows, cols]
@group(0) @binding(5) var<storage, read> dense: array<f32>;      // [tokens, out_rows]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;  // [tokens, out_rows]

alias Sum = f32;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * (WG / LANES) + local / LANES;
    let lane = local % LANES;
    let token = group.y;

    var sum = 0.0;
    if row < params.rows {
        for (var i = 0u; i < params.chosen; i++) {
            let choice = token * params.chosen + i;
            let base = (ids[choice] * params.rows + row) * row_stride(params.cols8);
            sum += probs[choice] * dot_weight(base, 2u * choice * params.cols8, lane);
        }
    }
    let total = reduce_lanes(local, sum);
    if lane == 0u && row < params.rows {
        let at = token * params.out_rows + params.row0 + row;
        out[at] = (dense[at] + total) * params.scale;
    }
}
