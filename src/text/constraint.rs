//! What a text may be: which tokens may come next, after those that are there.

use std::fmt::Debug;

use crate::base::error::Result;

/// A set of token ids, a bit for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Bit `id % 32` of word `id / 32`.
    words: Vec<u32>,
}

impl Mask {
    /// The set whose bit `id % 32` of word `id / 32` says whether `id` is in it.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// The words, as many as the largest id needs, or more.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Whether the id is in the set.
    pub fn has(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Puts an id into the set, or takes it out.
    pub fn set(&mut self, id: u32, is_in: bool) {
        let (at, bit) = (id as usize / 32, 1 << (id % 32));
        if is_in {
            self.words.resize(self.words.len().max(at + 1), 0);
            self.words[at] |= bit;
        } else if let Some(word) = self.words.get_mut(at) {
            *word &= !bit;
        }
    }

    /// Takes out all ids from this one on.
    pub fn truncate(&mut self, len: usize) {
        self.words.truncate(len.div_ceil(32));
        if let (Some(last), rest @ 1..) = (self.words.get_mut(len / 32), len % 32) {
            *last &= (1 << rest) - 1;
        }
    }

    /// Whether no id is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

/// What may come next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The tokens.
    pub tokens: Mask,
    /// Whether the text may end here.
    pub end: bool,
}

/// What a text may be. Shared by many texts.
pub trait Constraint: Debug + Send + Sync {
    /// The beginning of a text.
    ///
    /// # Errors
    ///
    /// [`Error::Schema`] if nothing can be such a text.
    ///
    /// [`Error::Schema`]: crate::base::error::Error::Schema
    fn begin(&self) -> Result<Box<dyn Follow>>;
}

/// One text under a [`Constraint`], as far as it has come. What it allows depends on its tokens
/// alone.
pub trait Follow: Send {
    /// What may come next.
    ///
    /// # Errors
    ///
    /// [`Error::DeadEnd`] if that takes too much work to know.
    ///
    /// [`Error::DeadEnd`]: crate::base::error::Error::DeadEnd
    fn allowed(&mut self) -> Result<Allowed>;

    /// Takes the next token.
    ///
    /// # Errors
    ///
    /// [`Error::DeadEnd`] if it is not allowed.
    ///
    /// [`Error::DeadEnd`]: crate::base::error::Error::DeadEnd
    fn push(&mut self, id: u32) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_sets() {
        let mut mask = Mask::default();
        for id in [3, 64, 95] {
            assert!(!mask.has(id));
            mask.set(id, true);
            assert!(mask.has(id));
        }
        assert_eq!(mask.words(), [8, 0, 0x8000_0001]);
        mask.set(500, false);
        mask.truncate(95);
        assert!(mask.has(64) && !mask.has(95));
        mask.truncate(64);
        assert_eq!(mask, Mask::from_words(vec![8, 0]));
        mask.set(3, false);
        assert!(mask.is_empty());
    }
}
