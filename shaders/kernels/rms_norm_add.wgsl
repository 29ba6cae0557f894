// Normalizes a block's output, adds it to the residual stream, and normalizes the stream for the
// next block. One workgroup per row.
// Known as: RMSNorm fused with residual add (post-norm, then the next pre-norm).
//
//     sum[r, :] += h[r, :] / sqrt(mean(h[r, :]^2) + eps) * weight
//     out[r, :]  = sum[r, :] / sqrt(mean(sum[r, :]^2) + eps) * next_weight
//
// Links: lib/reduce.wgsl, lib/quads.wgsl, lib/norm_add.wgsl, lib/norm_input.wgsl, lib/math.wgsl.

struct Params {
    cols4: u32, // columns / 4
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<vec4<f32>>;           // [rows, cols]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;      // [cols]
@group(0) @binding(3) var<storage, read> next_weight: array<vec4<f32>>; // [cols]
@group(0) @binding(4) var<storage, read_write> sum: array<vec4<f32>>;   // [rows, cols]
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;   // [rows, cols]

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    norm_add(local, group.x);
}
