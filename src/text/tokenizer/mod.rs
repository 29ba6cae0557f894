//! Text to token ids and back, from `tokenizer.tok.json` (Grok-2), `tokenizer.json`,
//! `tokenizer.model` (Grok-1) or a GGUF.

mod around;
mod bpe;
mod bytes;
mod ggml;
mod ggml_pieces;
mod hf;
mod sentencepiece;
mod split;
mod stream;
mod synthetic;
mod tok_json;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::base::{
    error::{Error, Result},
    utf8,
};
use hf::Hf;
use sentencepiece::SentencePiece;
use tok_json::TokJson;

pub use around::{Around, AroundConfig};
pub use ggml::Ggml;
pub use ggml_pieces::GgmlPieces;
pub use stream::StreamDecoder;
pub use synthetic::synthetic_tok_json;

/// Grok-2's own file, looked for first.
pub(crate) const TOK_JSON: &str = "tokenizer.tok.json";

/// The `tokenizers` crate's file, looked for second.
pub(crate) const TOKENIZER_JSON: &str = "tokenizer.json";

/// SentencePiece's file, which Grok-1 has, looked for last.
pub(crate) const SENTENCE_PIECE: &str = "tokenizer.model";

/// Largest tokenizer file accepted, in bytes. The largest known have 35 million; reading a
/// `tokenizer.json` takes 20 to 23 times its bytes of memory, and a third of a second for each
/// million.
pub(crate) const MAX_FILE: u64 = 64 << 20;

/// End-of-turn and end-of-text tokens, by the names that models give them.
const STOPS: &[&str] = &[
    "<|separator|>",
    "<|eos|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
];

/// A tokenizer, whichever file format it came from.
///
/// Special tokens are never found in plain text: what a user types stays text, so that nobody can
/// forge the turns of a conversation. [`Tokenizer::special`] gives their ids.
pub struct Tokenizer {
    path: PathBuf,
    backend: Backend,
    specials: HashMap<String, u32>,
    /// Further ids that end an answer, whatever their names.
    ends: Vec<u32>,
    /// Tokens around each text.
    around: Around,
    /// What of the files is not followed.
    warnings: Vec<String>,
    /// Finds special tokens, the longest match first. `finder_ids` has the id of each pattern.
    finder: AhoCorasick,
    finder_ids: Vec<u32>,
}

/// The implementation for a file format.
enum Backend {
    TokJson(Box<TokJson>),
    Hf(Box<Hf>),
    SentencePiece(Box<SentencePiece>),
}

impl Tokenizer {
    /// A tokenizer from the bytes of a `tokenizer.tok.json`. `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the file is too large or not a valid tokenizer.
    pub fn from_tok_json(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        Self::new(path.into(), || {
            let (backend, specials) = TokJson::parse(text_of(bytes)?)?;
            Ok((Backend::TokJson(Box::new(backend)), specials))
        })
    }

    /// A tokenizer from the bytes of a `tokenizer.json`. `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the file is too large or not a valid tokenizer.
    pub fn from_tokenizer_json(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        let mut around = Ok(Around::default());
        let mut tokenizer = Self::new(path.into(), || {
            let (backend, specials) = Hf::parse(text_of(bytes)?)?;
            around = backend.around();
            Ok((Backend::Hf(Box::new(backend)), specials))
        })?;
        match around {
            Ok(around) => tokenizer.with_around(around),
            Err(what) => {
                tokenizer.warnings.push(format!("{}: {what}", tokenizer.path.display()));
                Ok(tokenizer)
            }
        }
    }

    /// A tokenizer from the bytes of a `tokenizer.model`, SentencePiece's file. `path` is for
    /// messages. Its end of text is among [`Tokenizer::stop_ids`]. The file does not say whether a
    /// text begins with a token, so none does, unless [`Tokenizer::with_around_config`] is told to
    /// put one there.
    ///
    /// User-defined pieces are found in plain text, as the models were trained with that, but for
    /// those that are spelt as a well-known end of a turn or text.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the file is too large or not a valid model of the kinds unigram or
    /// BPE.
    pub fn from_sentence_piece(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        Self::of_pieces(path.into(), || {
            check_size(bytes.len() as u64)?;
            SentencePiece::parse(bytes)
        })
    }

    /// A tokenizer from a vocabulary of SentencePiece and its special tokens.
    fn of_pieces(
        path: PathBuf,
        build: impl FnOnce() -> Result<(SentencePiece, Vec<(String, u32)>), String>,
    ) -> Result<Self> {
        let mut eos = None;
        let mut tokenizer = Self::new(path, || {
            let (backend, specials) = build()?;
            eos = backend.eos();
            Ok((Backend::SentencePiece(Box::new(backend)), specials))
        })?;
        tokenizer.ends.extend(eos);
        Ok(tokenizer)
    }

    /// Names of a checkpoint's tokenizer files. The first that exists is used.
    pub const FILES: [&'static str; 3] = [TOK_JSON, TOKENIZER_JSON, SENTENCE_PIECE];

    /// A tokenizer from the bytes of the file at `path`, by its name: one of [`Tokenizer::FILES`].
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the file is too large or not a valid tokenizer.
    pub fn from_file(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        let path = path.into();
        let is = |wanted: &str| path.file_name().is_some_and(|name| name == wanted);
        if is(TOK_JSON) {
            Self::from_tok_json(path, bytes)
        } else if is(SENTENCE_PIECE) {
            Self::from_sentence_piece(path, bytes)
        } else {
            Self::from_tokenizer_json(path, bytes)
        }
    }

    /// The error for a folder without a tokenizer.
    pub(crate) fn missing(dir: &Path) -> Error {
        Error::Tokenizer {
            path: dir.to_owned(),
            what: format!(
                "there is no {TOK_JSON}, no {TOKENIZER_JSON} and no {SENTENCE_PIECE} here"
            ),
        }
    }

    /// Checks that a model's vocabulary of `rows` rows has one for each token.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if there are more tokens than rows.
    pub fn check_vocab(&self, rows: u32) -> Result<()> {
        let tokens = self.vocab_size();
        if tokens > rows as usize {
            return Err(self
                .error(format!("it has {tokens} tokens, but vocab_size of the model is {rows}")));
        }
        Ok(())
    }

    fn new(
        path: PathBuf,
        parse: impl FnOnce() -> Result<(Backend, Vec<(String, u32)>), String>,
    ) -> Result<Self> {
        let build = || {
            let (backend, specials) = parse()?;
            let finder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(specials.iter().map(|(text, _)| text))
                .map_err(|error| format!("too many special tokens: {error}"))?;
            let finder_ids = specials.iter().map(|&(_, id)| id).collect();
            Ok((backend, specials.into_iter().collect(), finder, finder_ids))
        };
        match build() {
            Ok((backend, specials, finder, finder_ids)) => {
                let (ends, around, warnings) = (Vec::new(), Around::default(), Vec::new());
                Ok(Self { path, backend, specials, ends, around, warnings, finder, finder_ids })
            }
            Err(what) => Err(Error::Tokenizer { path, what }),
        }
    }

    /// The file this came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One more than the largest id. A model may have more rows, but not fewer.
    pub fn vocab_size(&self) -> usize {
        match &self.backend {
            Backend::TokJson(tok_json) => tok_json.vocab_size(),
            Backend::Hf(hf) => hf.vocab_size(),
            Backend::SentencePiece(pieces) => pieces.vocab_size(),
        }
    }

    /// The kind of the vocabulary, in words.
    pub fn kind(&self) -> &'static str {
        match &self.backend {
            Backend::TokJson(_) => "byte-level BPE",
            Backend::Hf(hf) => hf.kind(),
            Backend::SentencePiece(pieces) => pieces.algorithm(),
        }
    }

    /// The id of the special token that is spelt `text`.
    pub fn special(&self, text: &str) -> Option<u32> {
        self.specials.get(text).copied()
    }

    /// The ids that end an answer, in ascending order: for Grok-2 its `<|separator|>` and
    /// `<|eos|>`, for others their end of turn or text, and those of [`Tokenizer::ending_with`].
    pub fn stop_ids(&self) -> Vec<u32> {
        let named = STOPS.iter().filter_map(|text| self.special(text));
        let mut ids: Vec<u32> = named.chain(self.ends.iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The same tokenizer, with these ids among [`Tokenizer::stop_ids`], and the special tokens
    /// that are spelt as one of `texts`.
    #[must_use]
    pub fn ending_with(mut self, ids: &[u32], texts: &[String]) -> Self {
        self.ends.extend_from_slice(ids);
        let named = texts.iter().filter_map(|text| self.special(text));
        let named: Vec<u32> = named.collect();
        self.ends.extend(named);
        self
    }

    /// The ids of `text`. Special tokens in it are plain text; no token is added.
    ///
    /// Empty text has no ids.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the text cannot be encoded, such as for a pattern that backtracks
    /// too
    /// much.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.append(text, &mut ids)?;
        Ok(ids)
    }

    /// The ids of `text` with its special tokens, the longest where two begin at one place.
    ///
    /// Not for what a user typed. See [`Tokenizer::encode`].
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    // Limit: with a `tokenizer.json` that puts a space before the first word of a text, the text
    // after each special token gets that space too.
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut done = 0;
        for found in self.finder.find_iter(text) {
            self.append(&text[done..found.start()], &mut ids)?;
            ids.push(self.finder_ids[found.pattern().as_usize()]);
            done = found.end();
        }
        self.append(&text[done..], &mut ids)?;
        Ok(ids)
    }

    /// Appends the ids of plain `text` to `ids`.
    pub(crate) fn append(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match &self.backend {
            Backend::TokJson(tok_json) => tok_json.encode(text, ids),
            Backend::Hf(hf) => hf.encode(text, ids),
            Backend::SentencePiece(pieces) => pieces.encode(text, ids),
        }
        .map_err(|what| self.error(what))
    }

    /// The bytes that `ids` stand for, special tokens as their text. They need not be UTF-8.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if an id has no token.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let in_context = match &self.backend {
            Backend::TokJson(_) => false,
            Backend::Hf(hf) => !hf.is_byte_level(),
            Backend::SentencePiece(_) => true,
        };
        if in_context {
            return self.decode_lossy(ids).map(String::into_bytes);
        }
        let mut bytes = Vec::new();
        for &id in ids {
            self.append_bytes(id, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The text of `ids`, with U+FFFD where their bytes are not UTF-8.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if an id has no token.
    pub fn decode_lossy(&self, ids: &[u32]) -> Result<String> {
        let mut stream = self.stream();
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(id)?);
        }
        text.push_str(&stream.finish()?);
        Ok(text)
    }

    /// The bytes of one token, special tokens as their text.
    ///
    /// For a `tokenizer.json` that is not byte-level: those of the text that it alone decodes to.
    /// For SentencePiece, those that it has within a text: with its blank.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the id has no token.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_bytes(id, &mut bytes)?;
        Ok(bytes)
    }

    fn append_bytes(&self, id: u32, bytes: &mut Vec<u8>) -> Result<()> {
        match &self.backend {
            Backend::TokJson(tok_json) => {
                let token = tok_json.token_bytes(id).ok_or_else(|| self.no_token(id))?;
                bytes.extend_from_slice(token);
            }
            Backend::Hf(hf) => {
                let token = hf.token_bytes(id).map_err(|what| self.error(what))?;
                bytes.extend(token.ok_or_else(|| self.no_token(id))?);
            }
            Backend::SentencePiece(pieces) => {
                bytes.extend(pieces.token_bytes(id).ok_or_else(|| self.no_token(id))?);
            }
        }
        Ok(())
    }

    fn check_id(&self, id: u32) -> Result<()> {
        let has = match &self.backend {
            Backend::TokJson(tok_json) => tok_json.token_bytes(id).is_some(),
            Backend::Hf(hf) => hf.has(id),
            Backend::SentencePiece(pieces) => pieces.has(id),
        };
        if has { Ok(()) } else { Err(self.no_token(id)) }
    }

    fn no_token(&self, id: u32) -> Error {
        self.error(format!("there is no token {id}; ids are below {}", self.vocab_size()))
    }

    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        Error::Tokenizer { path: self.path.clone(), what: what.into() }
    }
}

/// The bytes of a file of text, without a byte order mark.
fn text_of(bytes: &[u8]) -> Result<&[u8], String> {
    check_size(bytes.len() as u64)?;
    utf8::decode(bytes).map(str::as_bytes)
}

/// Refuses a file larger than [`MAX_FILE`].
pub(crate) fn check_size(size: u64) -> Result<(), String> {
    if size > MAX_FILE {
        return Err(format!(
            "the tokenizer has {size} bytes, more than the {MAX_FILE} allowed; those of models \
             have half of that at most: is this another file?"
        ));
    }
    Ok(())
}
