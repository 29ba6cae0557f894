//! Where the cache holds the text of an engine.

use super::{Engine, sequence::Pages};
use crate::{
    base::error::{Error, Result},
    machine::{Machine, step::PAGE},
};

impl<M: Machine> Engine<M> {
    /// Has the next sequence lie on these pages of the cache, in the order of its positions.
    /// Without this they are in order. No bit of a result depends on it.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a sequence is in the cache, if `pages` are not all pages of the cache,
    /// each once, or if the positions of a segment are not in one shard.
    pub fn lay(&mut self, pages: &[u32]) -> Result<()> {
        if !self.is_empty() {
            return Err(Error::Usage("pages are laid while no text is in the cache".into()));
        }
        let count = self.options.context.div_ceil(PAGE);
        let mut sorted = pages.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..count) {
            return Err(Error::Usage(format!(
                "{} pages of the cache, expected each from 0 to {} once",
                pages.len(),
                count - 1
            )));
        }
        let segment = (self.caches[0].segment / PAGE).max(1);
        let of_segments = pages.chunks(segment as usize).zip(0_u32..);
        let shard = |page: u32| page / segment;
        for (pages, segment) in of_segments {
            if pages.iter().any(|&page| shard(page) != shard(pages[0])) {
                return Err(Error::Usage(format!(
                    "the pages of segment {segment} of the text are in several shards of the \
                     cache, expected one"
                )));
            }
        }
        self.pages = vec![Pages::of(pages)];
        // A plan has the shards that hold its positions, which any shard may now.
        let in_order = pages.iter().copied().eq(0..count);
        self.plans.cover(if in_order { 0 } else { self.options.context });
        Ok(())
    }
}
