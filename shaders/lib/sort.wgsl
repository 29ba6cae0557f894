// Sorts the pairs of lib/pairs.wgsl.

const SORT_WG: u32 = 256u;

// Bitonic sort. Call it from uniform control flow, after the pairs are stored; needs no barrier
// before it.
fn sort_pairs(local: u32) {
    for (var size = 2u; size <= SORT_LEN; size <<= 1u) {
        for (var stride = size / 2u; stride > 0u; stride >>= 1u) {
            workgroupBarrier();
            for (var i = local; i < SORT_LEN / 2u; i += SORT_WG) {
                let a = 2u * i - (i & (stride - 1u));
                let b = a + stride;
                let forward = (a & size) == 0u;
                if comes_after(a, b) == forward {
                    let value = sort_values[a];
                    let id = sort_ids[a];
                    sort_values[a] = sort_values[b];
                    sort_ids[a] = sort_ids[b];
                    sort_values[b] = value;
                    sort_ids[b] = id;
                }
            }
        }
    }
    workgroupBarrier();
}
