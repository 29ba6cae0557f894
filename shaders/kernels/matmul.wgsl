// Matrix product with a transposed weight.
// Known as: GEMM, or GEMV for generated tokens, fused with logit soft-capping where the cap is on.
//
//     out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)     for t < step.rows
//
// Links: lib/step.wgsl, lib/rows_tokens.wgsl, lib/one_weight.wgsl, lib/math.wgsl, one of
// lib/weight_*.wgsl.

struct Params {
    rows: u32,     // of this shard of the weight
    cols8: u32,    // columns / 8
    row0: u32,     // first output row of this shard
    out_rows: u32,
    scale: f32,
    cap: f32,      // 0 is off
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;    // [tokens, cols]
@group(0) @binding(3) var<storage, read> weight: array<Cell>;    // [rows, cols]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;  // [tokens, out_rows]

fn finish(at: u32, sum: f32, unused: f32) -> f32 {
    return softcap(sum * params.scale, params.cap);
}
