//! The tokenizer from both file formats: tiktoken's ids, and malformed files.

#[path = "tokenizer/sentencepiece.rs"]
mod sentencepiece;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use grok_wgpu::lab::{
    checkpoint::folder::open_tokenizer,
    text::tokenizer::{Tokenizer, synthetic_tok_json},
};
use pollster::block_on;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

const TOK_JSON: &[u8] = include_bytes!("data/tokenizer/small.tok.json");
const TOKENIZER_JSON: &[u8] = include_bytes!("data/tokenizer/small.tokenizer.json");

/// The two files hold the same vocabulary.
fn both() -> [Tokenizer; 2] {
    [
        Tokenizer::from_tok_json("small.tok.json", TOK_JSON).expect("a valid file"),
        Tokenizer::from_tokenizer_json("small.tokenizer.json", TOKENIZER_JSON)
            .expect("a valid file"),
    ]
}

/// The bytes of a small file after a change.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let text = synthetic_tok_json(300).expect("in range");
    let mut file: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut file);
    serde_json::to_vec(&file).expect("JSON")
}

/// The loader's error for a changed file.
fn complaint(change: impl FnOnce(&mut Value)) -> String {
    match Tokenizer::from_tok_json("dir/file.json", &changed(change)) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => {
            assert_eq!(error.code(), "tokenizer");
            let text = error.to_string();
            assert!(text.starts_with("dir/file.json: "), "{text}");
            text
        }
    }
}

/// The object of the token with that id; 0 to 2 are special, 3 to 258 single bytes.
fn token(file: &mut Value, id: usize) -> &mut Value {
    if id < 3 { &mut file["special_tokens"][id] } else { &mut file["regular_tokens"][id - 3] }
}

fn random_text(rng: &mut ChaCha8Rng, chars: u32) -> String {
    const COMMON: &[char] = &[
        ' ',
        '\n',
        '\r',
        '\t',
        't',
        'h',
        'e',
        'H',
        '1',
        '!',
        '<',
        '|',
        '>',
        '\'',
        'é',
        '\u{301}',
        '你',
        '\u{3000}',
        '🙂',
        '\u{200d}',
        '\u{fffd}',
        '\0',
        '\u{feff}',
        '\u{202e}',
        '\u{e000}',
        '\u{10ffff}',
    ];
    let mut text = String::new();
    for _ in 0..chars {
        match rng.next_u32() % 8 {
            0 => text.extend(char::from_u32(rng.next_u32() % 0x11_0000)),
            1 => text.push_str("<|separator|>"),
            _ => text.push(COMMON[rng.next_u32() as usize % COMMON.len()]),
        }
    }
    text
}

fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut decoder = tokenizer.stream();
    let mut pieces: Vec<String> =
        ids.iter().map(|&id| decoder.push(id).expect("a token")).collect();
    pieces.push(decoder.finish().expect("an end"));
    pieces
}

#[test]
fn ids_are_tiktokens() {
    let golden: Vec<Value> =
        serde_json::from_slice(include_bytes!("data/tokenizer/golden.json")).expect("JSON");
    assert!(golden.len() > 200);
    let ids = |value: &Value| -> Vec<u32> {
        serde_json::from_value(value.clone()).expect("a list of ids")
    };
    for tokenizer in both() {
        for case in &golden {
            let text = case["text"].as_str().expect("a text");
            let plain = tokenizer.encode(text).expect("text");
            assert_eq!(plain, ids(&case["plain"]), "{:?}: {text:?}", tokenizer.path());
            let with_specials = tokenizer.encode_with_specials(text).expect("text");
            assert_eq!(with_specials, ids(&case["with_specials"]), "{text:?}");
            assert_eq!(tokenizer.decode_lossy(&plain).expect("ids"), text);
            assert_eq!(tokenizer.decode_lossy(&with_specials).expect("ids"), text);
        }
    }
}

#[test]
fn ids_have_groks_shape() {
    for tokenizer in both() {
        assert_eq!(tokenizer.vocab_size(), 704);
        assert_eq!(tokenizer.special("<|separator|>"), Some(1));
        assert_eq!(tokenizer.special("<|reserved_127|>"), Some(127));
        assert_eq!(tokenizer.special("<|control1|>"), None);
        assert_eq!(tokenizer.special("Human"), None);
        assert_eq!(tokenizer.stop_ids(), [1, 2]);
        assert_eq!(tokenizer.encode(":").expect("text"), [186]);
        assert_eq!(tokenizer.encode("?").expect("text"), [191]);
        assert_eq!(tokenizer.token_bytes(128 + 0xff).expect("a token"), [0xff]);
        assert_eq!(tokenizer.token_bytes(1).expect("a token"), b"<|separator|>");
    }
}

#[test]
fn any_text_survives_the_round_trip() {
    let tokenizers = both();
    let mut rng = ChaCha8Rng::seed_from_u64(53);
    for _ in 0..3000 {
        let chars = rng.next_u32() % 30;
        let text = random_text(&mut rng, chars);
        let [one, other] = &tokenizers;
        let ids = one.encode(&text).expect("text");
        assert_eq!(ids, other.encode(&text).expect("text"), "{text:?}");
        for tokenizer in &tokenizers {
            assert_eq!(tokenizer.decode(&ids).expect("ids"), text.as_bytes());
            assert_eq!(stream(tokenizer, &ids).concat(), text);
        }
        assert!(ids.iter().all(|&id| id >= 128), "a special token in plain text: {text:?}");
    }
}

#[test]
fn streams_agree_with_the_whole_for_any_ids() {
    let tokenizers = both();
    let judge = tokenizers::Tokenizer::from_bytes(TOKENIZER_JSON).expect("a valid file");
    let mut rng = ChaCha8Rng::seed_from_u64(54);
    for _ in 0..3000 {
        let len = rng.next_u32() % 20;
        // Half of the ids are single bytes, mostly invalid UTF-8.
        let ids: Vec<u32> = (0..len)
            .map(|_| {
                if rng.next_u32().is_multiple_of(2) {
                    rng.next_u32() % 704
                } else {
                    256 + rng.next_u32() % 128
                }
            })
            .collect();
        let want = judge.decode(&ids, false).expect("ids");
        for tokenizer in &tokenizers {
            let pieces = stream(tokenizer, &ids);
            assert_eq!(pieces.concat(), want, "{ids:?}");
            assert_eq!(tokenizer.decode_lossy(&ids).expect("ids"), want);
            let bytes = tokenizer.decode(&ids).expect("ids");
            assert_eq!(String::from_utf8_lossy(&bytes), want);
        }
    }
}

#[test]
fn characters_come_whole_and_hopeless_bytes_at_once() {
    let byte = |byte: u8| 128 + u32::from(byte);
    for tokenizer in both() {
        let smile: Vec<u32> = "🙂".bytes().map(byte).collect();
        assert_eq!(stream(&tokenizer, &smile), ["", "", "", "🙂", ""]);
        // A lead byte waits for the next bytes; a byte that cannot continue it ends the wait.
        let broken = [byte(0xf0), byte(0x9f), byte(b'a'), byte(0xff), byte(0xe4)];
        assert_eq!(stream(&tokenizer, &broken), ["", "", "\u{fffd}a", "\u{fffd}", "", "\u{fffd}"]);
        // So does a special token.
        assert_eq!(stream(&tokenizer, &[byte(0xe4), 1]), ["", "\u{fffd}<|separator|>", ""]);
    }
}

#[test]
fn ids_without_a_token_are_named() {
    for tokenizer in both() {
        for id in [704, 131_072, u32::MAX] {
            for error in [
                tokenizer.decode(&[128, id]).expect_err("no such token"),
                tokenizer.decode_lossy(&[id]).expect_err("no such token"),
                tokenizer.stream().push(id).expect_err("no such token"),
                tokenizer.token_bytes(id).expect_err("no such token"),
            ] {
                let text = error.to_string();
                assert!(text.contains(&id.to_string()) && text.contains("704"), "{text}");
            }
        }
    }
}

#[test]
fn special_tokens_in_text_are_text() {
    for tokenizer in both() {
        // The file does not mark the second one as special.
        for text in ["<|separator|>", "<|reserved_3|>", "a<|eos|>b", "<|control1|>", "Assistant:"] {
            let ids = tokenizer.encode(text).expect("text");
            assert!(ids.iter().all(|&id| id >= 128), "{text}: {ids:?}");
            assert_eq!(tokenizer.decode_lossy(&ids).expect("ids"), text);
        }
        let ids = tokenizer.encode_with_specials("a<|eos|>b<|reserved_3|>").expect("text");
        assert_eq!(ids, [128 + 97, 2, 128 + 98, 3]);
    }
}

#[test]
fn empty_text_has_no_ids() {
    for tokenizer in both() {
        assert!(tokenizer.encode("").expect("text").is_empty());
        assert!(tokenizer.encode_with_specials("").expect("text").is_empty());
        assert_eq!(tokenizer.decode_lossy(&[]).expect("ids"), "");
    }
}

#[test]
fn long_runs_take_linear_time_and_no_stack() {
    const MEGABYTE: usize = 1 << 20;
    let tokenizer = Tokenizer::from_tok_json("small.tok.json", TOK_JSON).expect("a valid file");
    // It takes tens of milliseconds on an idle machine. Quadratic time would take hours.
    let slowest = Duration::from_secs(10);
    // A stack of 64 KiB rules out recursion over the text.
    let work = move || {
        for unit in
            ["a", "the", " ", "\n", "\r\n ", "^", "你", "\u{301}", "\u{fffd}", "'", "'s", "7"]
        {
            let text = unit.repeat(MEGABYTE / unit.len());
            // Other processes may slow down one try, but hardly all three.
            let fastest = (0..3)
                .map(|_| {
                    let start = Instant::now();
                    let ids = tokenizer.encode(&text).expect("text");
                    let time = start.elapsed();
                    assert_eq!(tokenizer.decode(&ids).expect("ids"), text.as_bytes());
                    time
                })
                .find(|&time| time < slowest);
            assert!(fastest.is_some(), "{unit:?} takes more than {slowest:?} for a megabyte");
        }
    };
    let worker = thread::Builder::new().stack_size(64 << 10).spawn(work).expect("a thread");
    assert!(worker.join().is_ok());
}

#[test]
fn missing_bytes_are_refused() {
    let text = complaint(|file| {
        *token(file, 3 + 0x7f) = json!({ "bytes": [0x7f, 0x7f], "token": 3 + 0x7f });
        *token(file, 3) = json!({ "bytes": [1, 1, 1], "token": 3 });
    });
    assert!(text.contains("byte 0x7f has no token"), "{text}");
    assert!(text.contains("byte 0x00 has no token"), "{text}");
}

#[test]
fn all_problems_are_reported_together() {
    let text = complaint(|file| {
        token(file, 260)["token"] = json!(261);
        token(file, 270)["token"] = json!(u32::MAX);
        token(file, 280)["bytes"] = json!([]);
        token(file, 290)["bytes"] = json!(b"in");
        token(file, 291)["bytes"] = json!(vec![7; 5000]);
        token(file, 1)["bytes"] = json!(b"<|pad|>");
        token(file, 0)["bytes"] = json!([0xff]);
        token(file, 2)["bytes"] = json!(b"<|pad|>");
        file["word_split"] = json!("V2");
        file["pat_str"] = json!("(");
        file["vocab_size"] = json!(301);
    });
    for part in [
        "10 problems",
        "`word_split` is \"V2\"",
        "`pat_str` is not a usable pattern",
        "`vocab_size` is 301, but there are 297 regular and 3 special tokens",
        "`regular_tokens[258]`: id 261 was given before",
        "`regular_tokens[267]`: id 4294967295 is not below the number of tokens, 300",
        "token 280 has no bytes",
        "token 290 has the bytes of token 261: \"in\"",
        "token 291 has 5000 bytes",
        "special token 0 is not UTF-8",
        "token 2 has the text of token 1: \"<|pad|>\"",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn long_lists_of_problems_are_cut() {
    let text = complaint(|file| {
        for id in 3..300 {
            token(file, id)["token"] = json!(5);
        }
    });
    assert!(text.contains("296 problems") && text.contains("and 276 more"), "{text}");
    assert!(text.lines().count() == 22, "{text}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (bytes, id) in [(json!([256]), json!(3)), (json!([-1]), json!(3)), (json!([1.5]), json!(3))]
    {
        let text = complaint(|file| *token(file, 3) = json!({ "bytes": bytes, "token": id }));
        assert!(text.contains("line 1"), "{text}");
    }
    for id in [json!(-1), json!(1_u64 << 32), json!("3"), Value::Null] {
        let text = complaint(|file| token(file, 3)["token"] = id);
        assert!(text.contains("line 1"), "{text}");
    }
}

#[test]
fn gaps_are_refused_with_or_without_vocab_size() {
    let text = complaint(|file| {
        token(file, 299)["token"] = json!(300);
        file["vocab_size"] = Value::Null;
    });
    assert!(text.contains("id 300 is not below the number of tokens, 300"), "{text}");
}

#[test]
fn files_that_are_no_json_are_refused() {
    for bytes in [&b""[..], b"{", b"[]", b"{\"word_split\": \"\\ud800\"}", b"\xff\xfe", b"null"] {
        let error = Tokenizer::from_tok_json("file", bytes).err().expect("refused");
        assert_eq!(error.code(), "tokenizer", "{error}");
        let error = Tokenizer::from_tokenizer_json("file", bytes).err().expect("refused");
        assert_eq!(error.code(), "tokenizer", "{error}");
    }
    let deep = "{\"unknown\": ".to_owned() + &"[".repeat(1 << 20);
    assert!(Tokenizer::from_tok_json("file", deep.as_bytes()).is_err());
    assert!(Tokenizer::from_tokenizer_json("file", deep.as_bytes()).is_err());
    for key in ["regular_tokens", "special_tokens", "word_split"] {
        let text = complaint(|file| {
            file.as_object_mut().expect("an object").remove(key);
        });
        assert!(text.contains(key), "{text}");
    }
}

#[test]
fn cut_files_never_panic() {
    for cut in (0..TOK_JSON.len() - 1).step_by(501) {
        assert!(Tokenizer::from_tok_json("file", &TOK_JSON[..cut]).is_err());
    }
    for cut in (0..TOKENIZER_JSON.len() - 1).step_by(501) {
        assert!(Tokenizer::from_tokenizer_json("file", &TOKENIZER_JSON[..cut]).is_err());
    }
}

#[test]
fn unknown_keys_are_ignored() {
    let file = changed(|file| file["from_the_future"] = json!([{ "a": [1, null, "b"] }]));
    assert!(Tokenizer::from_tok_json("file", &file).is_ok());
}

#[test]
fn the_longest_special_wins_and_may_spell_a_regular_token() {
    let file = changed(|file| {
        token(file, 0)["bytes"] = json!(b"<|a|>");
        token(file, 1)["bytes"] = json!(b"<|a|>b");
        token(file, 2)["bytes"] = json!(b"the");
    });
    let tokenizer = Tokenizer::from_tok_json("file", &file).expect("valid");
    let ids = tokenizer.encode_with_specials("<|a|>b<|a|>the").expect("text");
    assert_eq!(ids, [1, 0, 2]);
    let ids = tokenizer.encode("the").expect("text");
    assert!(ids.iter().all(|&id| id > 2), "{ids:?}");
    assert_eq!(tokenizer.decode(&[1, 2]).expect("ids"), b"<|a|>bthe");
}

#[test]
fn stop_ids_are_those_there_are_in_order() {
    let file = changed(|file| {
        token(file, 0)["bytes"] = json!(b"<|eos|>");
        token(file, 2)["bytes"] = json!(b"<|separator|>");
        token(file, 1)["bytes"] = json!(b"<|none|>");
    });
    let tokenizer = Tokenizer::from_tok_json("file", &file).expect("valid");
    assert_eq!(tokenizer.stop_ids(), [0, 2]);
    let file = changed(|file| {
        for id in 0..3 {
            token(file, id)["bytes"] = json!(format!("<|{id}|>").as_bytes());
        }
    });
    let tokenizer = Tokenizer::from_tok_json("file", &file).expect("valid");
    assert!(tokenizer.stop_ids().is_empty());
}

#[test]
fn damaged_files_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(48);
    for _ in 0..400 {
        let mut bytes = TOK_JSON.to_vec();
        for _ in 0..=rng.next_u32() % 3 {
            let at = rng.next_u32() as usize % bytes.len();
            bytes[at] = b"0159[]{}\",:nt-\xff"[rng.next_u32() as usize % 15];
        }
        if let Ok(tokenizer) = Tokenizer::from_tok_json("file", &bytes) {
            let text = "Hello, the world!\n\n 你好 <|eos|>";
            let ids = tokenizer.encode(text).expect("every byte has a token");
            assert_eq!(tokenizer.decode_lossy(&ids).expect("ids"), text);
        }
    }
}

#[test]
fn a_foreign_pattern_is_honoured() {
    let file = changed(|file| file["pat_str"] = json!("."));
    let tokenizer = Tokenizer::from_tok_json("file", &file).expect("valid");
    let ids = tokenizer.encode("the\nthe").expect("text");
    let want: Vec<u32> = b"the\nthe".iter().map(|&byte| 3 + u32::from(byte)).collect();
    assert_eq!(ids, want);

    let file = changed(|file| file["pat_str"] = json!("(?=((a+)+$))b|(a|a)*(?=c)d"));
    let tokenizer = Tokenizer::from_tok_json("file", &file).expect("valid");
    let error = tokenizer.encode(&"a".repeat(5000)).expect_err("gives up");
    assert!(error.to_string().contains("`pat_str` gives up"), "{error}");
}

#[test]
fn files_are_looked_for_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || block_on(open_tokenizer(dir.path()));
    let name = |tokenizer: &Tokenizer| tokenizer.path().file_name().map(ToOwned::to_owned);

    let text = open().err().expect("nothing there").to_string();
    assert!(text.contains("tokenizer.tok.json") && text.contains("tokenizer.json"), "{text}");
    fs::write(dir.path().join("tokenizer.model"), b"\n\x0e").expect("written");
    let text = open().err().expect("cut short").to_string();
    assert!(text.contains("tokenizer.model") && text.contains("SentencePiece"), "{text}");
    fs::write(dir.path().join("tokenizer.json"), TOKENIZER_JSON).expect("written");
    assert_eq!(name(&open().expect("valid")).as_deref(), Some("tokenizer.json".as_ref()));
    fs::write(dir.path().join("tokenizer.tok.json"), TOK_JSON).expect("written");
    assert_eq!(name(&open().expect("valid")).as_deref(), Some("tokenizer.tok.json".as_ref()));
    // An error in the preferred file is reported; the other file is not tried.
    fs::write(dir.path().join("tokenizer.tok.json"), b"{}").expect("written");
    assert!(open().is_err());

    let error = block_on(open_tokenizer(Path::new("no/such/folder"))).err().expect("not there");
    assert_eq!(error.code(), "io");
}

#[test]
fn huge_files_are_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = fs::File::create(dir.path().join("tokenizer.json")).expect("a file");
    file.set_len(300 << 20).expect("a sparse file");
    let text = block_on(open_tokenizer(dir.path())).err().expect("too large").to_string();
    assert!(text.contains("314572800 bytes"), "{text}");
}
