// The second half of the experts' MLPs, for tokens grouped by expert as in
// `expert_gated_matmul.wgsl`. Known as: grouped GEMM or GEMV of MoE experts, down projection.
// For each slot s = order[i] of a tile of expert e:
//
//     out[s, row0 + r] = dot(x[s, :], weight[e, r, :])
//
// Links: lib/rows_slots.wgsl, lib/one_weight.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,     // of each expert, in this shard
    cols8: u32,    // columns / 8
    row0: u32,     // first output row of this shard
    out_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;     // [tokens, chosen, cols]
@group(0) @binding(2) var<storage, read> order: array<u32>;       // [tokens * chosen]
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>; // [tiles, 4]
@group(0) @binding(4) var<storage, read> weight: array<Cell>;     // [experts, rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;   // [tokens, chosen, out_rows]

fn finish(at: u32, sum: f32, unused: f32) -> f32 {
    return sum;
}

fn x_row(s: u32) -> u32 {
    return order[s];
}
