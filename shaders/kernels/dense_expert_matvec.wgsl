// The second half of the dense MLP and of the chosen experts for single tokens, in one kernel.
// Known as: fused GEMVs of the down projections of a dense MLP and of MoE experts.
// With e = ids[t, i]:
//
//     out[t, row0 + r] = (dot(dense[t, :], dense_weight[r, :])
//                         + sum_i probs[t, i] * dot(x[t, i, :], weight[e, r, :])) * scale
//
// Links: lib/vector_experts.wgsl, lib/two_sums.wgsl, lib/dense_beside.wgsl, one of
// lib/weight_*.wgsl.

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

fn finish(at: u32, routed: f32, from_dense: f32) -> f32 {
    return (from_dense + routed) * params.scale;
}
