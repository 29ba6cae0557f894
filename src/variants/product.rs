//! What the variants of a product go by.

use super::Source;
use crate::base::tensor::{DType, Tensor};

/// Slots of an expert's tile, and tokens of a tile in workgroup memory.
pub const TILE: u32 = 32;

/// How a product is dispatched: for few rows of activations, or for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Matrix-vector products (GEMV), of generated tokens: each row of activations meets the weights by
    /// itself.
    Vector,
    /// Matrix products (GEMM), of prompts: many rows of activations share a loaded weight.
    Matrix,
}

impl Form {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vector, Self::Matrix];

    /// What commands and files call such products.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vector => "matrix-vector product",
            Self::Matrix => "matrix product",
        }
    }
}

/// A weight by which others may be multiplied side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// One matrix.
    One,
    /// Two of one shape, gate and up, with the same activations. `finish` gets both sums.
    Pair,
    /// Two of as many rows, each with activations of its own. `finish` gets both sums.
    Beside,
}

/// The rows of activations of a matrix product that share weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Tokens of a step, any number.
    Tokens,
    /// Slots of an expert, up to [`TILE`].
    Tile,
}

/// A kernel that multiplies activations by weights. It says what is multiplied and how a sum is
/// finished; a [`Variant`](super::Variant) says which invocation does what.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// The kernel's part of the program.
    pub source: Source,
    /// Vectors or matrices.
    pub form: Form,
    /// The weight, `[rows, cols]` or `[experts, rows, cols]`; of two, the first.
    pub weight: Tensor,
    /// Whether there is a second.
    pub weights: Weights,
    /// What shares a loaded weight. In vector products nothing does.
    pub parts: Parts,
}

impl Product {
    /// Rows of the weight, or of each expert's.
    pub fn rows(&self) -> u32 {
        self.sizes().0
    }

    /// Columns of the weight.
    pub fn cols(&self) -> u32 {
        self.sizes().1
    }

    /// Type of the weights.
    pub fn dtype(&self) -> DType {
        self.weight.dtype
    }

    /// Whether each invocation or tile holds rows of two weights at once.
    pub(super) fn is_pair(&self) -> bool {
        self.weights == Weights::Pair
    }

    fn sizes(&self) -> (u32, u32) {
        match *self.weight.shape.extents() {
            [.., rows, cols] => (rows, cols),
            _ => (0, 0),
        }
    }
}
