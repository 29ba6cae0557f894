// Brings the first of the pairs of lib/pairs.wgsl to their front, where no other is wanted.

override SORT_WG: u32 = 256u;

// Puts the first pair at 0. Call it from uniform control flow, after the pairs are in place; no barrier
// needed.
fn sort_pairs(local: u32) {
    workgroupBarrier();
    // Each invocation has the pairs whose index is its own, modulo the workgroup.
    for (var i = local + SORT_WG; i < SORT_LEN; i += SORT_WG) {
        take_first(local, i);
    }
    for (var half = SORT_WG / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if local < half {
            take_first(local, local + half);
        }
    }
    workgroupBarrier();
}

// Puts the pair at b in the place of that at a where it comes first.
fn take_first(a: u32, b: u32) {
    if comes_after(a, b) {
        sort_values[a] = sort_values[b];
        sort_ids[a] = sort_ids[b];
    }
}
