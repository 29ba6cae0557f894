// Loads of chunks of f32 into the variant's `kv_tile`.
// Links: lib/cache_f32.wgsl.

// Quads (vec4) in a chunk.
const QUADS: u32 = 1u;

// Stores the elements of a chunk in the tile, from quad `at` on.
fn unpack(at: u32, w: Chunk, scale: f32) {
    kv_tile[at] = w;
}
