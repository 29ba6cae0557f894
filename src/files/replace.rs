//! Atomic replacement of files: a reader sees the old content or the new, never a part.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "files are opened here")]

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process,
};

use crate::base::error::{Error, Result};

/// Writes a temporary file beside `path`, and renames it to `path` when it is complete.
///
/// Concurrent processes have temporary files of their own; the last rename wins. A symbolic link is
/// followed. What is not a regular file, such as a pipe or a terminal, is written to directly.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written. A regular file keeps its old content then.
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
        // It may not exist.
        let _ = fs::remove_file(&unfinished);
        Error::io(path, source)
    })
}

/// Runs `change`, which reads a file and replaces it, while no other process does so for the same
/// `path`. The lock is a file beside it, which stays. Where the system has no locks, `change` runs
/// without one.
///
/// # Errors
///
/// [`Error::Io`] if the lock cannot be created or taken; those of `change`.
pub fn alone<T>(path: &Path, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let fail = |source| Error::io(&lock, source);
    let file = OpenOptions::new().create(true).append(true).open(&lock).map_err(fail)?;
    match file.lock() {
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(fail(error)),
        _ => change(),
    }
}

/// Fails if a file cannot be written at `path`. It is created if it does not exist, and left as it
/// is otherwise.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be opened for writing.
pub fn check_writable(path: &Path) -> Result<()> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.map(drop).map_err(|source| Error::io(path, source))
}

/// Renames a file that cannot be read to one whose name ends in `.damaged`, and returns that.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be renamed.
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).map_err(|source| Error::io(path, source))?;
    Ok(aside)
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
