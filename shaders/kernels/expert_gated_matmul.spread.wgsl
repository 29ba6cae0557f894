// The first half of the experts' gated MLPs for many tokens, grouped by expert, an output row of eight
// slots for each invocation, activations spread over subgroups. For each slot s = order[start + i] of
// a tile, with its token t = s / chosen and its expert e:
//
//     out[s, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])
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
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;     // [tokens, cols]
@group(0) @binding(2) var<storage, read> order: array<u32>;       // [tokens * chosen]
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>; // [tiles, 4]
@group(0) @binding(4) var<storage, read> gate: array<Chunk>;      // [experts, rows, cols]
@group(0) @binding(5) var<storage, read> up: array<Chunk>;        // [experts, rows, cols]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;   // [tokens, chosen, out_rows]

// Where the tokens of four slots from `slot` on begin. Slots from `end` on are taken for the last.
fn starts_of(slot: u32, end: u32) -> vec4<u32> {
    let at = min(slot + vec4(0u, 1u, 2u, 3u), vec4(end - 1u));
    let rows = vec4(order[at.x], order[at.y], order[at.z], order[at.w]);
    return 2u * params.cols8 * (rows / params.chosen);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let row = group.y * WG + local;
    // A tile has up to 32 slots: four workgroups of eight.
    let tile = tiles[group.x / 4u];
    let skip = group.x % 4u * 8u;
    if skip >= tile.z {
        return;
    }
    let slot = tile.y + skip;
    let end = tile.y + tile.z;
    let base = (tile.x * params.rows + min(row, params.rows - 1u)) * row_stride(params.cols8);

    let starts_near = starts_of(slot, end);
    let starts_far = starts_of(slot + 4u, end);

    // Slots 0 to 3 and 4 to 7.
    var g = mat2x4<f32>();
    var u = mat2x4<f32>();
    for (var c = 0u; c < params.cols8 / PARTS; c += BLOCK_CHUNKS) {
        let quad = CHUNK_QUADS * c + lane % 8u;
        let near = quads_of(starts_near, quad);
        let far = quads_of(starts_far, quad);
        let a = block_of_gate(base, c);
        let b = block_of_up(base, c);
        g[0] += mul_block_four(a, near);
        g[1] += mul_block_four(a, far);
        u[0] += mul_block_four(b, near);
        u[1] += mul_block_four(b, far);
    }

    for (var i = 0u; i < 2u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let s = slot + 4u * i + j;
            if s < end && row < params.rows {
                out[order[s] * params.out_rows + params.row0 + row] = gelu(g[i][j], params.gelu_tanh) * u[i][j];
            }
        }
    }
}
