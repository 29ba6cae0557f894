// Four scores at once, of four rows or of four positions; the results of four rows for a quad of
// channels, a column of a matrix each. The kernel declares `params`.
// Links: lib/math.wgsl.

// The scores of products, with factors on the capped ones.
fn scores_of(products: vec4<f32>, heat: vec4<f32>) -> vec4<f32> {
    // Scores reach tens, and their rounding errors become relative errors of the weights: as few
    // operations as possible follow the dot product.
    let inner = products * params.inner;
    if params.cap > 0.0 {
        // The cap must not hide a product that is not a finite number.
        return cap_four(products, inner) * (params.cap * heat);
    }
    return inner * heat;
}

// The weights of four scores.
fn weights_below(x: vec4<f32>, largest: vec4<f32>) -> vec4<f32> {
    return vec4(
        weight_below(x.x, largest.x),
        weight_below(x.y, largest.y),
        weight_below(x.z, largest.z),
        weight_below(x.w, largest.w),
    );
}

// `tanh` of `inner`, four scaled products; of a product that is not a finite number, the product.
fn cap_four(products: vec4<f32>, inner: vec4<f32>) -> vec4<f32> {
    let finite = vec4(
        is_finite(products.x),
        is_finite(products.y),
        is_finite(products.z),
        is_finite(products.w),
    );
    let capped = vec4(
        tanh_bounded(inner.x),
        tanh_bounded(inner.y),
        tanh_bounded(inner.z),
        tanh_bounded(inner.w),
    );
    return select(products, capped, finite);
}

fn exp_four(x: vec4<f32>) -> vec4<f32> {
    return vec4(exp_bounded(x.x), exp_bounded(x.y), exp_bounded(x.z), exp_bounded(x.w));
}

// Weights of four rows times a quad of a value.
fn mul_value(weights: vec4<f32>, value: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(weights.x * value, weights.y * value, weights.z * value, weights.w * value);
}

// Columns scaled, one by each component.
fn scale_columns(m: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(by.x * m[0], by.y * m[1], by.z * m[2], by.w * m[3]);
}
