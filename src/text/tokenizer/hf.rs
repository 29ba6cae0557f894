//! Runs `tokenizer.json` files through the `tokenizers` crate.

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::{
    Decoder as _, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer as _,
    PostProcessorWrapper, decoders::strip::Strip,
};

use super::{around::Around, sentencepiece::byte_of};
use crate::base::json;

/// A tokenizer from `tokenizer.json`.
pub(super) struct Hf {
    inner: tokenizers::Tokenizer,
    /// For a byte-level decoder, the byte that each character of a token stands for.
    byte_level: Option<HashMap<char, u8>>,
    /// The steps of decoding.
    decoders: Vec<DecoderWrapper>,
    /// One more than the largest id.
    vocab_size: usize,
    /// What the file puts around each text, or why that is not followed.
    around: Result<Around, String>,
}

/// The part of the file that the crate reads but does not enforce.
#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

/// An added token as the file has it.
#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl Hf {
    /// The tokenizer and its special tokens.
    pub(super) fn parse(json: &[u8]) -> Result<(Self, Vec<(String, u32)>), String> {
        // The crate parses some strings and numbers late, and panics if they are malformed, so all
        // of the JSON is parsed first.
        serde_json::from_slice::<serde_json::Value>(json).map_err(|error| error.to_string())?;
        let added: Added = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        for token in &added.added_tokens {
            // If the model lacks an added token, the crate gives it the next free id, and only
            // warns if the file has another. The model was trained with the id in the file.
            let got = inner.token_to_id(&token.content);
            if got != Some(token.id) && !token.content.is_empty() {
                return Err(format!(
                    "`added_tokens`: {:?} has id {}, but {}",
                    token.content,
                    token.id,
                    got.map_or("cannot be added".to_owned(), |id| format!("would get id {id}"))
                ));
            }
        }

        let processor = serde_json::to_value(inner.get_post_processor());
        let around = Around::of_post_processor(&processor.map_err(|error| error.to_string())?)?;

        // No truncation, padding, template or dropout: encoding has no hidden effects, and the same
        // text always has the same ids.
        inner.with_truncation(None).map_err(|error| error.to_string())?.with_padding(None);
        inner.with_post_processor(None::<PostProcessorWrapper>);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }

        // Added tokens are special whether or not the file says so, so that none of them is found
        // in plain text. The exception is runs of white space, which some files add as plain
        // vocabulary.
        let mut specials = Vec::new();
        for (id, mut token) in inner.get_added_tokens_decoder() {
            if !token.content.trim().is_empty() {
                specials.push((token.content.clone(), id));
                if !token.special {
                    token.special = true;
                    inner.add_tokens([token]).map_err(|error| error.to_string())?;
                }
            }
        }
        inner.set_encode_special_tokens(true);

        let byte_level =
            matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))).then(byte_alphabet);
        check_bytes(&inner, byte_level.as_ref())?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if vocab_size == 0 {
            return Err("the vocabulary is empty".to_owned());
        }
        if u32::try_from(vocab_size).is_err() {
            return Err(format!("id {} is out of range", u32::MAX));
        }
        let decoders = decoders(inner.get_decoder());
        Ok((Self { inner, byte_level, decoders, vocab_size, around }, specials))
    }

    /// What the file puts around each text, or why that is not followed.
    pub(super) fn around(&self) -> Result<Around, String> {
        self.around.clone()
    }

    /// One more than the largest id.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The kind of the vocabulary, in words.
    pub(super) fn kind(&self) -> &'static str {
        match (self.inner.get_model(), &self.byte_level) {
            (ModelWrapper::BPE(_), Some(_)) => "byte-level BPE",
            (ModelWrapper::BPE(_), None) => "BPE",
            (ModelWrapper::WordPiece(_), _) => "WordPiece",
            (ModelWrapper::WordLevel(_), _) => "words",
            (ModelWrapper::Unigram(_), _) => "unigram",
        }
    }

    /// Whether the decoder is byte-level: a token's bytes do not depend on its neighbours.
    pub(super) fn is_byte_level(&self) -> bool {
        self.byte_level.is_some()
    }

    /// Appends the ids of `text`. Special tokens in it are plain text.
    ///
    /// A part of the text without a token is an error: the crate ends a search at the limit of its
    /// regular expressions as if nothing more matched, and drops what did not match.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), String> {
        let encoding = self.inner.encode(text, false).map_err(|error| error.to_string())?;
        let mut covered = 0;
        let end = (text.len(), text.len());
        for &(from, to) in encoding.get_offsets().iter().chain([&end]) {
            if from > covered {
                self.check_dropped(text, covered, from)?;
            }
            covered = covered.max(to);
        }
        out.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// Refuses to leave out these bytes of `text`, unless the file asks for it: its normalizer
    /// removes them, or they are blanks of a vocabulary of whole words.
    fn check_dropped(&self, text: &str, from: usize, to: usize) -> Result<(), String> {
        let (Some(before), Some(dropped)) = (text.get(..from), text.get(from..to)) else {
            return Ok(());
        };
        let blanks = dropped.chars().all(|c| c.is_whitespace() || c.is_control());
        if blanks && !self.is_byte_level() {
            return Ok(());
        }
        // A mark that is joined with the character before it makes the text no longer.
        let last = before.char_indices().next_back().map_or(from, |(at, _)| at);
        if self.normal_length(&text[last..to])? <= self.normal_length(&text[last..from])? {
            return Ok(());
        }
        Err(format!(
            "the file's pattern finds no token for {} bytes of the text from byte {from} on, {:?}; \
             give the text in smaller parts",
            to - from,
            json::clipped_to(dropped, 20)
        ))
    }

    /// Characters of `text` after normalization.
    fn normal_length(&self, text: &str) -> Result<usize, String> {
        let mut normal = NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normal).map_err(|error| error.to_string())?;
        }
        Ok(normal.get().chars().count())
    }

    /// The bytes of token `id`, if there is one. If the decoder is not byte-level, those of the
    /// text
    /// that the token alone decodes to.
    pub(super) fn token_bytes(&self, id: u32) -> Result<Option<Vec<u8>>, String> {
        let Some(token) = self.inner.id_to_token(id) else {
            return Ok(None);
        };
        let Some(alphabet) = &self.byte_level else {
            return self.decode(&[id]).map(|text| Some(text.into_bytes()));
        };
        // The crate decodes a token with any other character as the text itself.
        let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
        Ok(Some(bytes.unwrap_or_else(|| token.into_bytes())))
    }

    /// The byte that token `id` stands for where characters have no tokens of their own.
    pub(super) fn fallback_byte(&self, id: u32) -> Option<u8> {
        let falls_back = |step: &DecoderWrapper| matches!(step, DecoderWrapper::ByteFallback(_));
        let token = self.inner.id_to_token(id)?;
        byte_of(&token).filter(|_| self.decoders.iter().any(falls_back))
    }

    /// Whether there is a token `id`.
    pub(super) fn has(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// The text of `ids` as the crate decodes them, special tokens included.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, String> {
        let mut tokens: Vec<String> =
            ids.iter().filter_map(|&id| self.inner.id_to_token(id)).collect();
        if self.inner.get_decoder().is_none() {
            return Ok(tokens.join(" "));
        }
        for step in &self.decoders {
            // Some of the crate's decoders panic if there are no tokens.
            if tokens.is_empty() {
                break;
            }
            tokens = match step {
                DecoderWrapper::Strip(cut) => {
                    tokens.iter().map(|token| strip(token, cut).to_owned()).collect()
                }
                step => step.decode_chain(tokens).map_err(|error| error.to_string())?,
            };
        }
        Ok(tokens.concat())
    }
}

/// The decoders of a file, those in sequences one by one.
fn decoders(decoder: Option<&DecoderWrapper>) -> Vec<DecoderWrapper> {
    match decoder {
        None => Vec::new(),
        Some(DecoderWrapper::Sequence(sequence)) => {
            sequence.get_decoders().iter().flat_map(|one| decoders(Some(one))).collect()
        }
        Some(one) => vec![one.clone()],
    }
}

/// A token without what [`Strip`] cuts. The crate panics at tokens that are shorter than that.
fn strip<'t>(token: &'t str, cut: &Strip) -> &'t str {
    let mut rest = token;
    for _ in 0..cut.start {
        let Some(shorter) = rest.strip_prefix(cut.content) else { break };
        rest = shorter;
    }
    for _ in 0..cut.stop {
        let Some(shorter) = rest.strip_suffix(cut.content) else { break };
        rest = shorter;
    }
    rest
}

/// The characters that stand for bytes in byte-level vocabularies: printable Latin-1 for itself,
/// the others from U+0100 on, in order.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut others = '\u{100}'..;
    (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => (others.next().unwrap_or_default(), byte),
        })
        .collect()
}

/// Refuses a byte-level vocabulary that would silently drop bytes of a text.
fn check_bytes(
    inner: &tokenizers::Tokenizer,
    alphabet: Option<&HashMap<char, u8>>,
) -> Result<(), String> {
    let (Some(alphabet), ModelWrapper::BPE(bpe)) = (alphabet, inner.get_model()) else {
        return Ok(());
    };
    if bpe.unk_token.is_some() || bpe.byte_fallback {
        return Ok(());
    }
    let mut missing: Vec<u8> = alphabet
        .iter()
        .filter(|(c, _)| inner.token_to_id(c.encode_utf8(&mut [0; 4])).is_none())
        .map(|(_, &byte)| byte)
        // These never occur in UTF-8.
        .filter(|byte| !matches!(byte, 0xc0 | 0xc1 | 0xf5..))
        .collect();
    missing.sort_unstable();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(|byte| format!("0x{byte:02x}")).collect();
    Err(format!("`model.vocab` has no token for the bytes {}", names.join(", ")))
}
