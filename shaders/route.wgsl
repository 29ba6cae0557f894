// The router, one workgroup per token. `lanes` invocations share an expert's dot product:
//
//     c = softcap(router . x[t, :], cap);  p = softmax(c) over all experts
//     ids[t, :], probs[t, :] = the `chosen` largest, ties to the lower index; with `renormalize`
//     divided by their sum
//
// Links: lib/math.wgsl.

struct Params {
    experts: u32, // at most 64
    lanes: u32,   // power of two, experts * lanes at most WG
    chosen: u32,
    cols4: u32,   // columns / 4
    cap: f32,     // 0 is off
    renormalize: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;       // [tokens, cols]
@group(0) @binding(2) var<storage, read> router: array<vec4<f32>>;  // [experts, cols]
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;     // [tokens, chosen]
@group(0) @binding(4) var<storage, read_write> probs: array<f32>;   // [tokens, chosen]

override WG: u32 = 256u;

var<workgroup> partial: array<f32, WG>;
// Bounds of the loops of `choose`, in memory: lavapipe compiles a shader anew in each dispatch for
// the uniforms that bound its simple loops.
var<workgroup> n_experts: u32;
var<workgroup> n_chosen: u32;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = group.x;
    let expert = local / params.lanes;
    let lane = local % params.lanes;

    var sum = 0.0;
    if expert < params.experts {
        for (var c = lane; c < params.cols4; c += params.lanes) {
            sum += dot(x[token * params.cols4 + c], router[expert * params.cols4 + c]);
        }
    }
    partial[local] = sum;
    if local == 0u {
        n_experts = params.experts;
        n_chosen = params.chosen;
    }
    workgroupBarrier();
    for (var half = params.lanes / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            partial[local] += partial[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        choose(token);
    }
}

// Softmax and choice, by one invocation: there are few experts.
fn choose(token: u32) {
    let experts = n_experts;
    let chosen = n_chosen;
    var largest = -3.0e38;
    for (var e = 0u; e < experts; e++) {
        let c = softcap(partial[e * params.lanes], params.cap);
        partial[e * params.lanes] = c;
        largest = max(largest, c);
    }
    var total = 0.0;
    for (var e = 0u; e < experts; e++) {
        total += exp_bounded(partial[e * params.lanes] - largest);
    }
    // Each pick is the greatest of those that come after the last pick in (value, index) order.
    var kept = 0.0;
    var last = 0.0;
    var last_id = experts;
    for (var i = 0u; i < chosen; i++) {
        var best = -3.0e38;
        var best_id = experts;
        for (var e = 0u; e < experts; e++) {
            let c = partial[e * params.lanes];
            let after = i == 0u || c < last || (c == last && e > last_id);
            if after && (best_id == experts || c > best) {
                best = c;
                best_id = e;
            }
        }
        // Only logits that are not numbers leave nothing to pick.
        best_id = min(best_id, experts - 1u);
        ids[token * chosen + i] = best_id;
        let weight = exp_bounded(best - largest);
        probs[token * chosen + i] = weight;
        kept += weight;
        last = best;
        last_id = best_id;
    }
    let sum = select(total, kept, params.renormalize != 0u);
    for (var i = 0u; i < chosen; i++) {
        probs[token * chosen + i] /= sum;
    }
}
