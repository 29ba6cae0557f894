// The largest logits of each chunk of 1024, in falling order, one workgroup per chunk.
// Known as: top-k, first pass (a bitonic sort by chunk; argmax by reduction for k = 1).
//
//     values[r, g, :], ids[r, g, :] = the `count` largest of logits[r, 1024 g ..]
//
// with ties to the lower id.
// Links: lib/pairs.wgsl, lib/sort.wgsl or, for one, lib/largest.wgsl.

struct Params {
    len: u32,    // logits of a row
    chunks: u32,
    count: u32,  // at most 1024
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;       // [rows, len]
@group(0) @binding(2) var<storage, read_write> values: array<f32>; // [rows, chunks * count]
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;    // [rows, chunks * count]

@compute @workgroup_size(SORT_WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    for (var i = local; i < SORT_LEN; i += SORT_WG) {
        let id = group.x * SORT_LEN + i;
        var value = LOWEST;
        if id < params.len {
            value = flagged(logits[group.y * params.len + id]);
        }
        sort_values[i] = value;
        sort_ids[i] = id;
    }
    sort_pairs(local);
    for (var i = local; i < params.count; i += SORT_WG) {
        let at = (group.y * params.chunks + group.x) * params.count + i;
        values[at] = sort_values[i];
        ids[at] = sort_ids[i];
    }
}
