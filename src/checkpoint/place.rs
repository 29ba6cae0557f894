//! What a person names as a model: a folder, a file, or something else, which is told what it is
//! and what to do.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{
    is_part, magic,
    open::{CONFIG, is_model_file},
};
use crate::{
    base::error::{Error, Result},
    files::native::{names, read_small, read_start},
};

/// What a model is, for those who named something else.
const MODEL: &str =
    "A model is a folder with config.json, *.safetensors and a tokenizer, or a GGUF file.";

/// What to do about a link to a file that is missing.
const DOWNLOAD_AGAIN: &str =
    "A download that was interrupted leaves such links: run it again, and it goes on.";

/// Where the files of a model are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its folder, or one of its files.
    pub path: PathBuf,
    /// What the user should know if it is not what was named.
    pub note: Option<String>,
}

/// Finds what is named. A model's folder in the cache of the Hugging Face hub, which holds
/// revisions, stands for its revision `main`.
///
/// # Errors
///
/// [`Error::Io`] if there is nothing of this name: the message and the hint say so of names of the
/// hub, addresses, and links to what is missing. [`Error::Format`] for a folder of the hub's cache
/// without a complete revision.
pub fn find(named: &Path) -> Result<Place> {
    match named.metadata() {
        Ok(what) if what.is_dir() => in_hub_cache(named),
        Ok(_) => Ok(Place { path: named.to_owned(), note: None }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(named, error)),
        Err(error) => Err(Error::io(named, error)),
    }
}

/// The error for a name of which there is nothing.
fn missing(named: &Path, error: io::Error) -> Error {
    if let Some(error) = dangling(named) {
        return error;
    }
    let told = |what: &str| Error::io(named, io::Error::new(ErrorKind::NotFound, what));
    let text = named.to_str().unwrap_or_default();
    if let Some(model) = hub_name(text) {
        return told(
            "there is no such file or folder; a model of the Hugging Face hub can have \
                     this name",
        )
        .with_hint(format!(
            "`grok-wgpu pull hf://{model}` fetches it from there; hf://{model} is its name then."
        ));
    }
    if text.starts_with("hf://") {
        return told("this is no name of a model on the Hugging Face hub").with_hint(
            "Such names are hf://OWNER/NAME, hf://OWNER/NAME@REVISION, and hf://OWNER/NAME/FOLDER \
             or FILE.",
        );
    }
    if text.contains("://") {
        return told("this is an address, and models are read from folders")
            .with_hint("Download the model's files to a folder, and name that.");
    }
    Error::io(named, error).with_hint(format!("Check the name. {MODEL}"))
}

/// The error for a link to something that is missing, if the path is one.
pub(super) fn dangling(path: &Path) -> Option<Error> {
    let target = path.read_link().ok().filter(|_| !path.exists())?;
    let what = format!("this is a link to {}, which is missing", target.display());
    let error = io::Error::new(ErrorKind::NotFound, what);
    Some(Error::io(path, error).with_hint(DOWNLOAD_AGAIN))
}

/// The name of a model of the Hugging Face hub that a text is, or has as an address.
fn hub_name(text: &str) -> Option<&str> {
    const BEFORE: [&str; 5] =
        ["hf://", "https://huggingface.co/", "http://huggingface.co/", "https://hf.co/", "hf.co/"];
    let plain = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(fits)
    };
    if let Some(rest) = BEFORE.iter().find_map(|before| text.strip_prefix(before)) {
        // A file or a revision may follow.
        let second = rest.match_indices('/').nth(1).map_or(rest.len(), |(at, _)| at);
        let name = rest[..second].split(['@', '?', '#', ':']).next().unwrap_or(rest);
        let (owner, model) = name.split_once('/')?;
        return (plain(owner) && plain(model)).then_some(name);
    }
    let (owner, model) = text.split_once('/')?;
    let file = [".gguf", ".safetensors", ".json", ".bin"].iter().any(|end| model.ends_with(end));
    (plain(owner) && plain(model) && !file && !Path::new(owner).exists()).then_some(text)
}

/// The folder itself; or, if it is a model's folder in the cache of the Hugging Face hub, that of
/// its revision `main`, or of the only one.
fn in_hub_cache(folder: &Path) -> Result<Place> {
    const LONGEST: u64 = 256;
    let own = folder.canonicalize().ok();
    let own = own.as_deref().unwrap_or(folder).file_name().and_then(|name| name.to_str());
    let model = own.and_then(|name| name.strip_prefix("models--"));
    let Some(model) = model.filter(|_| folder.join("snapshots").is_dir()) else {
        return Ok(Place { path: folder.to_owned(), note: None });
    };
    let model = model.replacen("--", "/", 1);
    let revisions = names(&folder.join("snapshots"))?;
    let main = read_small(&folder.join("refs").join("main"), LONGEST)?;
    let main = main.and_then(|bytes| Some(String::from_utf8(bytes).ok()?.trim().to_owned()));
    let chosen = match (main, &revisions[..]) {
        (Some(main), all) if all.contains(&main) => main,
        (_, [only]) => only.clone(),
        (_, []) => {
            let what = format!("the download of {model} has not begun: there is no revision");
            return Err(Error::format(folder, what)
                .with_hint(format!("`grok-wgpu pull hf://{model}` fetches it to this cache.")));
        }
        (_, [first, ..]) => {
            let path = folder.join("snapshots").join(first);
            let what = format!("there are {} revisions, and none is `main`", revisions.len());
            return Err(Error::format(folder, what)
                .with_hint(format!("Name one of them, such as {}.", path.display())));
        }
    };
    let path = folder.join("snapshots").join(&chosen);
    if let Some(link) = names(&path)?.iter().find_map(|name| dangling(&path.join(name))) {
        return Err(link.with_hint(format!(
            "The download is not complete: `grok-wgpu pull hf://{model}` goes on with it."
        )));
    }
    let note = format!("opening {}, the revision of {model} that is here", path.display());
    Ok(Place { path, note: Some(note) })
}

/// The error for a folder that holds no model, if it holds none: what is there, and what is not.
pub(super) fn folder_without_model(folder: &Path, names: &[String]) -> Option<Error> {
    const LISTED: usize = 5;
    let weights = |name: &String| is_part(name) && !name.ends_with(".bin.index.json");
    let config = names.iter().any(|name| name == CONFIG);
    let absent = match (config, names.iter().any(weights)) {
        (true, true) => return None,
        (true, false) => "no *.safetensors file",
        (false, true) => "no config.json",
        (false, false) => "no config.json and no GGUF file",
    };
    if let Some(error) = other_model(folder, names) {
        return Some(error);
    }
    let shown: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
    let holds = match names.len().checked_sub(LISTED) {
        None | Some(0) if names.is_empty() => "it is empty".to_owned(),
        None | Some(0) => format!("it holds {}", shown.join(", ")),
        Some(more) => format!("it holds {} and {more} more", shown.join(", ")),
    };
    let what = format!("there is {absent} in this folder; {holds}");
    let any = |ends: &[&str]| names.iter().any(|name| ends.iter().any(|end| name.ends_with(end)));
    let model = names.iter().map(|name| folder.join(name)).find(|inner| {
        inner.join(CONFIG).is_file() || (inner.is_dir() && inner.join("snapshots").is_dir())
    });
    let hint = if let Some(model) = model {
        format!("Name one of the folders in it, such as {}.", model.display())
    } else if !config && absent == "no config.json" {
        "Put the config.json beside the weights that belongs to them, as their publisher has it."
            .to_owned()
    } else if any(&[".bin", ".pt", ".pth", ".ckpt"]) {
        "Convert PyTorch's weights to safetensors: `save_pretrained` of the transformers library \
         writes them, with config.json."
            .to_owned()
    } else if any(&[".onnx"]) {
        "ONNX is not read: get the model's safetensors, or a GGUF file of it.".to_owned()
    } else {
        MODEL.to_owned()
    };
    Some(Error::format(folder, what).with_hint(hint))
}

/// The error for the first file of a folder with weights in a format that is not read.
fn other_model(folder: &Path, names: &[String]) -> Option<Error> {
    /// Most files that are looked into.
    const MOST: usize = 100;
    names.iter().filter(|name| !is_model_file(name)).take(MOST).find_map(|name| {
        let path = folder.join(name);
        // A file that cannot be read is no reason.
        let start = read_start(&path, magic::LOOK).ok()?;
        magic::other_model(&start).map(|what| Error::format(path, what).with_hint(MODEL))
    })
}

/// The error for a file that is named as a model and is none, if it is none. `config` says whether
/// there is a `config.json` beside it.
pub(super) fn file_without_model(path: &Path, config: bool) -> Option<Error> {
    let ends = |end: &str| path.extension().is_some_and(|extension| extension == end);
    let told = |what: &str| Some(Error::format(path, what).with_hint(MODEL));
    if ends("safetensors") {
        let hint = "Put the config.json beside it that belongs to the weights, as their publisher \
                    has it.";
        let what = "there is no config.json beside this file";
        return (!config).then(|| Error::format(path, what).with_hint(hint));
    }
    let start = match read_start(path, magic::LOOK) {
        Ok(start) => start,
        Err(error) => return Some(error),
    };
    match magic::recognize(&start) {
        Some(what) => told(what),
        None if ends("onnx") => told("this is an ONNX file; safetensors files are wanted"),
        None => told("this is neither a safetensors nor a GGUF file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub() {
        for (text, name) in [
            ("xai-org/grok-2", Some("xai-org/grok-2")),
            ("hf://xai-org/grok-2", Some("xai-org/grok-2")),
            ("hf://xai-org/grok-2@main", Some("xai-org/grok-2")),
            ("https://huggingface.co/xai-org/grok-2", Some("xai-org/grok-2")),
            ("https://huggingface.co/xai-org/grok-2/", Some("xai-org/grok-2")),
            ("https://huggingface.co/a/b/blob/main/config.json", Some("a/b")),
            ("https://huggingface.co/a/b?library=x", Some("a/b")),
            ("hf.co/a/b:Q4_K_M", Some("a/b")),
            ("https://huggingface.co/", None),
            ("https://huggingface.co/a/$(x)", None),
            ("https://example.com/a/b", None),
            ("a/b/c", None),
            ("./a/b", None),
            ("./a", None),
            ("../a", None),
            ("/a", None),
            ("a", None),
            ("a/", None),
            ("a/-b", None),
            ("a/b c", None),
            ("a/m.gguf", None),
            // A folder that is there: the name in it is a mistake.
            ("src/bas", None),
        ] {
            assert_eq!(hub_name(text), name, "{text}");
        }
    }
}
