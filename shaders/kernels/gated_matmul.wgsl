// The first half of a gated MLP.
// Known as: GEMM or GEMV of the gate and up projections, fused with GeGLU.
//
//     out[t, row0 + r] = gelu(dot(x[t, :], gate[r, :])) * dot(x[t, :], up[r, :])  for t < step.rows
//
// Links: lib/step.wgsl, lib/rows_tokens.wgsl, lib/gate_and_up.wgsl, lib/math.wgsl, one of
// lib/weight_*.wgsl.

struct Params {
    rows: u32,      // of this shard of the weights
    cols8: u32,     // columns / 8
    row0: u32,      // first output row of this shard
    out_rows: u32,
    gelu_tanh: u32, // 1: the tanh approximation
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(3) var<storage, read> gate: array<Cell>;     // [rows, cols]
@group(0) @binding(4) var<storage, read> up: array<Cell>;       // [rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // [tokens, out_rows]

fn finish(at: u32, g: f32, u: f32) -> f32 {
    return gelu(g, params.gelu_tanh) * u;
}
