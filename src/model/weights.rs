//! Where the weights of a model come from: rows of tensors, by name.

use std::{fmt, pin::Pin, sync::Arc};

use crate::{
    base::{error::Result, tensor::DType},
    files::threads::Shareable,
};

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

    /// Whether rows are to be read one after another, not by several threads at once, since each
    /// read keeps what the next one needs.
    fn in_order(&self) -> bool {
        false
    }
}

/// Weights that an engine can keep. A clone is cheap, and reads the same.
pub trait Lasting: Weights + Clone + Shareable + 'static {}

impl<W: Weights + Clone + Shareable + 'static> Lasting for W {}

/// Rows of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Canonical name of the tensor.
    pub name: Arc<str>,
    /// The first row.
    pub row0: u64,
    /// How many.
    pub rows: u64,
}

impl<W: Weights> Weights for Arc<W> {
    fn dtype(&self, name: &str) -> Result<DType> {
        (**self).dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        (**self).read_rows(name, row0, rows, into).await
    }

    fn in_order(&self) -> bool {
        (**self).in_order()
    }
}

/// Weights of any type, for an engine that reads them as long as it lives. A clone reads the same.
#[derive(Clone)]
pub struct Stored(Arc<dyn Rows>);

impl Stored {
    /// A clone of these weights.
    pub fn new(weights: &impl Lasting) -> Self {
        Self(Arc::new(weights.clone()))
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}

impl Weights for Stored {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.0.dtype_of(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.0.rows(name, row0, rows, into).await
    }

    fn in_order(&self) -> bool {
        self.0.are_in_order()
    }
}

/// [`Weights`] as a trait of objects.
trait Rows: Shareable {
    fn dtype_of(&self, name: &str) -> Result<DType>;

    fn rows<'a>(
        &'a self,
        name: &'a str,
        row0: u64,
        rows: u64,
        into: &'a mut Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

    fn are_in_order(&self) -> bool;
}

impl<W: Weights + Shareable> Rows for W {
    fn dtype_of(&self, name: &str) -> Result<DType> {
        self.dtype(name)
    }

    fn rows<'a>(
        &'a self,
        name: &'a str,
        row0: u64,
        rows: u64,
        into: &'a mut Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>> {
        Box::pin(self.read_rows(name, row0, rows, into))
    }

    fn are_in_order(&self) -> bool {
        self.in_order()
    }
}
