// Loads of the activations `x` of a kernel whose invocations hold a quad each, as in lib/spread.wgsl.
// The kernel's rows of x have `params.cols8` times eight columns.

// A quad of x, `start` being the first of its row; zero beyond the end.
fn quad_of(start: u32, quad: u32) -> vec4<f32> {
    let quads = 2u * params.cols8;
    return select(vec4<f32>(), x[start + min(quad, quads - 1u)], quad < quads);
}

// A quad of four rows of x that begin at `starts`.
fn quads_of(starts: vec4<u32>, quad: u32) -> mat4x4<f32> {
    return mat4x4(
        quad_of(starts.x, quad),
        quad_of(starts.y, quad),
        quad_of(starts.z, quad),
        quad_of(starts.w, quad),
    );
}
