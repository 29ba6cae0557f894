// What a lane adds to the dot products of a kernel's `x` with its `weight`, whose rows both have
// `params.cols8` times eight columns.

// Every chunk of the row at `base` from `lane` on, `LANES` apart; `start` is the first quad of the row of
// x.
fn dot_weight(base: u32, start: u32, lane: u32) -> f32 {
    var sum = vec4<f32>();
    for (var c = lane; c < params.cols8 / PARTS; c += LANES) {
        let w = weight[base + c];
        let scale = scale_of(weight[base + scale_at(params.cols8, c)], c);
        let at = start + 2u * PARTS * c;
        var part = vec4<f32>();
        for (var p = 0u; p < PARTS; p++) {
            let e = decode(w, p);
            part += x[at + 2u * p] * e.lo;
            part += x[at + 2u * p + 1u] * e.hi;
        }
        sum += scale * part;
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}
