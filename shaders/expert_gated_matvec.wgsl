// The first half of the chosen experts' gated MLPs for single tokens, `LANES` invocations per
// output row. With e = ids[t, i]:
//
//     out[t, i, row0 + r] = gelu(dot(x[t, :], gate[e, r, :])) * dot(x[t, :], up[e, r, :])
//
// Links: lib/lanes.wgsl, lib/math.wgsl, one of lib/weight_*.wgsl.

struct Params {
    rows: u32,      // of each expert, in this shard
    cols8: u32,     // columns / 8
    row0: u32,      // first output row of this shard
    out_rows: u32,
    chosen: u32,    // experts per token
    gelu_tanh: u32, // 1: the tanh approximation
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(2) var<storage, read> ids: array<u32>;       // [tokens, chosen]
@group(0) @binding(3) var<storage, read> gate: array<Chunk>;    // [experts, rows, cols]
@group(0) @binding(4) var<storage, read> up: array<Chunk>;      // [experts, rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // [tokens, chosen, out_rows]

alias Sum = vec2<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * (WG / LANES) + local / LANES;
    let lane = local % LANES;
    let choice = group.z * params.chosen + group.y;
    let token = group.z;

    var g = vec4<f32>();
    var u = vec4<f32>();
    if row < params.rows {
        let base = (ids[choice] * params.rows + row) * row_stride(params.cols8);
        for (var c = lane; c < params.cols8 / PARTS; c += LANES) {
            let w_gate = gate[base + c];
            let w_up = up[base + c];
            let s = base + scale_at(params.cols8, c);
            let at = 2u * (token * params.cols8 + c * PARTS);
            var part_g = vec4<f32>();
            var part_u = vec4<f32>();
            for (var p = 0u; p < PARTS; p++) {
                let lo = x[at + 2u * p];
                let hi = x[at + 2u * p + 1u];
                let a = decode(w_gate, p);
                let b = decode(w_up, p);
                part_g += lo * a.lo;
                part_g += hi * a.hi;
                part_u += lo * b.lo;
                part_u += hi * b.hi;
            }
            g += scale_of(gate[s], c) * part_g;
            u += scale_of(up[s], c) * part_u;
        }
    }
    let sums = vec2((g.x + g.y) + (g.z + g.w), (u.x + u.y) + (u.z + u.w));
    let total = reduce_lanes(local, sums);
    if lane == 0u && row < params.rows {
        out[choice * params.out_rows + params.row0 + row] = gelu(total.x, params.gelu_tanh) * total.y;
    }
}
