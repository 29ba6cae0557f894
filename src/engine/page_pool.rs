//! Which pages of the KV cache are free.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    base::error::{Error, Result},
    machine::step::PAGE,
};

/// The free pages of a cache. Clones are the same pool: the engine has one, and each text that has
/// pages another.
#[derive(Clone, Debug)]
pub(super) struct PagePool(Arc<Mutex<Free>>);

#[derive(Debug)]
struct Free {
    /// Pages of a shard of the cache, and of a segment of a text.
    each: usize,
    /// For each page its place in the order in which pages are given out.
    ranks: Vec<u32>,
    /// The free pages of each shard, after their ranks.
    shards: Vec<BTreeSet<(u32, u32)>>,
}

impl PagePool {
    /// So many free pages, in shards of `each`; the last may have fewer.
    pub(super) fn new(count: u32, each: u32) -> Self {
        let order: Vec<u32> = (0..count).collect();
        Self(Arc::new(Mutex::new(Free::new(&order, each.max(1) as usize))))
    }

    /// Whether it is the pool `other`.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many pages there are.
    pub(super) fn count(&self) -> usize {
        self.lock().ranks.len()
    }

    /// Pages of a segment of a text, which are in one shard.
    pub(super) fn segment(&self) -> usize {
        self.lock().each
    }

    /// How many of them are free.
    pub(super) fn free(&self) -> usize {
        self.lock().count()
    }

    /// Gives pages out in this order, which has all pages, from now on.
    pub(super) fn order(&self, pages: &[u32]) {
        let mut free = self.lock();
        *free = Free::new(pages, free.each);
    }

    /// Adds pages to those of a text until it has `wanted`. The pages of a segment of a text, which
    /// is as long as a shard, are in one shard.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if they are not free. The text then has what it had.
    pub(super) fn extend(&self, pages: &mut Vec<u32>, wanted: usize) -> Result<()> {
        let mut free = self.lock();
        let (had, there) = (pages.len(), free.count());
        while pages.len() < wanted {
            let shard = match pages.last() {
                Some(&page) if !pages.len().is_multiple_of(free.each) => free.shard_of(page),
                _ => free.emptiest(),
            };
            let Some((_, page)) = free.shards.get_mut(shard).and_then(BTreeSet::pop_first) else {
                let missing = wanted - had;
                free.put(pages.drain(had..));
                let apart = if there < missing { "" } else { " in one part of the cache" };
                return Err(Error::Usage(format!(
                    "the cache has {there} free pages of {PAGE} positions, and the text needs \
                     {missing} more{apart}: release another text, or make the cache larger"
                )));
            };
            pages.push(page);
        }
        Ok(())
    }

    /// Takes pages back.
    pub(super) fn put(&self, pages: impl Iterator<Item = u32>) {
        self.lock().put(pages);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing that holds the lock stops halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    fn new(order: &[u32], each: usize) -> Self {
        let mut ranks = vec![0; order.len()];
        for (rank, &page) in (0..).zip(order) {
            ranks[page as usize] = rank;
        }
        let shards = vec![BTreeSet::new(); order.len().div_ceil(each)];
        let mut free = Self { each, ranks, shards };
        free.put(order.iter().copied());
        free
    }

    fn shard_of(&self, page: u32) -> usize {
        page as usize / self.each
    }

    fn count(&self) -> usize {
        self.shards.iter().map(BTreeSet::len).sum()
    }

    /// The shard with the most free pages, in which a segment has the best prospects to end.
    fn emptiest(&self) -> usize {
        let room = |&shard: &usize| {
            let pages = &self.shards[shard];
            (pages.len(), Reverse(pages.first().map(|&(rank, _)| rank)))
        };
        (0..self.shards.len()).max_by_key(room).unwrap_or_default()
    }

    fn put(&mut self, pages: impl Iterator<Item = u32>) {
        for page in pages {
            let shard = self.shard_of(page);
            self.shards[shard].insert((self.ranks[page as usize], page));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_gets_all_pages_in_order() {
        for (count, each) in [(1, 4), (4, 4), (10, 4), (7, 100)] {
            let (pool, mut pages) = (PagePool::new(count, each), Vec::new());
            for wanted in 1..=count as usize {
                pool.extend(&mut pages, wanted).expect("there are as many");
                pool.extend(&mut pages, wanted - 1).expect("it has them");
                assert_eq!((pages.len(), pool.free()), (wanted, count as usize - wanted));
            }
            assert!(pages.iter().copied().eq(0..count), "{pages:?}");
            let error = pool.extend(&mut pages, count as usize + 2).expect_err("there are none");
            assert!(error.to_string().contains("0 free pages"), "{error}");
            assert!(error.to_string().contains("needs 2 more:"), "{error}");
            assert_eq!(pages.len(), count as usize);
        }
    }

    #[test]
    fn pages_come_in_the_order_that_was_asked_for() {
        let pool = PagePool::new(7, 3);
        let order = [5, 3, 4, 0, 2, 1, 6];
        pool.order(&order);
        for _ in 0..2 {
            let mut pages = Vec::new();
            pool.extend(&mut pages, 7).expect("all are free");
            assert_eq!(pages, order);
            pool.put(pages.into_iter());
        }
    }

    /// Random texts that grow, shrink and end: no page is given out twice, none is lost, and the
    /// pages of a segment are in one shard.
    #[test]
    fn every_page_has_at_most_one_text() {
        let (count, each) = (37, 5);
        let pool = PagePool::new(count, each);
        let mut state = 3_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let mut texts: Vec<Vec<u32>> = vec![Vec::new(); 6];
        let (mut refused, mut apart) = (0, 0);
        for _ in 0..5000 {
            let (text, length) = (next(6), next(14));
            let before = texts[text].clone();
            let free = pool.free();
            if length < before.len() {
                pool.put(texts[text].drain(length..));
            } else if let Err(error) = pool.extend(&mut texts[text], length) {
                refused += 1;
                let enough = free >= length - before.len();
                apart += usize::from(enough);
                assert_eq!(error.to_string().contains("in one part"), enough, "{error}");
                assert_eq!(texts[text], before);
            } else {
                assert_eq!(texts[text][..before.len()], before);
                assert_eq!(texts[text].len(), length);
            }
            let mut held: Vec<u32> = texts.concat();
            assert_eq!(held.len() + pool.free(), count as usize);
            held.sort_unstable();
            assert!(held.windows(2).all(|pair| pair[0] < pair[1]), "{texts:?}");
            for segment in texts.iter().flat_map(|pages| pages.chunks(each as usize)) {
                assert!(segment.iter().all(|page| page / each == segment[0] / each), "{segment:?}");
            }
        }
        assert!(refused > 100 && apart > 10, "{refused} {apart}");
        for text in &mut texts {
            pool.put(text.drain(..));
        }
        assert_eq!((pool.free(), pool.count()), (37, 37));
    }
}
