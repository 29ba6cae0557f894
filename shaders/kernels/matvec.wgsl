// Matrix-vector product, `LANES` invocations per output row:
//
//     out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)
//
// Links: lib/lanes.wgsl, lib/lanes_weight.wgsl, lib/math.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,     // of this shard of the weight
    cols8: u32,    // columns / 8
    row0: u32,     // first output row of this shard
    out_rows: u32,
    scale: f32,
    cap: f32,      // 0 is off
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;    // [tokens, cols]
@group(0) @binding(2) var<storage, read> weight: array<Chunk>;   // [rows, cols]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [tokens, out_rows]

alias Sum = f32;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * (WG / LANES) + local / LANES;
    let lane = local % LANES;
    let token = group.y;

    var own = 0.0;
    if row < params.rows {
        own = dot_weight(row * row_stride(params.cols8), 2u * token * params.cols8, lane);
    }
    let total = reduce_lanes(local, own);
    if lane == 0u && row < params.rows {
        out[token * params.out_rows + params.row0 + row] = softcap(total * params.scale, params.cap);
    }
}
