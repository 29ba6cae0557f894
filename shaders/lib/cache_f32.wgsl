// Rows of the key-value cache as f32, sixteen bytes to a chunk, with what lib/weight_*.wgsl says of caches
// of other types.

alias Chunk = vec4<f32>;

// Where in a row the scale of chunk c lies.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return c;
}

// The scale of chunk c, out of what lies there.
fn scale_of(w: Chunk, c: u32) -> f32 {
    return 1.0;
}
