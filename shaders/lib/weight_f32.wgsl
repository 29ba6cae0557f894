
// Weights stored as f32, eight to an element.

struct Weight8 {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

fn decode(w: Weight8) -> Eight {
    return Eight(w.lo, w.hi);
}
