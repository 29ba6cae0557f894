// Tiles of one weight: there is no second.

fn mul_second(local: u32, part: Part, row: u32, c: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    return acc;
}
