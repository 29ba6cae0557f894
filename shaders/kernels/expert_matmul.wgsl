// The second half of the experts for many tokens, grouped by expert as in
// `expert_gated_matmul.wgsl`. For each slot s = order[start + i] of a tile of expert e:
//
//     out[s, row0 + r] = dot(x[s, :], weight[e, r, :])
//
// Links: lib/tile.wgsl, lib/tile_weight.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,     // of each expert, in this shard
    cols8: u32,    // columns / 8
    row0: u32,     // first output row of this shard
    out_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;     // [tokens, chosen, cols]
@group(0) @binding(2) var<storage, read> order: array<u32>;       // [tokens * chosen]
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>; // [tiles, 4]
@group(0) @binding(4) var<storage, read> weight: array<Chunk>;    // [experts, rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<f32>;   // [tokens, chosen, out_rows]

@compute @workgroup_size(TILE_WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * ROWS;
    let tile = tiles[group.y];
    if tile.z == 0u {
        return;
    }
    let first = tile.x * params.rows;

    var acc = mat4x4<f32>();
    for (var c = 0u; c < params.cols8; c += QUADS / 2u) {
        for (var i = local; i < TILE * QUADS; i += TILE_WG) {
            let quad = i % QUADS;
            let t = i / QUADS;
            var v = vec4<f32>();
            if t < tile.z && 2u * c + quad < 2u * params.cols8 {
                v = x[2u * (order[tile.y + t] * params.cols8 + c) + quad];
            }
            x_tile[quad * TILE + t] = v;
        }
        load_weight(local, first, row, c);
        workgroupBarrier();
        settle_x(local);
        acc = mul_tile(local, acc);
        workgroupBarrier();
    }

    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let t = x_row(local) + 8u * i;
            let r = row + w_row(local) + ROWS / 4u * j;
            if t < tile.z && r < params.rows {
                out[order[tile.y + t] * params.out_rows + params.row0 + r] = acc[i][j];
            }
        }
    }
}
