//! Element types, shapes, and handles to tensors.

use std::fmt;

/// Element type of a tensor, on the host and on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float. Stored two to a `u32`; needs no device feature.
    F16,
    /// The upper half of an `f32`. Stored two to a `u32`.
    BF16,
    /// 32-bit unsigned integer: ids, positions, indices.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The name safetensors and the command line use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
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
    pub fn dims<const N: usize>(&self) -> crate::Result<[u32; N]> {
        self.shape.extents().try_into().map_err(|_| crate::Error::Rank { got: self.shape, want: N })
    }

    /// Bytes of the elements.
    pub fn size_bytes(&self) -> u64 {
        self.shape.len() * self.dtype.size_bytes()
    }
}

impl Shape {
    /// The extents, outermost first.
    pub fn extents(&self) -> &[u32] {
        &self.dims[..self.rank]
    }

    /// Number of elements. 64-bit because a wasm32 `usize` cannot count the bytes of a large matrix.
    pub fn len(self) -> u64 {
        self.extents().iter().map(|&d| u64::from(d)).product()
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
