// Products in which each invocation forms output rows of its own, and the eight invocations of a part
// of a subgroup hold 32 columns of the activations, a quad each: what all of them want is loaded once
// and spread by shuffles. Indices of shuffles are constants once functions are inlined, so nothing here
// is a loop.

override WG: u32 = 32u;

// Chunks of a weight's row that make a block of 32 columns.
const BLOCK_CHUNKS: u32 = 4u / PARTS;

// Quads of a chunk.
const CHUNK_QUADS: u32 = 2u * PARTS;

struct Scaled {
    w: Chunk,
    scale: f32,
}

// Four chunks from the beginning of a block; those beyond `BLOCK_CHUNKS` are not used.
struct Block {
    c0: Scaled,
    c1: Scaled,
    c2: Scaled,
    c3: Scaled,
}

// The product of a block with the activations that are held, by component of their quads.
fn mul_block(block: Block, held: vec4<f32>) -> vec4<f32> {
    var sum = mul_chunk(block.c0, 0u, held);
    if BLOCK_CHUNKS > 1u {
        sum += mul_chunk(block.c1, CHUNK_QUADS, held);
    }
    if BLOCK_CHUNKS > 2u {
        sum += mul_chunk(block.c2, 2u * CHUNK_QUADS, held);
        sum += mul_chunk(block.c3, 3u * CHUNK_QUADS, held);
    }
    return sum;
}

fn mul_chunk(c: Scaled, first: u32, held: vec4<f32>) -> vec4<f32> {
    var sum = mul_eight(decode(c.w, 0u), first, held);
    if PARTS > 1u {
        sum += mul_eight(decode(c.w, 1u), first + 2u, held);
    }
    if PARTS > 2u {
        sum += mul_eight(decode(c.w, 2u), first + 4u, held);
        sum += mul_eight(decode(c.w, 3u), first + 6u, held);
    }
    return c.scale * sum;
}

fn mul_eight(e: Eight, first: u32, held: vec4<f32>) -> vec4<f32> {
    return subgroupShuffle(held, first) * e.lo + subgroupShuffle(held, first + 1u) * e.hi;
}

// The products of a block with the activations of four tokens, a component each.
fn mul_block_four(block: Block, held: mat4x4<f32>) -> vec4<f32> {
    var sum = mul_chunk_four(block.c0, 0u, held);
    if BLOCK_CHUNKS > 1u {
        sum += mul_chunk_four(block.c1, CHUNK_QUADS, held);
    }
    if BLOCK_CHUNKS > 2u {
        sum += mul_chunk_four(block.c2, 2u * CHUNK_QUADS, held);
        sum += mul_chunk_four(block.c3, 3u * CHUNK_QUADS, held);
    }
    return sum;
}

fn mul_chunk_four(c: Scaled, first: u32, held: mat4x4<f32>) -> vec4<f32> {
    var sum = mul_eight_four(decode(c.w, 0u), first, held);
    if PARTS > 1u {
        sum += mul_eight_four(decode(c.w, 1u), first + 2u, held);
    }
    if PARTS > 2u {
        sum += mul_eight_four(decode(c.w, 2u), first + 4u, held);
        sum += mul_eight_four(decode(c.w, 3u), first + 6u, held);
    }
    return c.scale * sum;
}

fn mul_eight_four(e: Eight, first: u32, held: mat4x4<f32>) -> vec4<f32> {
    return e.lo * spread_four(held, first) + e.hi * spread_four(held, first + 1u);
}

// What invocation `lane` holds of four tokens, for all.
fn spread_four(held: mat4x4<f32>, lane: u32) -> mat4x4<f32> {
    return mat4x4(
        subgroupShuffle(held[0], lane),
        subgroupShuffle(held[1], lane),
        subgroupShuffle(held[2], lane),
        subgroupShuffle(held[3], lane),
    );
}
