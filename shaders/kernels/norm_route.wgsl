// Normalizes a block's output, adds it to the residual stream, normalizes the stream for the
// experts, and routes: which experts a token goes to, and with what weight. One workgroup per
// token t. Known as: MoE router (softmax and top-k), fused with residual add and RMSNorm.
//
//     sum[t, :] += h[t, :] / sqrt(mean(h[t, :]^2) + eps) * weight
//     out[t, :]  = sum[t, :] / sqrt(mean(sum[t, :]^2) + eps) * next_weight
//     c = softcap(router . out[t, :], cap);  p = softmax(c) over all experts
//     ids[t, :], probs[t, :] = the `chosen` largest, ties to the lower index; with `renormalize`
//     divided by their sum
//
// If a logit is not finite, no prob is.
//
// `lanes` invocations share an expert's dot product.
// Links: lib/reduce.wgsl, lib/norm_add.wgsl, lib/norm_input.wgsl, lib/math.wgsl.

struct Params {
    cols4: u32,   // columns / 4
    eps: f32,
    experts: u32, // at most 64
    lanes: u32,   // power of two, experts * lanes at most WG
    chosen: u32,
    cap: f32,     // 0 is off
    renormalize: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<vec4<f32>>;           // [tokens, cols]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;      // [cols]
@group(0) @binding(3) var<storage, read> next_weight: array<vec4<f32>>; // [cols]
@group(0) @binding(4) var<storage, read> router: array<vec4<f32>>;      // [experts, cols]
@group(0) @binding(5) var<storage, read_write> sum: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;   // [tokens, cols]
@group(0) @binding(7) var<storage, read_write> ids: array<u32>;         // [tokens, chosen]
@group(0) @binding(8) var<storage, read_write> probs: array<f32>;       // [tokens, chosen]

// Columns / 4 that are in workgroup memory at a time: a multiple of WG, so that each invocation
// loads only what it wrote to `out` itself.
const TILE: u32 = 256u;

var<workgroup> tile: array<vec4<f32>, TILE>;
var<workgroup> logits: array<f32, WG>;
// Loop bounds of `choose`, in workgroup memory: lavapipe recompiles a shader in each dispatch if
// uniforms bound its simple loops.
var<workgroup> n_experts: u32;
var<workgroup> n_chosen: u32;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = group.x;
    let row = token * params.cols4;
    norm_add(local, row);

    let expert = local / params.lanes;
    let lane = local % params.lanes;
    var logit = 0.0;
    for (var first = 0u; first < params.cols4; first += TILE) {
        let cols = min(TILE, params.cols4 - first);
        for (var c = local; c < cols; c += WG) {
            tile[c] = out[row + first + c];
        }
        workgroupBarrier();
        if expert < params.experts {
            for (var c = lane; c < cols; c += params.lanes) {
                logit += dot(tile[c], router[expert * params.cols4 + first + c]);
            }
        }
        workgroupBarrier();
    }

    logits[local] = logit;
    if local == 0u {
        n_experts = params.experts;
        n_chosen = params.chosen;
    }
    workgroupBarrier();
    for (var half = params.lanes / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            logits[local] += logits[local + half];
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
        let c = softcap(logits[e * params.lanes], params.cap);
        logits[e * params.lanes] = c;
        largest = max(largest, c);
    }
    var total = 0.0;
    for (var e = 0u; e < experts; e++) {
        total += weight_below(logits[e * params.lanes], largest);
    }
    // Each pick is the greatest of those that come after the last pick in (value, index) order.
    var kept = 0.0;
    var last: f32;
    var last_id = experts;
    for (var i = 0u; i < chosen; i++) {
        var best: f32;
        var best_id = experts;
        for (var e = 0u; e < experts; e++) {
            let c = logits[e * params.lanes];
            let after = i == 0u || c < last || (c == last && e > last_id);
            if after && (best_id == experts || c > best) {
                best = c;
                best_id = e;
            }
        }
        // Nothing is left to pick only if logits are NaN.
        best_id = min(best_id, experts - 1u);
        ids[token * chosen + i] = best_id;
        let weight = exp_bounded(best - largest);
        probs[token * chosen + i] = weight;
        kept += weight;
        last = best;
        last_id = best_id;
    }
    // Comparisons may skip a NaN, but the sum over all experts includes it.
    let shown = !is_finite(total);
    let sum = select(total, kept, params.renormalize != 0u);
    for (var i = 0u; i < chosen; i++) {
        let at = token * chosen + i;
        probs[at] = select(probs[at] / sum, total, shown);
    }
}
