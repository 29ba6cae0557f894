// The second half of the chosen experts for single tokens, weighted by the router and joined with the
// dense path, two output rows for each invocation, activations spread over subgroups. With
// e = ids[t, i]:
//
//     out[t, row0 + r] = (dense[t, row0 + r]
//                         + sum_i probs[t, i] * dot(x[t, i, :], weight[e, r, :])) * scale
//
// Links: lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_x.wgsl, lib/spread_weight.wgsl, one of
// lib/weight_*.wgsl.

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

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.x * 2u * WG + local;
    let token = group.y;

    var sum = vec2<f32>();
    for (var i = 0u; i < params.chosen; i++) {
        let choice = token * params.chosen + i;
        let first = ids[choice] * params.rows;
        let base_a = (first + min(row, params.rows - 1u)) * row_stride(params.cols8);
        let base_b = (first + min(row + WG, params.rows - 1u)) * row_stride(params.cols8);
        var a = vec4<f32>();
        var b = vec4<f32>();
        for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
            let held = quad_of(2u * choice * params.cols8, CHUNK_QUADS * c + lane % 8u);
            a += mul_block(block_of_weight(base_a, c), held);
            b += mul_block(block_of_weight(base_b, c), held);
        }
        sum += probs[choice] * vec2((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
    }
    let at = token * params.out_rows + params.row0 + row;
    if row < params.rows {
        out[at] = (dense[at] + sum.x) * params.scale;
    }
    if row + WG < params.rows {
        out[at + WG] = (dense[at + WG] + sum.y) * params.scale;
    }
}
