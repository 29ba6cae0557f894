//! Runs `tokenizer.json` files through the `tokenizers` crate.

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::{DecoderWrapper, ModelWrapper, PostProcessorWrapper};

/// A tokenizer from `tokenizer.json`.
pub(super) struct Hf {
    inner: tokenizers::Tokenizer,
    /// The byte behind each character of a byte-level vocabulary, where the decoder is that one.
    byte_level: Option<HashMap<char, u8>>,
    /// One more than the largest id.
    vocab_size: usize,
}

/// The part of the file that the crate reads but does not hold itself to.
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
        // The crate looks at some strings and numbers late, and panics where they are not sound.
        serde_json::from_slice::<serde_json::Value>(json).map_err(|error| error.to_string())?;
        let added: Added = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        for token in &added.added_tokens {
            // The crate counts ids up where the model lacks an added token, and only warns when
            // that is not the id in the file. The model was trained with the id in the file.
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

        // A prompt is neither cut nor padded behind the caller's back, templates belong to the
        // chat, and the same text has the same ids every time.
        inner.with_truncation(None).map_err(|error| error.to_string())?.with_padding(None);
        inner.with_post_processor(None::<PostProcessorWrapper>);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }

        // Added tokens that are not blank are marks of structure whether or not the file calls
        // them special, so none of them is found in text. Runs of white space are plain
        // vocabulary that some files add this way, and cannot be mistaken for structure.
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
        Ok((Self { inner, byte_level, vocab_size }, specials))
    }

    /// One more than the largest id.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether every token stands for bytes of its own, whatever is beside it.
    pub(super) fn is_byte_level(&self) -> bool {
        self.byte_level.is_some()
    }

    /// Appends the ids of `text`, in which nothing is special.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), String> {
        let encoding = self.inner.encode_fast(text, false).map_err(|error| error.to_string())?;
        out.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The bytes of token `id`, if there is one. Those of its text alone where tokens are not
    /// byte-level.
    pub(super) fn token_bytes(&self, id: u32) -> Result<Option<Vec<u8>>, String> {
        let Some(token) = self.inner.id_to_token(id) else {
            return Ok(None);
        };
        let Some(alphabet) = &self.byte_level else {
            return self.decode(&[id]).map(|text| Some(text.into_bytes()));
        };
        // A token with any other character is text as it stands; so the crate decodes it.
        let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
        Ok(Some(bytes.unwrap_or_else(|| token.into_bytes())))
    }

    /// Whether there is a token `id`.
    pub(super) fn has(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// The text of `ids` as the crate decodes them, special tokens included.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, String> {
        self.inner.decode(ids, false).map_err(|error| error.to_string())
    }
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

/// Refuses a byte-level vocabulary that would drop bytes of a text without a word.
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
        // UTF-8 never has these.
        .filter(|byte| !matches!(byte, 0xc0 | 0xc1 | 0xf5..))
        .collect();
    missing.sort_unstable();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(|byte| format!("0x{byte:02x}")).collect();
    Err(format!("`model.vocab` has no token for the bytes {}", names.join(", ")))
}
