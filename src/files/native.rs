//! Regular files: read at offsets, and as text.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "files are opened here")]

use std::{
    fs::{File, Metadata},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    base::error::{Error, Result},
    files::Source,
};

/// How long a read that failed waits before it is tried again. Disks over a network or a cable may
/// be away for a moment; one that stays away is told of within a second.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// A regular file, read at offsets. It is not memory-mapped (mmap), so a file that shrinks gives an
/// error, not a signal.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    name: String,
    held: Held,
    len: u64,
    /// When the file was last written to, where the system says.
    modified: Option<SystemTime>,
    /// What tells the file from others under its name, where the system says.
    number: u64,
}

#[derive(Debug)]
enum Held {
    Open(File),
    /// Opened for each read.
    Closed,
    /// No file: bytes that the program has.
    Bytes(&'static [u8]),
}

impl FileSource {
    /// Bytes that the program has, in place of a file. `name` is what messages call it.
    pub fn of_bytes(name: &str, bytes: &'static [u8]) -> Self {
        let len = bytes.len() as u64;
        let held = Held::Bytes(bytes);
        Self { path: name.into(), name: name.into(), held, len, modified: None, number: 0 }
    }

    /// Opens a regular file, or a link to one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the path is anything else or cannot be opened, [`Error::Format`] if its
    /// name
    /// is not UTF-8. Never blocks: a pipe is refused before it is opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::format(&path, "the file's name is not valid UTF-8"))?
            .to_owned();
        let (file, metadata) = open_regular(&path).map_err(|source| Error::io(&path, source))?;
        let (modified, number) = (metadata.modified().ok(), number(&metadata));
        Ok(Self { path, name, held: Held::Open(file), len: metadata.len(), modified, number })
    }

    /// As [`FileSource::open`], but the file is opened again for each read: for models of more
    /// files than a process may have open.
    ///
    /// # Errors
    ///
    /// Those of [`FileSource::open`].
    pub fn open_closed(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { held: Held::Closed, ..Self::open(path)? })
    }
}

impl FileSource {
    /// Has the system forget what it keeps of the file in memory, so that it is read from the disk.
    /// Returns whether it could be asked to.
    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub fn drop_cached(&self) -> bool {
        use rustix::fs::{Advice, fadvise};
        let forget = |file: &File| fadvise(file, 0, None, Advice::DontNeed).is_ok();
        match &self.held {
            Held::Open(file) => forget(file),
            Held::Closed => open_regular(&self.path).is_ok_and(|(file, _)| forget(&file)),
            Held::Bytes(_) => false,
        }
    }

    /// Has the system forget what it keeps of the file in memory, so that it is read from the disk.
    /// Returns whether it could be asked to: nobody can here.
    #[cfg(not(all(target_os = "linux", feature = "cli")))]
    pub fn drop_cached(&self) -> bool {
        false
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let wanted = into.len();
        let fail = |kind, what: String| {
            let what = format!("reading {wanted} bytes at offset {offset}: {what}");
            Error::io(&self.path, io::Error::new(kind, what))
        };
        let too_short = || {
            let what = format!("the file ends before that; it had {} bytes when opened", self.len);
            fail(ErrorKind::UnexpectedEof, what)
        };
        let again;
        let file = match &self.held {
            Held::Open(file) => file,
            Held::Closed => {
                let opened = again_after(&PAUSES, || open_regular(&self.path));
                again = opened.map_err(|error| fail(error.kind(), error.to_string()))?;
                &again.0
            }
            Held::Bytes(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
                let from = from.and_then(|bytes| bytes.get(..wanted)).ok_or_else(too_short)?;
                into.copy_from_slice(from);
                return Ok(());
            }
        };
        match again_after(&PAUSES, || read_exact_at(file, into, offset)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(too_short()),
            Err(error) => return Err(fail(error.kind(), error.to_string())),
        }
        // A file that is being written or was replaced in place must not pass for a whole one.
        let now = file.metadata().map_err(|error| fail(error.kind(), error.to_string()))?;
        if now.len() != self.len {
            let what = format!("the file's length went from {} to {} bytes", self.len, now.len());
            return Err(fail(ErrorKind::InvalidData, what));
        }
        if number(&now) != self.number {
            let what = "another file has its name since it was opened; run this again".to_owned();
            return Err(fail(ErrorKind::InvalidData, what));
        }
        if now.modified().ok() != self.modified {
            let what = "the file was written to since it was opened; run this again when that is \
                        done"
                .to_owned();
            return Err(fail(ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

/// The text of a regular file, at most `limit` bytes of it.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is longer or not UTF-8.
pub async fn read_text(path: &Path, limit: u64) -> Result<String> {
    super::read_text(&FileSource::open(path)?, limit).await
}

/// Sorted names of a folder's entries. Names that are not UTF-8 are converted lossily: they can be
/// printed, but not opened.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let fail = |source| Error::io(folder, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The bytes of a file, if it exists and has at most `most` of them.
///
/// # Errors
///
/// [`Error::Io`] if it exists and cannot be read.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let (file, metadata) = match open_regular(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|source| Error::io(path, source))?,
    };
    if metadata.len() > most {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, most + 1), &mut bytes)
        .map_err(|source| Error::io(path, source))?;
    Ok(Some(bytes))
}

/// The first `most` bytes of a regular file, or all if it has fewer.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read.
pub(crate) fn read_start(path: &Path, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_regular(path).and_then(|(file, _)| {
        io::Read::read_to_end(&mut io::Read::take(file, most as u64), &mut bytes)
    });
    read.map(|_| bytes).map_err(|source| Error::io(path, source))
}

/// Whether a regular file that can be read begins with these bytes.
pub(crate) fn starts_with<const N: usize>(path: &Path, bytes: &[u8; N]) -> bool {
    let mut start = [0; N];
    let read = open_regular(path).and_then(|(file, _)| read_exact_at(&file, &mut start, 0));
    read.is_ok() && start == *bytes
}

/// Creates a folder. Where the system has Unix modes, only the user can access it.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be created.
pub(crate) fn make_private_folder(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| Error::io(folder, source))
}

/// Tries once more after each pause while that fails, unless waiting is no help: where the file
/// ends, or is not there any more.
fn again_after<T>(
    pauses: &[Duration],
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    for pause in pauses {
        match attempt() {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof
                        | ErrorKind::NotFound
                        | ErrorKind::PermissionDenied
                        | ErrorKind::InvalidInput
                ) =>
            {
                std::thread::sleep(*pause);
            }
            done => return done,
        }
    }
    attempt()
}

/// The number that the system gives a file while it is there.
#[cfg(unix)]
fn number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// None: Windows tells it by an interface that is not stable in Rust.
#[cfg(not(unix))]
fn number(_: &Metadata) -> u64 {
    0
}

/// Opens a regular file. Its type is checked before, since opening a pipe would block, and again
/// after, in case the path was replaced meanwhile.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let refuse = |metadata: &Metadata| {
        let what = if metadata.is_dir() { "a folder" } else { "not a regular file" };
        io::Error::new(ErrorKind::InvalidInput, format!("this is {what}"))
    };
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(refuse(&metadata));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refuse(&metadata));
    }
    Ok((file, metadata))
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                into = &mut into[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_fails_is_tried_again_and_then_told() {
        let pauses = [Duration::ZERO; 2];
        // How often it fails, with what, and how often it is tried.
        for (fails, kind, tries) in [
            (0, ErrorKind::Other, 1),
            (1, ErrorKind::Other, 2),
            (2, ErrorKind::TimedOut, 3),
            (3, ErrorKind::TimedOut, 3),
            (9, ErrorKind::StaleNetworkFileHandle, 3),
            (1, ErrorKind::UnexpectedEof, 1),
            (1, ErrorKind::NotFound, 1),
        ] {
            let mut tried = 0;
            let done = again_after(&pauses, || {
                tried += 1;
                if tried > fails { Ok(tried) } else { Err(io::Error::from(kind)) }
            });
            assert_eq!(tried, tries, "{fails} times {kind}");
            let want = if tries > fails { Ok(tries) } else { Err(kind) };
            assert_eq!(done.map_err(|error| error.kind()), want);
        }
    }
}
