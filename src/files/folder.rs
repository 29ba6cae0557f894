//! A folder whose files are written under temporary names, and renamed when they are complete.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use crate::base::error::{Error, Result};

/// A folder that is written to.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'a> {
    /// Where it is.
    pub dir: &'a Path,
}

impl<'a> Folder<'a> {
    /// The folder at `dir`, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created.
    pub fn make(dir: &'a Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|source| Error::io(dir, source))?;
        Ok(Self { dir })
    }

    /// Path of a file until it is complete.
    pub fn unfinished(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.part"))
    }

    /// Creates a file under its temporary name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created.
    pub fn create(&self, name: &str) -> Result<BufWriter<File>> {
        let path = self.unfinished(name);
        File::create(&path).map(BufWriter::new).map_err(|source| Error::io(path, source))
    }

    /// Syncs a complete file to the disk, then renames it to its final name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written or renamed.
    pub fn finish(&self, name: &str, file: BufWriter<File>) -> Result<()> {
        let path = self.dir.join(name);
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(self.unfinished(name), &path))
            .map_err(|source| Error::io(&path, source))
    }
}
