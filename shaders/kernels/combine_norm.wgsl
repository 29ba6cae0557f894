// Adds up the dense path and the routed experts of many tokens, normalizes the result, adds it to
// the residual stream, and normalizes the stream for the next block. One workgroup per real token,
// t < step.rows. Known as: MoE combine, fused with residual add and RMSNorm.
//
//     h = (dense[t, :] + sum_i probs[t, i] * routed[t, i, :]) * scale
//     sum[t, :] += h / sqrt(mean(h^2) + eps) * weight
//     out[t, :]  = sum[t, :] / sqrt(mean(sum[t, :]^2) + eps) * next_weight
//
// Links: lib/step.wgsl, lib/reduce.wgsl, lib/norm_add.wgsl, lib/math.wgsl.

struct Params {
    cols4: u32,  // columns / 4
    chosen: u32, // experts per token
    scale: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> dense: array<vec4<f32>>;       // [tokens, cols]
@group(0) @binding(3) var<storage, read> routed: array<vec4<f32>>;      // [tokens, chosen, cols]
@group(0) @binding(4) var<storage, read> probs: array<f32>;             // [tokens, chosen]
@group(0) @binding(5) var<storage, read> weight: array<vec4<f32>>;      // [cols]
@group(0) @binding(6) var<storage, read> next_weight: array<vec4<f32>>; // [cols]
@group(0) @binding(7) var<storage, read_write> sum: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(8) var<storage, read_write> out: array<vec4<f32>>;   // [tokens, cols]

// `out` holds h until it gets the result.
fn block(at: u32) -> vec4<f32> {
    return out[at];
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = group.x;
    if token >= step.rows {
        return;
    }
    let row = token * params.cols4;
    for (var c = local; c < params.cols4; c += WG) {
        var h = dense[row + c];
        for (var i = 0u; i < params.chosen; i++) {
            let choice = token * params.chosen + i;
            h += probs[choice] * routed[choice * params.cols4 + c];
        }
        out[row + c] = h * params.scale;
    }
    norm_add(local, row);
}
