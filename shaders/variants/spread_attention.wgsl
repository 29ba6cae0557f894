// Attention by workgroups that are a subgroup of eight, for heads of 32, 64, 96 or 128 channels,
// with a cache of f32. A workgroup takes four query rows, a key head and a split, in blocks of
// eight positions. For the scores, an invocation has a position, and queries are broadcast by
// shuffles. For the weighted sum, it has `OWN` quads of the channels, and weights are broadcast.
// Known as: flash attention within a subgroup (online softmax, register tiling).
// Links: lib/shuffle.wgsl, lib/fours.wgsl.

// Quads of a head's channels for each invocation: quad 8 i + lane is quad i of its own.
override OWN: u32 = 4u;

// Products of eight quads of a key with those of four queries, which the invocations hold, a column
// for each query.
fn mul_key(key: u32, held: mat4x4<f32>) -> vec4<f32> {
    return k[key] * spread_four(held, 0u)
        + k[key + 1u] * spread_four(held, 1u)
        + k[key + 2u] * spread_four(held, 2u)
        + k[key + 3u] * spread_four(held, 3u)
        + k[key + 4u] * spread_four(held, 4u)
        + k[key + 5u] * spread_four(held, 5u)
        + k[key + 6u] * spread_four(held, 6u)
        + k[key + 7u] * spread_four(held, 7u);
}

// Quad `i` of this invocation's own, of eight values; each value is weighted by what its invocation
// holds.
fn mul_values(weights: vec4<f32>, at: array<u32, 8>, i: u32) -> mat4x4<f32> {
    return mul_value(subgroupShuffle(weights, 0u), v[at[0] + 8u * i])
        + mul_value(subgroupShuffle(weights, 1u), v[at[1] + 8u * i])
        + mul_value(subgroupShuffle(weights, 2u), v[at[2] + 8u * i])
        + mul_value(subgroupShuffle(weights, 3u), v[at[3] + 8u * i])
        + mul_value(subgroupShuffle(weights, 4u), v[at[4] + 8u * i])
        + mul_value(subgroupShuffle(weights, 5u), v[at[5] + 8u * i])
        + mul_value(subgroupShuffle(weights, 6u), v[at[6] + 8u * i])
        + mul_value(subgroupShuffle(weights, 7u), v[at[7] + 8u * i]);
}

// Quad `i` of this invocation's own, of four queries, a column each.
fn queries(at: vec4<u32>, i: u32, lane: u32) -> mat4x4<f32> {
    let quad = at + 8u * i + lane;
    return mat4x4(q[quad.x], q[quad.y], q[quad.z], q[quad.w]);
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) group_id: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let work = work_of(group_id);
    if work.begin >= work.end {
        return;
    }
    let group = params.n_heads / params.n_kv_heads;
    let kv_head = group_id.y;
    // Padding rows are clamped to the last real one, which sees the most positions.
    let rows = min(work.row0 + vec4(0u, 1u, 2u, 3u), vec4(work.n_rows - 1u));
    let later = rows / group; // tokens after the first of the tile
    let tokens = work.first + later;
    let heads = tokens * params.n_heads + kv_head * group + rows % group;
    let at = heads * params.dim4;
    let q0 = queries(at, 0u, lane);
    var q1 = mat4x4<f32>();
    var q2 = mat4x4<f32>();
    var q3 = mat4x4<f32>();
    if OWN > 1u {
        q1 = queries(at, 1u, lane);
    }
    if OWN > 2u {
        q2 = queries(at, 2u, lane);
    }
    if OWN > 3u {
        q3 = queries(at, 3u, lane);
    }
    let heat = vec4(
        temperature[tokens.x],
        temperature[tokens.y],
        temperature[tokens.z],
        temperature[tokens.w],
    );
    let limits = min(vec4(work.end), work.pos + later + 1u);

    var largest = vec4(-3.0e38);
    var total = vec4<f32>();
    var sum0 = mat4x4<f32>();
    var sum1 = mat4x4<f32>();
    var sum2 = mat4x4<f32>();
    var sum3 = mat4x4<f32>();
    for (var base = work.begin; base < work.end; base += 8u) {
        let pos = base + lane;
        // A block has one page. What follows the last position in it may be anything.
        let slot = slot_of(work.pages, base) - params.slot0;
        let last = work.end - base - 1u;
        let key = ((slot + min(lane, last)) * params.n_kv_heads + kv_head) * params.dim4;
        var dots = mul_key(key, q0);
        if OWN > 1u {
            dots += mul_key(key + 8u, q1);
        }
        if OWN > 2u {
            dots += mul_key(key + 16u, q2);
        }
        if OWN > 3u {
            dots += mul_key(key + 24u, q3);
        }
        let scores = scores_of(dots, heat);
        let valid = vec4(pos) < limits;

        var most = select(vec4(-3.0e38), scores, valid);
        most = max(most, subgroupShuffleXor(most, 4u));
        most = max(most, subgroupShuffleXor(most, 2u));
        most = max(most, subgroupShuffleXor(most, 1u));
        most = max(most, largest);
        let weights = select(vec4<f32>(), weights_below(scores, most), valid);
        var sums = weights;
        sums += subgroupShuffleXor(sums, 4u);
        sums += subgroupShuffleXor(sums, 2u);
        sums += subgroupShuffleXor(sums, 1u);
        let shrink = select(vec4<f32>(), exp_four(largest - most), base > work.begin);
        total = total * shrink + sums;
        largest = most;

        var values: array<u32, 8>;
        for (var j = 0u; j < 8u; j++) {
            let value = (slot + min(j, last)) * params.n_kv_heads + kv_head;
            values[j] = value * params.dim4 + lane;
        }
        sum0 = scale_columns(sum0, shrink) + mul_values(weights, values, 0u);
        if OWN > 1u {
            sum1 = scale_columns(sum1, shrink) + mul_values(weights, values, 1u);
        }
        if OWN > 2u {
            sum2 = scale_columns(sum2, shrink) + mul_values(weights, values, 2u);
        }
        if OWN > 3u {
            sum3 = scale_columns(sum3, shrink) + mul_values(weights, values, 3u);
        }
    }

    for (var r = 0u; r < 4u; r++) {
        if work.row0 + r < work.n_rows && work.begin <= work.pos + later[r] {
            let split = heads[r] * params.splits + group_id.z;
            let to = split * params.dim4 + lane;
            acc[to] = sum0[r];
            if OWN > 1u {
                acc[to + 8u] = sum1[r];
            }
            if OWN > 2u {
                acc[to + 16u] = sum2[r];
            }
            if OWN > 3u {
                acc[to + 24u] = sum3[r];
            }
            if lane == 0u {
                stats[split] = vec2(select(total[r], largest[r], is_finite(total[r])), total[r]);
            }
        }
    }
}
