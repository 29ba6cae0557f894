// The first half of the chosen experts' gated MLPs for single tokens, an output row for each invocation,
// activations spread over subgroups. With e = ids[t, i]:
//
//     out[t, i, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])
//
// Links: lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_x.wgsl, lib/spread_gated.wgsl, lib/math.wgsl,
// one of lib/weight_*.wgsl.

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

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.x * WG + local;
    let choice = group.z * params.chosen + group.y;
    let token = group.z;
    let base = (ids[choice] * params.rows + min(row, params.rows - 1u)) * row_stride(params.cols8);

    var g = vec4<f32>();
    var u = vec4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let held = quad_of(2u * token * params.cols8, CHUNK_QUADS * c + lane % 8u);
        g += mul_block(block_of_gate(base, c), held);
        u += mul_block(block_of_up(base, c), held);
    }
    if row < params.rows {
        let dot_g = (g.x + g.y) + (g.z + g.w);
        let dot_u = (u.x + u.y) + (u.z + u.w);
        out[choice * params.out_rows + params.row0 + row] = gelu(dot_g, params.gelu_tanh) * dot_u;
    }
}
