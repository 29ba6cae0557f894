// Grouped-query attention (GQA) over a part of the positions, with an online softmax over blocks.
// Known as: flash attention; with several splits, flash decoding (split-K over KV positions).
//
//     s_j = cap * tanh(inner * dot(q[t, h, :], k[slot(j), h / group, :])) * temperature[t]
//     or, where the cap is off (0), inner * dot(...) * temperature[t]
//     stats[t, h, split] = (m, sum_j exp(s_j - m))   with m = max_j s_j
//     acc[t, h, split, :] = sum_j exp(s_j - m) * v[slot(j), h / group, :]
//
// for the positions j of the split that are not after the query's (causal); `table` says in which
// slot the cache holds a position. Queries of a tile that share a key head form rows (t, h within
// the group). A workgroup has `rows` of them, a key head and a split. A split that lies wholly
// after its queries, or in another shard of the cache, is not written; `attention_merge` does not
// read the former. If a score is not finite, no result of its split is.
// Links: lib/step.wgsl, lib/records.wgsl, lib/pages.wgsl, lib/math.wgsl, lib/cache_f32.wgsl or one
// of lib/weight_*.wgsl.

struct Params {
    n_heads: u32,
    n_kv_heads: u32,
    dim4: u32,   // head_dim / 4
    groups: u32, // workgroups of a tile and a key head
    rows: u32,   // query rows of a workgroup, which the variant decides
    block: u32,  // positions of a block, which the variant decides; it divides a page
    slot0: u32,  // first slot of this shard of the cache
    len: u32,    // slots of this shard
    least: u32,  // positions of the shortest split
    splits: u32, // splits that acc has room for
    cols8: u32,  // n_kv_heads * head_dim / 8
    stride: u32, // chunks from one slot of k or v to the next
    inner: f32,  // factor on the dot products; divided by the cap where there is one
    cap: f32,
}

// Shapes: T tokens, H = n_heads, KV = n_kv_heads, D = head_dim. Chunks are as stored in the cache.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<uniform> tiles: array<TileRecord, RECORDS>;
@group(0) @binding(3) var<storage, read> table: array<u32>;             // [pages]
@group(0) @binding(4) var<storage, read> q: array<vec4<f32>>;           // [T, H, D]
@group(0) @binding(5) var<storage, read> k: array<Chunk>;               // [len, KV * D]
@group(0) @binding(6) var<storage, read> v: array<Chunk>;               // [len, KV * D]
@group(0) @binding(7) var<storage, read> temperature: array<f32>;       // [T]
@group(0) @binding(8) var<storage, read_write> acc: array<vec4<f32>>;   // [T, H, splits, D]
@group(0) @binding(9) var<storage, read_write> stats: array<vec2<f32>>; // [T, H, splits, 2]

// What a workgroup computes. Nothing, if `end` is not after `begin`.
struct Work {
    first: u32,  // the tile's first token
    pos: u32,    // its position
    pages: u32,  // where the pages of its sequence begin in the table
    n_rows: u32, // query rows of the tile
    row0: u32,   // the first of the workgroup's
    begin: u32,  // first position of the split
    end: u32,    // the position after the last that one of the workgroup's queries sees
}

fn work_of(group_id: vec3<u32>) -> Work {
    let at = group_id.x / params.groups;
    if at >= step.tiles {
        return Work();
    }
    let tile = tiles[at];
    let group = params.n_heads / params.n_kv_heads;
    let n_rows = tile.rows * group;
    let row0 = group_id.x % params.groups * params.rows;
    // All positions of a tile of several rows have splits of one length.
    let len = split_len(tile.pos, params.least);
    let begin = group_id.z * len;
    if row0 >= n_rows {
        return Work();
    }
    let last = (min(row0 + params.rows, n_rows) - 1u) / group;
    let end = min(begin + len, tile.pos + last + 1u);
    if begin >= end {
        return Work();
    }
    // All pages of a split are in one shard.
    if slot_of(tile.table, begin) - params.slot0 >= params.len {
        return Work();
    }
    return Work(tile.first, tile.pos, tile.table, n_rows, row0, begin, end);
}
