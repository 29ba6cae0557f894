//! Log-probabilities: of the tokens that were chosen, and of a prompt's.

use std::borrow::BorrowMut;

use super::Generation;
use crate::{
    base::error::Result,
    engine::{options::Logprobs, step::StepOutput},
    text::sampler::{Candidate, Sampler, logprobs, top_logprobs},
};

impl<S: BorrowMut<Sampler>> Generation<'_, S> {
    /// Takes the logits of the prompt's tokens that were sent last. What is known already, since
    /// they went through the model before, stays.
    pub(super) fn score(&mut self, output: &StepOutput) -> Result<()> {
        let Some(count) = self.options.logprobs.filter(|_| self.options.scores()) else {
            return Ok(());
        };
        let first = self.sent - output.rows.len();
        for (position, logits) in
            (first..).zip(&output.rows).skip(self.scores.len().saturating_sub(first))
        {
            let logits = &logits[..self.vocab];
            self.scores.push(of(logits, self.ids[position + 1], count)?);
        }
        Ok(())
    }
}

/// The log-probabilities of a token that was chosen from all `candidates`, which are sorted by id.
pub(super) fn candidates(candidates: &[Candidate], id: u32, count: usize) -> Result<Logprobs> {
    // They are all ids from 0 on, so an id is an index.
    let logits: Vec<f32> = candidates.iter().map(|candidate| candidate.logit).collect();
    of(&logits, id, count)
}

fn of(logits: &[f32], id: u32, count: usize) -> Result<Logprobs> {
    let top = top_logprobs(logits, count)?;
    let chosen = logprobs(logits, &[id])?[0];
    Ok(Logprobs { chosen, top, norm: f64::from(logits[id as usize]) - chosen })
}
