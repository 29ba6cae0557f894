// Sums over the lanes that share an output row, where these are a subgroup and the whole workgroup:
// the same tree as in lib/lanes_tree.wgsl, by shuffles, without workgroup memory and barriers.

override WG: u32 = 32u;
override LANES: u32 = 32u;

// Sum of `value` over the subgroup, by a fixed tree. Call it from uniform control flow.
fn reduce_lanes(local: u32, value: Sums) -> Sums {
    var total = value;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        total.first += subgroupShuffleXor(total.first, half);
        if PAIR {
            total.second += subgroupShuffleXor(total.second, half);
        }
    }
    return total;
}
