//! A text file that grows by lines, held by one process at a time.

#![expect(clippy::disallowed_types, reason = "files are opened here")]

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::base::error::{Error, Result};

/// A log file, locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log at `path`, which is created if it does not exist. `None` if another process
    /// has it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be opened or locked.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let fail = |source| Error::io(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// Truncates the log to its first `len` bytes; what is appended next follows them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be changed.
    pub(crate) fn cut(&mut self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .and_then(|()| self.file.seek(SeekFrom::Start(len)))
            .map(drop)
            .map_err(|source| Error::io(&self.path, source))
    }

    /// Appends `text` and syncs it to disk.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written.
    pub(crate) fn append(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| Error::io(&self.path, source))
    }
}
