//! The tokenizer of a GGUF file equals that of the `tokenizer.json` it was converted from.

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::Synthetic,
    model::config::Config,
    text::{
        chat::{Message, Role, Scaffold, encode_chat},
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
    let ids = encode_chat(&ours, &Scaffold::GROK_2, &talk).expect("a conversation");
    assert_eq!(ids, encode_chat(&original, &Scaffold::GROK_2, &talk).expect("a conversation"));
    assert_eq!(ids.iter().filter(|id| **id < 128).count(), 2);
    assert_eq!(ours.stop_ids(), [1, 2, 200]);
}

#[test]
fn texts_begin_and_end_as_the_file_says() {
    let flag = |file: &mut Writer, key: &str, value: u8| {
        let bytes = [7u32.to_le_bytes().as_slice(), &[value]].concat();
        file.keys.insert(format!("tokenizer.ggml.add_{key}_token"), bytes);
    };
    let open = |file: &Writer| file.open().expect("opens").tokenizer();
    let begins = |file: &Writer| {
        let tokenizer = open(file).expect("good").expect("is there");
        let ids = tokenizer.encode_prompt("Hello").expect("encodes");
        assert_eq!(ids[tokenizer.begin_ids().len()..], tokenizer.encode("Hello").expect("encodes"));
        (tokenizer.begin_ids().to_vec(), tokenizer.warnings())
    };
    let mut file = vocabulary();
    file.int("tokenizer.ggml.bos_token_id", 5);
    assert_eq!(begins(&file), (Vec::new(), Vec::new()));
    // llama.cpp's usual value for this kind.
    let mut usual = file.clone();
    usual.text("tokenizer.ggml.pre", "llama-bpe");
    assert_eq!(begins(&usual).0, [5]);
    flag(&mut usual, "bos", 0);
    assert_eq!(begins(&usual).0, [0; 0]);

    flag(&mut file, "bos", 1);
    assert_eq!(begins(&file), (vec![5], Vec::new()));
    flag(&mut file, "eos", 1);
    let (ids, told) = begins(&file);
    assert_eq!((ids, told.len()), (vec![5], 1));
    assert!(told[0].contains("wants \"<|eos|>\" after each text"), "{told:?}");

    file.int("tokenizer.ggml.bos_token_id", 704);
    let told = open(&file).err().expect("refused").to_string();
    assert!(told.contains("token 704 is put around each text"), "{told}");
    file.keys.remove("tokenizer.ggml.bos_token_id");
    let told = open(&file).err().expect("refused").to_string();
    assert!(told.contains("add_bos_token is true, but tokenizer.ggml.bos_token_id is"), "{told}");
    file.int("tokenizer.ggml.add_bos_token", 1);
    let told = open(&file).err().expect("refused").to_string();
    assert!(told.contains("add_bos_token is 1, wanted true or false"), "{told}");
}

#[test]
fn a_chat_template_of_the_file() {
    let mut file = vocabulary();
    assert_eq!(file.open().expect("opens").chat_template(), None);
    file.text("tokenizer.chat_template", "{{ messages }}");
    assert_eq!(file.open().expect("opens").chat_template(), Some("{{ messages }}"));
}

#[test]
fn vocabularies_that_make_no_sense() {
    type Spoil = fn(&mut Writer);
    let spoils: [(&str, Spoil); 8] = [
        ("tokenizer.ggml.pre is missing, wanted grok-2", |f| {
            f.keys.remove("tokenizer.ggml.pre");
        }),
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
    other.text("tokenizer.ggml.model", "rwkv");
    assert!(other.open().expect("opens").tokenizer().expect("none").is_none());
}

/// The vocabulary of a `tokenizer.model` as llama.cpp's converter writes it.
fn pieces(kind: &str, model: &[u8]) -> Writer {
    let mut config = Config::preset("tiny").expect("a preset");
    config.vocab_size = 704;
    let weights = Synthetic::new(&config, DType::F16, 1).expect("weights");
    let mut file = converted(&config, &weights);
    let (mut tokens, mut scores, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = model;
    // Fields of type 1 are pieces: a text, a score, and a type that is normal where it is missing.
    while let [0x0a, len, after @ ..] = rest {
        let (piece, after) = after.split_at(usize::from(*len));
        rest = after;
        let (text, more) = piece[2..].split_at(usize::from(piece[1]));
        tokens.push(str::from_utf8(text).expect("UTF-8"));
        let score = more[1..].first_chunk().expect("four bytes");
        scores.push(f32::from_le_bytes(*score));
        types.push(more.get(6).map_or(1, |&kind| i32::from(kind)));
    }
    file.text("tokenizer.ggml.model", kind);
    file.text("tokenizer.ggml.pre", "default");
    file.texts("tokenizer.ggml.tokens", tokens);
    file.floats("tokenizer.ggml.scores", &scores);
    file.ints("tokenizer.ggml.token_type", &types);
    file.int("tokenizer.ggml.eos_token_id", 2);
    file.int("tokenizer.ggml.eot_token_id", 300);
    file
}

const BPE: &[u8] = include_bytes!("../data/sentencepiece/bpe_bytes.model");
const UNIGRAM: &[u8] = include_bytes!("../data/sentencepiece/unigram_bytes.model");

/// `llama` is SentencePiece's BPE, and `t5` a unigram model. `tests/tokenizer.rs` checks the
/// originals.
#[test]
fn pieces_have_the_ids_of_the_original() {
    for (kind, model) in [("llama", BPE), ("t5", UNIGRAM)] {
        let original = Tokenizer::from_sentence_piece("tokenizer.model", model).expect("good");
        let mut file = pieces(kind, model);
        if kind == "t5" {
            file.truth("tokenizer.ggml.add_space_prefix", true);
        }
        let ours = file.open().expect("opens").tokenizer().expect("good").expect("is there");
        assert_eq!((ours.vocab_size(), ours.kind()), (original.vocab_size(), original.kind()));
        for text in ["", " Hello  world,\tthis isn't 1984.\r\n", "你好 \u{1f600}\0<s>", "learning"]
        {
            let ids = ours.encode(text).expect("encodes");
            assert_eq!(ids, original.encode(text).expect("encodes"), "{text}");
            assert_eq!(ours.decode(&ids).expect("decodes"), text.as_bytes());
        }
        assert_eq!(ours.special("</s>"), Some(2));
        assert_eq!(ours.stop_ids(), [2, 300]);
        // Neither is so unless the file says it.
        let bare = {
            file.truth("tokenizer.ggml.add_space_prefix", false);
            file.truth("tokenizer.ggml.remove_extra_whitespaces", true);
            file.open().expect("opens").tokenizer().expect("good").expect("is there")
        };
        let ids = |text: &str| bare.encode(text).expect("encodes");
        assert_eq!(ids("  the  weather "), ids("the weather"));
        let first = *ids("the").first().expect("a token");
        assert!(bare.token_bytes(first).expect("a token").starts_with(b"t"));
    }
}

/// `llama` begins a text with BOS unless the file says otherwise, `t5` only if it says so.
#[test]
fn texts_of_pieces_begin_and_end_as_the_file_says() {
    let around = |file: &Writer| {
        let tokenizer = file.open().expect("opens").tokenizer().expect("good").expect("is there");
        let ids = tokenizer.encode_prompt("Hello").expect("encodes");
        let begin = tokenizer.begin_ids().to_vec();
        assert_eq!(ids, [&begin[..], &tokenizer.encode("Hello").expect("encodes")].concat());
        (begin, tokenizer.warnings())
    };
    let refused =
        |file: &Writer| file.open().expect("opens").tokenizer().err().expect("refused").to_string();
    for (kind, model, usual) in [("llama", BPE, &[1][..]), ("t5", UNIGRAM, &[])] {
        let mut file = pieces(kind, model);
        assert_eq!(around(&file), (usual.to_vec(), Vec::new()), "{kind}");
        file.int("tokenizer.ggml.bos_token_id", 7);
        let named = usual.iter().map(|_| 7).collect();
        assert_eq!(around(&file), (named, Vec::new()), "{kind}");
        file.truth("tokenizer.ggml.add_bos_token", true);
        assert_eq!(around(&file), (vec![7], Vec::new()), "{kind}");
        file.truth("tokenizer.ggml.add_eos_token", true);
        let (begin, told) = around(&file);
        assert_eq!((begin, told.len()), (vec![7], 1), "{kind}");
        assert!(told[0].contains("wants \"</s>\" after each text"), "{told:?}");
        file.truth("tokenizer.ggml.add_eos_token", false);
        file.truth("tokenizer.ggml.add_bos_token", false);
        assert_eq!(around(&file), (Vec::new(), Vec::new()), "{kind}");
        file.truth("tokenizer.ggml.add_bos_token", true);
        file.int("tokenizer.ggml.bos_token_id", 704);
        assert!(refused(&file).contains("token 704 is put around each text"));
    }
    // Token 1 begins a text only if it is a mark.
    let mut file = pieces("llama", BPE);
    file.keys.remove("tokenizer.ggml.token_type");
    assert_eq!(around(&file).0, [0; 0]);
    file.truth("tokenizer.ggml.add_bos_token", true);
    let told = refused(&file);
    assert!(told.contains("add_bos_token is true, but tokenizer.ggml.bos_token_id is"), "{told}");
    let mut file = pieces("t5", UNIGRAM);
    file.truth("tokenizer.ggml.add_bos_token", true);
    assert!(refused(&file).contains("bos_token_id is missing"));
}

/// The rules for characters are in the file too.
#[test]
fn pieces_with_rules_for_characters() {
    // One unit for "A", the root, and a value: the string at 1.
    let mut units = [0u32; 256];
    units[usize::from(b'A')] = 2 << 10 | 1 << 8 | u32::from(b'A');
    units[usize::from(b'A') ^ 2] = 1 << 31 | 1;
    let mut map = 1024u32.to_le_bytes().to_vec();
    map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    map.extend(b"\0a\0");
    let mut file = pieces("llama", BPE);
    file.octets("tokenizer.ggml.precompiled_charsmap", &map);
    let ours = file.open().expect("opens").tokenizer().expect("good").expect("is there");
    let ids = |text: &str| ours.encode(text).expect("encodes");
    assert_eq!(ids("thAt"), ids("that"));
    file.octets("tokenizer.ggml.precompiled_charsmap", &map[..500]);
    let told = file.open().expect("opens").tokenizer().err().expect("refused").to_string();
    assert!(told.contains("precompiled_charsmap: it has 500 bytes"), "{told}");
}

#[test]
fn pieces_that_make_no_sense() {
    type Spoil = fn(&mut Writer);
    let spoils: [(&str, Spoil); 8] = [
        ("tokenizer.ggml.scores is missing", |f| {
            f.keys.remove("tokenizer.ggml.scores");
        }),
        ("tokenizer.ggml.tokens is missing", |f| {
            f.keys.remove("tokenizer.ggml.tokens");
        }),
        ("scores has 2 entries, but there are", |f| f.floats("tokenizer.ggml.scores", &[0.0; 2])),
        ("token_type has 1 entries", |f| f.ints("tokenizer.ggml.token_type", &[1])),
        ("scores is 3, wanted an array of 32-bit floats", |f| f.int("tokenizer.ggml.scores", 3)),
        ("add_space_prefix is 1, wanted true or false", |f| {
            f.int("tokenizer.ggml.add_space_prefix", 1);
        }),
        ("precompiled_charsmap is 1, wanted an array of bytes", |f| {
            f.int("tokenizer.ggml.precompiled_charsmap", 1);
        }),
        ("token 704 should end", |f| f.int("tokenizer.ggml.eos_token_id", 704)),
    ];
    for (what, spoil) in spoils {
        let mut file = pieces("llama", BPE);
        spoil(&mut file);
        let told = file.open().expect("opens").tokenizer().err().expect("refused").to_string();
        assert!(told.contains(what), "{what}: {told}");
        assert!(told.starts_with("model.gguf: "), "{told}");
    }
    let mut file = pieces("llama", BPE);
    file.texts("tokenizer.ggml.tokens", ["a", "b", "a"]);
    file.floats("tokenizer.ggml.scores", &[0.0, 0.0, f32::NAN]);
    for (types, what) in
        [(&[1, 1, 9][..], "token_type has 9, wanted 1 to 6"), (&[1, 1, 1], "pieces[2] is NaN")]
    {
        file.ints("tokenizer.ggml.token_type", types);
        let told = file.open().expect("opens").tokenizer().err().expect("refused").to_string();
        assert!(told.contains(what), "{what}: {told}");
    }
    file.floats("tokenizer.ggml.scores", &[0.0; 3]);
    let told = file.open().expect("opens").tokenizer().err().expect("refused").to_string();
    assert!(told.contains("pieces[0] and pieces[2] are both \"a\""), "{told}");
}
