// Rotary embedding of queries and keys (pairs d, d + head_dim/2), and the write of keys and values
// to the cache; `cos_sin` holds (cos, sin) of each pair's angle.
// Known as: RoPE (`rotate_half` layout) fused with the KV cache write.
//
//     q[t, h, :]               = rotate(qkv[t, h, :])
//     k[slot(t) - slot0, h, :] = rotate(qkv[t, n_heads + h, :])
//     v[slot(t) - slot0, h, :] = qkv[t, n_heads + n_kv_heads + h, :]        for t < step.rows
//
// `slot(t)` is where the cache holds the token's position, as `table` says. A cache may be cut into
// shards; this dispatch writes slots slot0 .. slot0 + len.
// One invocation per element of q, then one per unit of the rows of k and of v: an invocation owns
// the words that it writes.
// Links: lib/step.wgsl, lib/records.wgsl, lib/pages.wgsl, lib/cache_store_*.wgsl.

struct Params {
    n_heads: u32,
    n_kv_heads: u32,
    half: u32,    // head_dim / 2
    slot0: u32,
    len: u32,
    write_q: u32, // 1 in the dispatch for the first shard
}

// Shapes: T tokens, H = n_heads, KV = n_kv_heads, D = head_dim. Words are as stored in the cache.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<uniform> rows: array<RowRecord, RECORDS>;
@group(0) @binding(3) var<storage, read> table: array<u32>;         // [pages]
@group(0) @binding(4) var<storage, read> qkv: array<f32>;           // [T, (H + 2 KV) D]
@group(0) @binding(5) var<storage, read> cos_sin: array<vec2<f32>>; // [T, D]
@group(0) @binding(6) var<storage, read_write> q: array<f32>;       // [T, H, D]
@group(0) @binding(7) var<storage, read_write> k: array<u32>;       // [len, KV * D]
@group(0) @binding(8) var<storage, read_write> v: array<u32>;       // [len, KV * D]

// A token's row of the cache: its keys or its values.
struct Row {
    token: u32,
    src: u32,  // first element in qkv
    cols: u32, // elements
    at: u32,   // first word in k or v
    keys: bool,
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let token = id.y;
    if token >= step.rows {
        return;
    }
    let q_cols = 2u * params.half * params.n_heads;
    let kv_cols = 2u * params.half * params.n_kv_heads;
    let src = token * (q_cols + 2u * kv_cols);
    if id.x < q_cols {
        if params.write_q != 0u {
            q[token * q_cols + id.x] = rotated(token, src, id.x);
        }
        return;
    }
    let units = (kv_cols + UNIT - 1u) / UNIT;
    let unit = id.x - q_cols;
    let slot = slot_of(rows[token].table, rows[token].pos) - params.slot0;
    if slot >= params.len || unit >= 2u * units {
        return;
    }
    let at = slot * row_words(kv_cols);
    if unit < units {
        store(Row(token, src + q_cols, kv_cols, at, true), unit);
    } else {
        store(Row(token, src + q_cols + kv_cols, kv_cols, at, false), unit - units);
    }
}

// Element i of the heads at `src`, rotated.
fn rotated(token: u32, src: u32, i: u32) -> f32 {
    let e = i % (2u * params.half);
    let d = e % params.half;
    let head = src + i - e;
    let a = qkv[head + d];
    let b = qkv[head + d + params.half];
    let angle = cos_sin[token * params.half + d];
    if e < params.half {
        return a * angle.x - b * angle.y;
    }
    return b * angle.x + a * angle.y;
}

// Element i of a row, as it should be stored.
fn element(row: Row, i: u32) -> f32 {
    if row.keys {
        return rotated(row.token, row.src, i);
    }
    return qkv[row.src + i];
}

// Writes word i of a row.
fn put(row: Row, i: u32, word: u32) {
    if row.keys {
        k[row.at + i] = word;
    } else {
        v[row.at + i] = word;
    }
}
