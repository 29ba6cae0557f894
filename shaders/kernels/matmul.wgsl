// Matrix product with a transposed weight, in tiles of 32 x ROWS:
//
//     out[t, row0 + r] = softcap(scale * dot(x[t, :], weight[r, :]), cap)     for t < step.rows
//
// Links: lib/step.wgsl, lib/tile.wgsl, lib/tile_tokens.wgsl, lib/tile_weight.wgsl, lib/math.wgsl, one
// of lib/weight_*.wgsl.

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

@compute @workgroup_size(TILE_WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * ROWS;
    let token = group.y * TILE;
    if token >= step.rows {
        return;
    }

    var acc = mat4x4<f32>();
    for (var c = 0u; c < params.cols8; c += QUADS / 2u) {
        load_x(local, token, c);
        load_weight(local, 0u, row, c);
        workgroupBarrier();
        settle_x(local);
        acc = mul_tile(local, acc);
        workgroupBarrier();
    }

    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let t = token + x_row(local) + 8u * i;
            let r = row + w_row(local) + ROWS / 4u * j;
            if t < step.rows && r < params.rows {
                out[t * params.out_rows + params.row0 + r] = softcap(acc[i][j] * params.scale, params.cap);
            }
        }
    }
}
