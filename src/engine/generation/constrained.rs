//! A text of a prescribed form: which tokens its [`Constraint`] leaves to choose from.
//!
//! [`Constraint`]: crate::text::constraint::Constraint

use crate::{
    base::error::{Error, Result},
    engine::options::Options,
    text::{
        constraint::{Allowed, Follow},
        sampler::Candidate,
    },
};

/// What of its constraint a text knows.
pub(super) struct Constrained {
    text: Box<dyn Follow>,
    /// What may come next. The ids that end the text are among the tokens if it may end.
    allowed: Allowed,
}

impl Constrained {
    /// The beginning of a text with these options, if they have a constraint.
    pub(super) fn new(options: &Options) -> Result<Option<Self>> {
        let Some(constraint) = &options.constraint else { return Ok(None) };
        let mut new = Self { text: constraint.begin()?, allowed: Allowed::default() };
        new.look(options)?;
        Ok(Some(new))
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, id: u32, options: &Options) -> Result<()> {
        self.text.push(id)?;
        self.look(options)
    }

    fn look(&mut self, options: &Options) -> Result<()> {
        self.allowed = self.text.allowed()?;
        // Where nothing can follow, no token needs to say so.
        if !self.is_over() {
            for &id in &options.stop_ids {
                self.allowed.tokens.set(id, self.allowed.end);
            }
        }
        Ok(())
    }

    /// Whether the text is whole, and nothing may follow.
    pub(super) fn is_over(&self) -> bool {
        self.allowed.end && self.allowed.tokens.is_empty()
    }

    /// Those of all candidates that may come next.
    ///
    /// # Errors
    ///
    /// [`Error::DeadEnd`] if none may.
    pub(super) fn choose(&self, candidates: &[Candidate]) -> Result<Vec<Candidate>> {
        let tokens = &self.allowed.tokens;
        let left: Vec<Candidate> =
            candidates.iter().copied().filter(|candidate| tokens.has(candidate.id)).collect();
        if left.is_empty() {
            return Err(Error::DeadEnd("no token of the model may come next".into()));
        }
        Ok(left)
    }
}
