//! Matrix products on the units of a GPU that multiply small matrices of halves (f16). Both sides
//! are split into two halves, so that results are about as right as those of f32. For GPUs whose
//! driver lists such matrices; never a default, since no device has run it yet.
//!
//! Known as: GEMM on tensor cores by cooperative matrices, with split or emulated single precision.

use super::{
    Capabilities, Feature, Form, Parts, Product, Program, Sizes, Sums, TILE, Variant, Why,
};
use crate::{
    base::tensor::{DType, Integers},
    wgsl,
};

/// Blocks of 64 tokens by 64 rows of weights, or of a tile of slots by 64 rows.
#[derive(Debug)]
pub(super) struct Coop;

/// Rows of weights in a block, of all matrices together.
const ROWS: u32 = 64;

/// Rows of activations in a block.
fn tokens(product: &Product) -> u32 {
    match product.parts {
        Parts::Tokens => 64,
        Parts::Tile => TILE,
    }
}

/// Integers of quantized weights are at most 2 to this power; 0 of whole weights.
fn integer_bits(dtype: DType) -> u32 {
    dtype.integers().map_or(0, Integers::magnitude_bits)
}

impl Variant for Coop {
    fn name(&self) -> &'static str {
        "coop"
    }

    fn sizes(&self) -> &'static [&'static str] {
        &[]
    }

    fn forms(&self) -> &'static [Form] {
        &[Form::Matrix]
    }

    /// Vulkan does not say how a device adds up the products of a matrix.
    fn is_on_trial(&self) -> bool {
        true
    }

    /// Weights of f32 have more bits than two halves, and are those of small models.
    fn fits(&self, product: &Product) -> bool {
        product.dtype() != DType::F32
    }

    /// A block has four areas, and each subgroup has one or two of them at a time.
    fn needs(&self, on: &Capabilities) -> Result<(), Why> {
        if !on.matrices {
            return Err(Why("needs matrices of 16 x 16 halves with sums in f32".to_owned()));
        }
        match on.subgroups {
            Some((32.., ..=64)) => Ok(()),
            _ => Err(Why::subgroups("of 32 or 64", on)),
        }
    }

    fn settings(&self, _on: &Capabilities) -> Vec<Sizes> {
        vec![[1, 1]]
    }

    fn checked(&self, on: &Capabilities) -> Vec<Sizes> {
        self.settings(on)
    }

    fn program(&self, product: &Product, _sizes: Sizes) -> Program {
        Program {
            files: const {
                &[
                    wgsl!("lib/part"),
                    wgsl!("lib/tile_height"),
                    wgsl!("lib/powers"),
                    wgsl!("variants/coop"),
                ]
            },
            features: &[Feature::Subgroups, Feature::Halves, Feature::Matrices],
            constants: vec![
                ("TOKENS", tokens(product)),
                ("INTEGER_BITS", integer_bits(product.dtype())),
            ],
        }
    }

    /// Neighbouring workgroups share weights, as those of `blocks` do.
    fn grid(&self, product: &Product, count: u32, _sizes: Sizes) -> [u32; 3] {
        let parts = match product.parts {
            Parts::Tokens => count.div_ceil(tokens(product)),
            Parts::Tile => count,
        };
        let matrices = if product.is_pair() { 2 } else { 1 };
        [parts, product.rows().div_ceil(ROWS / matrices), 1]
    }

    /// A product of two halves is exact in f32. Vulkan does not say how a device adds those of 16
    /// columns: each addition is taken to err by two units of the sum of their magnitudes. Those of
    /// the upper halves are added last, to two or one sums with lower halves, which are 2^10 times
    /// as small: 32 units, and less than one. Then the sums of 16 columns are a chain of additions.
    ///
    /// A device may round to f16 in either direction. So the upper half of a number misses less
    /// than 2^-10 of it, and both halves together less than 2^-21: 4 units for x. Weights of 11 and
    /// up to 7 bits, their scale and their integer, are exact in two halves, and whole ones in one.
    /// With two, the product of the lower halves is left out, less than 2^-20: 8 units.
    /// `kernels/bounds.rs` has what numbers too small for an f16 lose.
    fn sums(&self, product: &Product, cols: u32, _sizes: Sizes) -> Sums {
        let split = if product.dtype().is_quantized() { 4.0 + 8.0 } else { 4.0 };
        let integer = f64::from(1_u32 << integer_bits(product.dtype()));
        let depth = 33.0 + (f64::from(cols) / 16.0).ceil() + split;
        Sums { depth, rounds: false, halves: Some(integer) }
    }
}
