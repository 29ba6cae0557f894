//! The file that keeps what a driver compiled, from one run of the program to the next.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::{open_regular, replace_file};
use crate::{Error, Gpu, Result};

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
pub fn restore_pipelines(folder: &Path, gpu: &mut Gpu) -> Result<bool> {
    let Some(path) = file(folder, gpu) else { return Ok(false) };
    let sealed = read(&path);
    let restored = gpu.keep_pipelines(sealed.as_ref().ok().and_then(Option::as_deref));
    sealed.map(|_| restored)
}

/// Keeps what a device has compiled in `folder`, which is made if it does not exist, for
/// [`restore_pipelines`]. Returns whether there was something new.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written. Nothing is lost but time.
pub fn save_pipelines(folder: &Path, gpu: &Gpu) -> Result<bool> {
    let Some(path) = file(folder, gpu) else { return Ok(false) };
    let Some(sealed) = gpu.kept_pipelines() else { return Ok(false) };
    let known = matches!(read(&path), Ok(Some(before)) if before == sealed);
    if known || sealed.len() as u64 > MOST {
        return Ok(false);
    }
    make_folder(folder).map_err(|source| Error::io(folder, source))?;
    replace_file(&path, &sealed)?;
    Ok(true)
}

fn file(folder: &Path, gpu: &Gpu) -> Option<PathBuf> {
    gpu.pipelines_name().map(|name| folder.join(name))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let (file, metadata) = match open_regular(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|source| Error::io(path, source))?,
    };
    if metadata.len() > MOST {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|source| Error::io(path, source))?;
    Ok(Some(bytes))
}

/// A folder that nobody else can put files in, as far as the system knows of such.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
