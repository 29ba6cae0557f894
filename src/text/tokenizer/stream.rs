//! Streaming detokenization, which never shows half a character.

use super::{Backend, Tokenizer, sentencepiece::Decoder};
use crate::base::error::Result;

/// Tokens that are held back at most, until they decode to whole characters.
///
/// A character has at most four tokens; more held tokens are not one.
const MAX_HELD: usize = 16;

/// Decodes a sequence of ids piece by piece.
///
/// The pieces and [`StreamDecoder::finish`], put together, are [`Tokenizer::decode_lossy`] of all
/// the ids.
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    /// Bytes of an incomplete character; at most three. Byte-level tokenizers only.
    pending: Vec<u8>,
    /// The ids of the last piece shown, as context, and those after it. Other tokenizers only.
    ids: Vec<u32>,
    /// How many of `ids` have been shown.
    shown: usize,
    /// SentencePiece's only.
    pieces: Decoder,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self {
            tokenizer,
            pending: Vec::new(),
            ids: Vec::new(),
            shown: 0,
            pieces: Decoder::default(),
        }
    }

    /// The text that `id` completes: often its own, and empty inside a character.
    ///
    /// Bytes that cannot become a character are U+FFFD.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the id has no token.
    ///
    /// [`Error::Tokenizer`]: crate::base::error::Error::Tokenizer
    pub fn push(&mut self, id: u32) -> Result<String> {
        match &self.tokenizer.backend {
            Backend::Hf(hf) if !hf.is_byte_level() => {
                self.tokenizer.check_id(id)?;
                self.ids.push(id);
                self.difference(false)
            }
            Backend::SentencePiece(pieces) => {
                let text = self.pieces.push(pieces, id);
                text.ok_or_else(|| self.tokenizer.no_token(id))
            }
            _ => {
                self.tokenizer.append_bytes(id, &mut self.pending)?;
                Ok(self.complete())
            }
        }
    }

    /// The rest of the text, when no more ids come. An incomplete character is U+FFFD.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the ids held back cannot be decoded.
    ///
    /// [`Error::Tokenizer`]: crate::base::error::Error::Tokenizer
    pub fn finish(&mut self) -> Result<String> {
        let bytes = std::mem::take(&mut self.pending);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        text.push_str(&self.difference(true)?);
        text.push_str(&self.pieces.finish());
        self.ids.clear();
        self.shown = 0;
        Ok(text)
    }

    /// Takes complete characters, and invalid bytes as U+FFFD, from the front of `pending`.
    fn complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            let (valid, bad) = match str::from_utf8(rest) {
                Ok(valid) => (valid, Some(0)),
                Err(error) => {
                    let valid = &rest[..error.valid_up_to()];
                    (str::from_utf8(valid).unwrap_or_default(), error.error_len())
                }
            };
            text.push_str(valid);
            rest = &rest[valid.len()..];
            match bad {
                Some(len) if len > 0 => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
                _ => break,
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        text
    }

    /// The text that the ids not yet shown add to the ones before them.
    ///
    /// Decoders that look beyond one token (leading spaces, byte fallback) look at neighbours, so
    /// the tokens of the last piece are decoded again as context.
    fn difference(&mut self, at_end: bool) -> Result<String> {
        let held = self.ids.len() - self.shown;
        let Backend::Hf(hf) = &self.tokenizer.backend else {
            return Ok(String::new());
        };
        if held == 0 {
            return Ok(String::new());
        }
        let error = |what| self.tokenizer.error(what);
        let before = hf.decode(&self.ids[..self.shown]).map_err(error)?;
        let all = hf.decode(&self.ids).map_err(error)?;
        let ready = all.starts_with(&before)
            && all.len() > before.len()
            && !all.ends_with(char::REPLACEMENT_CHARACTER);
        if !ready && !at_end && held < MAX_HELD {
            return Ok(String::new());
        }
        let common: usize = before
            .chars()
            .zip(all.chars())
            .take_while(|(one, other)| one == other)
            .map(|(one, _)| one.len_utf8())
            .sum();
        let text = all[common..].to_owned();
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(text)
    }
}
