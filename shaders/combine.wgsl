// Joins the dense path and the routed experts of many tokens, one workgroup per token:
//
//     out[t, c] = (dense[t, c] + sum_i probs[t, i] * routed[t, i, c]) * scale     for t < step.rows
//
// Links: lib/step.wgsl.

struct Params {
    cols4: u32,  // columns / 4
    chosen: u32, // experts per token
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> dense: array<vec4<f32>>;     // [tokens, cols]
@group(0) @binding(3) var<storage, read> routed: array<vec4<f32>>;    // [tokens, chosen, cols]
@group(0) @binding(4) var<storage, read> probs: array<f32>;           // [tokens, chosen]
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [tokens, cols]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = group.x;
    if token >= step.rows {
        return;
    }
    for (var c = local; c < params.cols4; c += 64u) {
        var sum = dense[token * params.cols4 + c];
        for (var i = 0u; i < params.chosen; i++) {
            let choice = token * params.chosen + i;
            sum += probs[choice] * routed[choice * params.cols4 + c];
        }
        out[token * params.cols4 + c] = sum * params.scale;
    }
}
