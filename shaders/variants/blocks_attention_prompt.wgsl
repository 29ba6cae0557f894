// Attention of prompts, for heads of 32, 64 or 128 channels. A workgroup has 32 query rows, so that
// several tokens use what is loaded of a key head, a split, and blocks of 16 positions. For the
// scores an invocation keeps every eighth quad of two queries in registers, and multiplies them by
// eight keys. For the weighted sum it has a quad of channels of four rows.
// Known as: flash attention (KV blocks in shared memory, register tiles, online softmax).
// Links: lib/fours.wgsl, lib/cache_tile_f32.wgsl or lib/cache_tile_packed.wgsl.

// Quads of a query for each invocation: the eighth part of a head's, 1, 2 or 4.
override OWN: u32 = 4u;

const WG: u32 = 256u;
const BLOCK: u32 = 16u;
const SHARERS: u32 = 8u;

// Where the tile has, in quads, what is there in turn: keys [BLOCK, dim4] from the start; then the
// sharers' products [SHARERS, ROWS, BLOCK]; then scores from the start and weights, both
// [ROWS, BLOCK], and factors [ROWS, 4], beside the values [BLOCK, dim4]. Neighbouring invocations
// use different banks of it.
const PRODUCTS: u32 = 128u;
const WEIGHTS: u32 = 128u;
const SHRINKS: u32 = 256u;
const VALUES: u32 = 512u;

var<workgroup> kv_tile: array<vec4<f32>, 1024>;

// Two queries: a column for each of an invocation's quads.
struct Queries {
    a: mat4x4<f32>,
    b: mat4x4<f32>,
}

// Their products with four keys.
struct Products {
    a: vec4<f32>,
    b: vec4<f32>,
}

// What an invocation loads of the keys or values of a block.
struct Held {
    chunk0: Chunk,
    scale0: f32,
    chunk1: Chunk,
    scale1: f32,
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group_id: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let kv_head = group_id.y;
    let work = work_of(group_id);
    if work.begin >= work.end {
        return;
    }

    // For the products: a part of each of two queries, and of the keys of two times four positions.
    let share = local % SHARERS;
    let own = local / SHARERS % 2u;
    let pair = local / 16u * 2u;
    let queries = Queries(
        query(head_of(work, kv_head, pair) * SHARERS * OWN + share),
        query(head_of(work, kv_head, pair + 1u) * SHARERS * OWN + share),
    );
    let place = pair * 4u + own;

    // For the softmax: a row and four positions, in the first half of the workgroup.
    let later = row_of(work, local / 4u) / (params.n_heads / params.n_kv_heads);
    let limit = min(work.end, work.pos + later + 1u);
    let heat = temperature[work.first + later];
    var largest = -3.0e38;
    var total = 0.0; // of this invocation's positions

    // For the sums: a quad of channels of four rows, and some of the positions.
    let dim4 = SHARERS * OWN;
    let quad = local % dim4;
    let rows = local / dim4 % 8u * 4u;
    let first = local / dim4 / 8u * OWN;
    var sum = mat4x4<f32>();

    // A block has one page.
    var slot = slot_of(work.pages, work.begin) - params.slot0;
    var keys = load_keys(local, slot, work.end - work.begin - 1u, kv_head);
    for (var base = work.begin; base < work.end; base += BLOCK) {
        store(local, 0u, keys);
        workgroupBarrier();

        let p0 = products(queries, own * 4u, share);
        let p1 = products(queries, own * 4u + 8u, share);
        let values = load_values(local, slot, work.end - base - 1u, kv_head);
        workgroupBarrier();
        kv_tile[share * PRODUCTS + (place ^ share)] = p0.a;
        kv_tile[share * PRODUCTS + ((place + 2u) ^ share)] = p1.a;
        kv_tile[share * PRODUCTS + ((place + 4u) ^ share)] = p0.b;
        kv_tile[share * PRODUCTS + ((place + 6u) ^ share)] = p1.b;
        workgroupBarrier();

        let valid = base + local % 4u * 4u + vec4(0u, 1u, 2u, 3u) < vec4(limit);
        var score = vec4<f32>();
        if local < WG / 2u {
            score = select(vec4(-3.0e38), scores_of(whole(local), vec4(heat)), valid);
        }
        // After the last block some keys are loaded again, for nothing.
        let next = min(base + BLOCK, (work.end - 1u) / BLOCK * BLOCK);
        slot = slot_of(work.pages, next) - params.slot0;
        keys = load_keys(local, slot, work.end - next - 1u, kv_head);
        workgroupBarrier();
        if local < WG / 2u {
            kv_tile[local] = score;
        }
        store(local, VALUES, values);
        workgroupBarrier();

        if local < WG / 2u {
            let most = max(largest, largest_of_row(local / 4u * 4u));
            let weight = select(vec4<f32>(), weights_below(score, vec4(most)), valid);
            let shrink = select(0.0, exp_bounded(largest - most), base > work.begin);
            total = total * shrink + ((weight.x + weight.y) + (weight.z + weight.w));
            largest = most;
            kv_tile[WEIGHTS + local] = weight;
            if local % 4u == 0u {
                kv_tile[SHRINKS + local / 4u] = vec4(shrink);
            }
        }
        workgroupBarrier();

        sum = mat4x4(
            kv_tile[SHRINKS + rows] * sum[0],
            kv_tile[SHRINKS + rows + 1u] * sum[1],
            kv_tile[SHRINKS + rows + 2u] * sum[2],
            kv_tile[SHRINKS + rows + 3u] * sum[3],
        );
        sum += mul_four(rows, first, quad);
        if OWN > 1u {
            sum += mul_four(rows, first + 1u, quad);
        }
        if OWN > 2u {
            sum += mul_four(rows, first + 2u, quad);
            sum += mul_four(rows, first + 3u, quad);
        }
        workgroupBarrier();
    }
    put_stats(local, work, group_id, largest, total);
    put_sums(local, work, group_id, sum);
}

// A query row of the workgroup's. Padding rows are clamped to the last real one, which sees the
// most positions.
fn row_of(work: Work, r: u32) -> u32 {
    return min(work.row0 + r, work.n_rows - 1u);
}

// Its head among those of all tokens.
fn head_of(work: Work, kv_head: u32, r: u32) -> u32 {
    let group = params.n_heads / params.n_kv_heads;
    let row = row_of(work, r);
    return (work.first + row / group) * params.n_heads + kv_head * group + row % group;
}

// An invocation's quads of a query, of which the first is given.
fn query(quad: u32) -> mat4x4<f32> {
    var m = mat4x4<f32>();
    m[0] = q[quad];
    if OWN > 1u {
        m[1] = q[quad + SHARERS];
    }
    if OWN > 2u {
        m[2] = q[quad + 2u * SHARERS];
        m[3] = q[quad + 3u * SHARERS];
    }
    return m;
}

// Loads an invocation's chunks of the keys of a block whose first position is in this slot. What
// follows the block's `last` position in its page may be anything; that position is there instead,
// and has no weight.
fn load_keys(local: u32, slot: u32, last: u32, kv_head: u32) -> Held {
    let chunks = SHARERS * OWN / QUADS;
    let c = kv_head * chunks + local % chunks;
    let row0 = (slot + min(local / chunks % BLOCK, last)) * params.stride;
    let from_at = scale_at(params.cols8, c);
    var held = Held();
    held.chunk0 = k[row0 + c];
    held.scale0 = scale_of(k[row0 + from_at], c);
    if BLOCK * chunks > WG {
        let row1 = (slot + min((local + WG) / chunks, last)) * params.stride;
        held.chunk1 = k[row1 + c];
        held.scale1 = scale_of(k[row1 + from_at], c);
    }
    return held;
}

// The same of the values.
fn load_values(local: u32, slot: u32, last: u32, kv_head: u32) -> Held {
    let chunks = SHARERS * OWN / QUADS;
    let c = kv_head * chunks + local % chunks;
    let row0 = (slot + min(local / chunks % BLOCK, last)) * params.stride;
    let from_at = scale_at(params.cols8, c);
    var held = Held();
    held.chunk0 = v[row0 + c];
    held.scale0 = scale_of(v[row0 + from_at], c);
    if BLOCK * chunks > WG {
        let row1 = (slot + min((local + WG) / chunks, last)) * params.stride;
        held.chunk1 = v[row1 + c];
        held.scale1 = scale_of(v[row1 + from_at], c);
    }
    return held;
}

// Stores what an invocation loaded in the tile, from quad `to` on.
fn store(local: u32, to: u32, held: Held) {
    let count = BLOCK * SHARERS * OWN / QUADS;
    if local < count {
        unpack(to + QUADS * local, held.chunk0, held.scale0);
    }
    if local + WG < count {
        unpack(to + QUADS * (local + WG), held.chunk1, held.scale1);
    }
}

// Products of an invocation's parts of two queries with those of the keys at four positions.
fn products(all: Queries, j: u32, share: u32) -> Products {
    var p = Products();
    let k0 = key(j, share);
    p.a.x = product(all.a, k0);
    p.b.x = product(all.b, k0);
    let k1 = key(j + 1u, share);
    p.a.y = product(all.a, k1);
    p.b.y = product(all.b, k1);
    let k2 = key(j + 2u, share);
    p.a.z = product(all.a, k2);
    p.b.z = product(all.b, k2);
    let k3 = key(j + 3u, share);
    p.a.w = product(all.a, k3);
    p.b.w = product(all.b, k3);
    return p;
}

fn key(j: u32, share: u32) -> mat4x4<f32> {
    let from_at = j * SHARERS * OWN + share;
    var m = mat4x4<f32>();
    m[0] = kv_tile[from_at];
    if OWN > 1u {
        m[1] = kv_tile[from_at + SHARERS];
    }
    if OWN > 2u {
        m[2] = kv_tile[from_at + 2u * SHARERS];
        m[3] = kv_tile[from_at + 3u * SHARERS];
    }
    return m;
}

fn product(query: mat4x4<f32>, key: mat4x4<f32>) -> f32 {
    var s = query[0] * key[0];
    if OWN > 1u {
        s += query[1] * key[1];
    }
    if OWN > 2u {
        s += query[2] * key[2];
        s += query[3] * key[3];
    }
    return (s.x + s.y) + (s.z + s.w);
}

// The products of a row with the keys at four positions: the sums of those of the sharers' parts.
fn whole(place: u32) -> vec4<f32> {
    return ((kv_tile[place] + kv_tile[PRODUCTS + (place ^ 1u)])
            + (kv_tile[2u * PRODUCTS + (place ^ 2u)] + kv_tile[3u * PRODUCTS + (place ^ 3u)]))
        + ((kv_tile[4u * PRODUCTS + (place ^ 4u)] + kv_tile[5u * PRODUCTS + (place ^ 5u)])
            + (kv_tile[6u * PRODUCTS + (place ^ 6u)] + kv_tile[7u * PRODUCTS + (place ^ 7u)]));
}

// The largest of a row's scores, which begin there.
fn largest_of_row(start: u32) -> f32 {
    let most = max(
        max(kv_tile[start], kv_tile[start + 1u]),
        max(kv_tile[start + 2u], kv_tile[start + 3u]),
    );
    return max(max(most.x, most.y), max(most.z, most.w));
}

// What four positions add to the sums of four rows for a quad: a column for each row.
fn mul_four(rows: u32, positions: u32, quad: u32) -> mat4x4<f32> {
    let dim4 = SHARERS * OWN;
    let at = VALUES + positions * 4u * dim4 + quad;
    let values = mat4x4(
        kv_tile[at], kv_tile[at + dim4], kv_tile[at + 2u * dim4], kv_tile[at + 3u * dim4]
    );
    let weights = WEIGHTS + rows * 4u + positions;
    return mat4x4(
        mul_weights(values, kv_tile[weights]),
        mul_weights(values, kv_tile[weights + 4u]),
        mul_weights(values, kv_tile[weights + 8u]),
        mul_weights(values, kv_tile[weights + 12u]),
    );
}

fn mul_weights(values: mat4x4<f32>, w: vec4<f32>) -> vec4<f32> {
    return w.x * values[0] + w.y * values[1] + w.z * values[2] + w.w * values[3];
}

// Adds up what the positions' invocations have, and writes maximum and sum of each row.
fn put_stats(local: u32, work: Work, group_id: vec3<u32>, largest: f32, total: f32) {
    if local < WG / 2u {
        kv_tile[local] = vec4(total);
    }
    workgroupBarrier();
    let row = local / 4u;
    if local < WG / 2u && local % 4u == 0u && is_written(work, row) {
        let sum = (kv_tile[local].x + kv_tile[local + 1u].x)
            + (kv_tile[local + 2u].x + kv_tile[local + 3u].x);
        let split = head_of(work, group_id.y, row) * params.splits + group_id.z;
        stats[split] = vec2(select(sum, largest, is_finite(sum)), sum);
    }
    workgroupBarrier();
}

// Whether a row of the workgroup exists and sees a position of the split.
fn is_written(work: Work, r: u32) -> bool {
    let row = work.row0 + r;
    let later = row / (params.n_heads / params.n_kv_heads);
    return row < work.n_rows && work.begin <= work.pos + later;
}

// Adds up the sums of the invocations that have the same rows and quad, and writes them.
fn put_sums(local: u32, work: Work, group_id: vec3<u32>, sum: mat4x4<f32>) {
    put_row(local, work, group_id, 0u, sum[0]);
    put_row(local, work, group_id, 1u, sum[1]);
    put_row(local, work, group_id, 2u, sum[2]);
    put_row(local, work, group_id, 3u, sum[3]);
}

// The same for one of each four rows. Call it from uniform control flow.
fn put_row(local: u32, work: Work, group_id: vec3<u32>, r: u32, own: vec4<f32>) {
    let dim4 = SHARERS * OWN;
    let four = local / dim4;
    kv_tile[r * WG + local] = own;
    workgroupBarrier();
    if four < 8u && is_written(work, four * 4u + r) {
        var sum = own;
        for (var i = local + 8u * dim4; i < WG; i += 8u * dim4) {
            sum += kv_tile[r * WG + i];
        }
        let head = head_of(work, group_id.y, four * 4u + r);
        acc[(head * params.splits + group_id.z) * dim4 + local % dim4] = sum;
    }
}
