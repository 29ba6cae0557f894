// Embedding lookup, one workgroup per token:
//
//     out[t, :] = table[ids[t] - row0, :] * scale
//
// for the tokens whose row this shard of the table holds; the others are left alone.
// Links: one of lib/weight_*.wgsl.

struct Params {
    rows: u32,  // of this shard
    row0: u32,  // first id of this shard
    cols8: u32, // columns / 8
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // [tokens]
@group(0) @binding(2) var<storage, read> table: array<Weight8>;       // [rows, cols]
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [tokens, cols]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = ids[group.x] - params.row0;
    if row >= params.rows {
        return;
    }
    for (var c = local; c < params.cols8; c += 64u) {
        let e = decode(table[row * params.cols8 + c]);
        let at = 2u * (group.x * params.cols8 + c);
        out[at] = e.lo * params.scale;
        out[at + 1u] = e.hi * params.scale;
    }
}
