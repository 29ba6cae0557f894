//! Files that are there as a whole or not at all.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "files are opened here")]

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    process,
};

use crate::base::error::{Error, Result};

/// Writes a file beside its place and moves it there when it is whole.
///
/// Programs that run at once write files of their own; the last to finish gives its name. A link keeps
/// leading to the file, and what is no file, as a pipe or a terminal, is written to.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written. What was there before is still there then.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let there = fs::canonicalize(path);
    let there = there.as_deref().unwrap_or(path);
    if fs::metadata(there).is_ok_and(|what| !what.is_file()) {
        return fs::write(there, bytes).map_err(|error| Error::io(path, error));
    }
    let mut unfinished = there.as_os_str().to_owned();
    unfinished.push(format!(".{}.part", process::id()));
    let written = File::create(&unfinished)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, there));
    written.map_err(|source| {
        // It may never have come to be.
        let _ = fs::remove_file(&unfinished);
        Error::io(path, source)
    })
}

/// Fails if a file cannot be written at `path`, which is created if it does not exist and left as it
/// is otherwise.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be opened for writing.
pub fn check_writable(path: &Path) -> Result<()> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.map(drop).map_err(|source| Error::io(path, source))
}

/// Creates the folder that `path` is to lie in, if it does not exist.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be created.
pub fn make_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::create_dir_all(folder).map_err(|source| Error::io(folder, source)),
        None => Ok(()),
    }
}
