// What a lane adds to the dot products of a kernel's `x` with its `gate` and its `up`, whose rows all have
// `params.cols8` times eight columns.

// Every chunk of the rows at `base` from `lane` on, `LANES` apart; `start` is the first quad of the row
// of x.
fn dot_gated(base: u32, start: u32, lane: u32) -> vec2<f32> {
    var g = vec4<f32>();
    var u = vec4<f32>();
    for (var c = lane; c < params.cols8 / PARTS; c += LANES) {
        let w_gate = gate[base + c];
        let w_up = up[base + c];
        let s = base + scale_at(params.cols8, c);
        let at = start + 2u * PARTS * c;
        var part_g = vec4<f32>();
        var part_u = vec4<f32>();
        for (var p = 0u; p < PARTS; p++) {
            let lo = x[at + 2u * p];
            let hi = x[at + 2u * p + 1u];
            let a = decode(w_gate, p);
            let b = decode(w_up, p);
            part_g += lo * a.lo;
            part_g += hi * a.hi;
            part_u += lo * b.lo;
            part_u += hi * b.hi;
        }
        g += scale_of(gate[s], c) * part_g;
        u += scale_of(up[s], c) * part_u;
    }
    return vec2((g.x + g.y) + (g.z + g.w), (u.x + u.y) + (u.z + u.w));
}
