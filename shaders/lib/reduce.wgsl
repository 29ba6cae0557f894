// Workgroup sums. `WG` is the workgroup size of every kernel that links this file, a power of two.

override WG: u32 = 256u;

var<workgroup> partial: array<f32, WG>;

// Sum of `value` over the workgroup, returned to every invocation, by a fixed tree.
// Call it from uniform control flow only; it may be called again at once.
fn reduce_sum(local: u32, value: f32) -> f32 {
    workgroupBarrier();
    partial[local] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if local < half {
            partial[local] += partial[local + half];
        }
        workgroupBarrier();
    }
    return partial[0];
}
