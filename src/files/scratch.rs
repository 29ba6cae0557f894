//! A file that is there for a measurement, and gone afterwards.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "files are opened here")]

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process,
};

use super::native::FileSource;
use crate::base::error::{Error, Result};

/// A file of bytes that mean nothing. It is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    source: Option<FileSource>,
}

impl Scratch {
    /// Writes `count` times `bytes` to a new file in a folder, to the disk. `progress` is called
    /// after each; an error from it ends the work, and the file is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written; those of `progress`.
    pub fn new(
        folder: &Path,
        bytes: &[u8],
        count: usize,
        progress: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
        let path = folder.join(format!("grok-wgpu-scratch.{}.part", process::id()));
        let fail = |source| Error::io(&path, source);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(fail)?;
        let mut scratch = Self { path: path.clone(), source: None };
        for _ in 0..count {
            file.write_all(bytes).map_err(fail)?;
            progress()?;
        }
        file.sync_all().map_err(fail)?;
        drop(file);
        scratch.source = Some(FileSource::open(&path)?);
        Ok(scratch)
    }

    /// The file, to be read.
    ///
    /// # Panics
    ///
    /// Never: it was opened when it was made.
    pub fn source(&self) -> &FileSource {
        self.source.as_ref().expect("it was opened")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Systems that remove no open files want it closed. It may be gone.
        self.source = None;
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::files::Source as _;

    #[test]
    fn it_is_there_and_then_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = || fs::read_dir(folder.path()).expect("a folder").next().is_none();
        let mut calls = 0;
        let scratch = Scratch::new(folder.path(), &[7; 100], 3, &mut || {
            calls += 1;
            Ok(())
        });
        let scratch = scratch.expect("it is written");
        let mut into = [0; 10];
        block_on(scratch.source().read(290, &mut into)).expect("it is read");
        assert_eq!((into, scratch.source().len(), calls), ([7; 10], 300, 3));
        assert!(!empty());
        drop(scratch);
        assert!(empty());
        let stopped = Scratch::new(folder.path(), &[7; 100], 3, &mut || Err(Error::Interrupted));
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert!(empty());
    }
}
