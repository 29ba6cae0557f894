// The second half of the dense MLP and of the chosen experts for single tokens, joined, two output rows
// for each invocation, activations spread over subgroups. With e = ids[t, i]:
//
//     out[t, row0 + r] = (dot(dense[t, :], dense_weight[r, :])
//                         + sum_i probs[t, i] * dot(x[t, i, :], weight[e, r, :])) * scale
//
// Links: lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_x.wgsl, lib/spread_weight.wgsl, one of
// lib/weight_*.wgsl.

struct Params {
    rows: u32,        // of the dense weight and of each expert, in this shard
    dense_cols8: u32, // columns / 8 of the dense path
    cols8: u32,       // columns / 8 of the experts
    row0: u32,        // first output row of this shard
    out_rows: u32,
    chosen: u32,      // experts per token
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dense: array<vec4<f32>>;     // [tokens, dense_cols]
@group(0) @binding(2) var<storage, read> dense_weight: array<Chunk>;  // [rows, dense_cols]
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;         // [tokens, chosen, cols]
@group(0) @binding(4) var<storage, read> ids: array<u32>;             // [tokens, chosen]
@group(0) @binding(5) var<storage, read> probs: array<f32>;           // [tokens, chosen]
@group(0) @binding(6) var<storage, read> weight: array<Chunk>;        // [experts, rows, cols]
@group(0) @binding(7) var<storage, read_write> out: array<f32>;       // [tokens, out_rows]

// Block of a weight at chunk c of the row at `base`. Chunks beyond the row meet activations of zero.
fn block_of_dense(base: u32, c: u32) -> Block {
    return Block(dense_at(base, c), dense_at(base, c + 1u), dense_at(base, c + 2u), dense_at(base, c + 3u));
}

fn dense_at(base: u32, c: u32) -> Scaled {
    let cols8 = params.dense_cols8;
    let at = min(c, cols8 / PARTS - 1u);
    return Scaled(dense_weight[base + at], scale_of(dense_weight[base + scale_at(cols8, at)], at));
}

// A quad of activations, `start` being the first of its row; zero beyond the end.
fn quad_of_dense(start: u32, quad: u32) -> vec4<f32> {
    let quads = 2u * params.dense_cols8;
    return select(vec4<f32>(), dense[start + min(quad, quads - 1u)], quad < quads);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.x * 2u * WG + local;
    let token = group.y;
    let row_a = min(row, params.rows - 1u);
    let row_b = min(row + WG, params.rows - 1u);

    let dense_a = row_a * row_stride(params.dense_cols8);
    let dense_b = row_b * row_stride(params.dense_cols8);
    var a = vec4<f32>();
    var b = vec4<f32>();
    for (var c = 0u; c < params.dense_cols8 / PARTS; c += BLOCK_CHUNKS) {
        let held = quad_of_dense(2u * token * params.dense_cols8, CHUNK_QUADS * c + lane % 8u);
        a += mul_block(block_of_dense(dense_a, c), held);
        b += mul_block(block_of_dense(dense_b, c), held);
    }
    let from_dense = vec2((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));

    var routed = vec2<f32>();
    for (var i = 0u; i < params.chosen; i++) {
        let choice = token * params.chosen + i;
        let first = ids[choice] * params.rows;
        let base_a = (first + row_a) * row_stride(params.cols8);
        let base_b = (first + row_b) * row_stride(params.cols8);
        a = vec4<f32>();
        b = vec4<f32>();
        for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
            let held = quad_of(2u * choice * params.cols8, CHUNK_QUADS * c + lane % 8u);
            a += mul_block(block_of_weight(base_a, c), held);
            b += mul_block(block_of_weight(base_b, c), held);
        }
        routed += probs[choice] * vec2((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
    }

    let total = (from_dense + routed) * params.scale;
    let at = token * params.out_rows + params.row0 + row;
    if row < params.rows {
        out[at] = total.x;
    }
    if row + WG < params.rows {
        out[at + WG] = total.y;
    }
}
