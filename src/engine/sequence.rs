//! A text as the model has seen it: its tokens, and its pages of a KV cache.

use std::sync::Arc;

use crate::machine::step::PAGE;

/// How tokens go through the model. It decides which kernels run, and so the order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Prefill: many at once, by GEMM kernels.
    Prompt,
    /// Decode: one at a time, by GEMV kernels.
    Generated,
}

/// The tokens of one text that are in the KV cache of an [`Engine`](super::Engine).
///
/// It has no machine. Its first step gives it pages of the engine's cache, which it keeps until it
/// is dropped or [released](Self::release). It outlives its engine, and another engine can
/// [restore](super::Engine::restore) it.
#[derive(Debug, Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    /// The kind of each token.
    kinds: Vec<Kind>,
    pages: Option<Pages>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How each token went through the model.
    pub(super) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Its tokens, in runs of the same kind.
    pub fn runs(&self) -> impl Iterator<Item = (Kind, &[u32])> {
        let mut at = 0;
        self.kinds.chunk_by(|a, b| a == b).map(move |run| {
            let ids = &self.tokens[at..at + run.len()];
            at += run.len();
            (run[0], ids)
        })
    }

    /// The tokens at its beginning that went through the model as a prompt.
    pub fn prompt(&self) -> &[u32] {
        let end = self.kinds.iter().position(|&kind| kind != Kind::Prompt);
        &self.tokens[..end.unwrap_or(self.tokens.len())]
    }

    /// Drops all tokens after the first `keep`.
    pub fn rewind(&mut self, keep: usize) {
        self.tokens.truncate(keep);
        self.kinds.truncate(keep);
    }

    /// Frees its pages of the cache for another sequence. The tokens are kept, to be restored.
    pub fn release(&mut self) {
        self.pages = None;
    }

    pub(super) fn extend(&mut self, ids: &[u32], kind: Kind) {
        self.tokens.extend_from_slice(ids);
        self.kinds.resize(self.tokens.len(), kind);
    }

    /// Whether it holds these pages.
    pub(super) fn is_on(&self, pages: &Pages) -> bool {
        self.pages.as_ref().is_some_and(|own| Arc::ptr_eq(&own.0, &pages.0))
    }

    pub(super) fn take(&mut self, pages: &Pages) {
        self.pages = Some(pages.clone());
    }

    /// The numbers of its pages, in the order of its positions; none if it has no room in a cache.
    pub(super) fn pages(&self) -> &[u32] {
        self.pages.as_ref().map_or(&[], |pages| &pages.0)
    }
}

/// Pages for one sequence in a cache. The engine has one reference to them, the sequence that is on
/// them another.
#[derive(Clone, Debug)]
pub(super) struct Pages(Arc<[u32]>);

impl Pages {
    /// The first pages of a cache, for so many positions.
    pub(super) fn first(positions: u32) -> Self {
        Self((0..positions.div_ceil(PAGE)).collect())
    }

    /// These pages, in the order of positions.
    pub(super) fn of(pages: &[u32]) -> Self {
        Self(pages.into())
    }

    /// Whether no sequence is on them.
    pub(super) fn are_free(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_tokens_by_kind() {
        let mut sequence = Sequence::new();
        assert_eq!((sequence.runs().count(), sequence.prompt().len()), (0, 0));
        for (ids, kind) in [
            (&[1, 2][..], Kind::Prompt),
            (&[3], Kind::Prompt),
            (&[4], Kind::Generated),
            (&[5], Kind::Generated),
            (&[6], Kind::Prompt),
        ] {
            sequence.extend(ids, kind);
        }
        let runs = |sequence: &Sequence| -> Vec<(Kind, Vec<u32>)> {
            sequence.runs().map(|(kind, ids)| (kind, ids.to_vec())).collect()
        };
        assert_eq!(
            runs(&sequence),
            [(Kind::Prompt, vec![1, 2, 3]), (Kind::Generated, vec![4, 5]), (Kind::Prompt, vec![6])]
        );
        assert_eq!(sequence.prompt(), [1, 2, 3]);
        sequence.rewind(4);
        assert_eq!(sequence.tokens(), [1, 2, 3, 4]);
        assert_eq!(runs(&sequence), [(Kind::Prompt, vec![1, 2, 3]), (Kind::Generated, vec![4])]);
    }

    #[test]
    fn pages_are_free_again_when_their_sequence_leaves() {
        let (pages, other) = (Pages::first(40), Pages::first(40));
        let mut sequence = Sequence::new();
        assert!(sequence.pages().is_empty());
        sequence.take(&pages);
        assert!(!pages.are_free() && sequence.is_on(&pages) && !sequence.is_on(&other));
        assert_eq!(sequence.pages(), [0, 1]);
        sequence.release();
        assert!(pages.are_free() && !sequence.is_on(&pages));
        sequence.take(&pages);
        drop(sequence);
        assert!(pages.are_free());
    }
}
