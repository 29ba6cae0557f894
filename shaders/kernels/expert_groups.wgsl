// Sorts the (token, choice) slots of a step by expert, and cuts each expert's share into tiles of
// `height` slots. One workgroup, whose invocations have a run of consecutive slots each; a scan of
// what the runs have of each expert, eight experts at a time, says where a run's slots begin. The
// order is fixed: by expert, then slot.
// Known as: MoE expert dispatch (token permutation by a counting sort) for a grouped GEMM or GEMV.
//
//     order[start .. start + count]  are the slots of one tile
//     tiles[i] = (expert, start, count, 0), count 0 where there is no tile
//
// Slots whose id is not that of an expert are left out.
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

override WG: u32 = 256u;

// No id of an expert.
const NONE: u32 = 0xffffffffu;

// Slots of eight experts in a run and the runs before it: a number of 16 bits for each expert, as
// there are fewer than 65536 slots.
var<workgroup> sums: array<vec4<u32>, WG>;
var<workgroup> starts: array<u32, 8>; // of the eight experts in `order`

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) local: u32) {
    let slots = step.rows * params.chosen;
    let len = max((slots + WG - 1u) / WG, 1u);
    let runs = max((slots + len - 1u) / len, 1u);
    let begin = min(local * len, slots);
    let end = min(begin + len, slots);

    var start = 0u;
    var tile = 0u;
    for (var first = 0u; first < params.experts; first += 8u) {
        var mine = vec4<u32>();
        for (var slot = begin; slot < end; slot += 4u) {
            mine += one_of(expert_of(slot, end, first))
                + one_of(expert_of(slot + 1u, end, first))
                + one_of(expert_of(slot + 2u, end, first))
                + one_of(expert_of(slot + 3u, end, first));
        }
        sums[local] = mine;
        workgroupBarrier();
        // Sums over 4 runs, 16 and so on.
        for (var by = 1u; by < runs; by <<= 2u) {
            let more = sum_before(local, by) + sum_before(local, 2u * by)
                + sum_before(local, 3u * by);
            workgroupBarrier();
            sums[local] += more;
            workgroupBarrier();
        }

        for (var e = 0u; e < 8u; e++) {
            let count = number_of(sums[runs - 1u], e);
            let needed = (count + params.height - 1u) / params.height;
            for (var i = local; i < needed; i += WG) {
                let done = i * params.height;
                let rest = min(params.height, count - done);
                tiles[tile + i] = vec4(first + e, start + done, rest, 0u);
            }
            if local == e {
                starts[e] = start;
            }
            start += count;
            tile += needed;
        }
        var before = sums[local] - mine;
        workgroupBarrier();

        for (var slot = begin; slot < end; slot += 4u) {
            let a = expert_of(slot, end, first);
            let b = expert_of(slot + 1u, end, first);
            let c = expert_of(slot + 2u, end, first);
            let d = expert_of(slot + 3u, end, first);
            before = put(slot, a, before);
            before = put(slot + 1u, b, before);
            before = put(slot + 2u, c, before);
            before = put(slot + 3u, d, before);
        }
    }
    for (var i = tile + local; i < params.tiles; i += WG) {
        tiles[i] = vec4<u32>();
    }
}

// The expert of a slot, counted from `first`: 8 or more if it is none of these eight, or if the run
// ends before the slot. Its load waits for nothing.
fn expert_of(slot: u32, end: u32, first: u32) -> u32 {
    let id = ids[min(slot, end - 1u)];
    return select(NONE, id - first, slot < end && id < params.experts);
}

// One slot of this expert; nothing if it is none of the eight.
fn one_of(e: u32) -> vec4<u32> {
    return select(vec4<u32>(), vec4(1u << (e % 2u * 16u)), vec4(e / 2u) == vec4(0u, 1u, 2u, 3u));
}

fn number_of(numbers: vec4<u32>, e: u32) -> u32 {
    let pair = select(vec4<u32>(), numbers, vec4(e / 2u) == vec4(0u, 1u, 2u, 3u));
    return ((pair.x | pair.y | pair.z | pair.w) >> (e % 2u * 16u)) & 0xffffu;
}

fn sum_before(local: u32, by: u32) -> vec4<u32> {
    if local < by {
        return vec4<u32>();
    }
    return sums[local - by];
}

// Stores a slot where its expert's next one belongs, and counts it.
fn put(slot: u32, e: u32, before: vec4<u32>) -> vec4<u32> {
    if e < 8u {
        order[starts[e] + number_of(before, e)] = slot;
    }
    return before + one_of(e);
}
