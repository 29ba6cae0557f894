// Rounding of f32 to f16. `pack2x16float` may round in either direction; this gives the same bits
// on every device.
// Links: lib/math.wgsl.

// The largest finite f16, 65504.
const HALF_MAX: u32 = 0x7bffu;

// An f16 that is NaN.
const HALF_NAN: u32 = 0x7e00u;

// Bits of the f16 nearest to x, ties to even. Values beyond the largest saturate; those that are
// not finite become `HALF_NAN`, so that they show.
fn half_of(x: f32) -> u32 {
    if !is_finite(x) {
        return HALF_NAN;
    }
    let bits = bitcast<u32>(x);
    let exponent = (bits >> 23u) & 0xffu;
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    // An f16 keeps 11 of the 24 bits of the significand, and fewer if it is subnormal, which is if
    // the exponent is below 113. Then the result counts units of the smallest subnormal; else the
    // leading bit adds one to the exponent.
    let above = max(exponent, 113u) - 113u;
    let drop = min(13u + 113u - min(exponent, 113u), 25u);
    let even = (mantissa >> drop) & 1u;
    let rounded = (mantissa + (1u << (drop - 1u)) - 1u + even) >> drop;
    return ((bits >> 16u) & 0x8000u) | min((above << 10u) + rounded, HALF_MAX);
}
