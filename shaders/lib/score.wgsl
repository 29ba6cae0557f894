// The score of a query and a key. The kernel declares `params`.

// Scores reach tens, and their rounding errors become relative errors of the weights: as few
// operations as possible follow the dot product.
fn score_of(product: f32, heat: f32) -> f32 {
    let inner = product * params.inner;
    // The cap must not hide a product that is not a finite number.
    if params.cap > 0.0 && is_finite(product) {
        return tanh_bounded(inner) * (params.cap * heat);
    }
    return inner * heat;
}
