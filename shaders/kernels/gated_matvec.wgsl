// The first half of a gated MLP for single tokens, `LANES` invocations per output row:
//
//     out[t, row0 + r] = gelu(dot(x[t, :], gate[r, :])) * dot(x[t, :], up[r, :])
//
// Links: lib/lanes.wgsl, lib/lanes_gated.wgsl, lib/math.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,      // of this shard of the weights
    cols8: u32,     // columns / 8
    row0: u32,      // first output row of this shard
    out_rows: u32,
    gelu_tanh: u32, // 1: the tanh approximation
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(2) var<storage, read> gate: array<Chunk>;    // [rows, cols]
@group(0) @binding(3) var<storage, read> up: array<Chunk>;      // [rows, cols]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [tokens, out_rows]

alias Sum = vec2<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * (WG / LANES) + local / LANES;
    let lane = local % LANES;
    let token = group.y;

    var own = vec2<f32>();
    if row < params.rows {
        let base = row * row_stride(params.cols8);
        own = dot_gated(base, 2u * token * params.cols8, lane);
    }
    let total = reduce_lanes(local, own);
    if lane == 0u && row < params.rows {
        out[token * params.out_rows + params.row0 + row] = gelu(total.x, params.gelu_tanh) * total.y;
    }
}
