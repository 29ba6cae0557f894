//! `tokenizer.json`: vocabularies that are not byte-level, and settings that would change a prompt.

use grok_wgpu::lab::text::tokenizer::Tokenizer;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

fn small() -> Value {
    serde_json::from_slice(include_bytes!("data/tokenizer/small.tokenizer.json")).expect("JSON")
}

fn load(file: &Value) -> Tokenizer {
    let bytes = serde_json::to_vec(file).expect("JSON");
    Tokenizer::from_tokenizer_json("tokenizer.json", &bytes).expect("a valid file")
}

fn complaint(file: &Value) -> String {
    let bytes = serde_json::to_vec(file).expect("JSON");
    let error = Tokenizer::from_tokenizer_json("dir/tokenizer.json", &bytes).err();
    error.expect("refused").to_string()
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({ "id": id, "content": content, "special": special, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false })
}

/// A vocabulary with `▁` for a leading space, and byte tokens as a fallback.
fn byte_fallback() -> Value {
    let mut vocab = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    vocab.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    vocab.extend(["▁", "a", "b", "▁a", "ab", "▁ab", "é"].map(str::to_owned));
    let vocab: serde_json::Map<String, Value> =
        vocab.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] },
        "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocab,
            "merges": [["▁", "a"], ["a", "b"], ["▁a", "b"]] },
    })
}

/// `WordPiece`: lower-case words, with `##` before continuations.
fn word_piece() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "[UNK]", true)],
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": { "[UNK]": 0, "a": 1, "##b": 2, "b": 3, ".": 4, "do": 5, "n": 6, "'": 7,
                       "t": 8, "##a": 9 } },
    })
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut decoder = tokenizer.stream();
    let mut pieces: Vec<String> =
        ids.iter().map(|&id| decoder.push(id).expect("a token")).collect();
    pieces.push(decoder.finish().expect("an end"));
    pieces
}

#[test]
fn streams_of_other_decoders_are_the_crates_text() {
    let mut rng = ChaCha8Rng::seed_from_u64(54);
    let units = ["a", "b", " ", "ab", " ab", "é", "你", "🙂", ".", " do", "n't", "  "];
    for file in [byte_fallback(), word_piece()] {
        let tokenizer = load(&file);
        let bytes = serde_json::to_vec(&file).expect("JSON");
        let judge = tokenizers::Tokenizer::from_bytes(bytes).expect("a valid file");
        for _ in 0..1000 {
            let len = rng.next_u32() % 12;
            let text: String =
                (0..len).map(|_| units[rng.next_u32() as usize % units.len()]).collect();
            let ids = tokenizer.encode(&text).expect("text");
            let want = judge.decode(&ids, false).expect("ids");
            assert_eq!(stream(&tokenizer, &ids).concat(), want, "{ids:?}");
            assert_eq!(tokenizer.decode_lossy(&ids).expect("ids"), want);
        }
    }
}

#[test]
fn fallback_bytes_come_as_whole_characters() {
    let tokenizer = load(&byte_fallback());
    let text = "ab ab 你🙂é";
    let ids = tokenizer.encode(text).expect("text");
    let pieces = stream(&tokenizer, &ids);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces[..2], ["ab", " ab"]);

    // Invalid bytes come out as replacement characters, after at most 20 tokens.
    let lead = 3 + 0xf0;
    assert_eq!(stream(&tokenizer, &[lead]).concat(), "\u{fffd}");
    let pieces = stream(&tokenizer, &[lead; 40]);
    assert_eq!(pieces.concat(), "\u{fffd}".repeat(40));
    assert!(pieces[..20].concat().contains('\u{fffd}'), "{pieces:?}");
    // They do not swallow the text that follows.
    let word = tokenizer.encode("ab").expect("text")[0];
    assert_eq!(stream(&tokenizer, &[word, lead, word]).concat(), "ab\u{fffd} ab");
}

#[test]
fn specials_of_other_vocabularies_are_text_too() {
    let tokenizer = load(&byte_fallback());
    let ids = tokenizer.encode("a</s>b").expect("text");
    assert!(!ids.contains(&2), "{ids:?}");
    assert_eq!(tokenizer.decode_lossy(&ids).expect("ids"), "a</s>b");
    assert_eq!(tokenizer.stop_ids(), [2]);
    assert_eq!(tokenizer.encode_with_specials("</s>").expect("text"), [2]);
}

#[test]
fn settings_that_change_prompts_are_overruled() {
    // These settings truncate to 8 tokens, pad to 16 and use BPE dropout of one half.
    let mut file = small();
    let tokenizer = load(&file);
    let ids = tokenizer.encode("the ").expect("text");
    assert!(ids.len() < 16);
    for _ in 0..20 {
        assert_eq!(tokenizer.encode("the ").expect("text"), ids);
    }
    assert!(tokenizer.encode(&"the ".repeat(20)).expect("text").len() >= 20);
    // Post-processing templates would add tokens around every text, or repeat it.
    file["post_processor"] = json!({
        "type": "TemplateProcessing", "pair": [],
        "single": [{ "SpecialToken": { "id": "<|pad|>", "type_id": 0 } },
                   { "Sequence": { "id": "A", "type_id": 0 } },
                   { "Sequence": { "id": "A", "type_id": 0 } }],
        "special_tokens": { "<|pad|>": { "id": "<|pad|>", "ids": [0], "tokens": ["<|pad|>"] } },
    });
    assert_eq!(load(&file).encode("the ").expect("text"), ids);
}

#[test]
fn blank_added_tokens_are_vocabulary() {
    let mut file = small();
    let tokens = file["added_tokens"].as_array_mut().expect("a list");
    tokens.push(added(704, "        ", false));
    tokens.push(added(705, "<|user|>", false));
    let tokenizer = load(&file);
    assert_eq!(tokenizer.vocab_size(), 706);
    assert!(tokenizer.encode("        ").expect("text").contains(&704));
    assert!(!tokenizer.encode("<|user|>").expect("text").contains(&705));
    assert_eq!(tokenizer.special("<|user|>"), Some(705));
    assert_eq!(tokenizer.decode(&[704, 705]).expect("ids"), b"        <|user|>");
}

#[test]
fn added_tokens_must_get_the_id_they_claim() {
    let mut file = small();
    file["added_tokens"].as_array_mut().expect("a list").push(added(900, "<|late|>", true));
    let text = complaint(&file);
    assert!(text.starts_with("dir/tokenizer.json: "), "{text}");
    for part in ["<|late|>", "900", "704"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn vocabularies_that_would_lose_text_are_refused() {
    let mut file = small();
    // Ġ stands for the space, ġ for the delete character.
    for c in ["Ġ", "ġ"] {
        file["model"]["vocab"].as_object_mut().expect("an object").remove(c);
    }
    file["model"]["merges"] = json!([]);
    let text = complaint(&file);
    assert!(text.contains("0x20, 0x7f"), "{text}");

    // These bytes occur in no UTF-8 text.
    let mut file = small();
    for c in ["À", "Á", "õ", "ÿ"] {
        file["model"]["vocab"].as_object_mut().expect("an object").remove(c);
    }
    assert_eq!(load(&file).encode("õ").expect("text").len(), 2);
}

#[test]
fn damaged_files_never_panic() {
    let whole = include_bytes!("data/tokenizer/small.tokenizer.json");
    let mut rng = ChaCha8Rng::seed_from_u64(50);
    for round in 0..400 {
        let mut bytes = whole.to_vec();
        // Half of the rounds damage only the settings at the start, a twentieth of the file.
        let reach = if round % 2 == 0 { bytes.len() } else { 1500 };
        for _ in 0..=rng.next_u32() % 3 {
            let at = rng.next_u32() as usize % reach;
            bytes[at] = b"0159[]{}\",:nt-\xff"[rng.next_u32() as usize % 15];
        }
        if let Ok(tokenizer) = Tokenizer::from_tokenizer_json("file", &bytes) {
            let ids = tokenizer.encode("Hello, the world!\n\n 你好 <|eos|>").unwrap_or_default();
            // Tokens may be damaged, but ids of the vocabulary must be decodable.
            assert!(tokenizer.decode_lossy(&ids).is_ok());
        }
    }
}

#[test]
fn broken_models_are_refused() {
    let mut file = small();
    file["model"]["merges"] = json!([["nowhere", "found"]]);
    assert!(complaint(&file).contains("nowhere"), "{}", complaint(&file));

    let mut file = small();
    file["model"]["vocab"]["x-y-z"] = json!(u32::MAX);
    assert!(complaint(&file).contains("4294967295"), "{}", complaint(&file));

    let mut file = small();
    file["model"] = json!({ "type": "BPE", "vocab": {}, "merges": [] });
    file["added_tokens"] = json!([]);
    file["decoder"] = Value::Null;
    assert!(complaint(&file).contains("empty"), "{}", complaint(&file));

    let mut file = small();
    file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(");
    complaint(&file);
}

/// A pattern that gives up must not drop the text that it has not matched.
#[test]
fn text_is_never_dropped() {
    let blanks = format!("hello{}world", " ".repeat(1_000_010));
    let mut hostile = small();
    hostile["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
        json!("(?=(?:(?=a)a+)+b)a|\\p{L}| ");
    for (file, text) in [(small(), blanks), (hostile, format!("a b {}", "a".repeat(40)))] {
        let tokenizer = load(&file);
        match tokenizer.encode(&text) {
            Ok(ids) => assert_eq!(tokenizer.decode(&ids).expect("its own ids"), text.as_bytes()),
            Err(error) => {
                let told = error.to_string();
                assert!(told.starts_with("tokenizer.json: the file's pattern finds no"), "{told}");
            }
        }
        assert_eq!(tokenizer.decode_lossy(&tokenizer.encode("a").expect("short")).expect("a"), "a");
    }

    // What a normalizer joins or removes is not missed.
    let accents = json!([{ "type": "NFD" }, { "type": "StripAccents" }]);
    for (normalizer, text) in [
        (json!({ "type": "NFC" }), "e\u{301}a e\u{301}"),
        (json!({ "type": "Sequence", "normalizers": accents }), "\u{e9}a e\u{301}\u{302}"),
        (json!({ "type": "Strip", "strip_left": true, "strip_right": true }), "  a  "),
        (json!({ "type": "Lowercase" }), "ABC \u{130}"),
    ] {
        let mut file = small();
        file["normalizer"] = normalizer;
        load(&file).encode(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    }
}

#[test]
fn a_byte_order_mark_before_the_file_is_no_part_of_it() {
    let bytes = [b"\xef\xbb\xbf".to_vec(), serde_json::to_vec(&small()).expect("JSON")].concat();
    let marked = Tokenizer::from_tokenizer_json("tokenizer.json", &bytes).expect("a valid file");
    let text = "Once upon a time";
    assert_eq!(marked.encode(text).expect("ids"), load(&small()).encode(text).expect("ids"));
    let wide: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let error = Tokenizer::from_tokenizer_json("tokenizer.json", &wide).err().expect("refused");
    assert!(error.to_string().contains("UTF-16"), "{error}");
}
