// Grouped-query attention (GQA) over a part of the positions, with an online softmax over blocks.
// Known as: flash attention; with several splits, flash decoding (split-K over KV positions).
//
//     s_j = cap * tanh(inner * dot(q[t, h, :], k[j, h / group, :])) * temperature[t]
//     or, where the cap is off (0), inner * dot(...) * temperature[t]
//     stats[t, h, split] = (m, sum_j exp(s_j - m))   with m = max_j s_j
//     acc[t, h, split, :] = sum_j exp(s_j - m) * v[j, h / group, :]
//
// for the positions j of the split that are not after the query's (causal), and t < step.rows.
// Queries that share a key head form rows (t, h within the group). A workgroup has `rows` of them,
// a key head and a split. A split that lies wholly after its queries is not written, and
// `attention_merge` does not read it. If a score is not finite, no result of its split is.
// Links: lib/step.wgsl, lib/math.wgsl, lib/cache_f32.wgsl or one of lib/weight_*.wgsl.

struct Params {
    n_heads: u32,
    n_kv_heads: u32,
    dim4: u32,      // head_dim / 4
    rows: u32,      // query rows of a workgroup, which the variant decides
    block: u32,     // positions of a block, which the variant decides
    pos0: u32,      // first position of this shard of the cache
    len: u32,       // positions of this shard
    split_len: u32, // positions of a split, a multiple of block
    split0: u32,    // index of this shard's first split
    splits: u32,    // splits of all shards
    cols8: u32,     // n_kv_heads * head_dim / 8
    stride: u32,    // chunks from one position of k or v to the next
    inner: f32,     // factor on the dot products; divided by the cap where there is one
    cap: f32,
}

// Shapes: T tokens, H = n_heads, KV = n_kv_heads, D = head_dim. Chunks are as stored in the cache.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;           // [T, H, D]
@group(0) @binding(3) var<storage, read> k: array<Chunk>;               // [len, KV * D]
@group(0) @binding(4) var<storage, read> v: array<Chunk>;               // [len, KV * D]
@group(0) @binding(5) var<storage, read> temperature: array<f32>;       // [T]
@group(0) @binding(6) var<storage, read_write> acc: array<vec4<f32>>;   // [T, H, splits, D]
@group(0) @binding(7) var<storage, read_write> stats: array<vec2<f32>>; // [T, H, splits, 2]
