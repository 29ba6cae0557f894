// Tiles of two weights, which take turns with the same tile of x.

// Adds the product of the tile of x with that of the second weight. Ends in a barrier.
fn mul_second(local: u32, part: Part, row: u32, c: u32, acc: mat4x4<f32>) -> mat4x4<f32> {
    load_w(local, 1u, part.weight0, row, c);
    workgroupBarrier();
    let sum = mul_tile(local, acc);
    workgroupBarrier();
    return sum;
}
