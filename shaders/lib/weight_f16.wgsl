
// Weights stored as IEEE half floats, eight to an element. Unpacking is exact and core WGSL.

alias Weight8 = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

fn decode(w: Weight8) -> Eight {
    return Eight(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}
