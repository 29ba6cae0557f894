//! What the files beside a model say of its texts.

use std::fs;

use grok_wgpu::lab::checkpoint::write::Layout;
use serde_json::json;

use super::{PROMPT, json, path, run, text_of, with_stdin, write_model};

#[test]
fn ends_and_sampling_of_a_model_are_heeded() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    let args = ["generate", path(dir.path()), PROMPT, "-n", "12", "--json"];

    let greedy = json(&[&args[..], &["--temperature", "0"]].concat());
    let ids = greedy["ids"].as_array().expect("ids");
    assert_eq!(ids.len(), 12);
    // The first token that was not there before, so that the text ends at it.
    let at = (2..12).find(|&at| !ids[..at].contains(&ids[at])).expect("another token");

    write(
        "generation_config.json",
        &json!({"eos_token_id": [0, ids[at]], "do_sample": false}).to_string(),
    );
    let ended = json(&args);
    assert_eq!((&ended["ids"], &ended["finish_reason"]), (&json!(ids[..at]), &json!("stop")));
    let on = json(&[&args[..], &["--ignore-eos"]].concat());
    assert_eq!(on["ids"], greedy["ids"], "greedy without being told");
    let told = json(&["inspect", path(dir.path()), "--no-device", "--json"]);
    assert_eq!(told["sampling"]["temperature"], 0.0);
    assert_eq!(told["sampling"]["top_p"], 0.95);
    let tokenizer = told["tokenizer"].as_str().expect("a sentence");
    assert!(tokenizer.contains(&ids[at].to_string()), "{tokenizer}");
    // A conversation ends its answers there too.
    let chat = with_stdin(&["chat", path(dir.path()), "-n", "3"], "hello\n");
    assert!(chat.status.success(), "{}", text_of(&chat));

    write("generation_config.json", "{\"eos_token_id\": 512, \"temperature\": 3}");
    let warned = text_of(&run(&args));
    assert!(warned.contains("eos_token_id is 512, expected ids below 512"), "{warned}");
    assert!(warned.contains("temperature is 3, expected 0 to 2"), "{warned}");
}

/// A folder with SentencePiece's file alone, as Grok-1 has it.
#[test]
fn a_tokenizer_model_is_enough() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    fs::remove_file(dir.path().join("tokenizer.tok.json")).expect("written before");
    let model = include_bytes!("../data/sentencepiece/bpe_nfkc.model");
    fs::write(dir.path().join("tokenizer.model"), model).expect("written");

    let told = json(&["inspect", path(dir.path()), "--no-device", "--json"]);
    let tokenizer = told["tokenizer"].as_str().expect("a sentence");
    let wanted = "tokenizer.model, SentencePiece, BPE, 300 tokens, an answer ends with 0";
    assert!(tokenizer.ends_with(wanted), "{tokenizer}");
    let made = json(&["generate", path(dir.path()), "the weather", "-n", "3", "--json"]);
    assert!(made["prompt_tokens"].as_u64() > Some(1), "{made}");
    assert_eq!(made["ids"].as_array().map(Vec::len), Some(3), "{made}");
}
