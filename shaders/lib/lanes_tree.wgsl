// Sums over the lanes that share an output row. A workgroup of `WG` invocations holds `WG / LANES`
// rows; both are powers of two.

override WG: u32 = 128u;
override LANES: u32 = 32u;

var<workgroup> lane_first: array<vec4<f32>, WG>;
var<workgroup> lane_second: array<vec4<f32>, WG>;

// Sum of `value` over the lanes of a row, by a fixed tree. Call it once, from uniform control flow.
fn reduce_lanes(local: u32, value: Sums) -> Sums {
    lane_first[local] = value.first;
    if PAIR {
        lane_second[local] = value.second;
    }
    workgroupBarrier();
    let lane = local % LANES;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            lane_first[local] += lane_first[local + half];
            if PAIR {
                lane_second[local] += lane_second[local + half];
            }
        }
        workgroupBarrier();
    }
    var total = Sums(lane_first[local - lane], vec4<f32>());
    if PAIR {
        total.second = lane_second[local - lane];
    }
    return total;
}
