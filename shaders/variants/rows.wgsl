// Matrix-vector products of quantized weights in which 32 invocations, the lanes, share `ROWS`
// neighbouring rows of the weights: a quad of x that is loaded from workgroup memory meets two of
// them at once. A workgroup has eight such groups. In a turn of the loop all loads of weights come
// first, and cover the barriers around the stores of x.
// Known as: GEMV with several rows per warp and activations staged in shared memory.
// Takes from the kernel: part_of, x_row, out_row, PAIR, w_cell, w_chunk, finish.
// Links: lib/part.wgsl, lib/columns.wgsl, lib/starts.wgsl, and lib/scales_one.wgsl,
// lib/scales_pair.wgsl or lib/scales_cell.wgsl.

// 2 or 4. Of a pair of matrices, half are rows of the first, and half are the same of the second.
override ROWS: u32 = 4u;

const WG: u32 = 256u;
const LANES: u32 = 32u;
const GROUPS: u32 = WG / LANES;

// Quads of x that a chunk meets, and those of a span: of the chunks that the lanes have at once.
const QUADS: u32 = 2u * PARTS;
const SPAN: u32 = LANES * QUADS;

// x of a span, `[column][quad of a chunk][chunk]`, then sums, `[row][group][lane]`. Constants come
// first in an index, and neighbouring lanes last: so neither clamps nor bank conflicts cost time.
var<workgroup> memory: array<array<array<vec4<f32>, LANES>, GROUPS>, COLUMNS>;

// Two rows of the weights: their matrices and first chunks.
struct Rows {
    matrix_a: u32,
    matrix_b: u32,
    a: u32,
    b: u32,
}

// Both at one chunk.
struct Loaded {
    a: Chunk,
    b: Chunk,
    scale_a: Scale,
    scale_b: Scale,
}

// Sums of two rows by column.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % LANES;
    let owner = local / LANES;
    let part = part_of(group.x, COLUMNS);
    if part.begin >= part.end {
        return;
    }
    let count = part.end - part.begin;
    let slot = slot_of(lane, owner);
    let matrices = 1u + u32(PAIR);
    let row = (group.y * GROUPS + owner) * (ROWS / matrices);

    // Four rows of a pair of matrices are two of the first, and then two of the second.
    var first = Rows(0u, 0u, row_at(part, row), row_at(part, row + 1u));
    var later = Rows(0u, 0u, row_at(part, row + 2u), row_at(part, row + 3u));
    if PAIR {
        later = Rows(1u, 1u, first.a, first.b);
        if ROWS == 2u {
            first = Rows(0u, 1u, first.a, first.a);
        }
    }
    let x_at = starts_of(part, 0u);

    var sum_0 = Sums();
    var sum_1 = Sums();
    for (var c = 0u; c < params.cols8 / PARTS; c += 2u * LANES) {
        let quad_near = quad_of(x_at.x, slot, c);
        let quad_far = quad_of(x_at.x, slot, c + LANES);
        let near = load(first, c + lane, group.z);
        let far = load(first, c + LANES + lane, group.z);
        var near_1 = near;
        var far_1 = far;
        if ROWS == 4u {
            near_1 = load(later, c + lane, group.z);
            far_1 = load(later, c + LANES + lane, group.z);
        }
        let x_near = kept(quad_near, slot, c);
        let x_far = kept(quad_far, slot, c + LANES);
        stage(slot, x_at, c, x_near, count);
        sum_0 = add(sum_0, near, lane, count);
        if ROWS == 4u {
            sum_1 = add(sum_1, near_1, lane, count);
        }
        stage(slot, x_at, c + LANES, x_far, count);
        sum_0 = add(sum_0, far, lane, count);
        if ROWS == 4u {
            sum_1 = add(sum_1, far_1, lane, count);
        }
    }

    workgroupBarrier();
    memory[0][owner][lane] = sum_0.a;
    memory[1][owner][lane] = sum_0.b;
    if ROWS == 4u {
        memory[2][owner][lane] = sum_1.a;
        memory[3][owner][lane] = sum_1.b;
    }
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            memory[0][owner][lane] += memory[0][owner][lane + half];
            memory[1][owner][lane] += memory[1][owner][lane + half];
            if ROWS == 4u {
                memory[2][owner][lane] += memory[2][owner][lane + half];
                memory[3][owner][lane] += memory[3][owner][lane + half];
            }
        }
        workgroupBarrier();
    }
    let own = ROWS / matrices;
    if lane < own && row + lane < params.rows {
        let first = memory[lane][owner][0];
        let other = memory[(lane + own) % ROWS][owner][0];
        put(part, 0u, row + lane, first.x, other.x);
        put(part, 1u, row + lane, first.y, other.y);
        put(part, 2u, row + lane, first.z, other.z);
        put(part, 3u, row + lane, first.w, other.w);
    }
}

fn row_at(part: Part, row: u32) -> u32 {
    return (part.weight0 + min(row, params.rows - 1u)) * row_stride(params.cols8);
}

// The place in a span of the quad of x that an invocation stores: its chunk, and the quad's place
// in that. Eight neighbours store quads of eight chunks, which lie in other banks of memory, and
// eights of invocations are arranged so that they load whole lines of x.
struct Slot {
    chunk: u32,
    quad: u32,
    there: bool,
}

fn slot_of(lane: u32, owner: u32) -> Slot {
    let chunk = owner * 4u / QUADS * 8u + lane % 8u;
    return Slot(chunk % LANES, (lane % 8u + lane / 8u + 4u * owner) % QUADS, chunk < LANES);
}

// Chunks beyond the rows are clamped to the last; their activations are zero. `zero` is zero, which
// compilers do not know: Mesa's moves a load to the block of its first use, and would wait for
// memory after each barrier.
fn load(rows: Rows, chunk: u32, zero: u32) -> Loaded {
    let c = min(chunk, params.cols8 / PARTS - 1u);
    return Loaded(
        w_chunk(rows.matrix_a, rows.a + CELLS * c) ^ Chunk(zero),
        w_chunk(rows.matrix_b, rows.b + CELLS * c) ^ Chunk(zero),
        scale_in(rows.matrix_a, rows.a, c),
        scale_in(rows.matrix_b, rows.b, c),
    );
}

// This invocation's quad of the span from chunk c on, of the row of x that begins at `start`;
// beyond the row, its last.
fn quad_of(start: u32, slot: Slot, c: u32) -> vec4<f32> {
    return x[start + min(c + slot.chunk, params.cols8 / PARTS - 1u) * QUADS + slot.quad];
}

// That quad with zeros beyond the row.
fn kept(quad: vec4<f32>, slot: Slot, c: u32) -> vec4<f32> {
    return select(vec4<f32>(), quad, c + slot.chunk < params.cols8 / PARTS);
}

// Stores x of the span from chunk c on: of the first column what is given, of the others what is
// loaded here.
fn stage(slot: Slot, starts: vec4<u32>, c: u32, first: vec4<f32>, count: u32) {
    workgroupBarrier();
    if SPAN == WG || slot.there {
        memory[0][slot.quad][slot.chunk] = first;
        if count > 1u {
            let second = quad_of(starts.y, slot, c);
            let third = quad_of(starts.z, slot, c);
            let fourth = quad_of(starts.w, slot, c);
            memory[1][slot.quad][slot.chunk] = kept(second, slot, c);
            memory[2][slot.quad][slot.chunk] = kept(third, slot, c);
            memory[3][slot.quad][slot.chunk] = kept(fourth, slot, c);
        }
    }
    workgroupBarrier();
}

// Adds the products of two chunks with each column of the span.
fn add(before: Sums, loaded: Loaded, lane: u32, count: u32) -> Sums {
    var sum = add_eight(Sums(), loaded, 0u, lane, count);
    sum = add_eight(sum, loaded, 1u, lane, count);
    if SCALES > 1u {
        let near = add_scaled(before, loaded, 0u, sum);
        sum = add_eight(Sums(), loaded, 2u, lane, count);
        sum = add_eight(sum, loaded, 3u, lane, count);
        return add_scaled(near, loaded, 2u, sum);
    }
    if PARTS > 2u {
        sum = add_eight(sum, loaded, 2u, lane, count);
        sum = add_eight(sum, loaded, 3u, lane, count);
    }
    return add_scaled(before, loaded, 0u, sum);
}

// Adds sums of eights whose scale is that of group p.
fn add_scaled(before: Sums, loaded: Loaded, p: u32, sum: Sums) -> Sums {
    return Sums(
        fma(vec4(scale_part(loaded.scale_a, p)), sum.a, before.a),
        fma(vec4(scale_part(loaded.scale_b, p)), sum.b, before.b),
    );
}

// The same for eight columns of the weights, without their scale.
fn add_eight(before: Sums, loaded: Loaded, p: u32, lane: u32, count: u32) -> Sums {
    let a = decode(loaded.a, p);
    let b = decode(loaded.b, p);
    var sum = before;
    let lo_0 = memory[0][2u * p][lane];
    let hi_0 = memory[0][2u * p + 1u][lane];
    sum.a.x = chain(sum.a.x, a, lo_0, hi_0);
    sum.b.x = chain(sum.b.x, b, lo_0, hi_0);
    if count > 1u {
        let lo_1 = memory[1][2u * p][lane];
        let hi_1 = memory[1][2u * p + 1u][lane];
        sum.a.y = chain(sum.a.y, a, lo_1, hi_1);
        sum.b.y = chain(sum.b.y, b, lo_1, hi_1);
        let lo_2 = memory[2][2u * p][lane];
        let hi_2 = memory[2][2u * p + 1u][lane];
        sum.a.z = chain(sum.a.z, a, lo_2, hi_2);
        sum.b.z = chain(sum.b.z, b, lo_2, hi_2);
        let lo_3 = memory[3][2u * p][lane];
        let hi_3 = memory[3][2u * p + 1u][lane];
        sum.a.w = chain(sum.a.w, a, lo_3, hi_3);
        sum.b.w = chain(sum.b.w, b, lo_3, hi_3);
    }
    return sum;
}

fn chain(sum: f32, e: Eight, lo: vec4<f32>, hi: vec4<f32>) -> f32 {
    let first = fma(lo.w, e.lo.w, fma(lo.z, e.lo.z, fma(lo.y, e.lo.y, fma(lo.x, e.lo.x, sum))));
    return fma(hi.w, e.hi.w, fma(hi.z, e.hi.z, fma(hi.y, e.hi.y, fma(hi.x, e.hi.x, first))));
}

// Stores the result of a column, if it is a real one.
fn put(part: Part, column: u32, row: u32, first: f32, second: f32) {
    let s = part.begin + column;
    if s < part.end {
        let at = out_row(s) * params.out_rows + params.row0 + row;
        out[at] = finish(at, first, second);
    }
}
