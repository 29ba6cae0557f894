// The end of a block: its output is normalized and added to the residual stream, and the stream is
// normalized for the next block. The kernel binds `weight`, `next_weight`, `sum` and `out`, has
// `cols4` and `eps` among its params, and gives the output by `fn block(at: u32) -> vec4<f32>`.
//
//     sum[row..] += block / sqrt(mean(block^2) + eps) * weight
//     out[row..]  = sum / sqrt(mean(sum^2) + eps) * next_weight
//
// An invocation touches columns `local`, `local + WG` and so on, and reads back only what it wrote
// itself. Needs lib/reduce.wgsl and lib/math.wgsl. Call it from uniform control flow.

fn norm_add(local: u32, row: u32) {
    let cols = f32(4u * params.cols4);

    var squares = 0.0;
    for (var c = local; c < params.cols4; c += WG) {
        let h = block(row + c);
        squares += dot(h, h);
    }
    let scale = inverse_root(reduce_sum(local, squares) / cols + params.eps);

    squares = 0.0;
    for (var c = local; c < params.cols4; c += WG) {
        let s = sum[row + c] + block(row + c) * scale * weight[c];
        sum[row + c] = s;
        squares += dot(s, s);
    }
    let next_scale = inverse_root(reduce_sum(local, squares) / cols + params.eps);

    for (var c = local; c < params.cols4; c += WG) {
        out[row + c] = sum[row + c] * next_scale * next_weight[c];
    }
}
