//! Reads every weight of a model, and looks for signs of damage.

use super::{ModelFiles, place, row_elements};
use crate::{
    base::{error::Result, finite::not_finite, tensor::DType},
    files::Source,
    model::weights::Weights as _,
};

/// Bytes that are read at a time.
const WINDOW: u64 = 16 << 20;

/// Bytes at the end of a file that are zeros in a download that did not finish.
const TAIL: u64 = 64 << 10;

/// What is odd about a tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The tensor.
    pub name: String,
    /// The files that hold it.
    pub files: Vec<String>,
    /// Its extents.
    pub shape: Vec<u64>,
    /// How many of its elements are NaN or infinite; all of a block whose scale is.
    pub non_finite: u64,
    /// The first of them, and its value.
    pub first: Option<(u64, f32)>,
    /// How many of its rows at the end are zeros in the file. Of a vector, all elements or none.
    pub zero_rows: u64,
}

impl Finding {
    /// A sentence for each odd thing.
    pub fn sentences(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some((at, value)) = self.first {
            all.push(format!(
                "{} elements are not finite, the first is element {at}{}: {value}",
                self.non_finite,
                place(&self.shape, at)
            ));
        }
        let rows = self.shape.first().copied().unwrap_or(1);
        if self.zero_rows == rows {
            all.push("all elements are zeros".into());
        } else if self.zero_rows > 0 {
            all.push(format!("the last {} of {rows} rows are zeros", self.zero_rows));
        }
        all
    }
}

/// What is odd about the tensors of a model, sorted by name. `progress` is called with the number
/// of bytes read so far; an error from it stops the scan.
///
/// # Errors
///
/// Errors of reading and of `progress`.
pub async fn scan<S: Source>(
    files: &ModelFiles<S>,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut buffer = Vec::new();
    let mut done = 0;
    for (name, dtype, shape) in files.tensors() {
        let mut more = |bytes| {
            done += bytes;
            progress(done)
        };
        let tensor = (name, dtype, shape);
        findings.extend(scan_tensor(files, tensor, &mut buffer, &mut more).await?);
    }
    Ok(findings)
}

async fn scan_tensor<S: Source>(
    files: &ModelFiles<S>,
    (name, dtype, shape): (&str, DType, &[u64]),
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Option<Finding>> {
    let rows = shape.first().copied().unwrap_or(1);
    let cols = row_elements(shape);
    let at_once = (WINDOW / dtype.row_bytes(cols).max(1)).max(1);
    let mut finding = Finding { name: name.into(), shape: shape.into(), ..Finding::default() };
    let mut row = 0;
    while row < rows {
        let count = at_once.min(rows - row);
        files.read_rows(name, row, count, buffer).await?;
        let width = usize::try_from(cols).unwrap_or(usize::MAX);
        if let Some(found) = not_finite(dtype, width, buffer) {
            finding.non_finite += found.count;
            finding.first.get_or_insert((row * cols + found.first as u64, found.value));
        }
        let row_bytes = (buffer.len() as u64 / count).max(1);
        let zeros = buffer.iter().rev().take_while(|&&byte| byte == 0).count() as u64 / row_bytes;
        finding.zero_rows = if zeros == count { finding.zero_rows + count } else { zeros };
        progress(buffer.len() as u64)?;
        row += count;
    }
    // Single elements of a vector may well be zero.
    if shape.len() < 2 && finding.zero_rows < rows {
        finding.zero_rows = 0;
    }
    if finding.non_finite == 0 && finding.zero_rows == 0 {
        return Ok(None);
    }
    finding.files = files.files_of(name).iter().map(|file| file.name().to_owned()).collect();
    Ok(Some(finding))
}

/// A warning for each file that ends in zeros, as it does if a download that reserved its length
/// did not finish.
///
/// # Errors
///
/// Errors of reading.
pub(super) async fn unfinished<S: Source>(files: &ModelFiles<S>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let mut tail = vec![0; usize::try_from(TAIL).unwrap_or(0)];
    for source in files.sources() {
        let Some(start) = source.len().checked_sub(TAIL) else { continue };
        source.read(start, &mut tail).await?;
        if tail.iter().all(|&byte| byte == 0) {
            warnings.push(format!(
                "{}: the last {} KiB are zeros, as in a download that did not finish; compare its \
                 SHA-256 with the publisher's, or see `inspect --scan`",
                source.name(),
                TAIL >> 10
            ));
        }
    }
    Ok(warnings)
}
