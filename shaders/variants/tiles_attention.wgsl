// Attention in blocks of workgroup memory: each workgroup has `rows` query rows, a key head and a
// split. rows * dim4 is at most 256 and rows at most 8; block * dim4 is at most 512, block at most
// 32, and rows * block at most 256.
// Known as: flash attention (KV blocks in shared memory, online softmax).
// Links: lib/score.wgsl, lib/cache_tile_f32.wgsl or lib/cache_tile_packed.wgsl.

const WG: u32 = 256u;

var<workgroup> q_tile: array<vec4<f32>, 256>;  // [rows, dim4]
// A row is longer than dim4, so that quads of several positions are in different banks of memory.
var<workgroup> kv_tile: array<vec4<f32>, 544>; // [block, dim4 + 1]
var<workgroup> scores: array<f32, 256>;        // [rows, block]
var<workgroup> row_max: array<f32, 8>;
var<workgroup> row_sum: array<f32, 8>;
var<workgroup> row_scale: array<f32, 8>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group_id: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let work = work_of(group_id);
    if work.begin >= work.end {
        return;
    }
    let group = params.n_heads / params.n_kv_heads;
    let kv_head = group_id.y;

    let chunks = params.dim4 / QUADS; // of a head
    let wide = params.dim4 + 1u;      // quads from one position to the next in the tile

    // This invocation's row and quad of channels, in loads of q and in the weighted sum.
    let row = local / params.dim4;
    let quad = local % params.dim4;
    let live = row < params.rows && work.row0 + row < work.n_rows;
    let token = work.first + (work.row0 + row) / group;
    let head = kv_head * group + (work.row0 + row) % group;
    if live {
        q_tile[local] = q[(token * params.n_heads + head) * params.dim4 + quad];
    }
    if local < params.rows {
        row_max[local] = -3.0e38;
        row_sum[local] = 0.0;
    }

    var sum = vec4<f32>();
    for (var base = work.begin; base < work.end; base += params.block) {
        // A block has one page.
        let slot = slot_of(work.pages, base) - params.slot0;
        workgroupBarrier();
        for (var i = local; i < params.block * chunks; i += WG) {
            let j = i / chunks;
            let to = j * wide + QUADS * (i % chunks);
            if base + j < work.end {
                let at = (slot + j) * params.stride;
                let c = kv_head * chunks + i % chunks;
                unpack(to, k[at + c], scale_of(k[at + scale_at(params.cols8, c)], c));
            } else {
                clear(to);
            }
        }
        workgroupBarrier();

        // One score per invocation.
        let score_row = local / params.block;
        if score_row < params.rows && work.row0 + score_row < work.n_rows {
            let j = local % params.block;
            var s = vec4<f32>();
            for (var c = 0u; c < params.dim4; c++) {
                s += q_tile[score_row * params.dim4 + c] * kv_tile[j * wide + c];
            }
            let heat = temperature[work.first + (work.row0 + score_row) / group];
            scores[local] = score_of((s.x + s.y) + (s.z + s.w), heat);
        }
        workgroupBarrier();

        // One invocation per row turns scores into weights; the others load values meanwhile.
        if local < params.rows && work.row0 + local < work.n_rows {
            let limit = min(work.end, work.pos + (work.row0 + local) / group + 1u);
            let valid = min(params.block, limit - min(limit, base));
            let at = local * params.block;
            var largest = row_max[local];
            for (var j = 0u; j < valid; j++) {
                largest = max(largest, scores[at + j]);
            }
            var total = 0.0;
            for (var j = 0u; j < params.block; j++) {
                var weight = 0.0;
                if j < valid {
                    weight = weight_below(scores[at + j], largest);
                }
                scores[at + j] = weight;
                total += weight;
            }
            let shrink = select(0.0, exp_bounded(row_max[local] - largest), base > work.begin);
            row_scale[local] = shrink;
            row_sum[local] = row_sum[local] * shrink + total;
            row_max[local] = largest;
        }
        for (var i = local; i < params.block * chunks; i += WG) {
            let j = i / chunks;
            let to = j * wide + QUADS * (i % chunks);
            if base + j < work.end {
                let at = (slot + j) * params.stride;
                let c = kv_head * chunks + i % chunks;
                unpack(to, v[at + c], scale_of(v[at + scale_at(params.cols8, c)], c));
            } else {
                clear(to);
            }
        }
        workgroupBarrier();

        if live {
            sum *= row_scale[row];
            for (var j = 0u; j < params.block; j++) {
                sum += scores[row * params.block + j] * kv_tile[j * wide + quad];
            }
        }
    }

    if live && work.begin <= work.pos + (work.row0 + row) / group {
        let at = (token * params.n_heads + head) * params.splits + group_id.z;
        acc[at * params.dim4 + quad] = sum;
        if quad == 0u {
            let total = row_sum[row];
            stats[at] = vec2(select(total, row_max[row], is_finite(total)), total);
        }
    }
}

// Stores zeros in place of a chunk.
fn clear(at: u32) {
    for (var quad = 0u; quad < QUADS; quad++) {
        kv_tile[at + quad] = vec4<f32>();
    }
}
