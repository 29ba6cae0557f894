// Rounding to half floats. `pack2x16float` may round either way; these are the same bits everywhere.
// Links: lib/math.wgsl.

// The largest half float, 65504.
const HALF_MAX: u32 = 0x7bffu;

// A half float that is not a number.
const HALF_NAN: u32 = 0x7e00u;

// Bits of the half float nearest to x, of two that are equally near the even one. What is beyond the
// largest becomes the largest; what is not finite becomes `HALF_NAN`, so that it shows.
fn half_of(x: f32) -> u32 {
    if !is_finite(x) {
        return HALF_NAN;
    }
    let bits = bitcast<u32>(x);
    let exponent = (bits >> 23u) & 0xffu;
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    // A half float has 11 of the 24 bits, and fewer below its normal numbers, which end at exponent
    // 113. There the result is a count of the smallest ones; above, the leading bit adds one to the
    // exponent.
    let above = max(exponent, 113u) - 113u;
    let drop = min(13u + 113u - min(exponent, 113u), 25u);
    let even = (mantissa >> drop) & 1u;
    let rounded = (mantissa + (1u << (drop - 1u)) - 1u + even) >> drop;
    return ((bits >> 16u) & 0x8000u) | min((above << 10u) + rounded, HALF_MAX);
}
