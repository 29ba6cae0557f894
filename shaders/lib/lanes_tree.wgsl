// Sums over the lanes that share an output row. A workgroup of `WG` invocations holds `WG / LANES`
// rows; both are powers of two. A `Sum` is one number or two.

override WG: u32 = 128u;
override LANES: u32 = 32u;

var<workgroup> lane_sums: array<Sum, WG>;

// Sum of `value` over the lanes of a row, by a fixed tree. Call it once, from uniform control flow.
fn reduce_lanes(local: u32, value: Sum) -> Sum {
    lane_sums[local] = value;
    workgroupBarrier();
    let lane = local % LANES;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            lane_sums[local] += lane_sums[local + half];
        }
        workgroupBarrier();
    }
    return lane_sums[local - lane];
}
