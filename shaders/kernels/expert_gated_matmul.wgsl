// The first half of the experts' gated MLPs for many tokens, grouped by expert: each tile is up to
// 32 slots of one expert by ROWS rows, so that a loaded weight serves all its tokens. For each slot
// s = order[start + i] of a tile, with its token t = s / chosen and its expert e:
//
//     out[s, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])
//
// Links: lib/tile.wgsl, lib/tile_gated.wgsl, lib/math.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,      // of each expert, in this shard
    cols8: u32,     // columns / 8
    row0: u32,      // first output row of this shard
    out_rows: u32,
    chosen: u32,    // experts per token
    gelu_tanh: u32, // 1: the tanh approximation
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;     // [tokens, cols]
@group(0) @binding(2) var<storage, read> order: array<u32>;       // [tokens * chosen]
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>; // [tiles, 4]
@group(0) @binding(4) var<storage, read> gate: array<Chunk>;      // [experts, rows, cols]
@group(0) @binding(5) var<storage, read> up: array<Chunk>;        // [experts, rows, cols]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;   // [tokens, chosen, out_rows]

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

    var g = mat4x4<f32>();
    var u = mat4x4<f32>();
    for (var c = 0u; c < params.cols8; c += QUADS / 2u) {
        for (var i = local; i < TILE * QUADS; i += TILE_WG) {
            let quad = i % QUADS;
            let t = i / QUADS;
            var v = vec4<f32>();
            if t < tile.z && 2u * c + quad < 2u * params.cols8 {
                let token = order[tile.y + t] / params.chosen;
                v = x[2u * (token * params.cols8 + c) + quad];
            }
            x_tile[quad * TILE + t] = v;
        }
        load_gate(local, first, row, c);
        workgroupBarrier();
        settle_x(local);
        g = mul_tile(local, g);
        workgroupBarrier();
        load_up(local, first, row, c);
        workgroupBarrier();
        u = mul_tile(local, u);
        workgroupBarrier();
    }

    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let t = x_row(local) + 8u * i;
            let r = row + w_row(local) + ROWS / 4u * j;
            if t < tile.z && r < params.rows {
                let slot = order[tile.y + t];
                out[slot * params.out_rows + params.row0 + r] = gelu(g[i][j], params.gelu_tanh) * u[i][j];
            }
        }
    }
}
