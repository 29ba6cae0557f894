// Loads of chunks of f32 into the `kv_tile` of variants/tiles_attention.wgsl.
// Links: lib/cache_f32.wgsl.

// Vectors of four elements of a chunk.
const QUADS: u32 = 1u;

// Puts the elements of a chunk where they belong in the tile.
fn unpack(at: u32, w: Chunk, scale: f32) {
    kv_tile[at] = w;
}
