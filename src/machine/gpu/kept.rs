//! The file of the pipeline cache, which keeps what a driver compiled between runs of the program.

use std::path::{Path, PathBuf};

use crate::{
    base::error::Result,
    files::{
        native::{make_private_folder, read_small},
        replace::replace_file,
    },
    machine::gpu::Gpu,
};

/// Bytes of the largest file that is read or written. A driver's cache only grows; one beyond this
/// is not saved.
const MOST: u64 = 64 << 20;

/// Loads the pipeline cache that an earlier run saved in `folder`. Returns whether it was usable.
///
/// Files that are too large, damaged or of another driver are ignored.
///
/// # Errors
///
/// [`Error::Io`] if there is a file that cannot be read. The device starts with an empty cache
/// then.
///
/// [`Error::Io`]: crate::base::error::Error::Io
pub fn restore_pipelines(folder: &Path, gpu: &mut Gpu) -> Result<bool> {
    let Some(path) = file(folder, gpu) else { return Ok(false) };
    let sealed = read_small(&path, MOST);
    let restored = gpu.keep_pipelines(sealed.as_ref().ok().and_then(Option::as_deref));
    sealed.map(|_| restored)
}

/// Saves a device's pipeline cache in `folder`, which is created if it does not exist, for
/// [`restore_pipelines`]. Returns whether a file was written.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written. The next run then compiles again.
///
/// [`Error::Io`]: crate::base::error::Error::Io
pub fn save_pipelines(folder: &Path, gpu: &Gpu) -> Result<bool> {
    let Some(path) = file(folder, gpu) else { return Ok(false) };
    let Some(sealed) = gpu.kept_pipelines() else { return Ok(false) };
    let known = matches!(read_small(&path, MOST), Ok(Some(before)) if before == sealed);
    if known || sealed.len() as u64 > MOST {
        return Ok(false);
    }
    make_private_folder(folder)?;
    replace_file(&path, &sealed)?;
    Ok(true)
}

fn file(folder: &Path, gpu: &Gpu) -> Option<PathBuf> {
    gpu.pipelines_name().map(|name| folder.join(name))
}
