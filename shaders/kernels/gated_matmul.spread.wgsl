// The first half of a gated MLP for many tokens, an output row of twelve tokens for each invocation,
// activations spread over subgroups:
//
//     out[t, row0 + r] = gelu(dot(x[t, :], gate[r, :])) * dot(x[t, :], up[r, :])  for t < step.rows
//
// Links: lib/step.wgsl, lib/shuffle.wgsl, lib/spread.wgsl, lib/spread_x.wgsl, lib/spread_gated.wgsl,
// lib/math.wgsl, one of lib/weight_*.wgsl.

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
@group(0) @binding(3) var<storage, read> gate: array<Chunk>;    // [rows, cols]
@group(0) @binding(4) var<storage, read> up: array<Chunk>;      // [rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // [tokens, out_rows]

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
    let row = group.y * WG + local;
    let token = group.x * 12u;
    if token >= step.rows {
        return;
    }
    let base = min(row, params.rows - 1u) * row_stride(params.cols8);

    let starts_near = starts_of(token);
    let starts_mid = starts_of(token + 4u);
    let starts_far = starts_of(token + 8u);

    // Tokens 0 to 3, 4 to 7 and 8 to 11.
    var g = mat3x4<f32>();
    var u = mat3x4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let quad = CHUNK_QUADS * c + lane % 8u;
        let near = quads_of(starts_near, quad);
        let mid = quads_of(starts_mid, quad);
        let far = quads_of(starts_far, quad);
        let a = block_of_gate(base, c);
        let b = block_of_up(base, c);
        g += mat3x4(mul_block_four(a, near), mul_block_four(a, mid), mul_block_four(a, far));
        u += mat3x4(mul_block_four(b, near), mul_block_four(b, mid), mul_block_four(b, far));
    }

    for (var i = 0u; i < 3u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let t = token + 4u * i + j;
            if t < step.rows && row < params.rows {
                out[t * params.out_rows + params.row0 + row] = gelu(g[i][j], params.gelu_tanh) * u[i][j];
            }
        }
    }
}
