// The first half of the experts' gated MLPs, for tokens grouped by expert: a tile is some slots of
// one expert, so that a loaded weight serves all its tokens.
// Known as: grouped GEMM or GEMV of MoE experts, gate and up projections fused with GeGLU.
// For each slot s = order[i] of a tile, with its token t = s / chosen and its expert e:
//
//     out[s, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])
//
// Links: lib/rows_slots.wgsl, lib/gate_and_up.wgsl, lib/math.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,      // of each expert, in this shard
    cols8: u32,     // columns / 8
    row0: u32,      // first output row of this shard
    out_rows: u32,
    chosen: u32,    // experts per token
    gelu_tanh: u32, // 1: the tanh approximation
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;     // [tokens, cols]
@group(0) @binding(2) var<storage, read> order: array<u32>;       // [tokens * chosen]
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>; // [tiles, 4]
@group(0) @binding(4) var<storage, read> gate: array<Cell>;       // [experts, rows, cols]
@group(0) @binding(5) var<storage, read> up: array<Cell>;         // [experts, rows, cols]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;   // [tokens, chosen, out_rows]

fn finish(at: u32, g: f32, u: f32) -> f32 {
    return gelu(g, params.gelu_tanh) * u;
}

fn x_row(s: u32) -> u32 {
    return order[s] / params.chosen;
}
