// Matrix product with a transposed weight, three output rows of eight tokens for each invocation,
// activations spread over subgroups:
//
//     out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)     for t < step.rows
//
// Links: lib/step.wgsl, lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_x.wgsl, lib/spread_weight.wgsl,
// lib/math.wgsl, one of lib/weight_*.wgsl.

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
@group(0) @binding(3) var<storage, read> weight: array<Chunk>;   // [rows, cols]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;  // [tokens, out_rows]

// Where four rows of x from `token` on begin. Those that are not real are taken for the last that is.
fn starts_of(token: u32) -> vec4<u32> {
    return 2u * params.cols8 * min(token + vec4(0u, 1u, 2u, 3u), vec4(step.rows - 1u));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.y * 3u * WG + local;
    let token = group.x * 8u;
    if token >= step.rows {
        return;
    }
    let base_a = min(row, params.rows - 1u) * row_stride(params.cols8);
    let base_b = min(row + WG, params.rows - 1u) * row_stride(params.cols8);
    let base_c = min(row + 2u * WG, params.rows - 1u) * row_stride(params.cols8);

    let starts_near = starts_of(token);
    let starts_far = starts_of(token + 4u);

    // A column for each of the rows; tokens 0 to 3 and 4 to 7.
    var acc_near = mat3x4<f32>();
    var acc_far = mat3x4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let quad = CHUNK_QUADS * c + lane % 8u;
        let near = quads_of(starts_near, quad);
        let far = quads_of(starts_far, quad);
        let a = block_of_weight(base_a, c);
        let b = block_of_weight(base_b, c);
        let d = block_of_weight(base_c, c);
        acc_near += mat3x4(mul_block_four(a, near), mul_block_four(b, near), mul_block_four(d, near));
        acc_far += mat3x4(mul_block_four(a, far), mul_block_four(b, far), mul_block_four(d, far));
    }

    for (var i = 0u; i < 3u; i++) {
        let r = row + WG * i;
        for (var j = 0u; j < 8u; j++) {
            let t = token + j;
            if t < step.rows && r < params.rows {
                let total = select(acc_near[i][j % 4u], acc_far[i][j % 4u], j >= 4u);
                out[t * params.out_rows + params.row0 + r] = softcap(total * params.scale, params.cap);
            }
        }
    }
}
