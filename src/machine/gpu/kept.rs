//! The file that keeps what a driver compiled, from one run of the program to the next.

use std::path::{Path, PathBuf};

use crate::{
    base::error::Result,
    files::{
        native::{make_private_folder, read_small},
        replace::replace_file,
    },
    machine::gpu::Gpu,
};

/// Bytes of the largest file that is read or written. What a driver keeps only grows; beyond this
/// it begins again.
const MOST: u64 = 64 << 20;

/// Gives a device what an earlier run kept in `folder`. Returns whether there was something of use.
///
/// Files that are too large, damaged or of another driver are ignored.
///
/// # Errors
///
/// [`Error::Io`] if there is a file that cannot be read. The device compiles what it needs then.
///
/// [`Error::Io`]: crate::base::error::Error::Io
pub fn restore_pipelines(folder: &Path, gpu: &mut Gpu) -> Result<bool> {
    let Some(path) = file(folder, gpu) else { return Ok(false) };
    let sealed = read_small(&path, MOST);
    let restored = gpu.keep_pipelines(sealed.as_ref().ok().and_then(Option::as_deref));
    sealed.map(|_| restored)
}

/// Keeps what a device has compiled in `folder`, which is made if it does not exist, for
/// [`restore_pipelines`]. Returns whether there was something new.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written. Nothing is lost but time.
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
