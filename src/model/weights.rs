//! Where the weights of a model come from: rows of tensors, by name.

use crate::base::{error::Result, tensor::DType};

/// A source of a model's weights, by canonical name: see [`tensors`].
///
/// [`tensors`]: crate::model::schema::tensors
#[expect(async_fn_in_trait, reason = "a session is one thread, and browser futures are not Send")]
pub trait Weights {
    /// Element type of a tensor.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is no tensor of this name.
    ///
    /// [`Error::Usage`]: crate::base::error::Error::Usage
    fn dtype(&self, name: &str) -> Result<DType>;

    /// Replaces `into` with rows `row0 .. row0 + rows` of a tensor: row-major, little-endian, in
    /// the type that [`Weights::dtype`] says. A row is what one index of the first axis selects;
    /// in a one-dimensional tensor it is one element.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is no such tensor or it has fewer rows; errors of reading.
    ///
    /// [`Error::Usage`]: crate::base::error::Error::Usage
    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()>;
}
