//! A folder whose files are written under temporary names, and renamed when they are complete.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "files are opened here")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use crate::base::error::{Error, Result};

/// A file of a [`Folder`] that is being written.
pub type PartFile = BufWriter<File>;

/// Syncs a [`PartFile`] to disk while somebody else writes to it.
#[derive(Debug)]
pub(crate) struct Syncer(File);

impl Syncer {
    /// Of this file; `None` if the system gives no second handle.
    pub(crate) fn of(part: &PartFile) -> Option<Self> {
        part.get_ref().try_clone().ok().map(Self)
    }

    /// Waits until the disk has what was flushed.
    ///
    /// # Errors
    ///
    /// What the system gives.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

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

    /// A folder with nothing in it, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created or listed, [`Error::Usage`] if there is something in
    /// it.
    pub fn make_empty(dir: &'a Path) -> Result<Self> {
        let folder = Self::make(dir)?;
        let first = fs::read_dir(dir).map_err(|source| Error::io(dir, source))?.next();
        if first.is_none() {
            return Ok(folder);
        }
        Err(Error::Usage(format!("{}: there is something in this folder", dir.display()))
            .with_hint("Give the name of a new folder, or of an empty one."))
    }

    /// Bytes that this user can still write to the folder's disk; `None` if the system does not
    /// say.
    pub(crate) fn room(&self) -> Option<u64> {
        let disk = fs4::statvfs(self.dir).ok()?;
        // Some network drives say nothing of their size.
        (disk.total_space() > 0).then(|| disk.available_space())
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
    pub fn create(&self, name: &str) -> Result<PartFile> {
        let path = self.unfinished(name);
        File::create(&path).map(BufWriter::new).map_err(|source| Error::io(path, source))
    }

    /// Syncs a complete file to the disk, then renames it to its final name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written or renamed.
    pub fn finish(&self, name: &str, file: PartFile) -> Result<()> {
        self.sync(name, file)?;
        self.name(name)
    }

    /// Opens an unfinished file again, to go on after its first `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be opened or changed.
    pub(crate) fn reopen(&self, name: &str, len: u64) -> Result<PartFile> {
        let path = self.unfinished(name);
        let fail = |source| Error::io(&path, source);
        let mut file = OpenOptions::new().write(true).open(&path).map_err(fail)?;
        file.set_len(len).map_err(fail)?;
        file.seek(SeekFrom::Start(len)).map_err(fail)?;
        Ok(BufWriter::new(file))
    }

    /// Writes an unfinished file to disk, all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if that fails.
    pub(crate) fn sync(&self, name: &str, file: PartFile) -> Result<()> {
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|source| Error::io(self.dir.join(name), source))
    }

    /// Gives an unfinished file its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be renamed.
    pub(crate) fn name(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::rename(self.unfinished(name), &path).map_err(|source| Error::io(&path, source))
    }

    /// Bytes of an unfinished file; none if it does not exist. A file that has its name already,
    /// and no unfinished one beside it, loses the name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be looked at or renamed.
    pub(crate) fn unfinished_bytes(&self, name: &str) -> Result<u64> {
        let (part, whole) = (self.unfinished(name), self.dir.join(name));
        if whole.is_file() && !part.exists() {
            fs::rename(&whole, &part).map_err(|source| Error::io(&whole, source))?;
        }
        match fs::metadata(&part) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io(&part, error)),
        }
    }

    /// Copies a file from elsewhere as an unfinished file of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be copied.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        fs::copy(from, self.unfinished(name)).map(drop).map_err(|source| Error::io(from, source))
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::remove_file(&path).map_err(|source| Error::io(&path, source))
    }
}
