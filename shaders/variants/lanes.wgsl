// Matrix-vector products with `LANES` invocations for each output row, each of which has every
// `LANES`th chunk of the row. A loaded weight serves up to four rows of x.
// Known as: GEMV with a workgroup or subgroup reduction (split along K).
// Takes from the kernel: part_of, x_row, out_row, PAIR, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/columns.wgsl, lib/starts.wgsl, lib/lanes_tree.wgsl or
// lib/lanes_subgroup.wgsl.

// Sums by column; of a pair, with the second matrix too.
struct Sums {
    first: vec4<f32>,
    second: vec4<f32>,
}

// The same before the components of the vectors that were multiplied are added: a vector for each
// column.
struct Quads {
    first: mat4x4<f32>,
    second: mat4x4<f32>,
}

// A chunk of a row of the weights, with its scale; of a pair, that of the second matrix too.
struct Loaded {
    w: Chunk,
    v: Chunk,
    scale: Scale,
    other_scale: Scale,
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = part_of(group.x, COLUMNS);
    if part.begin >= part.end {
        return;
    }
    let row = (group.y * WG + local) / LANES;
    let lane = local % LANES;

    var sums = Sums();
    if row < params.rows {
        sums = dots(part, part.weight0 + row, lane);
    }
    let total = reduce_lanes(local, sums);
    if lane == 0u && row < params.rows {
        put(part, 0u, row, total);
        put(part, 1u, row, total);
        put(part, 2u, row, total);
        put(part, 3u, row, total);
    }
}

// This lane's part of the dot products of a row of the weights with the part's rows of x.
fn dots(part: Part, row: u32, lane: u32) -> Sums {
    let base = row * row_stride(params.cols8);
    let starts = starts_of(part, 0u);
    let count = part.end - part.begin;
    var sum = Quads();
    for (var c = lane; c < params.cols8 / PARTS; c += LANES) {
        let loaded = load(base, c);
        let at = starts + 2u * PARTS * c;
        sum.first[0] += first_of(loaded, at.x);
        sum.second[0] += second_of(loaded, at.x);
        if count > 1u {
            sum.first[1] += first_of(loaded, at.y);
            sum.second[1] += second_of(loaded, at.y);
        }
        if count > 2u {
            sum.first[2] += first_of(loaded, at.z);
            sum.second[2] += second_of(loaded, at.z);
        }
        if count > 3u {
            sum.first[3] += first_of(loaded, at.w);
            sum.second[3] += second_of(loaded, at.w);
        }
    }
    return Sums(totals(sum.first), totals(sum.second));
}

fn load(base: u32, c: u32) -> Loaded {
    let scales = base + scale_at(params.cols8, c);
    let chunk = base + CELLS * c;
    let w = w_chunk(0u, chunk);
    let scale = scale_of(w_cell(0u, scales), c);
    if PAIR {
        return Loaded(w, w_chunk(1u, chunk), scale, scale_of(w_cell(1u, scales), c));
    }
    return Loaded(w, w, scale, scale);
}

// The product of the first matrix's chunk with x from quad `at` on.
fn first_of(loaded: Loaded, at: u32) -> vec4<f32> {
    return chunk_product(loaded.w, loaded.scale, at);
}

// The same of a pair's second matrix.
fn second_of(loaded: Loaded, at: u32) -> vec4<f32> {
    if PAIR {
        return chunk_product(loaded.v, loaded.other_scale, at);
    }
    return vec4<f32>();
}

// No loop: wgpu's own counters would keep compilers from unrolling it, and then they wait for
// memory in every turn.
fn chunk_product(w: Chunk, scale: Scale, at: u32) -> vec4<f32> {
    var sum = eight_product(decode(w, 0u), at);
    if PARTS > 1u {
        sum += eight_product(decode(w, 1u), at + 2u);
    }
    if SCALES > 1u {
        let far = eight_product(decode(w, 2u), at + 4u) + eight_product(decode(w, 3u), at + 6u);
        return scale_part(scale, 0u) * sum + scale_part(scale, 2u) * far;
    }
    if PARTS > 2u {
        sum += eight_product(decode(w, 2u), at + 4u);
        sum += eight_product(decode(w, 3u), at + 6u);
    }
    return scale_part(scale, 0u) * sum;
}

fn eight_product(e: Eight, at: u32) -> vec4<f32> {
    return x[at] * e.lo + x[at + 1u] * e.hi;
}

fn totals(sum: mat4x4<f32>) -> vec4<f32> {
    return vec4(total(sum[0]), total(sum[1]), total(sum[2]), total(sum[3]));
}

fn total(quad: vec4<f32>) -> f32 {
    return (quad.x + quad.y) + (quad.z + quad.w);
}

// Stores the result of a column, if it is a real one.
fn put(part: Part, column: u32, row: u32, sums: Sums) {
    let s = part.begin + column;
    if s < part.end {
        let at = out_row(s) * params.out_rows + params.row0 + row;
        out[at] = finish(at, sums.first[column], sums.second[column]);
    }
}
