// Functions that WGSL lacks, or promises too little about.

// Hyperbolic tangent for any finite argument. WGSL's own may be wrong by 1e-5 and may overflow to
// NaN near 89; this one is right to a few units in the last place of 1.
fn tanh_bounded(x: f32) -> f32 {
    let a = min(abs(x), 15.0);
    // Below a quarter the quotient cancels, so the Taylor polynomial takes over.
    let s = a * a;
    let small = a * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0 + s * (62.0 / 2835.0)))));
    let e = exp(-2.0 * a);
    let large = 1.0 - 2.0 * e / (1.0 + e);
    return sign(x) * select(large, small, a < 0.25);
}

// `cap * tanh(x / cap)`, or `x` where the cap is off (0).
fn softcap(x: f32, cap: f32) -> f32 {
    if cap > 0.0 {
        return cap * tanh_bounded(x / cap);
    }
    return x;
}

// Complementary error function of z >= 0, relative error below 1.2e-7 (Numerical Recipes, erfcc).
fn erfc_positive(z: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223
        + t * 0.17087277))))))));
    return t * exp(p - z * z);
}

// Gaussian error linear unit: `x/2 (1 + erf(x / sqrt 2))`, or its tanh approximation.
fn gelu(x: f32, by_tanh: u32) -> f32 {
    if by_tanh != 0u {
        // Beyond 8 the tanh is 1 to the last place; clamping keeps the cube finite.
        let c = clamp(x, -8.0, 8.0);
        return 0.5 * x * (1.0 + tanh_bounded(0.7978845608 * (c + 0.044715 * c * c * c)));
    }
    let tail = 0.5 * erfc_positive(min(abs(x) * 0.7071067812, 9.0));
    return x * select(tail, 1.0 - tail, x > 0.0);
}
