// Powers of two by which rows of x and of w are multiplied before their numbers are split into
// halves (f16): the largest number of a row becomes 2^14 to 2^15, so that none overflows and as few
// as possible are too small. What stands for a power is the exponent of that largest number, as f32
// stores it: 255 if one is infinite or NaN.
// Takes from the kernel: x_row, w_cell, w_chunk, PAIR.
// Links: lib/part.wgsl, one of lib/weight_*.wgsl.

// Rows of x in a block. It has 64 rows of w, of all matrices together.
override TOKENS: u32 = 64u;
// Integers of quantized weights are at most 2 to this power.
override INTEGER_BITS: u32 = 0u;

const OUT_ROWS: u32 = 64u / (1u + u32(PAIR));
// The sign of an f32, and a bit that makes a NaN of an infinity.
const MAGNITUDE: u32 = 0x7fffffffu;
const QUIET: u32 = 0x00400000u;

// Results wait here for their powers, which come from here too.
var<workgroup> stage: array<f32, 1024>;

// The first quad of row t of x, and the first chunk of row r of w. Rows beyond the last are the
// last.
fn x_start(part: Part, t: u32) -> u32 {
    return 2u * params.cols8 * x_row(min(part.begin + t, part.end - 1u));
}

fn w_start(part: Part, row: u32, r: u32) -> u32 {
    let own = min(row + r % OUT_ROWS, params.rows - 1u);
    return (part.weight0 + own) * row_stride(params.cols8);
}

// The exponents of the powers of all rows, in `stage`: those of x, and from 64 on those of w. Ends
// in a barrier, and returns number `local`.
fn find_powers(local: u32, part: Part, row: u32) -> f32 {
    let lane = local % 8u;
    for (var t = local / 8u; t < TOKENS; t += 16u) {
        stage[8u * t + lane] = f32(largest_x(x_start(part, t), lane) >> 23u);
    }
    for (var r = local / 8u; r < 64u; r += 16u) {
        let most = largest_w(r / OUT_ROWS, w_start(part, row, r), lane);
        stage[512u + 8u * r + lane] = f32(most >> 23u);
    }
    workgroupBarrier();
    var exponent = 15.0;
    if local < TOKENS || local >= 64u {
        for (var i = 0u; i < 8u; i++) {
            exponent = max(exponent, stage[8u * local + i]);
        }
    }
    if local >= 64u && exponent < 255.0 {
        exponent += f32(INTEGER_BITS);
    }
    workgroupBarrier();
    stage[local] = exponent;
    workgroupBarrier();
    return exponent;
}

// The largest bits, without signs, among every eighth quad of a row of x.
fn largest_x(start: u32, lane: u32) -> u32 {
    var most = 0u;
    for (var quad = lane; quad < 2u * params.cols8; quad += 8u) {
        most = max(most, magnitude(x[start + quad]));
    }
    return most;
}

// The same of a row of w: of its scales, if it has any.
fn largest_w(which: u32, start: u32, lane: u32) -> u32 {
    var most = 0u;
    let end = row_stride(params.cols8);
    for (var at = scales_at() + lane; at < end; at += 8u) {
        if PARTS > 1u {
            most = max(most, largest_scale(w_cell(which, start + at)));
        } else {
            let e = decode(w_chunk(which, start + at), 0u);
            most = max(most, max(magnitude(e.lo), magnitude(e.hi)));
        }
    }
    return most;
}

// The first cell of a row that has a scale; 0 if there are none.
fn scales_at() -> u32 {
    return select(0u, scale_at(params.cols8, 0u), PARTS > 1u);
}

// The largest bits, without signs, of the scales in a cell, which are those of at most eight blocks
// of 32 columns.
fn largest_scale(w: Cell) -> u32 {
    return max(magnitude(scales_of(w, 0u)), magnitude(scales_of(w, 4u)));
}

// The larger scales of four blocks.
fn scales_of(w: Cell, first: u32) -> vec4<f32> {
    let blocks = 4u * (first + vec4(0u, 1u, 2u, 3u)) / PARTS;
    return vec4(
        larger_part(scale_of(w, blocks.x)),
        larger_part(scale_of(w, blocks.y)),
        larger_part(scale_of(w, blocks.z)),
        larger_part(scale_of(w, blocks.w)),
    );
}

// The larger number of a scale, as its bits go: a NaN is larger than all.
fn larger_part(scale: Scale) -> f32 {
    let near = bitcast<u32>(scale_part(scale, 0u)) & MAGNITUDE;
    let far = bitcast<u32>(scale_part(scale, PARTS - 1u)) & MAGNITUDE;
    return bitcast<f32>(max(near, far));
}

fn magnitude(v: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(v) & vec4(MAGNITUDE);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The power of this exponent.
fn power(exponent: f32) -> f32 {
    return bitcast<f32>((268u - u32(exponent)) << 23u);
}

// One divided by it. It is NaN where a number of the row is infinite or NaN, so that no result is
// finite.
fn inverse_power(exponent: f32) -> f32 {
    let e = u32(exponent);
    return bitcast<f32>(select((e - 14u) << 23u, (e << 23u) | QUIET, e == 255u));
}
