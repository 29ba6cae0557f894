//! Streaming detokenization, which never shows half a character.

use super::{Backend, Tokenizer, hf::Hf, sentencepiece::Decoder};
use crate::base::error::Result;

/// Tokens that are held back at most, until they decode to whole characters.
///
/// A character has at most four tokens; more held tokens are not one.
const MAX_HELD: usize = 16;

/// Tokens that are decoded again as context, if they are enough.
const CONTEXT: usize = 8;

/// Tokens of context at most: where no text comes of fewer, as of blanks that a decoder strips.
const MAX_CONTEXT: usize = 4096;

/// Decodes a sequence of ids piece by piece.
///
/// The pieces and [`StreamDecoder::finish`], put together, are what the ids add to the text of
/// those before them: [`Tokenizer::decode_lossy`] of all less that of the ids before. Where a
/// decoder takes back what it has said, as for a byte that spoils the character before it, only the
/// new tokens are decoded.
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    /// Bytes of an incomplete character; at most three. Byte-level tokenizers only.
    pending: Vec<u8>,
    /// Ids that have been shown, as context, and those after them. Other tokenizers only.
    ids: Vec<u32>,
    /// How many of `ids` have been shown.
    shown: usize,
    /// The text of those.
    before: String,
    /// SentencePiece's only.
    pieces: Decoder,
}

impl<'t> StreamDecoder<'t> {
    /// A decoder for ids that follow `ids`.
    pub(super) fn after(tokenizer: &'t Tokenizer, ids: &[u32]) -> Result<Self> {
        let mut stream = Self {
            tokenizer,
            pending: Vec::new(),
            ids: Vec::new(),
            shown: 0,
            before: String::new(),
            pieces: Decoder::default(),
        };
        match &tokenizer.backend {
            Backend::Hf(hf) if !hf.is_byte_level() => {
                let (context, before) = context(hf, ids).map_err(|what| tokenizer.error(what))?;
                stream.ids.extend_from_slice(context);
                stream.shown = context.len();
                stream.before = before;
            }
            Backend::SentencePiece(pieces) => stream.pieces = Decoder::after(pieces, ids),
            _ => {}
        }
        Ok(stream)
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
        self.before.clear();
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
    /// some tokens are decoded again as context.
    fn difference(&mut self, at_end: bool) -> Result<String> {
        let held = self.ids.len() - self.shown;
        let Some(hf) = self.tokenizer.contextual().filter(|_| held > 0) else {
            return Ok(String::new());
        };
        let error = |what| self.tokenizer.error(what);
        let text = added(hf, &self.before, &self.ids, self.shown).map_err(error)?;
        let ready = !text.is_empty() && !text.ends_with(char::REPLACEMENT_CHARACTER);
        if !ready && !at_end && held < MAX_HELD {
            return Ok(String::new());
        }
        let (kept, before) = context(hf, &self.ids).map_err(error)?;
        let kept = kept.len();
        self.ids.drain(..self.ids.len() - kept);
        self.shown = kept;
        self.before = before;
        Ok(text)
    }
}

impl Tokenizer {
    /// A decoder for ids that come one by one, at the beginning of a text.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder {
            tokenizer: self,
            pending: Vec::new(),
            ids: Vec::new(),
            shown: 0,
            before: String::new(),
            pieces: Decoder::default(),
        }
    }

    /// A decoder for ids that follow the ids `before`, such as a prompt's. Its first word gets the
    /// blank that it has after them.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the ids cannot be decoded.
    ///
    /// [`Error::Tokenizer`]: crate::base::error::Error::Tokenizer
    pub fn stream_after(&self, before: &[u32]) -> Result<StreamDecoder<'_>> {
        StreamDecoder::after(self, before)
    }

    /// The text that `id` adds after the ids `before`, with U+FFFD for bytes that are no whole
    /// character by themselves.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the id has no token.
    ///
    /// [`Error::Tokenizer`]: crate::base::error::Error::Tokenizer
    pub fn token_text(&self, before: &[u32], id: u32) -> Result<String> {
        self.check_id(id)?;
        match &self.backend {
            Backend::Hf(hf) if !hf.is_byte_level() => {
                let text = || {
                    let (ids, text) = context(hf, before)?;
                    added(hf, &text, &[ids, &[id]].concat(), ids.len())
                };
                text().map_err(|what| self.error(what))
            }
            Backend::SentencePiece(pieces) => {
                let mut decoder = Decoder::after(pieces, before);
                let text = decoder.push(pieces, id).unwrap_or_default();
                Ok(text + &decoder.finish())
            }
            _ => Ok(String::from_utf8_lossy(&self.token_bytes(id)?).into_owned()),
        }
    }

    /// The tokenizer whose tokens' text depends on their neighbours, if this is one.
    fn contextual(&self) -> Option<&Hf> {
        match &self.backend {
            Backend::Hf(hf) if !hf.is_byte_level() => Some(hf),
            _ => None,
        }
    }
}

/// The last of `ids` that decide how the next one is decoded, and their text.
///
/// They have some text, so that what a decoder strips from the beginning is behind them, and begin
/// with a whole character.
fn context<'i>(hf: &Hf, ids: &'i [u32]) -> Result<(&'i [u32], String), String> {
    let mut len = CONTEXT;
    // A character has four bytes at most, so three more tokens complete the first.
    let mut whole = 0;
    loop {
        let last = &ids[ids.len().saturating_sub(len)..];
        let text = hf.decode(last)?;
        if last.len() == ids.len() || len >= MAX_CONTEXT {
            return Ok((last, text));
        }
        if text.is_empty() {
            len *= 2;
        } else if text.starts_with(char::REPLACEMENT_CHARACTER) && whole < 3 {
            whole += 1;
            len += 1;
        } else {
            return Ok((last, text));
        }
    }
}

/// The text that `ids` from `shown` on add to those before, whose text is `before`.
fn added(hf: &Hf, before: &str, ids: &[u32], shown: usize) -> Result<String, String> {
    let all = hf.decode(ids)?;
    if let Some(text) = all.strip_prefix(before) {
        return Ok(text.to_owned());
    }
    // The text before has changed, and is not said again.
    let common: usize = before
        .chars()
        .zip(all.chars())
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one.len_utf8())
        .sum();
    let text = &all[common..];
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return hf.decode(&ids[shown..]);
    }
    Ok(text.to_owned())
}
