// Matrix-vector product, two output rows for each invocation, activations spread over subgroups:
//
//     out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)
//
// Links: lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_x.wgsl, lib/spread_weight.wgsl, lib/math.wgsl,
// one of lib/weight_*.wgsl.

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

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.x * 2u * WG + local;
    let token = group.y;
    let base_a = min(row, params.rows - 1u) * row_stride(params.cols8);
    let base_b = min(row + WG, params.rows - 1u) * row_stride(params.cols8);

    var a = vec4<f32>();
    var b = vec4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let held = quad_of(2u * token * params.cols8, CHUNK_QUADS * c + lane % 8u);
        a += mul_block(block_of_weight(base_a, c), held);
        b += mul_block(block_of_weight(base_b, c), held);
    }
    let at = token * params.out_rows + params.row0 + row;
    if row < params.rows {
        out[at] = softcap(((a.x + a.y) + (a.z + a.w)) * params.scale, params.cap);
    }
    if row + WG < params.rows {
        out[at + WG] = softcap(((b.x + b.y) + (b.z + b.w)) * params.scale, params.cap);
    }
}
