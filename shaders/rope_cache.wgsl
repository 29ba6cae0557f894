// Rotary embedding of queries and keys (pairs d, d + head_dim/2), and the write of keys and values
// to the cache. One invocation per pair; `cos_sin` holds (cos, sin) of each pair's angle.
//
//     q[t, h, :]                 = rotate(qkv[t, h, :])
//     k[step.pos + t - pos0, h, :] = rotate(qkv[t, n_heads + h, :])
//     v[step.pos + t - pos0, h, :] = qkv[t, n_heads + n_kv_heads + h, :]        for t < step.rows
//
// A cache may be cut by position into shards; this dispatch writes positions pos0 .. pos0 + len.
// Links: lib/step.wgsl.

struct Params {
    n_heads: u32,
    n_kv_heads: u32,
    half: u32,    // head_dim / 2
    pos0: u32,
    len: u32,
    write_q: u32, // 1 in the dispatch for the first shard
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;           // [tokens, (n_heads + 2 n_kv_heads) head_dim]
@group(0) @binding(3) var<storage, read> cos_sin: array<vec2<f32>>; // [tokens, head_dim]
@group(0) @binding(4) var<storage, read_write> q: array<f32>;       // [tokens, n_heads, head_dim]
@group(0) @binding(5) var<storage, read_write> k: array<f32>;       // [len, n_kv_heads, head_dim]
@group(0) @binding(6) var<storage, read_write> v: array<f32>;       // [len, n_kv_heads, head_dim]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let token = id.y;
    let head = id.x / params.half;
    let d = id.x % params.half;
    let n_qk = params.n_heads + params.n_kv_heads;
    let n_all = n_qk + params.n_kv_heads;
    if token >= step.rows || head >= n_all {
        return;
    }
    let src = 2u * params.half * (token * n_all + head) + d;
    let a = qkv[src];
    let b = qkv[src + params.half];
    let angle = cos_sin[token * params.half + d];
    let rotated = vec2(a * angle.x - b * angle.y, b * angle.x + a * angle.y);

    if head < params.n_heads {
        if params.write_q != 0u {
            let at = 2u * params.half * (token * params.n_heads + head) + d;
            q[at] = rotated.x;
            q[at + params.half] = rotated.y;
        }
        return;
    }
    let slot = step.pos + token - params.pos0;
    if slot >= params.len {
        return;
    }
    if head < n_qk {
        let at = 2u * params.half * (slot * params.n_kv_heads + head - params.n_heads) + d;
        k[at] = rotated.x;
        k[at + params.half] = rotated.y;
    } else {
        let at = 2u * params.half * (slot * params.n_kv_heads + head - n_qk) + d;
        v[at] = a;
        v[at + params.half] = b;
    }
}
