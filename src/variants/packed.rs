//! Matrix products in tiles, by int8 dot products (dp4a). Needs no optional feature, but rounds
//! activations.
//!
//! Known as: int8 GEMM with dynamically quantized activations (packed 4x8 dot product).

use super::{
    Capabilities, Form, Product, Program, Sizes, Sums, Variant, Why,
    tiles::{self, HEIGHTS, tiled},
};

/// Tiles with activations rounded to int8, in blocks of 32 with a scale. Only for quantized
/// weights.
#[derive(Debug)]
pub(super) struct Packed;

impl Variant for Packed {
    fn name(&self) -> &'static str {
        "packed"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &["ROWS"]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Matrix]
    }

    fn rounds(&self) -> bool {
        true
    }

    fn takes(&self, sizes: Sizes) -> bool {
        HEIGHTS.contains(&sizes)
    }

    fn fits(&self, product: &Product) -> bool {
        product.dtype().is_quantized()
    }

    fn needs(&self, _on: &Capabilities) -> Result<(), Why> {
        Ok(())
    }

    fn settings(&self, _on: &Capabilities) -> Vec<Sizes> {
        HEIGHTS.to_vec()
    }

    fn checked(&self, _on: &Capabilities) -> Vec<Sizes> {
        vec![HEIGHTS[0]]
    }

    fn program(&self, product: &Product, sizes: Sizes) -> Program {
        let files = if product.is_pair() {
            tiled!("lib/tile_packed", "lib/tile_pair")
        } else {
            tiled!("lib/tile_packed", "lib/tile_one")
        };
        Program { files, features: &[], constants: tiles::constants(sizes) }
    }

    fn grid(&self, product: &Product, count: u32, sizes: Sizes) -> [u32; 3] {
        tiles::grid(product, count, sizes)
    }

    /// Integer sums are exact. What errs in a block are two products by scales and the division
    /// that gives the scale: 2.5 units of the rounded values. Rounding at most doubles a value
    /// (half a step becomes a whole one), so that is 5 units, less than the eight additions inside
    /// a block of a float tile.
    fn sums(&self, _product: &Product, cols: u32, _sizes: Sizes) -> Sums {
        Sums { depth: tiles::depth(cols, 8.0), rounds: true, halves: None }
    }
}
