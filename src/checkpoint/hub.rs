//! Which of the files that a model has on the hub are wanted, and in which order.

use std::path::Path;

use super::{
    folder::is_beside_weights,
    is_part,
    open::{self, CONFIG, is_gguf, is_model_file, is_tokenizer},
    release,
    usual::is_usual,
};
use crate::base::error::{Error, Result};

/// Most files that a message lists.
const LISTED: usize = 5;

/// Chooses the files of a model in a folder of a repository, as [`open::choose`] does in a folder
/// of a disk: what is read first comes first, the weights last. `paths` are all files below
/// `folder`, which is empty for the repository itself; `named` is the file in it that was named.
/// `shown` is the model in messages.
///
/// # Errors
///
/// [`Error::Format`] if there is no model or there are several, [`Error::Checkpoint`] if parts of
/// it are missing.
pub fn wanted(
    shown: &str,
    folder: &str,
    named: Option<&str>,
    paths: &[&str],
) -> Result<Vec<String>> {
    let below = |path: &str| match folder {
        "" => Some(path.to_owned()),
        folder => Some(path.strip_prefix(folder)?.strip_prefix('/')?.to_owned()),
    };
    let below: Vec<String> = paths.iter().filter_map(|path| below(path)).collect();
    let (names, deeper): (Vec<String>, Vec<String>) =
        below.into_iter().partition(|path| !path.contains('/'));
    if let Some(named) = named.filter(|named| !names.iter().any(|name| name == named)) {
        let what = format!("there is no file {named}; {}", held(&names, &deeper));
        return Err(Error::format(shown, what).with_hint("Name one of the files that are there."));
    }
    let named = named.filter(|name| !is_beside_weights(name));
    let mut chosen = match tensors(&names, &deeper, named) {
        Some(tensors) => {
            let beside = names.iter().filter(|name| is_model_file(name) && !is_part(name));
            beside.cloned().chain(tensors).collect()
        }
        None => open::choose(Path::new(shown), &names, named, &|_| false)?,
    };
    let is_weights =
        |path: &String| !is_beside_weights(path) && !is_tokenizer(path) && !is_usual(path);
    if !chosen.iter().any(is_weights)
        || chosen.iter().any(|path| path == CONFIG) && !names.iter().any(|name| name == CONFIG)
    {
        let what = format!("there is no model that is read; {}", held(&names, &deeper));
        return Err(Error::format(shown, what).with_hint(
            "A model is config.json with *.safetensors and a tokenizer, or a GGUF file; a folder \
             of the repository that holds one is named after it.",
        ));
    }
    chosen.sort_by_key(|path| match &**path {
        CONFIG => 0,
        path if path.ends_with(".index.json") => 1,
        path if is_tokenizer(path) || is_usual(path) => 2,
        _ => 3,
    });
    let whole = |path: String| if folder.is_empty() { path } else { format!("{folder}/{path}") };
    Ok(chosen.into_iter().map(whole).collect())
}

/// The tensors of Grok-1's first release, if that is what there is.
fn tensors(names: &[String], deeper: &[String], named: Option<&str>) -> Option<Vec<String>> {
    let other = |name: &String| name.ends_with(".safetensors") || is_gguf(name);
    if named.is_some() || names.iter().any(other) {
        return None;
    }
    let tensor = |path: &&String| {
        let inner = path.strip_prefix(release::FOLDER).and_then(|rest| rest.strip_prefix('/'));
        inner.is_some_and(release::is_tensor)
    };
    let tensors: Vec<String> = deeper.iter().filter(tensor).cloned().collect();
    (!tensors.is_empty()).then_some(tensors)
}

/// What there is, for messages.
fn held(names: &[String], deeper: &[String]) -> String {
    let mut folders: Vec<&str> = deeper.iter().filter_map(|path| path.split('/').next()).collect();
    folders.dedup();
    let folders = folders.into_iter().map(|folder| format!("{folder}/"));
    let all: Vec<String> = folders.chain(names.iter().cloned()).collect();
    match all.len().checked_sub(LISTED) {
        _ if all.is_empty() => "it is empty".to_owned(),
        None | Some(0) => format!("it holds {}", all.join(", ")),
        Some(more) => format!("it holds {} and {more} more", all[..LISTED].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(folder: &str, named: Option<&str>, paths: &[&str]) -> Result<Vec<String>, String> {
        wanted("hf://a/b", folder, named, paths).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_needed_first_comes_first() {
        let paths = [
            "LICENSE",
            "README.md",
            "config.json",
            "model-00000-TP-000.safetensors",
            "model-00000-TP-001.safetensors",
            "model.safetensors.index.json",
            "q4/config.json",
            "q4/model.safetensors",
            "tokenizer.tok.json",
        ];
        let whole = [
            "config.json",
            "model.safetensors.index.json",
            "tokenizer.tok.json",
            "model-00000-TP-000.safetensors",
            "model-00000-TP-001.safetensors",
        ];
        assert_eq!(chosen("", None, &paths).expect("a model"), whole);
        assert_eq!(chosen("", Some("config.json"), &paths).expect("a model"), whole);
        let q4 = ["q4/config.json", "q4/model.safetensors"];
        assert_eq!(chosen("q4", None, &paths[6..8]).expect("a model"), q4);
        let error = chosen("q", None, &paths[6..8]).expect_err("another folder");
        assert!(error.contains("no model that is read; it is empty"), "{error}");
    }

    #[test]
    fn one_of_several_gguf_files_is_named() {
        let paths = ["README.md", "x-q4.gguf", "x-q8.gguf", "tokenizer.json"];
        let error = wanted("hf://a/b", "", None, &paths).expect_err("two models");
        assert!(error.to_string().contains("holds 2 GGUF models"), "{error}");
        assert!(error.hint().contains("hf://a/b/x-q4.gguf"), "{}", error.hint());
        let one = chosen("", Some("x-q8.gguf"), &paths).expect("a model");
        assert_eq!(one, ["tokenizer.json", "x-q8.gguf"]);
        let error = chosen("", Some("x-q2.gguf"), &paths).expect_err("no such file");
        assert!(error.contains("there is no file x-q2.gguf"), "{error}");
        let split = ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"];
        assert_eq!(chosen("", None, &split).expect("a model"), split);
        let error = chosen("", None, &split[..1]).expect_err("half");
        assert!(error.contains("x-00002-of-00002.gguf is missing"), "{error}");
    }

    #[test]
    fn the_first_release_is_in_a_folder_of_its_own() {
        let paths = ["README.md", "ckpt-0/tensor00000_000", "ckpt-0/x", "tokenizer.model"];
        let chosen = chosen("", None, &paths).expect("a model");
        assert_eq!(chosen, ["tokenizer.model", "ckpt-0/tensor00000_000"]);
    }

    #[test]
    fn what_is_no_model_is_told() {
        for paths in [&["a", "b/c"][..], &["config.json"], &["model.safetensors"], &[]] {
            let error = chosen("", None, paths).expect_err("no model");
            assert!(error.contains("hf://a/b"), "{error}");
        }
    }
}
