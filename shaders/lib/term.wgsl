// An output of a matrix-vector product is a sum of terms: dot products of rows, each with a factor.
// The kernel, or lib/vector_*.wgsl, gives their number and each of them: `terms` and `term_of`.

struct Term {
    x_row: u32,   // row of the activations
    weight0: u32, // first row of the weights; the output row counts from there
    factor: f32,
}
