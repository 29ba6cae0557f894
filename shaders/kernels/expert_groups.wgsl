// Sorts the (token, choice) slots of a step by expert, and cuts each expert's share into tiles of
// `height` slots. One workgroup, one invocation per expert; the order is fixed: by expert, then
// slot.
// Known as: MoE expert dispatch (token permutation by a counting sort) for a grouped GEMM or GEMV.
//
//     order[start .. start + count]  are the slots of one tile
//     tiles[i] = (expert, start, count, 0), count 0 where there is no tile
//
// Links: lib/step.wgsl.

struct Params {
    experts: u32,
    chosen: u32, // experts per token
    tiles: u32,
    height: u32, // slots of a full tile
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> ids: array<u32>;               // [tokens, chosen]
@group(0) @binding(3) var<storage, read_write> order: array<u32>;       // [tokens * chosen]
@group(0) @binding(4) var<storage, read_write> tiles: array<vec4<u32>>; // [tiles, 4]

var<workgroup> counts: array<u32, 64>;
var<workgroup> starts: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) expert: u32) {
    let slots = step.rows * params.chosen;

    var count = 0u;
    for (var slot = 0u; slot < slots; slot++) {
        count += u32(ids[slot] == expert);
    }
    counts[expert] = count;
    workgroupBarrier();

    if expert == 0u {
        var start = 0u;
        var tile = 0u;
        for (var e = 0u; e < params.experts; e++) {
            starts[e] = start;
            for (var done = 0u; done < counts[e]; done += params.height) {
                tiles[tile] = vec4(e, start + done, min(params.height, counts[e] - done), 0u);
                tile++;
            }
            start += counts[e];
        }
        for (; tile < params.tiles; tile++) {
            tiles[tile] = vec4<u32>();
        }
    }
    workgroupBarrier();

    if expert < params.experts {
        var at = starts[expert];
        for (var slot = 0u; slot < slots; slot++) {
            if ids[slot] == expert {
                order[at] = slot;
                at++;
            }
        }
    }
}
