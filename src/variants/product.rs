//! The description of a product, from which its program and its workgroups follow.

use super::Source;
use crate::base::tensor::{DType, Tensor};

/// Rows of activations in a tile: slots of an expert, or tokens.
pub const TILE: u32 = 32;

/// How a product is dispatched: for few rows of activations, or for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Matrix-vector products (GEMV), of generated tokens (decode): each row of activations loads
    /// the weights by itself.
    Vector,
    /// Matrix products (GEMM), of prompts (prefill): many rows of activations share a loaded
    /// weight.
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

/// The weight matrices that a product multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// One matrix.
    One,
    /// Two of the same shape, gate and up, with the same activations. `finish` gets both sums.
    Pair,
    /// Two with the same number of rows, each with its own activations. `finish` gets both sums.
    Beside,
}

/// The rows of activations of a matrix product that share weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Tokens of a step, any number.
    Tokens,
    /// (token, expert) slots of one expert, up to [`TILE`].
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
    /// Whether there is a second, and of which kind.
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

    /// Floating-point operations for `count` tokens, (token, expert) choices, or tiles of slots:
    /// two for each multiply-add. Tiles count as full.
    pub fn operations(&self, count: u32) -> u64 {
        let slots = if self.parts == Parts::Tile { TILE } else { 1 };
        let matrices = if self.weights == Weights::One { 1 } else { 2 };
        let of_one = u64::from(self.rows()) * u64::from(self.cols());
        2 * matrices * u64::from(count) * u64::from(slots) * of_one
    }

    /// Whether each invocation or tile has rows of two weights at once.
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
