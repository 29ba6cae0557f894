// Sorts 1024 (value, id) pairs in workgroup memory: larger values first, then lower ids.

const SORT_LEN: u32 = 1024u;
const SORT_WG: u32 = 256u;
const LOWEST: f32 = -3.4e38;

var<workgroup> sort_values: array<f32, 1024>;
var<workgroup> sort_ids: array<u32, 1024>;

// A logit that is not a finite number sorts before all others, as the largest finite one, so that
// whoever reads the list sees it. The test is on bits: comparisons may assume there is no NaN.
fn flagged(value: f32) -> f32 {
    let exponent = bitcast<u32>(value) & 0x7f800000u;
    return select(value, 3.4028234e38, exponent == 0x7f800000u);
}

// Bitonic sort. Call it from uniform control flow, after the pairs are in place; no barrier needed.
fn sort_pairs(local: u32) {
    for (var size = 2u; size <= SORT_LEN; size <<= 1u) {
        for (var stride = size / 2u; stride > 0u; stride >>= 1u) {
            workgroupBarrier();
            for (var i = local; i < SORT_LEN / 2u; i += SORT_WG) {
                let a = 2u * i - (i & (stride - 1u));
                let b = a + stride;
                let forward = (a & size) == 0u;
                let va = sort_values[a];
                let vb = sort_values[b];
                let ia = sort_ids[a];
                let ib = sort_ids[b];
                let b_first = vb > va || (vb == va && ib < ia);
                if b_first == forward {
                    sort_values[a] = vb;
                    sort_values[b] = va;
                    sort_ids[a] = ib;
                    sort_ids[b] = ia;
                }
            }
        }
    }
    workgroupBarrier();
}
