//! The tokenizer of a GGUF file equals that of the `tokenizer.json` it was converted from.

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::Synthetic,
    model::config::Config,
    text::{
        chat::{Message, Role, encode_chat},
        tokenizer::Tokenizer,
    },
};
use serde_json::Value;

use crate::writer::{Writer, converted};

const JSON: &[u8] = include_bytes!("../data/tokenizer/small.tokenizer.json");

/// The vocabulary as llama.cpp's converter writes it.
fn vocabulary() -> Writer {
    let mut config = Config::preset("tiny").expect("a preset");
    config.vocab_size = 704;
    let weights = Synthetic::new(&config, DType::F16, 1).expect("weights");
    let mut file = converted(&config, &weights);
    let json: Value = serde_json::from_slice(JSON).expect("JSON");
    let vocab = json["model"]["vocab"].as_object().expect("a vocabulary");
    let mut tokens = vec![""; vocab.len()];
    for (token, id) in vocab {
        tokens[usize::try_from(id.as_u64().expect("an id")).expect("small")] = token;
    }
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .expect("merges")
        .iter()
        .map(|pair| {
            format!("{} {}", pair[0].as_str().expect("text"), pair[1].as_str().expect("text"))
        })
        .collect();
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 128 { 3 } else { 1 }).collect();
    file.text("tokenizer.ggml.model", "gpt2");
    file.text("tokenizer.ggml.pre", "grok-2");
    file.texts("tokenizer.ggml.tokens", tokens);
    file.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    file.ints("tokenizer.ggml.token_type", &types);
    file.int("tokenizer.ggml.eos_token_id", 2);
    file.int("tokenizer.ggml.eot_token_id", 200);
    file
}

#[test]
fn texts_have_the_ids_of_the_original() {
    let gguf = vocabulary().open().expect("opens");
    let ours = gguf.tokenizer().expect("good").expect("is there");
    let original = Tokenizer::from_tokenizer_json("small.tokenizer.json", JSON).expect("good");
    assert_eq!(ours.vocab_size(), original.vocab_size());
    for text in [
        "",
        "Hello world, this isn't 2024.\n\n  The  layers of a network\tlearn. ",
        "Human: What is Deep Learning?<|separator|>\n\nAssistant:",
        "你好，世界！ Привет мир Γειά σου Κόσμε \u{1f600} \0",
        "def name(x):\n    return x + 1\n",
    ] {
        let ids = ours.encode(text).expect("encodes");
        assert_eq!(ids, original.encode(text).expect("encodes"), "{text}");
        assert_eq!(ours.decode(&ids).expect("decodes"), text.as_bytes());
        assert_eq!(
            ours.encode_with_specials(text).expect("encodes"),
            original.encode_with_specials(text).expect("encodes")
        );
    }
    let talk = [Message::new(Role::User, "Hello<|eos|>"), Message::new(Role::Assistant, "Yes")];
    let ids = encode_chat(&ours, &talk).expect("a conversation");
    assert_eq!(ids, encode_chat(&original, &talk).expect("a conversation"));
    assert_eq!(ids.iter().filter(|id| **id < 128).count(), 2);
    assert_eq!(ours.stop_ids(), [1, 2, 200]);
}

#[test]
fn vocabularies_that_make_no_sense() {
    type Spoil = fn(&mut Writer);
    let spoils: [(&str, Spoil); 7] = [
        ("tokenizer.ggml.pre is \"mine\", wanted grok-2", |f| f.text("tokenizer.ggml.pre", "mine")),
        ("merges is missing", |f| {
            f.keys.remove("tokenizer.ggml.merges");
        }),
        ("token_type has 2 entries", |f| f.ints("tokenizer.ggml.token_type", &[1, 1])),
        ("has \"a\" twice", |f| f.texts("tokenizer.ggml.tokens", vec!["a"; 704])),
        ("token 704 should end", |f| f.int("tokenizer.ggml.eos_token_id", 704)),
        ("has \"no such\", wanted two tokens", |f| f.texts("tokenizer.ggml.merges", ["no such"])),
        ("wanted an array of texts", |f| f.int("tokenizer.ggml.tokens", 3)),
    ];
    for (what, spoil) in spoils {
        let mut file = vocabulary();
        spoil(&mut file);
        let told = file.open().expect("opens").tokenizer().err().expect("refused").to_string();
        assert!(told.to_lowercase().contains(&what.to_lowercase()), "{what}: {told}");
        assert!(told.starts_with("model.gguf: "), "{told}");
    }
    let mut other = vocabulary();
    other.text("tokenizer.ggml.model", "llama");
    assert!(other.open().expect("opens").tokenizer().expect("none").is_none());
}
