// Root-mean-square normalization, one workgroup per row. Known as: RMSNorm.
//
//     out[r, c] = x[r, c] / sqrt(mean(x[r, :]^2) + eps) * weight[c]
//
// Links: lib/reduce.wgsl, lib/quads.wgsl, lib/math.wgsl.

struct Params {
    cols4: u32, // columns / 4
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [rows, cols]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;    // [cols]
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [rows, cols]

const X: u32 = 0u;
const WEIGHT: u32 = 1u;

fn operand(which: u32, at: u32) -> vec4<f32> {
    if which == X {
        return x[at];
    }
    return weight[at];
}

fn keep(which: u32, at: u32, value: vec4<f32>) {
    out[at] = value;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x * params.cols4;

    let own = own_of(X, row, local);
    let own_weight = own_of(WEIGHT, 0u, local);
    var squares = squares_of(own);
    if OWN == 0u {
        for (var c = local; c < params.cols4; c += WG) {
            squares += dot(x[row + c], x[row + c]);
        }
    }
    let mean = reduce_sum(local, squares) / f32(4u * params.cols4);
    let scale = inverse_root(mean + params.eps);

    if OWN > 0u {
        keep_own(0u, row, local, scaled(own, scale, own_weight));
        return;
    }
    for (var c = local; c < params.cols4; c += WG) {
        out[row + c] = x[row + c] * scale * weight[c];
    }
}
