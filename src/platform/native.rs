//! Files: checkpoints read at offsets, configurations, tokenizers, and folders that are written.

mod pipelines;
mod quantize;
mod replace;

use std::{
    fs::{File, Metadata},
    io::{self, BufWriter, ErrorKind},
    path::{Path, PathBuf},
};

use super::Source;
use crate::{
    Checkpoint, Compat, Config, Error, Gguf, ModelFiles, Result, Tokenizer, Weights,
    checkpoint::{
        self, gguf,
        write::{self, Layout, Output},
    },
    tokenizer::MAX_FILE,
};

pub use self::pipelines::{restore_pipelines, save_pipelines};
pub use self::quantize::{Outcome, Quantize, on_all_cores};
pub use self::replace::replace_file;

/// A regular file, read by position. Nothing is mapped, so a file that shrinks is an error and not
/// a signal.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    name: String,
    file: File,
    len: u64,
}

impl FileSource {
    /// Opens a regular file, or a link to one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the path is anything else or cannot be opened. Never waits: a pipe is
    /// refused before it is opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::format(&path, "the file's name is not valid UTF-8"))?
            .to_owned();
        let (file, metadata) = open_regular(&path).map_err(|source| Error::io(&path, source))?;
        Ok(Self { path, name, file, len: metadata.len() })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
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
        match read_exact_at(&self.file, into, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(fail(
                    ErrorKind::UnexpectedEof,
                    format!("the file ends before that; it had {} bytes when opened", self.len),
                ));
            }
            Err(error) => return Err(fail(error.kind(), error.to_string())),
        }
        // A file that is being written or was replaced in place must not pass for a whole one.
        let now = self.file.metadata().map_err(|error| fail(error.kind(), error.to_string()))?;
        if now.len() != self.len {
            let what = format!("the file's length went from {} to {} bytes", self.len, now.len());
            return Err(fail(ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

/// The `*.safetensors` and `*.index.json` files of a folder, sorted by name; or the one file that
/// `path` is.
///
/// # Errors
///
/// [`Error::Io`] if the path does not exist or one of those files cannot be opened,
/// [`Error::Format`] if the folder holds no such file.
pub fn open_folder(path: &Path) -> Result<Vec<FileSource>> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
    if !metadata.is_dir() {
        return Ok(vec![FileSource::open(path)?]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|source| Error::io(path, source))? {
        let entry = entry.map_err(|source| Error::io(path, source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if checkpoint::is_part(&name) {
            found.push(entry.path());
        }
    }
    if !found.iter().any(|path| path.extension().is_some_and(|e| e == "safetensors")) {
        return Err(Error::format(path, "the folder holds no *.safetensors file"));
    }
    found.sort();
    found.into_iter().map(FileSource::open).collect()
}

/// The GGUF file that `path` is, or the one model in GGUF that a folder without `config.json` holds.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read, [`Error::Format`] if it holds several models.
pub fn find_gguf(path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = |path: &Path| {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    };
    if !path.is_dir() {
        return Ok(is_gguf(path).then(|| path.to_owned()));
    }
    if path.join("config.json").exists() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|source| Error::io(path, source))? {
        let entry = entry.map_err(|source| Error::io(path, source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Of a split model the first part stands for all.
        let first = gguf::part(&name).is_none_or(|(_, number, _)| number == 1);
        if !name.starts_with('.') && first && is_gguf(&entry.path()) {
            found.push(entry.path());
        }
    }
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [one, ..] => Err(Error::format(
            path,
            format!(
                "the folder holds {} GGUF models: name one of the files, such as {}",
                found.len(),
                one.display()
            ),
        )),
    }
}

/// The file that `path` is, or all parts of the split model that it is a part of.
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be opened, [`Error::Checkpoint`] with all parts that are missing.
pub fn open_gguf(path: &Path) -> Result<Vec<FileSource>> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let Some((stem, _, count)) = gguf::part(&name) else {
        return Ok(vec![FileSource::open(path)?]);
    };
    let names = (1..=count).map(|number| format!("{stem}-{number:05}-of-{count:05}.gguf"));
    let parts: Vec<PathBuf> = names.map(|name| path.with_file_name(name)).collect();
    let missing: Vec<String> = parts
        .iter()
        .filter(|part| !part.exists())
        .take(100)
        .map(|part| format!("{} is missing", part.display()))
        .collect();
    if !missing.is_empty() {
        return Err(Error::Checkpoint { path: path.into(), problems: missing });
    }
    parts.into_iter().map(FileSource::open).collect()
}

/// Opens the model that a folder, a file in it, or a GGUF file is. Also returns its configuration,
/// with the arithmetic that `compat` says, and warnings.
///
/// # Errors
///
/// Those of [`Config::open`], [`open_folder`], [`Checkpoint::open`], [`open_gguf`] and
/// [`Gguf::open`].
pub async fn open_model(
    path: &Path,
    compat: Compat,
) -> Result<(Config, ModelFiles<FileSource>, Vec<String>)> {
    if let Some(file) = find_gguf(path)? {
        let gguf = Gguf::open(&file, open_gguf(&file)?, compat).await?;
        let (config, warnings) = (gguf.config().clone(), gguf.warnings().to_vec());
        return Ok((config, ModelFiles::Gguf(Box::new(gguf)), warnings));
    }
    let (mut config, mut warnings) = Config::open(path)?;
    let checkpoint = Checkpoint::open(path, open_folder(path)?, &config).await?;
    if compat == Compat::LlamaCpp {
        config = config.as_llama_cpp();
    }
    warnings.extend_from_slice(checkpoint.warnings());
    Ok((config, ModelFiles::Safetensors(Box::new(checkpoint)), warnings))
}

impl Config {
    /// Reads the `config.json` of a folder, of the folder that a file lies in, or the file itself
    /// if its name ends in `.json`; or the metadata of a GGUF. Also returns warnings, as
    /// [`Config::from_json`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, and those of [`Config::from_json`] or [`Gguf::open`].
    pub fn open(path: &Path) -> Result<(Self, Vec<String>)> {
        if let Some(file) = find_gguf(path)? {
            let gguf = Gguf::open(&file, open_gguf(&file)?, Compat::Reference);
            let gguf = pollster::block_on(gguf)?;
            return Ok((gguf.config().clone(), gguf.warnings().to_vec()));
        }
        let path = if path.is_dir() {
            path.join("config.json")
        } else if path.extension().is_some_and(|extension| extension == "json") {
            path.to_owned()
        } else {
            path.with_file_name("config.json")
        };
        // Longer than this is refused by the parser, so there is no need to read on.
        let text = read_text(&path, 5 << 20)?;
        Self::from_json(&path, &text)
    }
}

impl Tokenizer {
    /// Opens the tokenizer of the checkpoint in `dir`: `tokenizer.tok.json` if it is there, else
    /// `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file or the folder cannot be read, [`Error::Tokenizer`] if there is none
    /// of the files or it makes no sense.
    pub fn open(dir: &Path) -> Result<Self> {
        let read = |path: &Path| match open_regular(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, error)),
            Ok((file, metadata)) => {
                let size = metadata.len();
                if size > MAX_FILE {
                    let what =
                        format!("the file has {size} bytes, more than the {MAX_FILE} allowed");
                    return Err(Error::Tokenizer { path: path.to_owned(), what });
                }
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE + 1), &mut bytes)
                    .map(|_| Some(bytes))
                    .map_err(|error| Error::io(path, error))
            }
        };
        for name in Self::FILES {
            let path = dir.join(name);
            if let Some(bytes) = read(&path)? {
                return Self::from_file(path, &bytes);
            }
        }
        // A folder that is not there is a different mistake.
        std::fs::metadata(dir).map_err(|error| Error::io(dir, error))?;
        Err(Self::missing(dir, |name| dir.join(name).exists()))
    }
}

/// The text of a regular file, at most `limit` bytes of it.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is longer or not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let (mut file, metadata) = open_regular(path).map_err(|source| Error::io(path, source))?;
    if metadata.len() > limit {
        return Err(Error::format(
            path,
            format!("{} bytes are more than the {limit} that are read", metadata.len()),
        ));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut file, limit + 1), &mut bytes)
        .map_err(|source| Error::io(path, source))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::format(path, format!("not UTF-8 text: the byte at {at} is wrong"))
    })
}

/// Writes `config.json` and the weights to a folder, which is made if it does not exist. Every file
/// gets its name only when it is whole; files of these names are replaced.
///
/// # Errors
///
/// [`Error::Io`] if something cannot be written, [`Error::Usage`] if the layout does not suit the
/// model, and whatever `weights` gives.
pub fn write_checkpoint(
    dir: &Path,
    config: &Config,
    weights: &impl Weights,
    layout: Layout,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|source| Error::io(dir, source))?;
    pollster::block_on(write::write(&mut Folder { dir }, config, weights, layout))
}

struct Folder<'a> {
    dir: &'a Path,
}

impl Folder<'_> {
    fn unfinished(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.part"))
    }
}

impl Output for Folder<'_> {
    type File = BufWriter<File>;

    fn create(&mut self, name: &str) -> Result<Self::File> {
        let path = self.unfinished(name);
        File::create(&path).map(BufWriter::new).map_err(|source| Error::io(path, source))
    }

    fn finish(&mut self, name: &str, file: Self::File) -> Result<()> {
        let path = self.dir.join(name);
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(self.unfinished(name), &path))
            .map_err(|source| Error::io(&path, source))
    }
}

/// Opens what is a regular file before and after: opening a pipe would wait for its other end.
fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
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
