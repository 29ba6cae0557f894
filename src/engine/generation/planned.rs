//! A generation whose steps somebody else plans: a scheduler cuts its prompt, and may have tokens
//! run again.

use std::{borrow::BorrowMut, ops::Range};

use super::{Generation, State};
use crate::{
    base::error::Result,
    engine::{
        sequence::Kind,
        step::{Input, Readback, StepOutput},
    },
    text::sampler::Sampler,
};

impl<S: BorrowMut<Sampler>> Generation<'_, S> {
    /// Its tokens: the prompt, then what was generated.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many of its tokens go through the model as a prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// The step of its tokens at these positions, which are all of the prompt or one generated
    /// token. Logits of the last one are read if they are wanted.
    ///
    /// # Panics
    ///
    /// If it has no tokens there.
    pub fn input_at(&self, positions: Range<usize>, wanted: bool) -> Input<'_> {
        let kind = if positions.start < self.prompt { Kind::Prompt } else { Kind::Generated };
        let scored = self.options.scores() && positions.end < self.prompt;
        let read = if wanted { self.read } else { Readback::Nothing };
        let read = if scored { Readback::AllLogits } else { read };
        let input = Input { kind, ..Input::prompt(&self.ids[positions], read) };
        input.with_routes(self.options.trace && wanted)
    }

    /// Takes the result of a part of the prompt that ends at this position. If the prompt had gone
    /// through the model before, nothing changes.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`](crate::base::error::Error::NonFinite) for log-probabilities of its
    /// tokens.
    pub fn accept_prompt(&mut self, end: usize, output: StepOutput) -> Result<()> {
        if self.state == State::Prompt && end > self.sent {
            self.sent = end.min(self.prompt);
            self.score(&output)?;
            self.state = State::Chunk;
            self.output = output;
        }
        Ok(())
    }
}
