
// Weights stored as IEEE half floats, eight to a chunk. Unpacking is exact and core WGSL.

alias Chunk = vec4<u32>;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Eights of a chunk.
const PARTS: u32 = 1u;

// Chunks from one row to the next.
fn row_stride(cols8: u32) -> u32 {
    return cols8;
}

// Where in a row the scale of chunk c lies.
fn scale_at(cols8: u32, c: u32) -> u32 {
    return c;
}

// The scale of chunk c, out of what lies there.
fn scale_of(w: Chunk, c: u32) -> f32 {
    return 1.0;
}

// Eight neighbouring weights of a chunk, without their scale.
fn decode(w: Chunk, part: u32) -> Eight {
    return Eight(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}
