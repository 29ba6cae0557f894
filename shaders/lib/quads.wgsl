// The quads (vec4) of a row that an invocation owns: numbers `local`, `local + WG` and so on. Up to
// eight stay in registers, and are loaded at once; of wider rows `OWN` is 0, and the kernel reads
// them again from memory.
// Takes from the kernel: params.cols4, `operand`, which loads a quad of an operand, and `keep`,
// which stores one. `which` is a constant that the kernel has for an operand.
// Links: lib/reduce.wgsl.

override OWN: u32 = 0u;

struct Quads {
    low: mat4x4<f32>,
    high: mat4x4<f32>,
}

// What an invocation owns of the row of an operand that begins at quad `row`.
fn own_of(which: u32, row: u32, local: u32) -> Quads {
    return Quads(
        mat4x4(
            own_quad(which, row, local, 0u),
            own_quad(which, row, local, 1u),
            own_quad(which, row, local, 2u),
            own_quad(which, row, local, 3u),
        ),
        mat4x4(
            own_quad(which, row, local, 4u),
            own_quad(which, row, local, 5u),
            own_quad(which, row, local, 6u),
            own_quad(which, row, local, 7u),
        ),
    );
}

// Zero beyond the end. What is loaded there is not used, and is the first that the invocation owns:
// any other may be one that its owner is storing. In a row with fewer quads than the workgroup has
// invocations, some own none.
// It is chosen for gains as well, which no sum includes: otherwise Mesa moves their loads to where
// they are used, behind a sum over the workgroup.
fn own_quad(which: u32, row: u32, local: u32, k: u32) -> vec4<f32> {
    if k >= OWN || (OWN == 1u && local >= params.cols4) {
        return vec4<f32>();
    }
    let c = local + k * WG;
    let inside = c < params.cols4;
    return select(vec4<f32>(), operand(which, row + select(local, c, inside)), inside);
}

// Sum of the squares, quad by quad.
fn squares_of(q: Quads) -> f32 {
    var sum = squares_after(0.0, q.low);
    if OWN > 4u {
        sum = squares_after(sum, q.high);
    }
    return sum;
}

fn squares_after(sum: f32, m: mat4x4<f32>) -> f32 {
    return sum + dot(m[0], m[0]) + dot(m[1], m[1]) + dot(m[2], m[2]) + dot(m[3], m[3]);
}

// Each number times `scale` and that of `weight`.
fn scaled(q: Quads, scale: f32, weight: Quads) -> Quads {
    return Quads(scaled_four(q.low, scale, weight.low), scaled_four(q.high, scale, weight.high));
}

fn scaled_four(m: mat4x4<f32>, scale: f32, w: mat4x4<f32>) -> mat4x4<f32> {
    let n = m * scale;
    return mat4x4(n[0] * w[0], n[1] * w[1], n[2] * w[2], n[3] * w[3]);
}

// Stores them in the row of an operand that begins at quad `row`.
fn keep_own(which: u32, row: u32, local: u32, q: Quads) {
    keep_four(which, row, local, q.low);
    if OWN > 4u {
        keep_four(which, row, local + 4u * WG, q.high);
    }
}

fn keep_four(which: u32, row: u32, c: u32, m: mat4x4<f32>) {
    keep_quad(which, row, c, m[0]);
    keep_quad(which, row, c + WG, m[1]);
    keep_quad(which, row, c + 2u * WG, m[2]);
    keep_quad(which, row, c + 3u * WG, m[3]);
}

fn keep_quad(which: u32, row: u32, c: u32, value: vec4<f32>) {
    if c < params.cols4 {
        keep(which, row + c, value);
    }
}
