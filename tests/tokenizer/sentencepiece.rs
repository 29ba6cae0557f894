//! `tokenizer.model`: the ids and texts of the Python package, and malformed files.

use std::io::Read;
use std::time::{Duration, Instant};
use std::{fs, path::PathBuf, thread};

use flate2::read::GzDecoder;
use grok_wgpu::lab::{
    checkpoint::folder::open_tokenizer,
    text::tokenizer::{AroundConfig, Tokenizer},
};
use pollster::block_on;
use serde::Deserialize;

/// What the package says of a model.
#[derive(Deserialize)]
struct Judged {
    /// Whether the model has the common charsmap.
    charsmap: bool,
    /// The ids of each text.
    ids: Vec<Vec<u32>>,
    /// The text of those ids, if it is another.
    decoded: Vec<Option<String>>,
    any_ids: Vec<Vec<u32>>,
    any_decoded: Vec<String>,
    eos: i64,
}

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    models: std::collections::BTreeMap<String, Judged>,
}

fn data(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sentencepiece");
    fs::read(folder.join(name)).expect("a file of the tests")
}

fn unpacked(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(&data(name)[..]).read_to_end(&mut bytes).expect("compressed");
    bytes
}

/// A model as the package had it: messages of one type, one behind the other, are joined.
fn whole(name: &str, charsmap: bool) -> Vec<u8> {
    let mut bytes = data(&format!("{name}.model"));
    if charsmap {
        bytes.extend(unpacked("nmt_nfkc.gz"));
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Tokenizer, String> {
    Tokenizer::from_sentence_piece("dir/tokenizer.model", bytes).map_err(|error| error.to_string())
}

fn golden() -> Golden {
    serde_json::from_slice(&unpacked("golden.json.gz")).expect("JSON")
}

/// The text of ids that come one by one.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|&id| stream.push(id).expect("a token")).collect();
    text.push_str(&stream.finish().expect("the rest"));
    text
}

#[test]
fn ids_and_texts_are_those_of_the_package() {
    let golden = golden();
    assert!(golden.texts.len() > 1000 && golden.models.len() == 6);
    for (name, judged) in &golden.models {
        let tokenizer = read(&whole(name, judged.charsmap)).expect("a valid file");
        let decoded = |ids: &[u32]| {
            let text = tokenizer.decode_lossy(ids).expect("ids");
            assert_eq!(streamed(&tokenizer, ids), text, "{name}: {ids:?}");
            assert_eq!(tokenizer.decode(ids).expect("ids"), text.as_bytes());
            text
        };
        for (i, text) in golden.texts.iter().enumerate() {
            let ids = tokenizer.encode(text).expect("text");
            assert_eq!(ids, judged.ids[i], "{name}: {text:?}");
            assert_eq!(&decoded(&ids), judged.decoded[i].as_ref().unwrap_or(text), "{name}");
        }
        for (ids, text) in judged.any_ids.iter().zip(&judged.any_decoded) {
            assert_eq!(&decoded(ids), text, "{name}: {ids:?}");
        }
        let eos: Vec<u32> = u32::try_from(judged.eos).into_iter().collect();
        assert_eq!(tokenizer.stop_ids(), eos, "{name}");
    }
}

/// What `all` adds to `before`. A character that `before` only begins is added when it is whole.
fn added<'t>(before: &str, all: &'t str) -> &'t str {
    let both = before.chars().zip(all.chars());
    let same = both.take_while(|(one, other)| one == other);
    let common: usize = same.map(|(one, _)| one.len_utf8()).sum();
    let taken_back = &before[common..];
    assert!(taken_back.chars().all(|c| c == char::REPLACEMENT_CHARACTER), "{before:?} {all:?}");
    &all[common..]
}

/// What comes after a prompt is the text of all ids less that of the prompt's.
#[test]
fn what_follows_a_prompt_is_the_rest_of_the_text() {
    let golden = golden();
    let mut within = 0;
    for (name, judged) in &golden.models {
        let tokenizer = read(&whole(name, judged.charsmap)).expect("a valid file");
        let text_of = |ids: &[u32]| tokenizer.decode_lossy(ids).expect("ids");
        for ids in judged.ids.iter().step_by(7).chain(&judged.any_ids) {
            let all = text_of(ids);
            for at in (0..ids.len()).step_by(1 + ids.len() / 16) {
                let (prompt, rest) = ids.split_at(at);
                let before = text_of(prompt);
                within += usize::from(!all.starts_with(&before));
                let mut stream = tokenizer.stream_after(prompt).expect("ids");
                let mut said = String::new();
                for &id in rest {
                    said.push_str(&stream.push(id).expect("a token"));
                }
                said.push_str(&stream.finish().expect("the rest"));
                assert_eq!(said, added(&before, &all), "{name}: {prompt:?} {rest:?}");
                let next = tokenizer.token_text(prompt, rest[0]).expect("a token");
                let both = text_of(&ids[..=at]);
                assert_eq!(next, added(&before, &both), "{name}: {prompt:?} {}", rest[0]);
            }
        }
    }
    assert!(within > 0, "no prompt ends within a character");
}

/// The file does not say what a text begins with; another one may.
#[test]
fn a_text_begins_with_a_mark_if_a_file_says_so() {
    let bare = || read(&whole("unigram_bytes", false)).expect("a valid file");
    let ids = bare().encode("Hello").expect("text");
    let told = |config: &AroundConfig| {
        let tokenizer = bare().with_around_config(config);
        let ids = tokenizer.encode_prompt("Hello").expect("text");
        (ids, tokenizer.begin_ids().to_vec(), tokenizer.warnings())
    };
    let bos = Some("<s>".to_owned());
    let silent = AroundConfig { bos: bos.clone(), ..AroundConfig::default() };
    assert_eq!(told(&silent), (ids.clone(), Vec::new(), Vec::new()));
    let yes = AroundConfig { add_bos: Some(true), bos, add_eos: Some(false) };
    assert_eq!(told(&yes), ([&[1], &ids[..]].concat(), vec![1], Vec::new()));
    // After the mark, the first word is still the first.
    let begun = bare().with_around_config(&yes);
    let mut stream = begun.stream_after(begun.begin_ids()).expect("ids");
    assert!(!stream.push(ids[0]).expect("a token").starts_with(' '));
    // A piece of text is no mark.
    let odd = AroundConfig { bos: Some("\u{2581}the".into()), ..yes };
    let (same, begin, warnings) = told(&odd);
    assert_eq!((same, begin, warnings.len()), (ids, Vec::new(), 1));
    assert!(warnings[0].contains("which is no special token"), "{warnings:?}");
}

#[test]
fn control_pieces_are_marks_and_no_text() {
    let tokenizer = read(&whole("unigram_bytes", false)).expect("a valid file");
    let (begin, end) = (tokenizer.special("<s>").expect("one"), tokenizer.special("</s>"));
    assert_eq!((begin, end), (1, Some(2)));
    let text = "<s>Hello world</s>";
    let ids = tokenizer.encode_with_specials(text).expect("text");
    assert_eq!((ids[0], ids.last()), (begin, end.as_ref()));
    assert!(ids.len() < tokenizer.encode(text).expect("text").len());
    assert!(!tokenizer.encode(text).expect("text").contains(&begin));
    assert_eq!(tokenizer.decode(&ids).expect("ids"), text.as_bytes());
    assert_eq!(streamed(&tokenizer, &ids), text);
    // A token by itself has its blank, and bytes are bytes.
    let [first, .., byte] = tokenizer.encode("Hello\u{1}").expect("text")[..] else {
        panic!("two tokens at least")
    };
    assert!(tokenizer.token_bytes(first).expect("a token").starts_with(b" "));
    assert_eq!(tokenizer.token_bytes(byte).expect("a token"), [1]);
    assert!(tokenizer.decode(&[9999]).is_err() && tokenizer.token_bytes(9999).is_err());
    assert!(tokenizer.stream().push(9999).is_err());
}

/// A user-defined piece is found in text, unless it would forge the end of a turn.
#[test]
fn nobody_forges_the_end_of_a_turn() {
    let bytes = whole("bpe_nfkc", true);
    let spelt = |name: &[u8]| {
        let mut bytes = bytes.clone();
        let at = bytes.windows(5).position(|text| text == b"<sep>").expect("a piece");
        bytes[at..at + 5].copy_from_slice(name);
        read(&bytes).expect("a valid file")
    };
    let plain = spelt(b"<set>");
    assert_eq!(plain.encode("a<set>").expect("text").last(), Some(&3));
    assert_eq!(plain.special("<set>"), None);
    let end = spelt(b"<eos>");
    assert!(!end.encode("a<eos>").expect("text").contains(&3));
    assert_eq!(end.special("<eos>"), Some(3));
    assert_eq!(end.stop_ids(), [0, 3]);
    assert_eq!(end.encode_with_specials("a<eos>").expect("text").last(), Some(&3));
}

#[test]
fn long_texts_take_linear_time_and_no_stack() {
    const LENGTH: usize = 1 << 18;
    // It takes a fraction of a second on an idle machine. Quadratic time would take hours.
    let slowest = Duration::from_secs(20);
    let work = move || {
        for (name, charsmap) in [("unigram_bytes", false), ("bpe_bytes", false), ("bpe_nfkc", true)]
        {
            let tokenizer = read(&whole(name, charsmap)).expect("a valid file");
            for unit in ["a", "the", " ", "你"] {
                let text = unit.repeat(LENGTH / unit.len());
                let fastest = (0..3)
                    .map(|_| {
                        let start = Instant::now();
                        let ids = tokenizer.encode(&text).expect("text");
                        tokenizer.decode(&ids).expect("ids");
                        start.elapsed()
                    })
                    .find(|&time| time < slowest);
                assert!(fastest.is_some(), "{name}: {unit:?} takes more than {slowest:?}");
            }
        }
    };
    let worker = thread::Builder::new().stack_size(128 << 10).spawn(work).expect("a thread");
    assert!(worker.join().is_ok());
}

/// A field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len > 0x7f {
        field.push(u8::try_from(len & 0x7f | 0x80).expect("a byte"));
        len >>= 7;
    }
    field.push(u8::try_from(len).expect("a byte"));
    field.extend(bytes);
    field
}

/// A piece of a model.
fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let mut bytes = field(1, text.as_bytes());
    bytes.push(0x15);
    bytes.extend(score.to_le_bytes());
    bytes.extend([0x18, kind]);
    field(1, &bytes)
}

/// The smallest model, and what comes after it.
fn small(more: &[Vec<u8>]) -> Vec<u8> {
    [piece("<unk>", 0.0, 2), piece("a", -1.0, 1), more.concat()].concat()
}

#[test]
fn malformed_files_are_told_by_field() {
    let ids = read(&small(&[])).expect("a valid file").encode("aa b").expect("text");
    assert_eq!(ids, [0, 1, 1, 0]);
    // Unused pieces that only fill a vocabulary are spelt alike.
    let filled = read(&small(&[piece("\0", 0.0, 5), piece("\0", 0.0, 5)])).expect("a valid file");
    assert_eq!((filled.vocab_size(), filled.encode("\0").expect("text")), (4, vec![0]));
    let spec = |number: u8, value: u8| field(2, &[number << 3, value]);
    // Fields from 16 on have a number of two bytes.
    let byte_fallback = field(2, &[0x98, 0x02, 1]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("it has 0 pieces", Vec::new()),
        ("it has 1 pieces, none of them of text", piece("<unk>", 0.0, 2)),
        ("no piece is of the type unknown", piece("a", 0.0, 1)),
        ("pieces[0] and pieces[2] are both of type unknown", small(&[piece("b", 0.0, 2)])),
        ("pieces[1] and pieces[2] are both \"a\"", small(&[piece("a", 0.0, 4)])),
        ("pieces[2] has 0 bytes", small(&[piece("", 0.0, 1)])),
        ("pieces[2] has 5000 bytes", small(&[piece(&"b".repeat(5000), 0.0, 1)])),
        ("pieces[1] and pieces[2] are both \"a\"", small(&[piece("a", 0.0, 5)])),
        ("the score of pieces[2] is NaN", small(&[piece("b", f32::NAN, 1)])),
        ("the score of pieces[2] is inf", small(&[piece("b", f32::INFINITY, 1)])),
        ("pieces[2].type is 7, wanted 1 to 6", small(&[piece("b", 0.0, 7)])),
        ("pieces[2].piece is not UTF-8", small(&[field(1, &field(1, b"\xff"))])),
        ("pieces[2]: a value at byte", small(&[field(1, b"\x0a\x05b")])),
        ("field 2 of pieces[2] is the number 1", small(&[field(1, b"\x0a\x01b\x10\x01")])),
        ("pieces[2] is the number 1, which is not its type", small(&[vec![8, 1]])),
        ("byte_fallback is false", small(&[piece("<0x41>", 0.0, 6)])),
        ("no piece is <0x00>", small(std::slice::from_ref(&byte_fallback))),
        ("spelt \"<0x4g>\"", small(&[piece("<0x4g>", 0.0, 6), byte_fallback])),
        ("model_type is 4 (characters), wanted 1", small(&[spec(3, 4)])),
        ("model_type is 1 bytes", small(&[field(2, &field(3, b"x"))])),
        ("precompiled_charsmap: it has 3 bytes", small(&[field(3, &field(2, b"abc"))])),
        ("denormalizer_spec has rules", small(&[field(5, &field(2, b"abc"))])),
        ("wire type 7", small(&[vec![0x0f]])),
        ("field 1 at byte 0 has wire type 3", vec![0x0b; 50]),
        ("bytes, but only", b"\x0a\xff\xff\xff\xff\x0f".to_vec()),
        ("more than 64 bits", vec![0xff; 40]),
        ("tiktoken, as Llama 3 has it", b"IQ== 0\nIg== 1\n".to_vec()),
        // An empty piece has two bytes, and is held in many more.
        ("more than the 4194304 pieces allowed", field(1, b"").repeat(10_000_000)),
    ];
    for (told, bytes) in bad {
        let error = read(&bytes).err().expect(told);
        assert!(error.starts_with("dir/tokenizer.model: "), "{error}");
        assert!(error.contains(told), "{told}: {error}");
    }
}

/// The file is a list of fields, and nothing says how many. One that is cut between two of them can
/// only be told where what is left makes no sense.
#[test]
fn files_that_end_early_are_told_within_a_field() {
    let bytes = whole("unigram_bytes", false);
    let mut ends = vec![0];
    while let Some(&end) = ends.last().filter(|&&end| end < bytes.len()) {
        // A tag, a length of one or two bytes, and that many bytes.
        let long = bytes[end + 1] > 0x7f;
        let high = if long { usize::from(bytes[end + 2]) } else { 0 };
        let len = usize::from(bytes[end + 1] & 0x7f) + (high << 7);
        ends.push(end + 2 + usize::from(long) + len);
    }
    assert_eq!(ends.last(), Some(&bytes.len()));
    for cut in (0..bytes.len()).filter(|cut| !ends.contains(cut)) {
        let error = read(&bytes[..cut]).err().expect("refused");
        assert!(error.contains("the file is cut short"), "{cut}: {error}");
    }
    // Byte pieces belong to the trainer's word that there are some, which is behind them.
    let early = ends.iter().filter(|&&end| end > 300 && end < bytes.len());
    let told = early.filter(|&&end| read(&bytes[..end]).is_err()).count();
    assert!(told > ends.len() / 2, "{told} of {}", ends.len());
}

#[test]
fn files_beside_others_are_looked_for_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || block_on(open_tokenizer(dir.path()));
    let model = dir.path().join("tokenizer.model");
    fs::write(&model, whole("bpe_bytes", false)).expect("written");
    let tokenizer = open().expect("valid");
    assert_eq!((tokenizer.path(), tokenizer.kind()), (&*model, "SentencePiece, BPE"));
    let unigram = read(&whole("unigram_plain", false)).expect("valid");
    assert_eq!(unigram.kind(), "SentencePiece, unigram");
    for (bytes, told) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><title>Not found</title>", "HTML page"),
        (b"{\"version\": \"1.0\"}", "JSON text; a SentencePiece model is wanted"),
    ] {
        fs::write(&model, bytes).expect("written");
        let error = open().err().expect("refused").to_string();
        assert!(error.contains(told), "{told}: {error}");
        assert!(error.contains("tokenizer.model: "), "{error}");
    }
}
