// Adds up the dense path and the routed experts of many tokens, normalizes the result, adds it to
// the residual stream, and normalizes the stream for the next block. One workgroup per real token,
// t < step.rows. Known as: MoE combine, fused with residual add and RMSNorm.
//
//     h = (dense[t, :] + sum_i probs[t, i] * routed[t, i, :]) * scale
//     sum[t, :] += h / sqrt(mean(h^2) + eps) * weight
//     out[t, :]  = sum[t, :] / sqrt(mean(sum[t, :]^2) + eps) * next_weight
//
// Links: lib/step.wgsl, lib/reduce.wgsl, lib/quads.wgsl, lib/norm_add.wgsl, lib/math.wgsl.

struct Params {
    cols4: u32, // columns / 4
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

// Experts of a token. It is a constant so that a compiler can have the loads of all of them under
// way at once.
override CHOSEN: u32 = 2u;

const DENSE: u32 = 5u;

fn input(which: u32, at: u32) -> vec4<f32> {
    if which == DENSE {
        return dense[at];
    }
    return routed[at];
}

// What an invocation owns of h.
fn own_block(local: u32, token: u32) -> Quads {
    var h = own_of(DENSE, token * params.cols4, local);
    for (var i = 0u; i < CHOSEN; i++) {
        let choice = token * CHOSEN + i;
        let own = own_of(BLOCK, choice * params.cols4, local);
        h.low += probs[choice] * own.low;
        h.high += probs[choice] * own.high;
    }
    return Quads(h.low * params.scale, h.high * params.scale);
}

// Where the row does not fit registers, `out` holds h until it gets the result.
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
    if OWN == 0u {
        let row = token * params.cols4;
        for (var c = local; c < params.cols4; c += WG) {
            var h = dense[row + c];
            for (var i = 0u; i < CHOSEN; i++) {
                let choice = token * CHOSEN + i;
                h += probs[choice] * routed[choice * params.cols4 + c];
            }
            out[row + c] = h * params.scale;
        }
    }
    norm_add(local, token);
}
