// Merges the partial softmaxes of the splits of `attention.wgsl`, one workgroup per token and head.
// Known as: the reduction of flash decoding (split-K), which rescales by each split's maximum.
//
//     out[t, h, :] = sum_i exp(m_i - m) acc[t, h, i, :] / sum_i exp(m_i - m) l_i
//
// with (m_i, l_i) = stats[t, h, i], m = max_i m_i, over the splits that hold positions up to the
// query's own; t < step.rows. If one of these is not finite, the result is not.
// Links: lib/step.wgsl, lib/math.wgsl.

struct Params {
    n_heads: u32,
    dim4: u32,      // head_dim / 4
    splits: u32,
    split_len: u32, // positions of a split
}

// Shapes: T tokens, H = n_heads, D = head_dim.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> acc: array<vec4<f32>>;       // [T, H, splits, D]
@group(0) @binding(3) var<storage, read> stats: array<vec2<f32>>;     // [T, H, splits, 2]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // [T, H * D]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) quad: u32,
) {
    let token = group.y;
    if token >= step.rows || quad >= params.dim4 {
        return;
    }
    let row = token * params.n_heads + group.x;
    let used = (step.pos + token) / params.split_len + 1u;

    var largest = stats[row * params.splits].x;
    for (var i = 1u; i < used; i++) {
        largest = max(largest, stats[row * params.splits + i].x);
    }
    var total = 0.0;
    var sum = vec4<f32>();
    for (var i = 0u; i < used; i++) {
        let at = row * params.splits + i;
        let weight = weight_below(stats[at].x, largest);
        total += weight * stats[at].y;
        sum += weight * acc[at * params.dim4 + quad];
    }
    // Division by an infinite total would give zero.
    out[row * params.dim4 + quad] = select(vec4(total), sum / total, is_finite(total));
}
