// Loads of chunks of packed elements, which lib/weight_*.wgsl decodes, into the variant's
// `kv_tile`.
// Links: lib/weight_f16.wgsl or lib/weight_q8.wgsl.

// Quads (vec4) in a chunk.
const QUADS: u32 = 2u * PARTS;

// Stores the elements of a chunk in the tile, from quad `at` on.
fn unpack(at: u32, w: Chunk, scale: f32) {
    for (var part = 0u; part < PARTS; part++) {
        let e = decode(w, part);
        kv_tile[at + 2u * part] = e.lo * scale;
        kv_tile[at + 2u * part + 1u] = e.hi * scale;
    }
}
