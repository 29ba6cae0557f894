// Attention of generated tokens, by positions and by channels in turn, for heads of 32, 64 or 128
// channels. A workgroup takes up to eight query rows, a key head and a split, in blocks of 32
// positions, whose keys and values are loaded once, into registers. For the scores eight
// invocations share a position, each with every eighth quad of its key. For the weighted sum an
// invocation has a quad of the values of some positions, and the results of all rows for it.
// Known as: flash decoding (online softmax, register tiles over the heads of a group).
// Links: lib/fours.wgsl, lib/score.wgsl, lib/cache_quad_f32.wgsl or lib/cache_quad_packed.wgsl.

// Quads of a key for each of the eight, and positions of a block for an invocation that sums: the
// eighth part of a head's quads, 1, 2 or 4.
override OWN: u32 = 4u;

const WG: u32 = 256u;
const ROWS: u32 = 8u;
const BLOCK: u32 = 32u;
const SHARERS: u32 = 8u;

// From the products of a sharer to those of the next, which are in other banks of memory.
const SHARE: u32 = 65u;

var<workgroup> q_tile: array<vec4<f32>, 256>; // [ROWS, dim4]
// Products of each sharer with four rows; in the end two rows of sums of all invocations.
var<workgroup> parts: array<vec4<f32>, 520>;  // [SHARERS, ROWS / 4, BLOCK] or [2, WG]
var<workgroup> scores: array<f32, 256>;       // [ROWS, BLOCK]
var<workgroup> weights: array<f32, 256>;      // [ROWS, BLOCK]
var<workgroup> shrinks: array<f32, 8>;        // [ROWS]

// The chunks that have an invocation's quads of a key, or of the values of its positions.
struct Held {
    chunk0: Chunk,
    chunk1: Chunk,
    chunk2: Chunk,
    chunk3: Chunk,
    scale0: f32,
    scale1: f32,
    scale2: f32,
    scale3: f32,
}

@compute @workgroup_size(WG)
fn main(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group_id: vec3<u32>,
) {
    let work = work_of(group_id);
    if work.begin >= work.end {
        return;
    }
    let group = params.n_heads / params.n_kv_heads;
    let kv_head = group_id.y;

    let dim4 = SHARERS * OWN;
    if local < ROWS * dim4 {
        let row = work.row0 + local / dim4;
        if row < work.n_rows {
            let head = (work.first + row / group) * params.n_heads + kv_head * group + row % group;
            q_tile[local] = q[head * dim4 + local % dim4];
        } else {
            q_tile[local] = vec4<f32>();
        }
    }
    workgroupBarrier();

    // The row and the position whose score this invocation computes.
    let row = work.row0 + local / BLOCK;
    let at = local % BLOCK;
    let live = row < work.n_rows;
    let later = row / group; // tokens after the first of the tile
    let limit = select(work.begin, min(work.end, work.pos + later + 1u), live);
    var heat = 0.0;
    if live {
        heat = temperature[work.first + later];
    }

    var largest = -3.0e38;
    var total = 0.0; // of this invocation's positions
    var low = mat4x4<f32>();
    var high = mat4x4<f32>();
    // A block has one page.
    var slot = slot_of(work.pages, work.begin) - params.slot0;
    for (var base = work.begin; base < work.end; base += BLOCK) {
        let last = work.end - base - 1u;
        let held_keys = load_keys(local, slot, last, kv_head);
        let held_values = load_values(local, slot, last, kv_head);
        slot = slot_of(work.pages, min(base + BLOCK, work.end - 1u)) - params.slot0;
        let part = local % SHARERS * SHARE + local / SHARERS;
        let key = quads_of(held_keys, local);
        parts[part] = products(local, 0u, key);
        parts[part + BLOCK] = products(local, 4u, key);
        workgroupBarrier();

        let valid = base + at < limit;
        scores[local] = select(-3.0e38, score(local / BLOCK, at, heat), valid);
        workgroupBarrier();

        var most = largest;
        for (var j = 0u; j < BLOCK; j++) {
            most = max(most, scores[local / BLOCK * BLOCK + j]);
        }
        let weight = select(0.0, weight_below(scores[local], most), valid);
        let shrink = select(0.0, exp_bounded(largest - most), base > work.begin);
        total = total * shrink + weight;
        largest = most;
        weights[local] = weight;
        if at == 0u {
            shrinks[local / BLOCK] = shrink;
        }
        workgroupBarrier();

        low = scale_columns(low, vec4(shrinks[0], shrinks[1], shrinks[2], shrinks[3]));
        high = scale_columns(high, vec4(shrinks[4], shrinks[5], shrinks[6], shrinks[7]));
        let values = quads_of(held_values, local);
        low += mul_values(local, 0u, values);
        high += mul_values(local, 4u, values);
    }

    scores[local] = total;
    workgroupBarrier();
    if at == 0u && live && work.begin < limit {
        var sum = 0.0;
        for (var j = 0u; j < BLOCK; j++) {
            sum += scores[local + j];
        }
        let head = (work.first + later) * params.n_heads + kv_head * group + row % group;
        let split = head * params.splits + group_id.z;
        stats[split] = vec2(select(sum, largest, is_finite(sum)), sum);
    }
    put_two(local, 0u, low[0], low[1], work, group_id);
    put_two(local, 2u, low[2], low[3], work, group_id);
    put_two(local, 4u, high[0], high[1], work, group_id);
    put_two(local, 6u, high[2], high[3], work, group_id);
}

// Loads an invocation's quads of the key of a position, in a block whose first is in this slot.
// What follows the block's `last` position in its page may be anything; that position is there
// instead, and has no weight.
fn load_keys(local: u32, slot: u32, last: u32, kv_head: u32) -> Held {
    let row = (slot + min(local / SHARERS, last)) * params.stride;
    let quad = kv_head * SHARERS * OWN + local % SHARERS;
    var held = Held();
    held.chunk0 = k[row + quad / QUADS];
    held.scale0 = key_scale(row, quad);
    if OWN > 1u {
        held.chunk1 = k[row + (quad + SHARERS) / QUADS];
        held.scale1 = key_scale(row, quad + SHARERS);
    }
    if OWN > 2u {
        held.chunk2 = k[row + (quad + 2u * SHARERS) / QUADS];
        held.scale2 = key_scale(row, quad + 2u * SHARERS);
        held.chunk3 = k[row + (quad + 3u * SHARERS) / QUADS];
        held.scale3 = key_scale(row, quad + 3u * SHARERS);
    }
    return held;
}

fn key_scale(row: u32, quad: u32) -> f32 {
    let c = quad / QUADS;
    return scale_of(k[row + scale_at(params.cols8, c)], c);
}

// Loads an invocation's quad of the values of its positions of the block.
fn load_values(local: u32, slot: u32, last: u32, kv_head: u32) -> Held {
    let j = local / (SHARERS * OWN);
    let step = WG / (SHARERS * OWN);
    let quad = kv_head * SHARERS * OWN + local % (SHARERS * OWN);
    let row0 = (slot + min(j, last)) * params.stride;
    let row1 = (slot + min(j + step, last)) * params.stride;
    let row2 = (slot + min(j + 2u * step, last)) * params.stride;
    let row3 = (slot + min(j + 3u * step, last)) * params.stride;
    var held = Held();
    held.chunk0 = v[row0 + quad / QUADS];
    held.scale0 = value_scale(row0, quad);
    if OWN > 1u {
        held.chunk1 = v[row1 + quad / QUADS];
        held.scale1 = value_scale(row1, quad);
    }
    if OWN > 2u {
        held.chunk2 = v[row2 + quad / QUADS];
        held.scale2 = value_scale(row2, quad);
        held.chunk3 = v[row3 + quad / QUADS];
        held.scale3 = value_scale(row3, quad);
    }
    return held;
}

fn value_scale(row: u32, quad: u32) -> f32 {
    let c = quad / QUADS;
    return scale_of(v[row + scale_at(params.cols8, c)], c);
}

// The quads, a column each. A head's quads begin a chunk, and so do those of a key's sharers.
fn quads_of(held: Held, local: u32) -> mat4x4<f32> {
    var m = mat4x4<f32>();
    m[0] = quad_of(held.chunk0, held.scale0, local);
    if OWN > 1u {
        m[1] = quad_of(held.chunk1, held.scale1, local);
    }
    if OWN > 2u {
        m[2] = quad_of(held.chunk2, held.scale2, local);
        m[3] = quad_of(held.chunk3, held.scale3, local);
    }
    return m;
}

// Products of an invocation's part of a key with that of four rows, from `first` on.
fn products(local: u32, first: u32, key: mat4x4<f32>) -> vec4<f32> {
    let share = local % SHARERS;
    return vec4(
        product(first, share, key),
        product(first + 1u, share, key),
        product(first + 2u, share, key),
        product(first + 3u, share, key),
    );
}

fn product(row: u32, share: u32, key: mat4x4<f32>) -> f32 {
    let at = row * SHARERS * OWN + share;
    var s = key[0] * q_tile[at];
    if OWN > 1u {
        s += key[1] * q_tile[at + SHARERS];
    }
    if OWN > 2u {
        s += key[2] * q_tile[at + 2u * SHARERS];
        s += key[3] * q_tile[at + 3u * SHARERS];
    }
    return (s.x + s.y) + (s.z + s.w);
}

// The score of a row at a position of the block.
fn score(row: u32, at: u32, heat: f32) -> f32 {
    let first = row / 4u * BLOCK + at;
    let c = row % 4u;
    let product = ((parts[first][c] + parts[first + SHARE][c])
            + (parts[first + 2u * SHARE][c] + parts[first + 3u * SHARE][c]))
        + ((parts[first + 4u * SHARE][c] + parts[first + 5u * SHARE][c])
            + (parts[first + 6u * SHARE][c] + parts[first + 7u * SHARE][c]));
    return score_of(product, heat);
}

// What an invocation's positions add to the sums of four rows, from `first` on.
fn mul_values(local: u32, first: u32, values: mat4x4<f32>) -> mat4x4<f32> {
    let j = first * BLOCK + local / (SHARERS * OWN);
    let step = WG / (SHARERS * OWN);
    var sum = mul_value(weights_at(j), values[0]);
    if OWN > 1u {
        sum += mul_value(weights_at(j + step), values[1]);
    }
    if OWN > 2u {
        sum += mul_value(weights_at(j + 2u * step), values[2]);
        sum += mul_value(weights_at(j + 3u * step), values[3]);
    }
    return sum;
}

// The weights of four rows at a position.
fn weights_at(j: u32) -> vec4<f32> {
    return vec4(weights[j], weights[j + BLOCK], weights[j + 2u * BLOCK], weights[j + 3u * BLOCK]);
}

// Adds up the sums of all invocations for two rows, from `first` on, and writes them. Call it from
// uniform control flow.
fn put_two(local: u32, first: u32, a: vec4<f32>, b: vec4<f32>, work: Work, group_id: vec3<u32>) {
    workgroupBarrier();
    parts[local] = a;
    parts[WG + local] = b;
    workgroupBarrier();
    let group = params.n_heads / params.n_kv_heads;
    let dim4 = SHARERS * OWN;
    let row = work.row0 + first + local / dim4;
    let later = row / group;
    if local >= 2u * dim4 || row >= work.n_rows || work.begin > work.pos + later {
        return;
    }
    let from_at = local / dim4 * WG + local % dim4;
    var sum = parts[from_at];
    for (var i = dim4; i < WG; i += dim4) {
        sum += parts[from_at + i];
    }
    let head = (work.first + later) * params.n_heads + group_id.y * group + row % group;
    acc[(head * params.splits + group_id.z) * dim4 + local % dim4] = sum;
}
