//! Weights of a model's files, checked as they are read: numbers that are not finite are refused.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use super::{ModelFiles, place, row_elements, tensor};
use crate::{
    base::{
        error::{Error, Result},
        finite::not_finite,
        tensor::DType,
    },
    files::Source,
    model::weights::Weights,
};

/// [`ModelFiles`] whose [`Weights::read_rows`] refuses rows with a NaN or an infinity, unless they
/// are allowed.
///
/// A clone reads the same open files.
#[derive(Debug)]
pub struct Checked<S> {
    files: Arc<ModelFiles<S>>,
    /// Extents of each tensor.
    shapes: Arc<BTreeMap<String, Vec<u64>>>,
    allow_non_finite: bool,
}

impl<S> Clone for Checked<S> {
    fn clone(&self) -> Self {
        let Self { files, shapes, allow_non_finite } = self;
        Self { files: files.clone(), shapes: shapes.clone(), allow_non_finite: *allow_non_finite }
    }
}

impl<S: Source> Checked<S> {
    pub(crate) fn new(files: ModelFiles<S>) -> Self {
        let of = |(name, _, shape): (&str, DType, &[u64])| (name.to_owned(), shape.to_vec());
        let shapes: BTreeMap<_, _> = files.tensors().map(of).collect();
        Self { files: Arc::new(files), shapes: Arc::new(shapes), allow_non_finite: false }
    }

    /// Gives rows as they are, for whoever wants to see what a model with such weights computes.
    pub fn allow_non_finite(&mut self) {
        self.allow_non_finite = true;
    }
}

impl<S> Deref for Checked<S> {
    type Target = ModelFiles<S>;

    fn deref(&self) -> &Self::Target {
        &self.files
    }
}

impl<S: Source> Weights for Checked<S> {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.files.dtype(name)
    }

    fn in_order(&self) -> bool {
        self.files.in_order()
    }

    /// Also [`Error::Checkpoint`] for a number that is not finite.
    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.files.read_rows(name, row0, rows, into).await?;
        if self.allow_non_finite {
            return Ok(());
        }
        let shape = tensor(&self.shapes, self.files.path(), name)?;
        let cols = row_elements(shape);
        let width = usize::try_from(cols).unwrap_or(usize::MAX);
        let Some(found) = not_finite(self.files.dtype(name)?, width, into) else {
            return Ok(());
        };
        into.clear();
        let at = row0 * cols + found.first as u64;
        let problem = format!(
            "`{name}`{}: element {at}{} is {}, wanted finite numbers",
            file_of(&self.files, name),
            place(shape, at),
            found.value
        );
        let error = Error::Checkpoint { path: self.files.path().into(), problems: vec![problem] };
        Err(error.with_hint(
            "Get the file again if it is damaged; `inspect --scan` lists all such tensors. The \
             option `--allow-non-finite`, in browsers `allowNonFinite`, goes on with them.",
        ))
    }
}

/// Where a tensor lies, for a message.
fn file_of<S: Source>(files: &ModelFiles<S>, name: &str) -> String {
    match files.files_of(name)[..] {
        [] => String::new(),
        [file] => format!(" in {}", file.name()),
        [first, ..] => format!(" in {} and others", first.name()),
    }
}
