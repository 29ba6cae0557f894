// Rows of the KV cache as int8 in blocks of 32 with a common f16 scale, as lib/weight_q8.wgsl reads
// them: the bytes of all blocks, then their scales.
// Links: lib/half.wgsl, lib/weight_q8.wgsl.

const BLOCK: u32 = 32u;

// Elements of a row that one invocation stores: two blocks, whose scales are one word.
const UNIT: u32 = 64u;

// Words from one row to the next.
fn row_words(cols: u32) -> u32 {
    return 4u * row_stride(cols / 8u);
}

// Stores one unit of a row; the last one may have a single block.
fn store(row: Row, unit: u32) {
    var scales = 0u;
    for (var half = 0u; half < 2u; half++) {
        let first = UNIT * unit + BLOCK * half;
        if first < row.cols {
            let scale = block_scale(row, first);
            scales |= scale << (16u * half);
            let size = unpack2x16float(scale).x;
            var inverse: f32;
            if size > 0.0 {
                inverse = 1.0 / size;
            }
            for (var i = first; i < first + BLOCK; i += 4u) {
                var word = 0u;
                for (var byte = 0u; byte < 4u; byte++) {
                    let q = clamp(round(element(row, i + byte) * inverse), -127.0, 127.0);
                    word |= (bitcast<u32>(i32(q)) & 0xffu) << (8u * byte);
                }
                put(row, i / 4u, word);
            }
        }
    }
    put(row, 4u * scale_at(row.cols / 8u, 0u) + unit, scales);
}

// Bits of the f16 scale that maps the block's largest magnitude to 127; NaN if an element is not
// finite. The nearest f16, if subnormal, may be so small that large values would be clipped: then
// the next larger one is used.
fn block_scale(row: Row, first: u32) -> u32 {
    var largest = 0.0;
    var finite = true;
    for (var i = first; i < first + BLOCK; i++) {
        let x = element(row, i);
        finite = finite && is_finite(x);
        largest = max(largest, abs(x));
    }
    if !finite {
        return HALF_NAN;
    }
    let wanted = largest * 7.874015748e-3;
    let nearest = half_of(wanted);
    let short = wanted > unpack2x16float(nearest).x * 1.0009765625 && nearest < HALF_MAX;
    return nearest + u32(short);
}
