//! Element types, shapes, and handles to tensors.

use std::fmt;

use super::error::{Error, Result};

/// Element type of a tensor, on the host and on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float. Stored two to a `u32`; needs no device feature.
    F16,
    /// The upper half of an `f32`. Stored two to a `u32`.
    BF16,
    /// Blocks of 32 signed bytes with a common F16 scale: see [`crate::base::quant`].
    Q8,
    /// Blocks of 32 signed four-bit numbers with a common F16 scale: see [`crate::base::quant`].
    Q4,
    /// Blocks of 32 signed three-bit numbers with a scale of one byte for each half: see
    /// [`crate::base::quant`].
    Q3,
    /// Blocks of 32 numbers of two bits with a scale of one byte for each half: see
    /// [`crate::base::quant`].
    Q2,
    /// 32-bit unsigned integer: ids, positions, indices.
    U32,
}

/// The integers of a quantized type, which share a scale in blocks of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    /// Bits of each, 8, 4, 3 or 2. Fewer than eight bits hold the number of steps above `least`.
    pub bits: u32,
    /// The smallest one.
    pub least: i8,
    /// The largest one.
    pub most: i8,
    /// From one to the next.
    pub step: i8,
    /// Elements that share a scale: those of a block, or of each half.
    pub share: u32,
}

impl Integers {
    /// The power of two that no magnitude exceeds.
    pub const fn magnitude_bits(self) -> u32 {
        let (least, most) = (self.least.unsigned_abs(), self.most.unsigned_abs());
        let largest = if least > most { least } else { most };
        largest.next_power_of_two().ilog2()
    }
}

impl DType {
    /// Types that weights are stored in.
    pub const WEIGHTS: [Self; 7] =
        [Self::F32, Self::F16, Self::BF16, Self::Q8, Self::Q4, Self::Q3, Self::Q2];

    /// The integers of a quantized type; `None` for floats and ids. Whatever depends on the format
    /// of blocks goes by this.
    pub const fn integers(self) -> Option<Integers> {
        match self {
            // -128 has no positive counterpart, so it is not used.
            Self::Q8 => Some(Integers { bits: 8, least: -127, most: 127, step: 1, share: 32 }),
            Self::Q4 => Some(Integers { bits: 4, least: -8, most: 7, step: 1, share: 32 }),
            Self::Q3 => Some(Integers { bits: 3, least: -4, most: 3, step: 1, share: 16 }),
            Self::Q2 => Some(Integers { bits: 2, least: -15, most: 9, step: 8, share: 16 }),
            Self::F32 | Self::F16 | Self::BF16 | Self::U32 => None,
        }
    }

    /// Elements of a chunk: what shaders load of a row at a time.
    pub const fn chunk(self) -> u32 {
        match self {
            Self::F32 | Self::F16 | Self::BF16 | Self::U32 => 8,
            Self::Q8 => 16,
            Self::Q4 | Self::Q3 | Self::Q2 => 32,
        }
    }

    /// Elements of a quantization block, else 1. The columns of a tensor are a multiple of it.
    pub const fn block(self) -> u32 {
        if self.is_quantized() { 32 } else { 1 }
    }

    /// Whether elements are quantized in blocks that share a scale.
    pub const fn is_quantized(self) -> bool {
        self.integers().is_some()
    }

    /// Bytes of the integers of a quantized row of `cols` elements, which its scales follow; 0 for
    /// other types.
    pub const fn integer_bytes(self, cols: u64) -> u64 {
        match self.integers() {
            Some(integers) => cols * integers.bits as u64 / 8,
            None => 0,
        }
    }

    /// Bytes of a row of `cols` elements.
    pub const fn row_bytes(self, cols: u64) -> u64 {
        // Scales have two bytes for each block.
        let scales = cols / 32 * 2;
        match self {
            Self::F32 | Self::U32 => 4 * cols,
            Self::F16 | Self::BF16 => 2 * cols,
            Self::Q8 | Self::Q4 | Self::Q3 | Self::Q2 => {
                (self.integer_bytes(cols) + scales).next_multiple_of(16)
            }
        }
    }

    /// The name safetensors and the command line use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8 => "Q8",
            Self::Q4 => "Q4",
            Self::Q3 => "Q3",
            Self::Q2 => "Q2",
            Self::U32 => "U32",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents of a tensor, outermost first. At most four axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [u32; 4],
    rank: usize,
}

/// A handle to a tensor of some executor. Copying it does not copy the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    /// Index of the allocation in its executor.
    pub id: usize,
    /// Extents.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl Tensor {
    /// The extents, if there are exactly `N` of them.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] if there are more or fewer.
    pub fn dims<const N: usize>(&self) -> Result<[u32; N]> {
        self.shape.extents().try_into().map_err(|_| Error::Rank { got: self.shape, want: N })
    }

    /// The first rows of a matrix: all of them if it has no more than `rows`.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] if it is no matrix.
    pub fn first_rows(self, rows: u32) -> Result<Self> {
        let [all, cols] = self.dims()?;
        Ok(Self { shape: [rows.min(all), cols].into(), ..self })
    }

    /// Bytes of the elements.
    pub fn size_bytes(&self) -> u64 {
        self.shape.size_bytes(self.dtype)
    }

    /// The error for bytes of it, up to `end`, where it has `size`: they were to be `done`.
    pub(crate) fn beyond(&self, done: &str, end: u64, size: u64) -> Error {
        let what = format!("bytes {done} {}{}", self.dtype, self.shape);
        Error::Limit { what, got: end, limit: size }
    }
}

impl Shape {
    /// The extents, outermost first.
    pub fn extents(&self) -> &[u32] {
        &self.dims[..self.rank]
    }

    /// Number of elements. 64-bit, because a wasm32 `usize` cannot count the bytes of a large
    /// matrix.
    pub fn len(self) -> u64 {
        self.extents().iter().map(|&d| u64::from(d)).product()
    }

    /// Bytes of a tensor of this shape with elements of `dtype`.
    pub fn size_bytes(self, dtype: DType) -> u64 {
        match u64::from(self.extents().last().copied().unwrap_or(1)) {
            0 => 0,
            cols => self.len() / cols * dtype.row_bytes(cols),
        }
    }

    /// True if some extent is zero.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<const N: usize> From<[u32; N]> for Shape {
    fn from(extents: [u32; N]) -> Self {
        const { assert!(N <= 4, "a shape has at most four axes") }
        let mut dims = [1; 4];
        dims[..N].copy_from_slice(&extents);
        Self { dims, rank: N }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}
