//! `tokenizer.json`: vocabularies that are not byte-level, and settings that would change a prompt.

use grok_wgpu::lab::{
    engine::{
        SessionOptions,
        generation::{Generation, Next},
        options::Options,
        step::StepOutput,
    },
    model::config::Config,
    text::{
        sampler::{Candidate, Sampler},
        tokenizer::{AroundConfig, Tokenizer},
    },
};
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

/// What `decoders.py` wrote.
fn golden() -> Value {
    serde_json::from_slice(include_bytes!("data/tokenizer/decoders.json")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// The pieces and the end of a stream that follows `before`.
fn stream_after(tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> String {
    let mut decoder = tokenizer.stream_after(before).expect("decodable");
    let pieces: String = ids.iter().map(|&id| decoder.push(id).expect("a token")).collect();
    pieces + &decoder.finish().expect("an end")
}

#[test]
fn text_after_a_prompt_is_what_the_package_makes_of_both_less_the_prompt() {
    for kind in list(&golden()["decoders"]) {
        let tokenizer = load(&kind["file"]);
        let name = &kind["name"];
        for pair in list(&kind["pairs"]) {
            let [head, both] = ["head", "both"].map(|key| pair[key].as_str().expect("text"));
            let (before, after) = (ids(&pair["before"]), ids(&pair["after"]));
            let all = [&before[..], &after[..]].concat();
            let want = &both[head.len()..];
            assert_eq!(stream_after(&tokenizer, &before, &after), want, "{name}: {pair}");
            assert_eq!(tokenizer.decode_lossy(&all).expect("ids"), both, "{name}: {pair}");
            // Far from its beginning a text has no memory of it.
            let far = [before.repeat(if before.is_empty() { 0 } else { 50 }), all].concat();
            let judge = tokenizers::Tokenizer::from_bytes(kind["file"].to_string());
            let decode = |ids: &[u32]| {
                let judge = judge.as_ref().expect("a valid file");
                if ids.is_empty() { String::new() } else { judge.decode(ids, false).expect("ids") }
            };
            let (start, end) = far.split_at(far.len() - after.len());
            let want = decode(&far).strip_prefix(&decode(start)).expect("more text").to_owned();
            assert_eq!(stream_after(&tokenizer, start, end), want, "{name}: {pair}");
            assert_eq!(
                tokenizer.token_text(start, end[0]).expect("a token"),
                stream_after(&tokenizer, start, &end[..1]),
                "{name}: {pair}"
            );
        }
    }
}

/// What a generation says of these ids after a prompt, and why it ended: the model is this list.
fn generated(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32], stop: &str) -> (String, String) {
    let config = Config::preset("small").expect("a preset");
    let sizes = SessionOptions::of(&config);
    let mut options = Options::default();
    options.max_tokens = ids.len();
    options.stop_texts = vec![stop.to_owned()];
    let text = Generation::new(&config, sizes, tokenizer, Sampler::greedy(), prompt, options);
    let (mut text, mut ids, mut heard) = (text.expect("a text"), ids.iter(), String::new());
    loop {
        match text.advance().expect("a token") {
            Next::Step(_) => {
                let mut output = StepOutput::default();
                let next = ids.next().map(|&id| Candidate { id, logit: 1.0 });
                output.candidates.extend(next);
                text.accept(output).expect("it was asked for");
            }
            Next::Event(event) => heard += event.text(),
            Next::Done => break,
        }
    }
    let made = text.into_generated();
    assert_eq!(made.text, heard);
    (heard, made.finish.name().to_owned())
}

#[test]
fn generations_and_their_stop_texts_see_the_first_blank() {
    for file in [byte_fallback(), word_piece()] {
        let tokenizer = load(&file);
        let [prompt, after] = ["ab b", "b a"].map(|text| tokenizer.encode(text).expect("text"));
        let said = |stop| generated(&tokenizer, &prompt, &after, stop);
        assert_eq!(said("x"), (" b a".into(), "length".into()));
        assert_eq!(said(" b"), (String::new(), "stop".into()));
        assert_eq!(said(" a"), (" b".into(), "stop".into()));
    }
}

#[test]
fn a_long_prompt_costs_the_text_after_it_nothing() {
    let tokenizer = load(&byte_fallback());
    let prompt = tokenizer.encode(&"ab 你 a".repeat(20_000)).expect("text");
    assert!(prompt.len() > 100_000, "{}", prompt.len());
    let after = tokenizer.encode(&"ab é ".repeat(2000)).expect("text");
    let start = std::time::Instant::now();
    let text = stream_after(&tokenizer, &prompt, &after);
    assert!(text.starts_with(" ab é ab é "), "{text:.20}");
    for &id in &after[..1000] {
        tokenizer.token_text(&prompt, id).expect("a token");
    }
    // Decoding the prompt for each of them would take minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn a_spoilt_character_does_not_bring_the_prompt_again() {
    let tokenizer = load(&byte_fallback());
    let prompt = tokenizer.encode(&"你🙂".repeat(20)).expect("text");
    let (lead, word) = (3 + 0xf0, tokenizer.encode("ab").expect("text")[0]);
    assert_eq!(stream_after(&tokenizer, &prompt, &[lead]), "\u{fffd}");
    assert_eq!(stream_after(&tokenizer, &prompt, &[lead, word, word]), "\u{fffd} ab ab");
    assert_eq!(tokenizer.token_text(&prompt, lead).expect("a token"), "\u{fffd}");
    // A character of three tokens comes with the last.
    let character: Vec<u32> = "你".bytes().map(|byte| 3 + u32::from(byte)).collect();
    let mut decoder = tokenizer.stream_after(&prompt).expect("decodable");
    let pieces: Vec<String> =
        character.iter().map(|&id| decoder.push(id).expect("a token")).collect();
    assert_eq!(pieces, ["", "", "你"]);
}

/// The crate's own decoders panic at these.
#[test]
fn decoders_of_nothing_and_of_less_than_they_cut() {
    let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 3 });
    let blank = json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " });
    let mut file = byte_fallback();
    file["decoder"] = json!({ "type": "Sequence", "decoders": [blank, strip] });
    let tokenizer = load(&file);
    let blank = 3 + 256;
    let word = blank + 3;
    assert_eq!(tokenizer.decode_lossy(&[blank, word, blank]).expect("ids"), "a");
    assert_eq!(tokenizer.decode_lossy(&[]).expect("none"), "");
    file["decoder"] = json!({ "type": "BPEDecoder", "suffix": "b" });
    let tokenizer = load(&file);
    assert_eq!(stream_after(&tokenizer, &[], &[word + 1, blank + 1]), "a a");
    assert_eq!(stream_after(&tokenizer, &[u32::MAX], &[]), "");
}

#[test]
fn prompts_begin_as_the_package_begins_them() {
    for kind in list(&golden()["prompts"]) {
        let tokenizer = load(&kind["file"]);
        let name = &kind["name"];
        let mut told = false;
        for text in list(&kind["texts"]) {
            let [want, plain] = ["ids", "plain"].map(|key| ids(&text[key]));
            let text = text["text"].as_str().expect("text");
            assert_eq!(tokenizer.encode(text).expect("text"), plain, "{name}");
            let prompt = tokenizer.encode_prompt(text).expect("text");
            // A token that ends the text is left out, and told of.
            let end = want.len() - prompt.len();
            assert_eq!(prompt, want[..prompt.len()], "{name}");
            assert!(prompt.ends_with(&plain) && end == usize::from(want.ends_with(&[2])), "{name}");
            told |= end > 0;
            assert_eq!(tokenizer.begin(prompt.clone()), prompt, "{name}: once");
        }
        let warnings = tokenizer.warnings();
        assert_eq!(warnings.len(), usize::from(told), "{name}: {warnings:?}");
        assert!(!told || warnings[0].contains("wants \"</s>\" after each text"), "{warnings:?}");
    }
}

#[test]
fn what_a_configuration_says_of_the_beginning() {
    let bos = |add_bos, bos: Option<&str>| AroundConfig {
        add_bos,
        bos: bos.map(str::to_owned),
        ..AroundConfig::default()
    };
    let begins = |file: &Value, config: &AroundConfig| {
        let tokenizer = load(file).with_around_config(config);
        (tokenizer.begin_ids().to_vec(), tokenizer.warnings().concat())
    };
    let silent = byte_fallback();
    let (ids, told) = begins(&silent, &bos(Some(true), Some("<s>")));
    assert_eq!((ids, told), (vec![1], String::new()));
    let (ids, told) = begins(&silent, &bos(None, Some("<s>")));
    assert_eq!((ids, told), (Vec::new(), String::new()));
    let (ids, told) = begins(&silent, &bos(Some(true), Some("<\x1b>")));
    assert!(ids.is_empty() && told.contains("\"<\\u{1b}>\", which is no special token"), "{told}");
    let (ids, told) = begins(&silent, &bos(Some(true), None));
    assert!(ids.is_empty() && told.contains("bos_token is missing"), "{told}");
    let (_, told) =
        begins(&silent, &AroundConfig { add_eos: Some(true), ..AroundConfig::default() });
    assert!(told.contains("add_eos_token"), "{told}");

    // The tokenizer's own file decides.
    let mut own = silent;
    own["post_processor"] =
        json!({ "type": "BertProcessing", "cls": ["<s>", 1], "sep": ["</s>", 2] });
    let (ids, told) = begins(&own, &bos(Some(false), Some("</s>")));
    assert_eq!(ids, [1]);
    assert!(told.contains("add_bos_token is false, but tokenizer.json puts \"<s>\""), "{told}");
}

#[test]
fn templates_around_a_text_that_make_no_sense() {
    let sequence = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let special = json!({ "SpecialToken": { "id": "s", "type_id": 0 } });
    let template = |single: &[&Value], specials: Value| {
        let mut file = byte_fallback();
        file["post_processor"] = json!({ "type": "TemplateProcessing", "single": single,
            "pair": [], "special_tokens": specials });
        file
    };
    let one = |id: u32| json!({ "s": { "id": "s", "ids": [id], "tokens": ["<s>"] } });
    let missing = complaint(&template(&[&special, &sequence], json!({})));
    assert!(missing.contains("its template has \"s\""), "{missing}");
    let beyond = complaint(&template(&[&special, &sequence], one(999)));
    assert!(beyond.contains("token 999 is put around each text"), "{beyond}");
    let many = complaint(&template(&[&special; 100], one(1)));
    assert!(many.contains("more than 64"), "{many}");
    for texts in [0, 2] {
        let tokenizer = load(&template(&vec![&sequence; texts], one(1)));
        assert_eq!(tokenizer.begin_ids(), [0; 0]);
        let told = tokenizer.warnings().concat();
        assert!(told.contains(&format!("has the text {texts} times")), "{told}");
    }
}

#[test]
fn a_file_larger_than_any_tokenizer_is_not_parsed() {
    let bytes = vec![b' '; (64 << 20) + 1];
    let error = Tokenizer::from_tokenizer_json("dir/tokenizer.json", &bytes).err();
    let told = error.expect("refused").to_string();
    assert!(told.contains("67108865 bytes, more than the 67108864 allowed"), "{told}");
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
    let mut begun = hostile.clone();
    begun["post_processor"] =
        json!({ "type": "BertProcessing", "cls": ["<|pad|>", 0], "sep": ["<|eos|>", 2] });
    let trap = format!("a b {}", "a".repeat(40));
    for (file, text) in [(small(), blanks), (hostile, trap.clone()), (begun, trap)] {
        let tokenizer = load(&file);
        match tokenizer.encode_prompt(&text) {
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
