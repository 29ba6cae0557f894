//! A text as the model has seen it: its tokens, and its slot in a KV cache.

use std::sync::Arc;

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
/// It has no machine. Its first step gives it a slot in the engine's cache, which it keeps until it
/// is dropped or [released](Self::release). It outlives its engine, and another engine can
/// [restore](super::Engine::restore) it.
#[derive(Debug, Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    /// The kind of each token.
    kinds: Vec<Kind>,
    slot: Option<Slot>,
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

    /// Frees its slot in the cache for another sequence. The tokens are kept, to be restored.
    pub fn release(&mut self) {
        self.slot = None;
    }

    pub(super) fn extend(&mut self, ids: &[u32], kind: Kind) {
        self.tokens.extend_from_slice(ids);
        self.kinds.resize(self.tokens.len(), kind);
    }

    /// Whether it holds this slot.
    pub(super) fn is_in(&self, slot: &Slot) -> bool {
        self.slot.as_ref().is_some_and(|own| Arc::ptr_eq(&own.0, &slot.0))
    }

    pub(super) fn take_slot(&mut self, slot: &Slot) {
        self.slot = Some(slot.clone());
    }
}

/// Room for one sequence in a cache. The engine has one reference to it, the sequence in it
/// another.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<()>);

impl Slot {
    /// Whether no sequence holds it.
    pub(super) fn is_free(&self) -> bool {
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
    fn a_slot_is_free_again_when_its_sequence_leaves() {
        let (slot, other) = (Slot::default(), Slot::default());
        let mut sequence = Sequence::new();
        sequence.take_slot(&slot);
        assert!(!slot.is_free() && sequence.is_in(&slot) && !sequence.is_in(&other));
        sequence.release();
        assert!(slot.is_free() && !sequence.is_in(&slot));
        sequence.take_slot(&slot);
        drop(sequence);
        assert!(slot.is_free());
    }
}
