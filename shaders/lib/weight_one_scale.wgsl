// Common to weights whose chunks are loaded as a whole and have at most one scale.
// lib/weight_whole.wgsl and lib/weight_quantized.wgsl link it.

// What the array of a binding has, how many of them are a chunk, and the chunk that they are.
alias Cell = Chunk;
const CELLS: u32 = 1u;

fn chunk_from(a: Cell, b: Cell, c: Cell) -> Chunk {
    return a;
}

// The scale of a chunk, how many numbers it has, and the one for a group of eight weights.
alias Scale = f32;
const SCALES: u32 = 1u;

fn scale_part(scale: Scale, part: u32) -> f32 {
    return scale;
}
