// The first half of the chosen experts' gated MLPs for single tokens.
// Known as: GEMV of MoE experts, gate and up projections fused with GeGLU.
// With e = ids[t, i]:
//
//     out[t, i, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])
//
// Links: lib/two_sums.wgsl, lib/gate_and_up.wgsl, lib/math.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,      // of each expert, in this shard
    cols8: u32,     // columns / 8
    row0: u32,      // first output row of this shard
    out_rows: u32,
    chosen: u32,    // experts per token
    gelu_tanh: u32, // 1: the tanh approximation
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(2) var<storage, read> ids: array<u32>;       // [tokens, chosen]
@group(0) @binding(3) var<storage, read> gate: array<Chunk>;    // [experts, rows, cols]
@group(0) @binding(4) var<storage, read> up: array<Chunk>;      // [experts, rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // [tokens, chosen, out_rows]

fn finish(at: u32, g: f32, u: f32) -> f32 {
    return gelu(g, params.gelu_tanh) * u;
}

// An item is a (token, expert) choice.
fn terms() -> u32 {
    return 1u;
}

fn term_of(item: u32, i: u32) -> Term {
    return Term(item / params.chosen, ids[item] * params.rows, 1.0);
}
