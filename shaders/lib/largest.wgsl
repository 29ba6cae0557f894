// Finds the first of the pairs of lib/pairs.wgsl by a reduction, where no other is needed (top-1).

override SORT_WG: u32 = 256u;

// Puts the first pair at 0, for invocation 0 to read. Call it from uniform control flow, after each
// invocation has stored the pairs whose index modulo the workgroup size is its own.
fn sort_pairs(local: u32) {
    for (var i = local + SORT_WG; i < SORT_LEN; i += SORT_WG) {
        take_first(local, i);
    }
    for (var half = SORT_WG / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if local < half {
            take_first(local, local + half);
        }
    }
}

// Copies the pair at b over that at a if it comes first.
fn take_first(a: u32, b: u32) {
    if comes_after(a, b) {
        sort_values[a] = sort_values[b];
        sort_ids[a] = sort_ids[b];
    }
}
