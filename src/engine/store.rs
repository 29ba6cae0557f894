//! Pages of key-value caches on the host, for texts that have lost theirs.

use std::collections::HashMap;

use super::sequence::{Kind, Sequence};
use crate::machine::step::PAGE;

/// Positions of a page.
const POSITIONS: usize = PAGE as usize;

/// The numbers of pages in a store, which are never used again.
type Id = u64;

/// What a page holds follows from its tokens, from how they went through the model, and from all
/// before them. The same tokens after other ones are another page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The page before it, unless it is the first of its text.
    after: Option<Id>,
    tokens: [u32; POSITIONS],
    kinds: [Kind; POSITIONS],
}

impl Key {
    /// The key of a page of `text`, if all its positions have tokens.
    fn of(text: &Sequence, page: usize, after: Option<Id>) -> Option<Self> {
        let positions = page * POSITIONS..(page + 1) * POSITIONS;
        let tokens = text.tokens().get(positions.clone())?.try_into().ok()?;
        let kinds = text.kinds().get(positions)?.try_into().ok()?;
        Some(Self { after, tokens, kinds })
    }
}

#[derive(Debug)]
struct Kept {
    key: Key,
    bytes: Vec<u8>,
    /// Pages that follow it.
    followers: usize,
    /// When a text that has it was last kept or asked for.
    used: u64,
}

/// Finished pages of the KV cache of an engine, copied to the host: all layers' keys and values of
/// 32 positions. Pages at the beginning of several texts are there once.
///
/// A store serves engines of the same model, cache type and tuning, which write the same bits. It
/// never has more bytes than it may: pages that were used least recently, and that no other page
/// follows, make room.
#[derive(Debug)]
pub struct Store {
    most: u64,
    bytes: u64,
    pages: HashMap<Id, Kept>,
    ids: HashMap<Key, Id>,
    /// The number of the next page.
    next: Id,
    /// Counts uses.
    now: u64,
}

impl Store {
    /// An empty store for at most so many bytes of pages.
    pub fn new(most: u64) -> Self {
        Self { most, bytes: 0, pages: HashMap::new(), ids: HashMap::new(), next: 0, now: 0 }
    }

    /// Bytes of the pages that it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many pages it has of the beginning of `text`.
    pub fn count(&self, text: &Sequence) -> usize {
        self.path(text).len()
    }

    /// The pages that it has of the beginning of `text`, in order.
    pub fn pages(&mut self, text: &Sequence) -> impl Iterator<Item = &[u8]> {
        let path = self.path(text);
        self.touch(&path);
        path.into_iter().map(|id| &self.pages[&id].bytes[..])
    }

    /// Keeps the next page of `text` after those that it has. Returns whether it has it now: there
    /// may be no room, or the text may not fill the page.
    pub fn push(&mut self, text: &Sequence, bytes: Vec<u8>) -> bool {
        let path = self.path(text);
        self.touch(&path);
        let after = path.last().copied();
        let Some(key) = Key::of(text, path.len(), after) else { return false };
        let size = bytes.len() as u64;
        while self.bytes.saturating_add(size) > self.most {
            if !self.drop_one(after) {
                return false;
            }
        }
        let id = self.next;
        self.next += 1;
        self.bytes += size;
        if let Some(before) = after.and_then(|id| self.pages.get_mut(&id)) {
            before.followers += 1;
        }
        self.ids.insert(key.clone(), id);
        self.pages.insert(id, Kept { key, bytes, followers: 0, used: self.now });
        true
    }

    /// Drops the page that was used least recently, of those that no page follows and no text is
    /// about to continue. Returns whether there was one.
    fn drop_one(&mut self, needed: Option<Id>) -> bool {
        let free = |(id, page): &(&Id, &Kept)| page.followers == 0 && Some(**id) != needed;
        let oldest = self.pages.iter().filter(free).min_by_key(|(id, page)| (page.used, **id));
        let Some(id) = oldest.map(|(&id, _)| id) else { return false };
        let Some(page) = self.pages.remove(&id) else { return false };
        self.ids.remove(&page.key);
        self.bytes -= page.bytes.len() as u64;
        if let Some(before) = page.key.after.and_then(|id| self.pages.get_mut(&id)) {
            before.followers -= 1;
        }
        true
    }

    /// The pages of the beginning of `text`.
    fn path(&self, text: &Sequence) -> Vec<Id> {
        let mut path: Vec<Id> = Vec::new();
        while let Some(key) = Key::of(text, path.len(), path.last().copied())
            && let Some(&id) = self.ids.get(&key)
        {
            path.push(id);
        }
        path
    }

    fn touch(&mut self, path: &[Id]) {
        self.now += 1;
        for id in path {
            if let Some(page) = self.pages.get_mut(id) {
                page.used = self.now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of runs of a token and its kind.
    fn text(runs: &[(u32, usize, Kind)]) -> Sequence {
        let mut text = Sequence::new();
        for &(token, count, kind) in runs {
            text.extend(&vec![token; count], kind);
        }
        text
    }

    fn bytes(store: &mut Store, text: &Sequence) -> Vec<Vec<u8>> {
        store.pages(text).map(<[u8]>::to_vec).collect()
    }

    use Kind::{Generated, Prompt};

    #[test]
    fn a_page_is_that_of_its_tokens_their_kinds_and_all_before() {
        let mut store = Store::new(100);
        let one = text(&[(1, 32, Prompt), (2, 33, Generated)]);
        assert!(store.push(&one, vec![10; 4]) && store.push(&one, vec![11; 4]));
        assert!(!store.push(&one, vec![12; 4]), "the third page is not full");
        assert_eq!((store.count(&one), store.bytes()), (2, 8));
        assert_eq!(bytes(&mut store, &one), [[10; 4], [11; 4]]);
        // Less of it, and more.
        for (length, pages) in [(0, 0), (31, 0), (32, 1), (63, 1), (64, 2), (65, 2)] {
            let mut less = text(&[(1, 32, Prompt), (2, 33, Generated)]);
            less.rewind(length);
            assert_eq!(store.count(&less), pages, "{length}");
        }
        // Another token, another kind, another beginning.
        for other in [
            text(&[(1, 31, Prompt), (3, 1, Prompt), (2, 32, Generated)]),
            text(&[(1, 31, Prompt), (1, 1, Generated), (2, 32, Generated)]),
            text(&[(2, 32, Generated)]),
        ] {
            assert_eq!(store.count(&other), 0);
        }
        let branch = text(&[(1, 32, Prompt), (2, 31, Generated), (9, 40, Generated)]);
        assert_eq!(bytes(&mut store, &branch), [[10; 4]]);
        assert!(store.push(&branch, vec![20; 4]) && store.push(&branch, vec![21; 4]));
        assert_eq!(bytes(&mut store, &branch), [[10; 4], [20; 4], [21; 4]]);
        assert_eq!(bytes(&mut store, &one), [[10; 4], [11; 4]]);
        assert_eq!(store.bytes(), 16, "the first page is there once");
    }

    #[test]
    fn what_was_used_least_makes_room_from_the_end_of_its_text() {
        let mut store = Store::new(40);
        let [a, b, c] = [1, 2, 3].map(|token| text(&[(token, 64, Prompt)]));
        for text in [&a, &b] {
            assert!(store.push(text, vec![0; 10]) && store.push(text, vec![1; 10]));
        }
        assert_eq!(bytes(&mut store, &a).len(), 2);
        // `b` was used before `a`.
        assert!(store.push(&c, vec![0; 10]));
        assert_eq!([&a, &b, &c].map(|text| store.count(text)), [2, 1, 1]);
        assert!(store.push(&c, vec![1; 10]));
        assert_eq!([&a, &b, &c].map(|text| store.count(text)), [2, 0, 2]);
        assert_eq!(store.bytes(), 40);
        // A text does not make room for itself by its own last page.
        let mut small = Store::new(19);
        assert!(small.push(&a, vec![0; 10]) && !small.push(&a, vec![1; 10]));
        assert_eq!((small.count(&a), small.bytes()), (1, 10));
        assert!(!Store::new(9).push(&a, vec![0; 10]));
    }

    /// Against a store without bounds that is searched as a list.
    #[test]
    fn whatever_is_there_is_right_and_within_the_bound() {
        let mut state = 7_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let mut store = Store::new(300);
        let (mut found, mut whole) = (0, 0);
        for _ in 0..3000 {
            let pages = 1 + next(6);
            let tokens: Vec<u32> = (0..pages).map(|_| u32::from(next(3) > 0)).collect();
            let of = text(&tokens.iter().map(|&token| (token, 32, Prompt)).collect::<Vec<_>>());
            let content = |page: usize| {
                let tokens = &tokens[..=page];
                tokens.iter().map(|&token| u8::from(token == 1)).chain([9; 10]).collect::<Vec<u8>>()
            };
            let there = bytes(&mut store, &of);
            found += there.len();
            assert!(there.iter().enumerate().all(|(page, bytes)| *bytes == content(page)));
            let mut count = there.len();
            while count < pages && store.push(&of, content(count)) {
                count += 1;
            }
            whole += usize::from(count == pages);
            assert_eq!(store.count(&of), count);
            assert!(store.bytes() <= 300);
            let sum: usize = store.pages.values().map(|page| page.bytes.len()).sum();
            assert_eq!((sum as u64, store.ids.len()), (store.bytes(), store.pages.len()));
        }
        assert!(found > 1000 && whole == 3000, "{found} {whole}");
    }
}
