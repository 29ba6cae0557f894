//! The description of a product, from which its program and its workgroups follow.

use super::Source;
use crate::base::tensor::{DType, Tensor};

/// Rows of activations in a tile of a matrix product: slots of an expert, or tokens.
pub const TILE: u32 = 32;

/// Rows of activations that a workgroup of a matrix-vector product takes at once; slots in a tile
/// of an expert.
pub const COLUMNS: u32 = 4;

/// How a product is dispatched: for few rows of activations, or for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Matrix-vector products (GEMV), of generated tokens (decode): up to [`COLUMNS`] rows of
    /// activations share a loaded weight. Any number gives the same bits.
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

    /// The files of a kernel under the name that it has in this form: in programs' labels, in the
    /// table of rows, and in what was measured.
    pub const fn source(self, source: Source, vector: &'static str) -> Source {
        match self {
            Self::Vector => Source { kernel: vector, ..source },
            Self::Matrix => source,
        }
    }

    /// The most slots in a tile of an expert.
    pub const fn tile(self) -> u32 {
        match self {
            Self::Vector => COLUMNS,
            Self::Matrix => TILE,
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
}

/// The rows of activations of a product that share weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Tokens of a step, any number.
    Tokens,
    /// (token, expert) slots of one expert, up to [`Form::tile`].
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
    /// What shares a loaded weight.
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

    /// Floating-point operations for `count` tokens or tiles of slots:
    /// two for each multiply-add. Tiles count as full.
    pub fn operations(&self, count: u32) -> u64 {
        let slots = if self.parts == Parts::Tile { self.form.tile() } else { 1 };
        let matrices = if self.is_pair() { 2 } else { 1 };
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
