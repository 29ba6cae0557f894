// Picks rows of a matrix, one workgroup per row picked. Known as: row gather (index_select).
//
//     out[i, :] = x[rows[i], :]

struct Params {
    cols4: u32, // columns / 4
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;         // [tokens, cols]
@group(0) @binding(2) var<storage, read> rows: array<u32>;            // [picked]
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // [picked, cols]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let src = rows[group.x] * params.cols4;
    let dst = group.x * params.cols4;
    for (var c = local; c < params.cols4; c += 64u) {
        out[dst + c] = x[src + c];
    }
}
