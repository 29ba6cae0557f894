// Quads (vec4) of the KV cache, of f32.
// Links: lib/cache_f32.wgsl.

// Quads in a chunk.
const QUADS: u32 = 1u;

// Of the quads of a chunk, the one that is this quad of its row.
fn quad_of(w: Chunk, scale: f32, quad: u32) -> vec4<f32> {
    return w;
}
