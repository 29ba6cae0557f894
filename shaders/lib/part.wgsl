// Rows of x that share weights, of a matrix product: `begin` up to `end`, and the first row of their
// weights. lib/rows_*.wgsl says which there are.

struct Part {
    weight0: u32,
    begin: u32,
    end: u32,
}
