//! Results with their error bounds, and what was not written.

use super::cols;
use crate::base::tensor::Tensor;

/// A result in `f64`, and the largest error of a correct device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The value, as exact as `f64` gives it.
    pub value: f64,
    /// Largest absolute error that WGSL's accuracy rules allow the kernel.
    pub bound: f64,
}

impl Bounded {
    /// A result without error.
    pub fn exact(value: f64) -> Self {
        Self { value, bound: 0.0 }
    }
}

/// Bits that no kernel writes on purpose: a quiet NaN as `f32`, an absurd index as `u32`.
pub const POISON: u32 = 0x7fc0_dead;

/// The value of an uninitialized float: the NaN that [`POISON`] is. NaN results have other bits.
pub(super) const UNWRITTEN: f64 = f64::from_bits(0x7ff8_1bd5_a000_0000);

/// Whether a value of the host is that of an uninitialized float.
pub fn is_unwritten(value: f64) -> bool {
    value.to_bits() == UNWRITTEN.to_bits()
}

/// Whether each element of `tensor` still has the bytes of the word `poison`. For an element of a
/// quantized block, its scale must have them too.
pub fn untouched(tensor: Tensor, bytes: &[u8], poison: u32) -> Vec<bool> {
    let word = poison.to_le_bytes();
    let fresh = |at: usize, len: usize| {
        bytes[at..at + len].iter().zip(at..).all(|(&byte, i)| byte == word[i % 4])
    };
    let (dtype, cols) = (tensor.dtype, cols(tensor.shape));
    let size = |cols: usize| usize::try_from(dtype.row_bytes(cols as u64)).unwrap_or(usize::MAX);
    if !dtype.is_quantized() {
        return (0..bytes.len() / size(1)).map(|i| fresh(i * size(1), size(1))).collect();
    }
    let (row, block) = (size(cols), dtype.block() as usize);
    let integers = usize::try_from(dtype.integer_bytes(cols as u64)).unwrap_or(usize::MAX);
    (0..bytes.len() / row)
        .flat_map(|at| (0..cols).map(move |i| (at * row, i)))
        .map(|(row, i)| {
            fresh(row + i * integers / cols, 1) && fresh(row + integers + i / block * 2, 2)
        })
        .collect()
}
