//! Fuzz targets for readers of untrusted files. Each function takes a file's bytes, returns whether
//! the reader accepted them, and panics if the reader breaks one of its guarantees.
//!
//! `tests/fuzz` runs them on mutations of the files in `seeds/`; `fuzz_targets/` runs them under
//! libFuzzer.

use std::path::Path;

use grok_wgpu::lab::{
    base::error::{Error, Result},
    checkpoint::{
        Checkpoint, Gguf,
        gguf::header,
        index_files,
        journal::Journal,
        pickle::{self, Pickled},
        safetensors::{MAX_HEADER, header_len, parse},
    },
    files::{Source, hub::read_page},
    model::config::{Compat, Config},
    text::tokenizer::Tokenizer,
    variants::Store,
};
use pollster::block_on;

/// Reads a file with these bytes and returns whether it was accepted.
pub(crate) type Target = fn(&[u8]) -> bool;

/// All targets by name, which is also the name of their folder in `seeds/`.
pub(crate) const TARGETS: [(&str, Target); 11] = [
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("config", config),
    ("tok_json", tok_json),
    ("tokenizer_json", tokenizer_json),
    ("sentence_piece", sentence_piece),
    ("index", index),
    ("tuning", tuning),
    ("journal", journal),
    ("pickle", pickle),
    ("listing", listing),
];

/// Upper bound on the length of a simulated file.
const MOST: u64 = 1 << 40;

/// A file that begins with `bytes` and continues with zeros, which take no memory.
struct Start<'a> {
    name: &'static str,
    bytes: &'a [u8],
    len: u64,
}

impl Source for Start<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(Error::io(self.name, std::io::ErrorKind::UnexpectedEof.into()));
        }
        into.fill(0);
        let known = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
        for (to, from) in into.iter_mut().zip(known.unwrap_or_default()) {
            *to = *from;
        }
        Ok(())
    }
}

/// The value, if the file was accepted. A message is neither empty nor as long as the file.
fn accepted<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| told(&error.to_string())).ok()
}

fn told(text: &str) {
    assert!(!text.is_empty() && text.len() < 20_000, "a message of {} bytes", text.len());
}

/// The beginning of a safetensors file. The parser accepts no header that the `safetensors` crate
/// refuses, and every tensor lies inside of the file.
pub(crate) fn safetensors(bytes: &[u8]) -> bool {
    let known = bytes.len() as u64;
    let len = said_len(bytes).filter(|len| (known..MOST).contains(len)).unwrap_or(known);
    let header = header_len(&bytes[..bytes.len().min(512)], len).and_then(|header| {
        assert!(header <= MAX_HEADER);
        let end = usize::try_from(8 + header).ok().filter(|&end| end <= bytes.len());
        let end = end.ok_or("zeros are no header")?;
        Ok((end, parse(&bytes[8..end], len)?))
    });
    match &header {
        Ok((end, entries)) => {
            // The crate expects the data as well. Given a valid header alone, it returns this
            // error.
            use safetensors::{SafeTensorError, SafeTensors};
            match SafeTensors::read_metadata(&bytes[..*end]) {
                Ok(_) | Err(SafeTensorError::MetadataIncompleteBuffer) => {}
                Err(error) => panic!("the crate refuses it: {error}"),
            }
            for entry in entries {
                assert!(entry.offset >= *end as u64 && entry.offset + entry.len <= len);
            }
        }
        Err(what) => told(what),
    }
    let mut config = Config::preset("tiny").expect("a preset").with_layers(1);
    config.experts.as_mut().expect("it has some").count = 2;
    let source = Start { name: "model.safetensors", bytes, len };
    let opened = accepted(block_on(Checkpoint::open(Path::new("model"), vec![source], &config)));
    if let Some(checkpoint) = &opened {
        assert!(header.is_ok());
        assert!(checkpoint.bytes() <= len);
    }
    header.is_ok()
}

/// The length of the file according to its header: the end of the last tensor.
fn said_len(bytes: &[u8]) -> Option<u64> {
    let (header, rest) = bytes.split_first_chunk::<8>()?;
    let header = u64::from_le_bytes(*header);
    let text = rest.get(..usize::try_from(header).ok()?)?;
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    let ends = fields.values().filter_map(|entry| entry["data_offsets"][1].as_u64());
    ends.max()?.checked_add(8 + header)
}

/// The beginning of a GGUF file: its header, configuration and tokenizer.
pub(crate) fn gguf(bytes: &[u8]) -> bool {
    let known = bytes.len() as u64;
    let len = match header::parse(bytes, MOST) {
        Ok(header) => {
            let ends = header.tensors.iter().map(|tensor| tensor.offset.saturating_add(tensor.len));
            ends.max().unwrap_or(known).clamp(known, MOST)
        }
        Err(problem) => {
            if let header::Problem::Bad(what) = problem {
                told(&what);
            }
            known
        }
    };
    if let Ok(header) = header::parse(bytes, len) {
        for tensor in header.tensors {
            assert!(tensor.offset + tensor.len <= len, "{}", tensor.name);
        }
    }
    let open = |compat| {
        let source = Start { name: "model.gguf", bytes, len };
        accepted(block_on(Gguf::open(Path::new("model.gguf"), vec![source], compat)))
    };
    let opened = open(Compat::Reference);
    open(Compat::LlamaCpp);
    if let Some(gguf) = &opened {
        assert_eq!(gguf.config().problems(), Vec::<String>::new());
        if let Some(Some(tokenizer)) = accepted(gguf.tokenizer()) {
            // The pieces of SentencePiece may change blanks, and leave characters out.
            round_trip(&tokenizer, tokenizer.kind() == "byte-level BPE");
        }
    }
    opened.is_some()
}

/// A `config.json`. Writing the parsed configuration and reading it again gives the same.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let path = Path::new("config.json");
    let Some((config, warnings)) = accepted(Config::from_json(path, text)) else { return false };
    for warning in &warnings {
        told(warning);
    }
    assert_eq!(config.problems(), Vec::<String>::new());
    config.parameters();
    let (again, warnings) = Config::from_json(path, &config.to_json()).expect("it was written");
    assert_eq!((again, warnings), (config, Vec::new()));
    true
}

/// A `tokenizer.tok.json`.
pub(crate) fn tok_json(bytes: &[u8]) -> bool {
    accepted(Tokenizer::from_tok_json("tokenizer.tok.json", bytes))
        .is_some_and(|tokenizer| round_trip(&tokenizer, true))
}

/// A `tokenizer.json`, whose normalizer may change a text.
pub(crate) fn tokenizer_json(bytes: &[u8]) -> bool {
    accepted(Tokenizer::from_tokenizer_json("tokenizer.json", bytes))
        .is_some_and(|tokenizer| round_trip(&tokenizer, false))
}

/// A `tokenizer.model`. Text that is decoded id by id is that of all ids together.
pub(crate) fn sentence_piece(bytes: &[u8]) -> bool {
    let read = accepted(Tokenizer::from_sentence_piece("tokenizer.model", bytes));
    let Some(tokenizer) = read else { return false };
    let ids: Vec<u32> = (0..u32::try_from(tokenizer.vocab_size()).expect("few")).collect();
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|&id| stream.push(id).expect("a token")).collect();
    text.push_str(&stream.finish().expect("the rest"));
    assert_eq!(tokenizer.decode_lossy(&ids).expect("tokens"), text);
    round_trip(&tokenizer, false)
}

/// Encodes texts and decodes the ids; `exact` demands the same text.
fn round_trip(tokenizer: &Tokenizer, exact: bool) -> bool {
    for text in ["", "A story, isn't it?\n\n  12 na\u{ef}ve \u{4e16}\u{1f642}", "<|eos|><|pad|>\0"]
    {
        let Some(ids) = accepted(tokenizer.encode(text)) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "{ids:?}");
        if let Some(back) = accepted(tokenizer.decode(&ids)) {
            assert!(!exact || back == text.as_bytes(), "{text:?} came back as {back:?}");
        }
        accepted(tokenizer.encode_prompt(text));
        let Some(mut stream) = accepted(tokenizer.stream_after(&ids)) else { continue };
        for &id in &ids {
            accepted(stream.push(id));
            accepted(tokenizer.token_text(&ids, id));
        }
        accepted(stream.finish());
        accepted(tokenizer.encode_with_specials(text));
    }
    accepted(tokenizer.decode(&[0, u32::MAX]));
    tokenizer.stop_ids();
    tokenizer.warnings();
    true
}

/// The index of a sharded checkpoint. No name leads out of the folder.
pub(crate) fn index(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let path = Path::new("model.safetensors.index.json");
    let Some(files) = accepted(index_files(path, text)) else { return false };
    assert!(!files.is_empty());
    for file in &files {
        assert_plain(file);
    }
    true
}

/// Asserts that a name is that of a file in the same folder, on every system.
fn assert_plain(name: &str) {
    assert!(name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0']), "{name:?}");
    assert_eq!(Path::new(name).file_name(), Some(name.as_ref()));
}

/// Measurements of `tune`. Writing the parsed values and reading them again gives the same.
pub(crate) fn tuning(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let path = Path::new("tuning.json");
    let Some(store) = accepted(Store::parse(path, text)) else { return false };
    let again = Store::parse(path, &store.to_json().to_string()).expect("it was written");
    assert_eq!(again, store);
    true
}

/// The journal of `quantize`. Only complete lines count, and no name leads out of the folder.
pub(crate) fn journal(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(journal) = Journal::parse(text, "0123456789abcdef") else { return false };
    let len = usize::try_from(journal.len).expect("of the text");
    assert!(text.as_bytes()[..len].last().is_none_or(|&last| last == b'\n'));
    assert!(!text[len..].contains('\n'));
    for file in journal.done.keys() {
        assert_plain(file);
    }
    true
}

/// A tensor of Grok-1's first release. Its bytes lie in the file, and are as many as its shape asks
/// for.
pub(crate) fn pickle(bytes: &[u8]) -> bool {
    let len = bytes.len() as u64;
    let source = Start { name: "tensor00000_000", bytes, len };
    let read = block_on(pickle::read(&source)).expect("a file in memory is read");
    let arrays = match read {
        Ok(Pickled::Array(array)) => vec![array],
        Ok(Pickled::Quantized { weight, scales }) => vec![weight, scales],
        Err(what) => {
            told(&what);
            return false;
        }
    };
    for array in arrays {
        assert!(array.offset + array.len < len);
        assert_eq!(array.shape.iter().product::<u64>() * array.element.bytes(), array.len);
    }
    true
}

/// A listing of a model on the hub. No path leads out of a folder, and no hash is one.
pub(crate) fn listing(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(files) = accepted(read_page(text)) else { return false };
    for file in &files {
        assert!(Path::new(&file.path).is_relative() && !file.path.contains(['\\', '\0']));
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        assert!(Path::new(&file.path).components().all(plain), "{}", file.path);
        assert!([40, 64].contains(&file.etag.len()));
        assert!(file.etag.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    true
}
