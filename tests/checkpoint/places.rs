//! What is named as a model and is none, or is one elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use grok_wgpu::{
    Error,
    lab::checkpoint::{folder::write_checkpoint, place::find, write::Layout},
    open,
};
use pollster::block_on;

use crate::files::{Outcome, tiny};

/// Message and hint of the error for a model at this path.
fn refused(path: impl AsRef<Path>) -> (Error, String, String) {
    let error = block_on(open(path)).expect_err("no model");
    let (message, hint) = (error.to_string(), error.hint().to_owned());
    (error, message, hint)
}

fn write_model(folder: &Path) -> Outcome {
    let (config, weights) = tiny();
    block_on(write_checkpoint(folder, &config, &weights, Layout::Indexed { shards: 2 }))?;
    Ok(())
}

#[test]
fn names_and_addresses_are_told_how_to_get_a_model() {
    for named in
        ["xai-org/grok-2", "hf://xai-org/grok-2", "https://huggingface.co/xai-org/grok-2/tree/main"]
    {
        let (error, message, hint) = refused(named);
        assert_eq!(error.code(), "io");
        assert!(message.starts_with(named) && message.contains("Hugging Face hub"), "{message}");
        assert!(hint.contains("`grok-wgpu pull hf://xai-org/grok-2`"), "{hint}");
    }
    for named in ["hf://", "hf://grok-2", "hf://a/../b"] {
        let (_, message, hint) = refused(named);
        assert!(message.contains("no name of a model"), "{message}");
        assert!(hint.contains("hf://OWNER/NAME"), "{hint}");
    }
    let (_, message, hint) = refused("https://example.com/model");
    assert!(
        message.contains("this is an address") && hint.contains("Download"),
        "{message} {hint}"
    );
    for named in ["/no/such/model", "./no/such", "no such"] {
        let (error, message, hint) = refused(named);
        assert_eq!(error.code(), "io");
        assert!(!message.contains("hub") && hint.contains("config.json"), "{message} {hint}");
    }
}

#[test]
fn folders_without_a_model_say_what_they_hold() -> Outcome {
    let dir = tempfile::tempdir()?;
    let told = |names: &[&str], says: [&str; 2]| -> Outcome {
        let folder = tempfile::tempdir_in(dir.path())?;
        for name in names {
            fs::write(folder.path().join(name), "x")?;
        }
        let (error, message, hint) = refused(folder.path());
        assert_eq!(error.code(), "format", "{message}");
        assert!(message.contains(says[0]) && hint.contains(says[1]), "{message} {hint}");
        Ok(())
    };
    told(&[], ["no config.json and no GGUF file in this folder; it is empty", "A model is"])?;
    told(&["b.txt", "a.txt"], ["it holds a.txt, b.txt", "A model is a folder with"])?;
    told(&["1", "2", "3", "4", "5", "6", "7"], ["1, 2, 3, 4, 5 and 2 more", "A model is"])?;
    told(&["model.safetensors"], ["no config.json in this folder", "Put the config.json"])?;
    told(&["pytorch_model.bin"], ["pytorch_model.bin", "save_pretrained"])?;
    told(&["config.json", "pytorch_model.bin"], ["no *.safetensors file", "save_pretrained"])?;
    told(
        &["config.json", "model.bin", "pytorch_model.bin.index.json"],
        ["no *.safetensors file", "save_pretrained"],
    )?;
    told(&["consolidated.00.pth"], ["consolidated.00.pth", "save_pretrained"])?;
    told(&["model.onnx"], ["model.onnx", "ONNX is not read"])?;
    // A folder of models.
    write_model(&dir.path().join("a model"))?;
    let (_, _, hint) = refused(dir.path());
    assert!(hint.contains("Name one of the folders in it") && hint.contains("a model"), "{hint}");
    Ok(())
}

#[test]
fn files_without_a_model_say_what_they_are() -> Outcome {
    let dir = tempfile::tempdir()?;
    for (name, bytes, says) in [
        ("model.onnx", &b"\x08\x07\x12\x07pytorch"[..], "this is an ONNX model"),
        ("model.bin", b"PK\x03\x04....", "this is a ZIP archive"),
        ("model.pth", b"\x80\x02}q\x00", "this is a Python pickle"),
        ("notes.txt", b"hello", "neither a safetensors nor a GGUF file"),
        ("model.safetensors", b"hello", "no config.json beside this file"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes)?;
        let (error, message, hint) = refused(&path);
        assert_eq!(error.code(), "format");
        assert!(message.starts_with(&*path.to_string_lossy()), "{message}");
        assert!(message.contains(says) && hint.contains("config.json"), "{message} {hint}");
    }
    Ok(())
}

/// A configuration, an index or a tokenizer that is named stands for the model beside it.
#[test]
fn files_beside_the_weights_name_the_model() -> Outcome {
    let dir = tempfile::tempdir()?;
    write_model(dir.path())?;
    for name in ["config.json", "model.safetensors.index.json"] {
        let opened = block_on(open(dir.path().join(name)))?;
        assert_eq!(opened.weights.sources().len(), 3);
    }
    // The index names a file that is missing, then one in another folder.
    let index = dir.path().join("model.safetensors.index.json");
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors"))?;
    fs::remove_file(dir.path().join("model-00001-of-00002.safetensors"))?;
    let (_, message, _) = refused(dir.path());
    assert!(message.contains("model-00002-of-00002.safetensors is missing"), "{message}");
    let text = fs::read_to_string(&index)?.replace("\"model-0000", "\"sub/model-0000");
    fs::write(&index, text)?;
    let (_, message, _) = refused(dir.path());
    assert!(message.contains("weight_map names the file \"sub/model-00001"), "{message}");
    Ok(())
}

/// A model as the Hugging Face hub's cache has it: revisions of links to blobs.
#[cfg(unix)]
#[test]
fn a_folder_of_the_hub_s_cache_is_its_main_revision() -> Outcome {
    use std::os::unix::fs::symlink;

    let dir = tempfile::tempdir()?;
    let root = dir.path().join("models--some-one--a-model");
    let snapshots = root.join("snapshots");
    fs::create_dir_all(&snapshots)?;
    let (_, message, hint) = refused(&root);
    assert!(message.contains("some-one/a-model has not begun"), "{message}");
    assert!(hint.contains("`grok-wgpu pull hf://some-one/a-model`"), "{hint}");

    write_model(&root.join("blobs"))?;
    let revision = |name: &str| -> Result<PathBuf, Box<dyn std::error::Error>> {
        let folder = snapshots.join(name);
        fs::create_dir_all(&folder)?;
        for blob in fs::read_dir(root.join("blobs"))? {
            let name = blob?.file_name();
            symlink(Path::new("../../blobs").join(&name), folder.join(&name))?;
        }
        Ok(folder)
    };
    let first = revision("0123")?;
    let place = find(&root)?;
    assert_eq!(place.path, first);
    let note = place.note.ok_or("a note")?;
    assert!(note.contains("0123") && note.contains("some-one/a-model"), "{note}");
    block_on(open(&root))?;

    let second = revision("4567")?;
    let (_, message, hint) = refused(&root);
    assert!(message.contains("2 revisions") && hint.contains("0123"), "{message} {hint}");
    fs::create_dir_all(root.join("refs"))?;
    fs::write(root.join("refs/main"), "4567\n")?;
    assert_eq!(find(&root)?.path, second);
    assert_eq!(find(&second)?.note, None);

    // A download that was interrupted, by each of its names.
    let blob = root.join("blobs/model-00002-of-00002.safetensors");
    fs::remove_file(&blob)?;
    let (error, message, hint) = refused(&root);
    assert_eq!(error.code(), "io");
    assert!(message.contains("this is a link to ../../blobs/model-00002-of-00002"), "{message}");
    assert!(hint.contains("`grok-wgpu pull hf://some-one/a-model` goes on"), "{hint}");
    for named in [&second, &second.join("model-00002-of-00002.safetensors")] {
        let (_, message, hint) = refused(named);
        assert!(
            message.contains("this is a link to ../../blobs/model-00002-of-00002"),
            "{message}"
        );
        assert!(hint.contains("download"), "{hint}");
    }
    Ok(())
}
