// The largest of the candidates that `topk.wgsl` has kept, again by chunks of 1024.
// Known as: top-k, further passes.
//
//     out_values[r, g, :], out_ids[r, g, :] = the `count` largest of values[r, 1024 g ..]
//
// Links: lib/pairs.wgsl, lib/sort.wgsl or, for one, lib/largest.wgsl.

struct Params {
    len: u32,    // candidates of a row
    chunks: u32,
    count: u32,  // at most 1024
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<f32>;           // [rows, len]
@group(0) @binding(2) var<storage, read> ids: array<u32>;              // [rows, len]
@group(0) @binding(3) var<storage, read_write> out_values: array<f32>; // [rows, chunks * count]
@group(0) @binding(4) var<storage, read_write> out_ids: array<u32>;    // [rows, chunks * count]

@compute @workgroup_size(SORT_WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    for (var i = local; i < SORT_LEN; i += SORT_WG) {
        let at = group.x * SORT_LEN + i;
        var value = LOWEST;
        var id = 0xffffffffu;
        if at < params.len {
            value = flagged(values[group.y * params.len + at]);
            id = ids[group.y * params.len + at];
        }
        sort_values[i] = value;
        sort_ids[i] = id;
    }
    sort_pairs(local);
    for (var i = local; i < params.count; i += SORT_WG) {
        let at = (group.y * params.chunks + group.x) * params.count + i;
        out_values[at] = sort_values[i];
        out_ids[at] = sort_ids[i];
    }
}
