//! The bytes that each token has within a text.

use super::{Backend, Tokenizer, hf::Hf};
use crate::base::error::Result;

impl Tokenizer {
    /// The bytes that each id from 0 on adds to a text that there is already. None for special
    /// tokens, and for ids without a token.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if a token cannot be decoded.
    ///
    /// [`Error::Tokenizer`]: crate::base::error::Error::Tokenizer
    pub fn bytes_of_all(&self) -> Result<Vec<Vec<u8>>> {
        let count = self.vocab_size();
        let ids = (0..).take(count);
        let mut bytes: Vec<Vec<u8>> = match &self.backend {
            Backend::TokJson(tok_json) => {
                ids.map(|id| tok_json.token_bytes(id).unwrap_or_default().to_vec()).collect()
            }
            Backend::Hf(hf) if hf.is_byte_level() => ids
                .map(|id| hf.token_bytes(id).map(Option::unwrap_or_default))
                .collect::<Result<_, _>>()
                .map_err(|what| self.error(what))?,
            Backend::Hf(hf) => of_neighbours(hf, count).map_err(|what| self.error(what))?,
            Backend::SentencePiece(pieces) => {
                ids.map(|id| pieces.plain_bytes(id).unwrap_or_default()).collect()
            }
        };
        for &id in self.specials.values() {
            if let Some(bytes) = bytes.get_mut(id as usize) {
                bytes.clear();
            }
        }
        Ok(bytes)
    }
}

/// What each token adds to the text of a token before it, where decoders look at neighbours.
fn of_neighbours(hf: &Hf, count: usize) -> Result<Vec<Vec<u8>>, String> {
    let ids = || (0..).take(count);
    // A word: no decoder strips it, or joins it with what follows.
    let word = |id: u32| {
        let text = hf.decode(&[id]).ok()?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_word = !text.is_empty() && text.chars().all(plain);
        is_word.then_some((id, text))
    };
    let (before, text) = ids().find_map(word).ok_or("none of its tokens is a word")?;
    ids()
        .map(|id| {
            if let Some(byte) = hf.fallback_byte(id) {
                return Ok(vec![byte]);
            }
            if !hf.has(id) {
                return Ok(Vec::new());
            }
            let both = hf.decode(&[before, id])?;
            Ok(both.strip_prefix(&text).unwrap_or_default().as_bytes().to_vec())
        })
        .collect()
}
