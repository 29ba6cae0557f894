//! Models in folders: finding, opening and writing their files.

use std::path::{Path, PathBuf};

use crate::{
    base::error::{Error, Result},
    checkpoint::{
        gguf,
        open::{self, CONFIG, Opened},
        place, release, usual,
        write::{self, Layout, Output},
    },
    files::{
        Source as _,
        folder::{Folder, PartFile},
        native::{FileSource, names, starts_with},
    },
    model::{
        config::{Compat, Config},
        weights::Weights,
    },
    text::tokenizer::Tokenizer,
};

/// Whether the file of this name lies beside the weights of a model, and holds none.
pub(super) fn is_beside_weights(name: &str) -> bool {
    name == CONFIG
        || name.ends_with(".index.json")
        || open::is_tokenizer(name)
        || usual::is_usual(name)
}

/// The files of the model at `path`, which is a folder, a file in it, or a GGUF file.
fn files(path: &Path) -> Result<Vec<FileSource>> {
    let (folder, file) = if path.is_dir() {
        (path, None)
    } else {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::format(path, "the file's name is not valid UTF-8").with_hint("Rename the file.")
        })?;
        (parent.unwrap_or(Path::new(".")), Some(name))
    };
    // A file beside the weights stands for its folder.
    let named = file.filter(|name| !is_beside_weights(name));
    let listed = names(folder)?;
    if let Some(tensors) = release_in(folder, &listed, named) {
        return release_files(&tensors);
    }
    let begins = |name: &str| starts_with(&folder.join(name), &gguf::MAGIC);
    let chosen = open::choose(folder, &listed, named, &begins)?;
    if chosen.iter().any(|name| name == CONFIG) {
        let is_none = match named {
            None => place::folder_without_model(folder, &listed),
            Some(_) => place::file_without_model(path, listed.iter().any(|name| name == CONFIG)),
        };
        if let Some(error) = is_none {
            return Err(error);
        }
    }
    // A path that was given as `x` stays `x` in messages, rather than `./x`.
    let at = |name: String| match file {
        Some(_) => path.with_file_name(name),
        None => path.join(name),
    };
    let open = |path: PathBuf| match place::dangling(&path) {
        Some(error) => Err(error),
        None => FileSource::open(path),
    };
    chosen.into_iter().map(|name| open(at(name))).collect()
}

/// The folder of the tensors, if a folder with these names is Grok-1's first release or holds it.
/// `named` is the file that the user named.
fn release_in(folder: &Path, listed: &[String], named: Option<&str>) -> Option<PathBuf> {
    if let Some(named) = named {
        return release::is_tensor(named).then(|| folder.to_owned());
    }
    if listed.iter().any(|name| name.ends_with(".safetensors") || open::is_gguf(name)) {
        return None;
    }
    if listed.iter().any(|name| release::is_tensor(name)) {
        return Some(folder.to_owned());
    }
    listed.iter().find(|name| *name == release::FOLDER).map(|name| folder.join(name))
}

/// The folder of a model's configuration and tokenizer, of the folder that has its weights: the
/// first release of Grok-1 has them beside the folder of the tensors.
fn beside(folder: &Path) -> &Path {
    let inner = folder.file_name().is_some_and(|name| name == release::FOLDER);
    match folder.parent().filter(|_| inner) {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => folder,
    }
}

/// The folder of the configuration and the tokenizer of the model at `path`, which is a folder or
/// a file.
pub fn folder_of(path: &Path) -> &Path {
    if path.is_dir() {
        return beside(path);
    }
    beside(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// The files of the release whose tensors are in this folder.
fn release_files(tensors: &Path) -> Result<Vec<FileSource>> {
    let folder = beside(tensors);
    let used = |name: &String| open::is_model_file(name) && !super::is_part(name);
    let mut files = Vec::new();
    for name in names(folder)?.into_iter().filter(used) {
        files.push(FileSource::open(folder.join(name))?);
    }
    for name in names(tensors)?.into_iter().filter(|name| release::is_tensor(name)) {
        files.push(FileSource::open_closed(tensors.join(name))?);
    }
    if !files.iter().any(|file| release::is_tensor(file.name())) {
        let what = "the folder holds no tensor00000_000: it is no release of Grok-1";
        return Err(Error::format(tensors, what));
    }
    Ok(files)
}

/// Opens the model at `path`: a folder with `config.json` and `*.safetensors`, a file in such a
/// folder, a GGUF file, whatever its name, the folder of Grok-1's first release, or a folder of a
/// model in the cache of the Hugging Face hub. Reads the configuration and the headers; the weights
/// are read when an [`Engine`](crate::engine::Engine) loads them.
///
/// # Errors
///
/// [`Error::Io`](crate::base::error::Error::Io) if a file cannot be opened, and
/// [`Error::Format`](crate::base::error::Error::Format),
/// [`Error::Config`](crate::base::error::Error::Config) or
/// [`Error::Checkpoint`](crate::base::error::Error::Checkpoint) with all that is wrong in it.
pub async fn open(path: impl AsRef<Path>) -> Result<Opened<FileSource>> {
    open_model(&place::find(path.as_ref())?.path, Compat::Reference).await
}

/// Opens the model at `path`, which is a folder, a file in it, or a GGUF file.
///
/// # Errors
///
/// [`Error::Io`](crate::base::error::Error::Io) if a file cannot be opened, and those of
/// [`open::choose`] and [`open::open`].
pub async fn open_model(path: &Path, compat: Compat) -> Result<Opened<FileSource>> {
    open::open(path, files(path)?, compat).await
}

/// The `*.safetensors` and `*.index.json` files of a folder, sorted by name; or the one file that
/// `path` is.
///
/// # Errors
///
/// [`Error::Format`](crate::base::error::Error::Format) if a folder holds no `*.safetensors` file,
/// and [`Error::Io`](crate::base::error::Error::Io) if a file or the folder cannot be opened.
pub fn open_folder(path: &Path) -> Result<Vec<FileSource>> {
    if !path.is_dir() {
        return Ok(vec![FileSource::open(path)?]);
    }
    let parts = names(path)?.into_iter().filter(|name| super::is_part(name));
    open::in_order(
        path,
        parts.map(|name| FileSource::open(path.join(name))).collect::<Result<_>>()?,
    )
}

/// Reads the `config.json` of a folder, of the folder that a file lies in, or the file itself if
/// its name ends in `.json`; or the metadata of a GGUF. Also returns warnings, as
/// [`Config::from_json`] does.
///
/// # Errors
///
/// [`Error::Io`](crate::base::error::Error::Io) if it cannot be read, and those of
/// [`open::read_config`] or [`Gguf::open`](super::Gguf::open).
pub async fn open_config(path: &Path) -> Result<(Config, Vec<String>)> {
    let json = path.extension().is_some_and(|extension| extension == "json");
    let config = match (json, path.is_dir()) {
        (true, _) => path.to_owned(),
        (false, true) => path.join(CONFIG),
        (false, false) => path.with_file_name(CONFIG),
    };
    let is_gguf = path.file_name().is_some_and(|name| open::is_gguf(&name.to_string_lossy()))
        || starts_with(path, &gguf::MAGIC);
    if config.exists() && !is_gguf {
        return open::read_config(&FileSource::open(config)?).await;
    }
    let opened = open_model(path, Compat::Reference).await?;
    Ok((opened.config, opened.warnings))
}

/// Opens the tokenizer of the model in a folder.
///
/// # Errors
///
/// [`Error::Io`](crate::base::error::Error::Io) if a file or the folder cannot be read, and those
/// of [`open::read_tokenizer`].
pub async fn open_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let beside = names(folder)?.into_iter().filter(|name| open::is_tokenizer(name));
    let files: Vec<FileSource> =
        beside.map(|name| FileSource::open(folder.join(name))).collect::<Result<_>>()?;
    open::read_tokenizer(folder, &files).await
}

/// Writes `config.json` and the weights to a folder, which is created if it does not exist. A file
/// gets its final name when it is complete; files with those names are replaced.
///
/// # Errors
///
/// [`Error::Io`](crate::base::error::Error::Io) if something cannot be written,
/// [`Error::Usage`](crate::base::error::Error::Usage) if the layout does not suit the model, and
/// errors of `weights`.
pub async fn write_checkpoint(
    dir: &Path,
    config: &Config,
    weights: &impl Weights,
    layout: Layout,
) -> Result<()> {
    write::write(&mut Folder::make(dir)?, config, weights, layout).await
}

impl Output for Folder<'_> {
    type File = PartFile;

    fn create(&mut self, name: &str) -> Result<Self::File> {
        Folder::create(self, name)
    }

    fn finish(&mut self, name: &str, file: Self::File) -> Result<()> {
        Folder::finish(self, name, file)
    }
}
