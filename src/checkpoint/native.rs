//! Models in folders: which files they are, opened and written.

use std::{
    fs::File,
    io::{self, BufWriter, ErrorKind},
    path::{Path, PathBuf},
};

use crate::{
    base::error::{Error, Result},
    checkpoint::{
        self, Checkpoint, Gguf, ModelFiles, gguf,
        write::{self, Layout, Output},
    },
    files::native::{FileSource, open_regular, read_text},
    model::{
        config::{Compat, Config},
        weights::Weights,
    },
    text::tokenizer::{MAX_FILE, Tokenizer},
};

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

pub(super) struct Folder<'a> {
    pub(super) dir: &'a Path,
}

impl Folder<'_> {
    pub(super) fn unfinished(&self, name: &str) -> PathBuf {
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
