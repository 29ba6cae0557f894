// 1024 (value, id) pairs in workgroup memory. Larger values come first; of equal ones, lower ids.

const SORT_LEN: u32 = 1024u;
const LOWEST: f32 = -3.4e38;

var<workgroup> sort_values: array<f32, 1024>;
var<workgroup> sort_ids: array<u32, 1024>;

// A logit that is not finite sorts before all others, as the largest finite number, so that it
// shows in the list. Tests bits, since WGSL lets comparisons assume that there is no NaN.
fn flagged(value: f32) -> f32 {
    let exponent = bitcast<u32>(value) & 0x7f800000u;
    return select(value, 3.4028234e38, exponent == 0x7f800000u);
}

// Whether the pair at a comes after the pair at b.
fn comes_after(a: u32, b: u32) -> bool {
    let va = sort_values[a];
    let vb = sort_values[b];
    return vb > va || (vb == va && sort_ids[b] < sort_ids[a]);
}
