//! Where the cache holds texts, if somebody else decides it.

use super::{Engine, sequence::Sequence};
use crate::{
    base::error::{Error, Result},
    machine::{Machine, step::PAGE},
};

impl<M: Machine> Engine<M> {
    /// Has the pages of the cache given out in this order: the first sequence lies on them in the
    /// order of its positions. Without this they are in order. No bit of a result depends on it.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a sequence is in the cache, if `pages` are not all pages of the cache,
    /// each once, or if the positions of a segment are not in one shard.
    pub fn lay(&mut self, pages: &[u32]) -> Result<()> {
        if !self.is_empty() {
            return Err(Error::Usage("pages are laid while no text is in the cache".into()));
        }
        let count = self.options.positions().div_ceil(PAGE);
        let mut sorted = pages.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..count) {
            return Err(Error::Usage(format!(
                "{} pages of the cache, expected each from 0 to {} once",
                pages.len(),
                count - 1
            )));
        }
        self.check_segments(pages)?;
        self.pool.order(pages);
        Ok(())
    }

    /// Has `sequence` lie on these pages of the cache, in the order of its positions, in place of
    /// those that it had. Whoever calls this gives out all pages of the cache, as
    /// [`pages::PagePool`](super::pages::PagePool) does, and answers for what is in them: keys and
    /// values of the tokens that the sequence has, if there are some. The engine neither adds pages
    /// nor frees them.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the cache has no such page, or if the positions of a segment are not in
    /// one shard.
    pub fn lend(&self, sequence: &mut Sequence, pages: &[u32]) -> Result<()> {
        let count = self.pool.count();
        if let Some(page) = pages.iter().find(|&&page| page as usize >= count) {
            return Err(Error::Usage(format!(
                "page {page} of a cache that has {count}, which are counted from 0"
            )));
        }
        self.check_segments(pages)?;
        sequence.borrow(&self.pool, pages);
        Ok(())
    }

    /// Checks that the pages of each segment of a text are in one shard.
    fn check_segments(&self, pages: &[u32]) -> Result<()> {
        let segment = self.pool.segment();
        let shard = |page: u32| page as usize / segment;
        for (at, pages) in pages.chunks(segment).enumerate() {
            if pages.iter().any(|&page| shard(page) != shard(pages[0])) {
                return Err(Error::Usage(format!(
                    "the pages of segment {at} of the text are in several shards of the cache, \
                     expected one"
                )));
            }
        }
        Ok(())
    }
}
