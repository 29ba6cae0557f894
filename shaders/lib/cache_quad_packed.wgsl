// Quads (vec4) of the KV cache, of packed elements.
// Links: lib/weight_f16.wgsl or lib/weight_q8.wgsl.

// Quads in a chunk.
const QUADS: u32 = 2u * PARTS;

// Of the quads of a chunk, the one that is this quad of its row.
fn quad_of(w: Chunk, scale: f32, quad: u32) -> vec4<f32> {
    let e = decode(w, quad / 2u % PARTS);
    return select(e.lo, e.hi, quad % 2u == 1u) * scale;
}
