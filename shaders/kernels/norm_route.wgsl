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
// Links: lib/reduce.wgsl, lib/quads.wgsl, lib/norm_add.wgsl, lib/norm_input.wgsl, lib/math.wgsl.

struct Params {
    cols4: u32,   // columns / 4
    eps: f32,
    experts: u32, // at most 64
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

const MOST: u32 = 64u;

// Dot products of a token with eight experts.
struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

var<workgroup> part_low: array<vec4<f32>, WG>;
var<workgroup> part_high: array<vec4<f32>, WG>;
var<workgroup> logits: array<f32, MOST>;
// Loop bounds, in workgroup memory: lavapipe recompiles a shader in each dispatch if uniforms bound
// its simple loops.
var<workgroup> n_experts: u32;
var<workgroup> n_chosen: u32;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = group.x;
    let own = norm_add(local, token);
    if local == 0u {
        n_experts = params.experts;
        n_chosen = params.chosen;
    }
    let experts = workgroupUniformLoad(&n_experts);
    for (var first = 0u; first < experts; first += 8u) {
        reduce_eight(local, dots(local, token, first, own));
        if local < 8u && first + local < experts {
            let at = local % 4u;
            logits[first + local] = select(part_high[0][at], part_low[0][at], local < 4u);
        }
    }
    workgroupBarrier();
    if local == 0u {
        choose(token);
    }
}

// This invocation's part of the dot products with eight experts, from `first` on: of the quads that
// it owns.
fn dots(local: u32, token: u32, first: u32, own: Quads) -> Eight {
    var sums = Eight();
    if OWN > 0u {
        sums = add_own(sums, first, local, 0u, own.low[0]);
        sums = add_own(sums, first, local, 1u, own.low[1]);
        sums = add_own(sums, first, local, 2u, own.low[2]);
        sums = add_own(sums, first, local, 3u, own.low[3]);
        sums = add_own(sums, first, local, 4u, own.high[0]);
        sums = add_own(sums, first, local, 5u, own.high[1]);
        sums = add_own(sums, first, local, 6u, own.high[2]);
        return add_own(sums, first, local, 7u, own.high[3]);
    }
    for (var c = local; c < params.cols4; c += WG) {
        sums = add_dots(sums, first, c, out[token * params.cols4 + c]);
    }
    return sums;
}

// Beyond the row's end quads are zero, and the router's is its last.
fn add_own(sums: Eight, first: u32, local: u32, k: u32, quad: vec4<f32>) -> Eight {
    if k >= OWN {
        return sums;
    }
    return add_dots(sums, first, min(local + k * WG, params.cols4 - 1u), quad);
}

fn add_dots(sums: Eight, first: u32, c: u32, quad: vec4<f32>) -> Eight {
    let low = vec4(
        dot(quad, router_quad(first, c)),
        dot(quad, router_quad(first + 1u, c)),
        dot(quad, router_quad(first + 2u, c)),
        dot(quad, router_quad(first + 3u, c)),
    );
    let high = vec4(
        dot(quad, router_quad(first + 4u, c)),
        dot(quad, router_quad(first + 5u, c)),
        dot(quad, router_quad(first + 6u, c)),
        dot(quad, router_quad(first + 7u, c)),
    );
    return Eight(sums.low + low, sums.high + high);
}

// Beyond the last expert it is the last, and its sums are not used.
fn router_quad(expert: u32, c: u32) -> vec4<f32> {
    return router[min(expert, params.experts - 1u) * params.cols4 + c];
}

// Puts the sums over the workgroup at 0, by a fixed tree. Call it from uniform control flow.
fn reduce_eight(local: u32, value: Eight) {
    workgroupBarrier();
    part_low[local] = value.low;
    part_high[local] = value.high;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if local < half {
            part_low[local] += part_low[local + half];
            part_high[local] += part_high[local + half];
        }
        workgroupBarrier();
    }
}

// Softmax and choice, by one invocation: there are few experts.
fn choose(token: u32) {
    let experts = n_experts;
    let chosen = n_chosen;
    var largest = -3.0e38;
    for (var e = 0u; e < experts; e++) {
        let c = softcap(logits[e], params.cap);
        logits[e] = c;
        largest = max(largest, c);
    }
    var total = 0.0;
    for (var e = 0u; e < experts; e++) {
        total += weight_below(logits[e], largest);
    }
    // Each pick is the greatest of those that come after the last pick in (value, index) order.
    var kept = 0.0;
    var last: f32;
    var last_id = experts;
    for (var i = 0u; i < chosen; i++) {
        var best: f32;
        var best_id = experts;
        for (var e = 0u; e < experts; e++) {
            let c = logits[e];
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
