//! Matrix-vector products of quantized weights in which a group of 32 invocations shares several
//! output rows, so that activations, which wait in workgroup memory, are read once for two rows.
//! Needs nothing optional. For GPUs: it has many loads in flight, and few operations for a weight.
//!
//! Known as: GEMV with several rows per warp and activations staged in shared memory.

use super::{Capabilities, Form, Product, Program, ShaderFile, Sizes, Sums, Variant, Why, lanes};
use crate::wgsl;

/// A group of 32 lanes has `rows` rows of the weights, or half as many of each of a pair of
/// matrices. A workgroup has eight groups.
#[derive(Debug)]
pub(super) struct Rows;

/// Lanes of a group.
const LANES: u32 = 32;
/// Groups of a workgroup.
const GROUPS: u32 = 8;

/// The files of a program, with those for the scales of one matrix or of two.
macro_rules! files {
    ($scales:literal) => {
        const {
            &[
                wgsl!("lib/part"),
                wgsl!("lib/columns"),
                wgsl!("lib/starts"),
                wgsl!($scales),
                wgsl!("variants/rows"),
            ]
        }
    };
}

impl Variant for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &["ROWS"]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Vector]
    }

    fn takes(&self, sizes: Sizes) -> bool {
        SIZES.contains(&sizes)
    }

    /// Whole weights need few operations, and loads of them are large: lanes serve them well.
    fn fits(&self, product: &Product) -> bool {
        product.dtype().is_quantized()
    }

    fn needs(&self, _on: &Capabilities) -> Result<(), Why> {
        Ok(())
    }

    fn preferred(&self, on: &Capabilities) -> Option<Sizes> {
        (!on.is_cpu).then_some(SIZES[0])
    }

    fn settings(&self, _on: &Capabilities) -> Vec<Sizes> {
        SIZES.to_vec()
    }

    fn checked(&self, _on: &Capabilities) -> Vec<Sizes> {
        SIZES.to_vec()
    }

    fn program(&self, product: &Product, [rows, _]: Sizes) -> Program {
        let files: &[ShaderFile] = match (has_halves(product), product.is_pair()) {
            (true, _) => files!("lib/scales_cell"),
            (_, true) => files!("lib/scales_pair"),
            (_, false) => files!("lib/scales_one"),
        };
        Program { files, features: &[], constants: vec![("ROWS", rows)] }
    }

    fn grid(&self, product: &Product, count: u32, [rows, _]: Sizes) -> [u32; 3] {
        let own = if product.is_pair() { rows / 2 } else { rows };
        [lanes::blocks(product, count), product.rows().div_ceil(GROUPS * own), 1]
    }

    /// A chain of the products of a chunk, its scale, an addition for each of a lane's chunks or
    /// of their halves, the tree over the lanes, and the product.
    fn sums(&self, product: &Product, cols: u32, _sizes: Sizes) -> Sums {
        let chunk = product.dtype().chunk();
        let scales = if has_halves(product) { 2 } else { 1 };
        let chunks = scales * cols.div_ceil(chunk).div_ceil(LANES);
        let depth = f64::from(chunk) + 1.0 + f64::from(chunks) + f64::from(LANES).log2() + 1.0;
        Sums { depth, rounds: false, halves: None }
    }
}

/// Whether each half of a block has a scale.
fn has_halves(product: &Product) -> bool {
    let dtype = product.dtype();
    dtype.integers().is_some_and(|integers| integers.share < dtype.block())
}

/// Most rows, and half as many for devices with fewer registers.
const SIZES: [Sizes; 2] = [[4, 1], [2, 1]];
