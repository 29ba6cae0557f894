// Embedding lookup, one workgroup per token.
// Known as: token embedding (gather of rows), fused with dequantization.
//
//     out[t, :] = table[ids[t] - row0, :] * scale
//
// for the tokens whose row is in this shard of the table; the others are left alone.
// Links: one of lib/weight_*.wgsl.

struct Params {
    rows: u32,  // of this shard
    row0: u32,  // first id of this shard
    cols8: u32, // columns / 8
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // [tokens]
@group(0) @binding(2) var<storage, read> table: array<Cell>;          // [rows, cols]
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [tokens, cols]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = ids[group.x] - params.row0;
    if row >= params.rows {
        return;
    }
    let base = row * row_stride(params.cols8);
    for (var c = local; c < params.cols8 / PARTS; c += 64u) {
        let w = chunk_at(base + CELLS * c);
        let scale = scale_of(table[base + scale_at(params.cols8, c)], c);
        let at = 2u * (group.x * params.cols8 + c * PARTS);
        for (var p = 0u; p < PARTS; p++) {
            let e = decode(w, p);
            let own = scale_part(scale, p);
            // The weight itself is exact; the factor comes after it.
            out[at + 2u * p] = e.lo * own * params.scale;
            out[at + 2u * p + 1u] = e.hi * own * params.scale;
        }
    }
}

// The chunk that begins at a cell.
fn chunk_at(at: u32) -> Chunk {
    if CELLS > 1u {
        return chunk_from(table[at], table[at + 1u], table[at + 2u]);
    }
    let cell = table[at];
    return chunk_from(cell, cell, cell);
}
