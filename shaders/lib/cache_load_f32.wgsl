// Rows of the key-value cache as f32, sixteen bytes to a chunk. Every lib/cache_load_*.wgsl declares
// the same things, and fills the kernel's `kv_tile`.

alias Chunk = vec4<f32>;

// Vectors of four elements of a chunk.
const QUADS: u32 = 1u;

// Where in a row the scale of chunk c lies.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return c;
}

// The scale of chunk c, out of what lies there.
fn scale_of(w: Chunk, c: u32) -> f32 {
    return 1.0;
}

// Puts the elements of a chunk where they belong in the tile.
fn unpack(at: u32, w: Chunk, scale: f32) {
    kv_tile[at] = w;
}
