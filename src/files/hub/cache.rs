//! The hub's cache on a disk, in the layout that all programs share: `blobs/ETAG`,
//! `snapshots/COMMIT/PATH` and `refs/REVISION` in `models--OWNER--NAME`, with locks in `.locks`;
//! and `trees/COMMIT.json`, which lists a commit and is read only: to `huggingface_hub` a snapshot
//! that lacks any file of it is incomplete, and nothing is fetched here that the engine leaves.
//!
//! A snapshot has links to blobs, or the files themselves where the system makes no links. What is
//! being downloaded is beside the blobs under a name of its own, with a sidecar that says what it
//! is to become; both are gone when the blob is there.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "files are opened here")]

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::name::{Name, is_commit};
use crate::{
    base::error::{Error, Result},
    files::{
        folder::Folder,
        native::{names, read_small},
        replace::{make_parent, replace_file},
    },
};

/// Bytes that are read at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// Longest text of a ref or a sidecar.
const SMALL: u64 = 4096;

/// A model's part of the cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    /// `models--OWNER--NAME`.
    dir: PathBuf,
    locks: PathBuf,
}

/// What a partial download is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// The blob's name, which is its hash.
    pub(super) etag: String,
    /// Its length in bytes.
    pub(super) size: u64,
    /// The strong `ETag` of the server that gave the bytes, to ask it for the rest of the same.
    pub(super) validator: Option<String>,
}

/// The lock of a blob, held until it is dropped; nothing where the system has no locks.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held until it is dropped")] Option<File>);

impl Cache {
    pub(super) fn of(root: &Path, name: &Name) -> Self {
        Self { dir: root.join(name.folder()), locks: root.join(".locks").join(name.folder()) }
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(etag)
    }

    fn part(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(format!("{etag}.grok-wgpu.part"))
    }

    fn sidecar(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(format!("{etag}.grok-wgpu.json"))
    }

    /// Makes the folder of blobs.
    pub(super) fn make(&self) -> Result<()> {
        make_parent(&self.blob("x"))
    }

    /// Bytes that can still be written, if the system says.
    pub(super) fn room(&self) -> Option<u64> {
        Folder { dir: &self.dir.join("blobs") }.room()
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit_of(&self, revision: &str) -> Result<Option<String>> {
        let bytes = read_small(&self.dir.join("refs").join(revision), SMALL)?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| is_commit(text)))
    }

    /// Notes which commit a revision is.
    pub(super) fn note(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.dir.join("refs").join(revision);
        make_parent(&path)?;
        replace_file(&path, commit.as_bytes())
    }

    /// What other programs have noted that a commit has, if it is of `most` bytes at the most.
    pub(super) fn tree(&self, commit: &str, most: u64) -> Option<String> {
        let path = self.dir.join("trees").join(format!("{commit}.json"));
        String::from_utf8(read_small(&path, most).ok()??).ok()
    }

    /// Whether a snapshot has a file of this length.
    pub(super) fn has(&self, commit: &str, path: &str, size: u64) -> bool {
        let file = fs::metadata(self.snapshot(commit).join(path));
        file.is_ok_and(|file| file.is_file() && file.len() == size)
    }

    /// Whether a blob is there, with this length. One of another length is removed.
    pub(super) fn has_blob(&self, etag: &str, size: u64) -> Result<bool> {
        let path = self.blob(etag);
        match fs::metadata(&path) {
            Ok(file) if file.is_file() && file.len() == size => Ok(true),
            Ok(_) => {
                fs::remove_file(&path).map_err(|source| Error::io(&path, source))?;
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(&path, error)),
        }
    }

    /// Takes the lock of a blob, if no other program has it.
    pub(super) fn lock(&self, etag: &str) -> Result<Option<Lock>> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let fail = |source| Error::io(&path, source);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                Ok(Some(Lock(None)))
            }
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// Bytes of a partial download, as far as there is one with a sidecar.
    pub(super) fn partial(&self, etag: &str, size: u64) -> (u64, Option<String>) {
        let sidecar = read_small(&self.sidecar(etag), SMALL).ok().flatten();
        let sidecar = sidecar.and_then(|bytes| serde_json::from_slice::<Sidecar>(&bytes).ok());
        let Some(sidecar) = sidecar.filter(|of| of.etag == etag && of.size == size) else {
            return (0, None);
        };
        let len = fs::metadata(self.part(etag)).map_or(0, |part| part.len());
        if len > size { (0, None) } else { (len, sidecar.validator) }
    }

    /// Notes what a partial download is, before its first byte.
    pub(super) fn describe(&self, sidecar: &Sidecar) -> Result<()> {
        let text = serde_json::to_vec(sidecar).expect("texts and a number");
        replace_file(&self.sidecar(&sidecar.etag), &text)
    }

    /// Opens a partial download, cut to its first `len` bytes; `look` is given these.
    pub(super) fn open(
        &self,
        etag: &str,
        len: u64,
        mut look: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Part> {
        let path = self.part(etag);
        let fail = |source| Error::io(&path, source);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        file.set_len(len).map_err(fail)?;
        let mut chunk = vec![0; CHUNK];
        let mut left = len;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = file.read(&mut chunk[..most]).map_err(fail)?;
            if read == 0 {
                return Err(fail(ErrorKind::UnexpectedEof.into()));
            }
            look(&chunk[..read])?;
            left -= read as u64;
        }
        Ok(Part { path, file })
    }

    /// Gives a complete download its name as a blob.
    pub(super) fn finish(&self, etag: &str, part: Part) -> Result<()> {
        let fail = |source| Error::io(&part.path, source);
        part.file.sync_all().map_err(fail)?;
        drop(part.file);
        fs::rename(&part.path, self.blob(etag)).map_err(fail)?;
        remove(&self.sidecar(etag))
    }

    /// Removes a partial download.
    pub(super) fn discard(&self, etag: &str) -> Result<()> {
        remove(&self.part(etag))?;
        remove(&self.sidecar(etag))
    }

    /// Puts a blob into a snapshot: as a link, as a second name, or itself.
    pub(super) fn place(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let at = self.snapshot(commit).join(path);
        make_parent(&at)?;
        remove(&at)?;
        let up = "../".repeat(2 + path.matches('/').count());
        let target = format!("{up}blobs/{etag}");
        let blob = self.blob(etag);
        match link(Path::new(&target), &at) {
            Ok(()) => Ok(()),
            // Another program was faster, where there are no locks.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(_) => fs::hard_link(&blob, &at)
                .or_else(|_| fs::rename(&blob, &at))
                .map_err(|source| Error::io(&at, source)),
        }
    }

    /// The commits that are here.
    pub(super) fn commits(&self) -> Vec<String> {
        let mut all = names(&self.dir.join("snapshots")).unwrap_or_default();
        all.retain(|name| is_commit(name));
        all
    }
}

/// A partial download that is written to.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Appends bytes. They are the system's at once, so that nothing is lost when the program ends.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        io::Write::write_all(&mut self.file, bytes).map_err(|source| Error::io(&self.path, source))
    }

    /// Begins again with nothing.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| io::Seek::rewind(&mut self.file))
            .map_err(|source| Error::io(&self.path, source))
    }
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    // Windows follows no link with slashes.
    let target: PathBuf = target.components().collect();
    std::os::windows::fs::symlink_file(target, at)
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
