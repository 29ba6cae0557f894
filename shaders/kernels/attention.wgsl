// Grouped-query attention over a part of the positions, with an online softmax over blocks:
//
//     s_j = cap * tanh(inner * dot(q[t, h, :], k[j, h / group, :])) * temperature[t]
//     or, where the cap is off (0), inner * dot(...) * temperature[t]
//     stats[t, h, split] = (m, sum_j exp(s_j - m))   with m = max_j s_j
//     acc[t, h, split, :] = sum_j exp(s_j - m) * v[j, h / group, :]
//
// for the positions j of the split that are not after the query's, t < step.rows. Queries of one
// key head form rows (t, h within the group); a workgroup takes `rows` of them, a key head and a
// split. A split that lies wholly after its queries is left alone: `attention_merge` knows.
// Where a score is not a finite number, no result of its split is one.
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

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;           // [tokens, n_heads, head_dim]
@group(0) @binding(3) var<storage, read> k: array<Chunk>;               // [len, n_kv_heads * head_dim] as stored
@group(0) @binding(4) var<storage, read> v: array<Chunk>;               // [len, n_kv_heads * head_dim] as stored
@group(0) @binding(5) var<storage, read> temperature: array<f32>;       // [tokens]
@group(0) @binding(6) var<storage, read_write> acc: array<vec4<f32>>;   // [tokens, n_heads, splits, head_dim]
@group(0) @binding(7) var<storage, read_write> stats: array<vec2<f32>>; // [tokens, n_heads, splits, 2]
