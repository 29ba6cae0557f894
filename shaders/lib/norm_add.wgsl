// The end of a block: its output is normalized and added to the residual stream, and the stream is
// normalized for the next block. The kernel binds `weight`, `next_weight`, `sum` and `out`, has
// `cols4` and `eps` among its params, and gives the output: by `block`, a quad; and by `own_block`,
// what an invocation owns of a row that fits registers. `input` loads for the latter.
//
//     sum[row..] += block / sqrt(mean(block^2) + eps) * weight
//     out[row..]  = sum / sqrt(mean(sum^2) + eps) * next_weight
//
// An invocation touches only the quads that it owns, and reads back only what it wrote itself.
// Links: lib/quads.wgsl, lib/reduce.wgsl, lib/math.wgsl.

const BLOCK: u32 = 0u;
const SUM: u32 = 1u;
const WEIGHT: u32 = 2u;
const NEXT_WEIGHT: u32 = 3u;
const OUT: u32 = 4u;

fn operand(which: u32, at: u32) -> vec4<f32> {
    if which == SUM {
        return sum[at];
    }
    if which == WEIGHT {
        return weight[at];
    }
    if which == NEXT_WEIGHT {
        return next_weight[at];
    }
    return input(which, at);
}

fn keep(which: u32, at: u32, value: vec4<f32>) {
    if which == SUM {
        sum[at] = value;
    } else {
        out[at] = value;
    }
}

// Returns what this invocation owns of `out`, if that is in registers. Call it from uniform control
// flow.
fn norm_add(local: u32, token: u32) -> Quads {
    let row = token * params.cols4;
    if OWN > 0u {
        let h = own_block(local, token);
        let s = own_of(SUM, row, local);
        let w = own_of(WEIGHT, 0u, local);
        let change = scaled(h, norm_scale(local, squares_of(h)), w);
        let total = Quads(s.low + change.low, s.high + change.high);
        // Loaded here, so that the sum over the workgroup hides it.
        let next = own_of(NEXT_WEIGHT, 0u, local);
        let result = scaled(total, norm_scale(local, squares_of(total)), next);
        keep_own(SUM, row, local, total);
        keep_own(OUT, row, local, result);
        return result;
    }

    var squares = 0.0;
    for (var c = local; c < params.cols4; c += WG) {
        let h = block(row + c);
        squares += dot(h, h);
    }
    let scale = norm_scale(local, squares);

    squares = 0.0;
    for (var c = local; c < params.cols4; c += WG) {
        let s = sum[row + c] + block(row + c) * scale * weight[c];
        sum[row + c] = s;
        squares += dot(s, s);
    }
    let next_scale = norm_scale(local, squares);

    for (var c = local; c < params.cols4; c += WG) {
        out[row + c] = sum[row + c] * next_scale * next_weight[c];
    }
    return Quads();
}

// The factor that normalizes a row, of which each invocation has the squares of what it owns.
fn norm_scale(local: u32, squares: f32) -> f32 {
    let mean = reduce_sum(local, squares) / f32(4u * params.cols4);
    return inverse_root(mean + params.eps);
}
