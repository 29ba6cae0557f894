//! Matrix-vector products in which several invocations (lanes) share an output row, and add up
//! their parts in workgroup memory. Runs on every device.
//!
//! Known as: GEMV with a workgroup reduction (split along K).

use super::{COLUMNS, Capabilities, Form, Parts, Product, Program, Sizes, Sums, Variant, Why};
use crate::{base::tensor::DType, wgsl};

/// `lanes` invocations compute an output row together; a workgroup has `rows` rows.
#[derive(Debug)]
pub(super) struct Lanes;

impl Variant for Lanes {
    fn name(&self) -> &'static str {
        "lanes"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &["LANES", "ROWS"]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Vector]
    }

    fn needs(&self, _on: &Capabilities) -> Result<(), Why> {
        Ok(())
    }

    /// On GPUs lanes read neighbouring weights, so that loads coalesce. On a CPU each invocation
    /// has
    /// a row of its own, since a barrier costs more there than anything else.
    fn preferred(&self, on: &Capabilities) -> Option<Sizes> {
        Some(if on.is_cpu { [1, 16] } else { [32, 4] })
    }

    fn settings(&self, _on: &Capabilities) -> Vec<Sizes> {
        vec![[32, 4], [32, 1], [64, 1], [64, 4], [128, 1], [16, 8], [8, 16], [1, 16]]
    }

    fn checked(&self, _on: &Capabilities) -> Vec<Sizes> {
        vec![[32, 4], [1, 16]]
    }

    fn program(&self, _product: &Product, [lanes, rows]: Sizes) -> Program {
        Program {
            files: const {
                &[
                    wgsl!("lib/part"),
                    wgsl!("lib/columns"),
                    wgsl!("lib/starts"),
                    wgsl!("lib/lanes_tree"),
                    wgsl!("variants/lanes"),
                ]
            },
            features: &[],
            constants: vec![("WG", lanes * rows), ("LANES", lanes)],
        }
    }

    fn grid(&self, product: &Product, count: u32, [_, rows]: Sizes) -> [u32; 3] {
        [blocks(product, count), product.rows().div_ceil(rows), 1]
    }

    fn sums(&self, product: &Product, cols: u32, [lanes, _]: Sizes) -> Sums {
        Sums { depth: depth(product.dtype(), cols, lanes), rounds: false, halves: None }
    }
}

/// Workgroups for the rows of activations of a matrix-vector product: those that share weights are
/// neighbours, so that these come from memory once.
pub(super) fn blocks(product: &Product, count: u32) -> u32 {
    match product.parts {
        Parts::Tokens => count.div_ceil(COLUMNS),
        Parts::Tile => count,
    }
}

/// Roundings on the longest chain of a dot product by lanes: the additions inside a chunk of
/// weights, its scale, an addition per chunk, the sum of a vector, the tree over the lanes, and the
/// product.
pub(super) fn depth(dtype: DType, cols: u32, lanes: u32) -> f64 {
    // Groups of eight elements in a chunk.
    let parts = f64::from(dtype.chunk() / 8);
    let chunks = (f64::from(cols) / (8.0 * parts) / f64::from(lanes)).ceil();
    2.0 * parts + 1.0 + chunks + 2.0 + f64::from(lanes).log2() + 1.0
}
