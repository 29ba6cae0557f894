//! Prompts that are given back before what follows them, with log-probabilities of their tokens.

use serde_json::{Value, json};

use super::{
    answer::{Form, Piece, Told},
    wire::Refusal,
};
use crate::engine::options::Logprobs;

/// A prompt to give back.
pub(super) struct Echo {
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
}

impl Form {
    /// What an answer begins with before anything has come: the prompt, unless its
    /// log-probabilities are to come with it.
    ///
    /// # Errors
    ///
    /// Status 500 if an id has no token.
    pub(super) fn opening(&self, told: &mut Told, index: usize) -> Result<Piece, Refusal> {
        if self.logprobs { Ok(Piece::default()) } else { self.echoed(told, index, &[]) }
    }

    /// The prompt of the text with this index, if it is given back, with the log-probabilities of
    /// its tokens but the first.
    ///
    /// # Errors
    ///
    /// Status 500 if an id has no token.
    pub(super) fn echoed(
        &self,
        told: &mut Told,
        index: usize,
        scores: &[Logprobs],
    ) -> Result<Piece, Refusal> {
        let Some(Echo { text, ids }) = self.echo.get(index / self.count) else {
            return Ok(Piece::default());
        };
        let mut piece = Piece::default();
        piece.text.clone_from(text);
        if let (true, Some(first)) = (self.logprobs, ids.first()) {
            // Nothing comes before the first token that could make it likely.
            let mut entries = vec![json!([self.token_text(*first)?, null, null, 0])];
            let mut offset = chars(&entries[0]);
            for (&id, logprobs) in ids[1..].iter().zip(scores) {
                let entry = self.old_entry(id, logprobs, offset)?;
                offset += chars(&entry);
                entries.push(entry);
            }
            piece.logprobs = entries;
        }
        told.len += text.chars().count();
        Ok(piece)
    }
}

/// Characters of an entry's token.
fn chars(entry: &Value) -> usize {
    entry[0].as_str().unwrap_or_default().chars().count()
}
