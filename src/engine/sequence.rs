//! A text as the model has seen it: its tokens, and its pages of a KV cache.

use super::page_pool::PagePool;
use crate::{
    base::error::{Error, Result},
    machine::step::PAGE,
};

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
/// It has no machine. Its steps give it pages of the engine's cache as it grows, which it keeps
/// until it is dropped, [released](Self::release) or [shortened](Self::rewind). It outlives its
/// engine, and another engine can [restore](super::Engine::restore) it.
#[derive(Debug, Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    /// The kind of each token.
    kinds: Vec<Kind>,
    lease: Option<Lease>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new() -> Self {
        Self::default()
    }

    /// A sequence of these tokens, in runs of the same kind, which are in no cache:
    /// [`Engine::restore`](super::Engine::restore) brings them into one, and
    /// [`Engine::lend`](super::Engine::lend) gives it pages that have them.
    pub fn of<'a>(runs: impl IntoIterator<Item = (Kind, &'a [u32])>) -> Self {
        let mut sequence = Self::new();
        for (kind, ids) in runs {
            sequence.extend(ids, kind);
        }
        sequence
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

    /// Drops all tokens after the first `keep`, and frees the pages that only they have.
    pub fn rewind(&mut self, keep: usize) {
        self.tokens.truncate(keep);
        self.kinds.truncate(keep);
        self.trim();
    }

    /// Frees pages that none of its tokens has.
    pub(super) fn trim(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.shorten(self.tokens.len().div_ceil(PAGE as usize));
        }
    }

    /// Frees its pages of the cache for another sequence. The tokens are kept, to be restored.
    pub fn release(&mut self) {
        self.lease = None;
    }

    pub(super) fn extend(&mut self, ids: &[u32], kind: Kind) {
        self.tokens.extend_from_slice(ids);
        self.kinds.resize(self.tokens.len(), kind);
    }

    /// Whether its pages are of this cache.
    pub(super) fn is_on(&self, pool: &PagePool) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.pool.is(pool))
    }

    /// Takes pages of `pool` until there are enough for so many positions. Pages of another cache
    /// are released.
    ///
    /// # Errors
    ///
    /// Those of [`PagePool::extend`]. The pages are as before then.
    pub(super) fn take(&mut self, pool: &PagePool, positions: usize) -> Result<()> {
        let wanted = positions.div_ceil(PAGE as usize);
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.pool.is(pool)) {
            if lease.lent && wanted > lease.pages.len() {
                return Err(Error::Usage(format!(
                    "the text needs {wanted} pages of the cache, and {} were lent to it",
                    lease.pages.len()
                )));
            }
            return pool.extend(&mut lease.pages, wanted);
        }
        let mut lease = Lease { pool: pool.clone(), pages: Vec::new(), lent: false };
        pool.extend(&mut lease.pages, wanted)?;
        self.lease = Some(lease);
        Ok(())
    }

    /// Has it on these pages, which `pool` does not get from it.
    pub(super) fn borrow(&mut self, pool: &PagePool, pages: &[u32]) {
        self.lease = Some(Lease { pool: pool.clone(), pages: pages.to_vec(), lent: true });
    }

    /// The numbers of its pages, in the order of its positions; none if it has no room in a cache.
    pub(super) fn pages(&self) -> &[u32] {
        self.lease.as_ref().map_or(&[], |lease| &lease.pages)
    }
}

/// Pages of a cache that a text has. They are free when it is dropped, unless they were lent.
#[derive(Debug)]
struct Lease {
    pool: PagePool,
    pages: Vec<u32>,
    /// Whether somebody else keeps account of them.
    lent: bool,
}

impl Lease {
    /// Frees all pages but the first `keep`.
    fn shorten(&mut self, keep: usize) {
        if keep < self.pages.len() && !self.lent {
            self.pool.put(self.pages.drain(keep..));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shorten(0);
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
        let (pool, other) = (PagePool::new(3, 4), PagePool::new(3, 4));
        let mut sequence = Sequence::new();
        assert!(sequence.pages().is_empty());
        sequence.take(&pool, 40).expect("two pages");
        assert!(sequence.is_on(&pool) && !sequence.is_on(&other));
        assert_eq!((sequence.pages(), pool.free()), (&[0, 1][..], 1));
        sequence.take(&pool, 97).expect_err("there are three pages");
        assert_eq!((sequence.pages(), pool.free()), (&[0, 1][..], 1));
        sequence.release();
        assert!(pool.free() == 3 && !sequence.is_on(&pool));
        sequence.take(&pool, 32).expect("a page");
        sequence.take(&other, 97).expect_err("the other has three as well");
        assert!(sequence.is_on(&pool));
        sequence.take(&other, 33).expect("two pages");
        assert!(sequence.is_on(&other) && pool.free() == 3 && other.free() == 1);
        drop(sequence);
        assert_eq!(other.free(), 3);
    }

    #[test]
    fn a_shorter_text_has_fewer_pages() {
        let (pool, mut sequence) = (PagePool::new(4, 4), Sequence::new());
        sequence.take(&pool, 128).expect("four pages");
        sequence.extend(&[1; 65], Kind::Prompt);
        sequence.trim();
        for (keep, pages) in [(65, 3), (64, 2), (33, 2), (32, 1), (1, 1), (0, 0)] {
            sequence.rewind(keep);
            assert_eq!((sequence.pages().len(), pool.free()), (pages, 4 - pages), "{keep}");
        }
        assert!(sequence.is_on(&pool));
    }
}
