// Rows of x of a matrix product that share weights: from `begin` up to `end`, and the first row of
// their weights. lib/rows_*.wgsl give the parts of a product.

struct Part {
    weight0: u32,
    begin: u32,
    end: u32,
}
