//! Weights of a model's files, checked as they are read: numbers that are not finite are refused.

use std::{collections::BTreeMap, ops::Deref};

use super::ModelFiles;
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
#[derive(Debug)]
pub struct Checked<S> {
    files: ModelFiles<S>,
    /// Elements of a row of each tensor.
    cols: BTreeMap<String, usize>,
    allow_non_finite: bool,
}

impl<S: Source> Checked<S> {
    pub(crate) fn new(files: ModelFiles<S>) -> Self {
        let of = |(name, _, shape): (&str, DType, &[u64])| {
            (name.to_owned(), usize::try_from(cols(shape)).unwrap_or(usize::MAX))
        };
        let cols = files.tensors().map(of).collect();
        Self { files, cols, allow_non_finite: false }
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

    /// Also [`Error::Checkpoint`] for a number that is not finite.
    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.files.read_rows(name, row0, rows, into).await?;
        if self.allow_non_finite {
            return Ok(());
        }
        let cols = self.cols.get(name).copied().unwrap_or(1);
        let Some(found) = not_finite(self.files.dtype(name)?, cols, into) else {
            return Ok(());
        };
        into.clear();
        let at = row0 * cols as u64 + found.first as u64;
        let problem = format!(
            "`{name}`{}: element {at}{} is {}, wanted finite numbers",
            file_of(&self.files, name),
            place(at, cols as u64),
            found.value
        );
        let error = Error::Checkpoint { path: self.files.path().into(), problems: vec![problem] };
        Err(error.with_hint(
            "Get the file again if it is damaged; `inspect --scan` lists all such tensors. The \
             option `--allow-non-finite`, in browsers `allowNonFinite`, goes on with them.",
        ))
    }
}

/// Elements of a row.
pub(super) fn cols(shape: &[u64]) -> u64 {
    shape.iter().skip(1).product()
}

/// Row and column of an element, for a message; nothing for a vector.
pub(super) fn place(element: u64, cols: u64) -> String {
    if cols <= 1 {
        return String::new();
    }
    format!(" (row {}, column {})", element / cols, element % cols)
}

/// Where a tensor lies, for a message.
fn file_of<S: Source>(files: &ModelFiles<S>, name: &str) -> String {
    match files.files_of(name)[..] {
        [] => String::new(),
        [file] => format!(" in {}", file.name()),
        [first, ..] => format!(" in {} and others", first.name()),
    }
}
