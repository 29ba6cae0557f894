// Rows of the KV cache as f32, in chunks of sixteen bytes. Declares what lib/weight_*.wgsl declare
// for caches of other types.

alias Chunk = vec4<f32>;

// Index, in a row, of the chunk that has the scale of chunk c.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return c;
}

// The scale of chunk c; w is the chunk that has it.
fn scale_of(w: Chunk, c: u32) -> f32 {
    return 1.0;
}
