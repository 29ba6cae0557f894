//! GGUF files under names that do not tell what they are, and pieces of one.

use std::fs;

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::{
        ModelFiles, Synthetic,
        folder::{open_config, open_model},
    },
    model::config::{Compat, Config},
};
use pollster::block_on;

use crate::writer::converted;

fn bytes() -> Vec<u8> {
    let config = Config::preset("tiny").expect("a preset");
    let weights = Synthetic::new(&config, DType::Q8, 3).expect("weights");
    converted(&config, &weights).source("m.gguf").bytes
}

#[test]
fn the_first_bytes_decide() {
    let folder = tempfile::tempdir().expect("a folder");
    let blob = folder.path().join("sha256-0123456789abcdef");
    fs::write(&blob, bytes()).expect("written");
    fs::write(folder.path().join("notes.txt"), b"GG").expect("written");
    for path in [folder.path(), &blob] {
        let opened = block_on(open_model(path, Compat::Reference)).expect("opens");
        assert!(matches!(*opened.weights, ModelFiles::Gguf(_)));
        let (config, _) = block_on(open_config(path)).expect("a configuration");
        assert_eq!(config.hidden_size, opened.config.hidden_size);
    }
    // A file that is named is meant, whatever lies beside it.
    fs::write(folder.path().join("config.json"), b"{}").expect("written");
    block_on(open_model(&blob, Compat::Reference)).expect("opens");
    let told = block_on(open_model(&folder.path().join("notes.txt"), Compat::Reference));
    assert!(told.is_err(), "this is no model");
}

#[test]
fn a_vocabulary_that_is_not_read_is_told_by_name() {
    let config = Config::preset("tiny").expect("a preset");
    let weights = Synthetic::new(&config, DType::Q8, 3).expect("weights");
    let mut file = converted(&config, &weights);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.gguf");
    for (kind, told) in [
        (None, "there is no tokenizer.tok.json, no tokenizer.json and no tokenizer.model here"),
        (Some("bert"), "is of the kind \"bert\", which is not read"),
        (
            Some("rwkv"),
            "is of the kind \"rwkv\", which is not read; put the model's tokenizer.json",
        ),
    ] {
        if let Some(kind) = kind {
            file.text("tokenizer.ggml.model", kind);
        }
        fs::write(&path, file.source("m.gguf").bytes).expect("written");
        let opened = block_on(open_model(&path, Compat::Reference)).expect("opens");
        let error = block_on(opened.tokenizer()).err().expect("there is none").to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn pieces_and_lone_parts_are_told_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = bytes();
    let (first, second) = whole.split_at(whole.len() / 2);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("m.gguf.part1of2"), first).expect("written");
    fs::write(at("m.gguf.part2of2"), second).expect("written");
    for path in [folder.path(), &at("m.gguf.part1of2"), &at("m.gguf.part2of2")] {
        let told = block_on(open_model(path, Compat::Reference)).expect_err("a piece").to_string();
        assert!(told.contains("this is a piece of m.gguf"), "{told}");
    }
    // Once they are joined, the pieces beside the whole do not matter.
    fs::write(at("m.gguf"), &whole).expect("written");
    block_on(open_model(&at("m.gguf"), Compat::Reference)).expect("opens");

    let folder = tempfile::tempdir().expect("a folder");
    let later = folder.path().join("m-00002-of-00003.gguf");
    fs::write(&later, b"GGUF").expect("written");
    for path in [folder.path(), &later] {
        let told = block_on(open_model(path, Compat::Reference)).expect_err("a part").to_string();
        assert!(told.contains("m-00001-of-00003.gguf is missing"), "{told}");
        assert!(told.contains("m-00003-of-00003.gguf is missing"), "{told}");
    }
}
