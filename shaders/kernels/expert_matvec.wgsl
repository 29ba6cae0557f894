// The second half of the chosen experts for single tokens, weighted by the router and added to the
// dense path. Known as: GEMV of MoE experts, down projection fused with the combine.
// With e = ids[t, i]:
//
//     out[t, row0 + r] = (dense[t, row0 + r]
//                         + sum_i probs[t, i] * dot(x[t, i, :], weight[e, r, :])) * scale
//
// Links: lib/vector_experts.wgsl, lib/one_weight.wgsl, one of lib/weight_*.wgsl.

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

fn finish(at: u32, sum: f32, unused: f32) -> f32 {
    return (dense[at] + sum) * params.scale;
}
