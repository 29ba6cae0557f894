//! The pages of a cache against a naive model: random texts that come, grow, share pages and leave.
//! Needs no device.

#[path = "common/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};

use grok_wgpu::lab::{
    engine::pages::{Held, Namespace, PagePool, Usage, Want},
    machine::step::PAGE,
};
use random::Random;

/// A page in the tree, by all tokens up to its end.
#[derive(Clone, Debug)]
struct Entry {
    namespace: Namespace,
    tokens: Vec<u32>,
    page: u32,
    texts: u32,
    used: u64,
}

#[derive(Debug)]
struct Text {
    namespace: Option<Namespace>,
    prompt: Vec<u32>,
    /// Tokens of the prompt that have gone through the model.
    done: usize,
    most: u32,
    joins: bool,
    held: Held,
}

/// What the pool should be, as lists.
struct Model {
    segment: u32,
    count: u32,
    free: BTreeSet<u32>,
    tree: Vec<Entry>,
    now: u64,
}

impl Model {
    fn capacity(&self, shard: u32) -> u32 {
        self.segment.min(self.count - shard * self.segment)
    }

    fn room(&self, shard: u32) -> u32 {
        let of = |page: u32| page / self.segment == shard;
        let free = self.free.iter().filter(|&&page| of(page)).count();
        let idle = self.tree.iter().filter(|e| e.texts == 0 && of(e.page)).count();
        u32::try_from(free + idle).expect("few")
    }

    fn entry(&mut self, page: u32) -> &mut Entry {
        self.tree.iter_mut().find(|entry| entry.page == page).expect("a page of the tree")
    }

    fn find(&self, namespace: Namespace, prompt: &[u32]) -> Vec<u32> {
        let page = |end: usize| {
            let same = |e: &&Entry| e.namespace == namespace && e.tokens == prompt[..end];
            self.tree.iter().find(same).map(|entry| entry.page)
        };
        (1..=prompt.len() / PAGE as usize).map_while(|n| page(n * PAGE as usize)).collect()
    }

    /// Whether there is any way to place the pages, by trying all shards for each segment.
    fn fits(
        &self,
        rooms: &BTreeMap<u32, u32>,
        last: Option<u32>,
        at: u32,
        pages: u32,
        most: u32,
    ) -> bool {
        if at >= pages {
            return true;
        }
        let begun = at % self.segment;
        let wanted = (self.segment - begun).min(pages - at);
        rooms.iter().any(|(&shard, &room)| {
            let may = if begun > 0 {
                Some(shard) == last
            } else {
                self.capacity(shard) >= self.segment.min(most - at)
            };
            may && room >= wanted && {
                let mut rooms = rooms.clone();
                rooms.insert(shard, room - wanted);
                self.fits(&rooms, Some(shard), at + wanted, pages, most)
            }
        })
    }

    fn has_room(&self, pages: &[u32], wanted: u32, most: u32) -> bool {
        let shards = 0..self.count.div_ceil(self.segment);
        let rooms = shards.map(|shard| (shard, self.room(shard))).collect();
        let last = pages.last().map(|page| page / self.segment);
        let at = u32::try_from(pages.len()).expect("few");
        self.fits(&rooms, last, at, wanted, most.max(wanted))
    }

    /// A text was given this page: a free one, or one that was given away in order.
    fn given(&mut self, page: u32) {
        let shard = page / self.segment;
        let of = |page: u32| page / self.segment == shard;
        if !self.free.iter().any(|&page| of(page)) {
            let idle = self.tree.iter().filter(|e| e.texts == 0 && of(e.page));
            let order = |e: &&Entry| (e.used, usize::MAX - e.tokens.len(), e.page);
            let victim = idle.min_by_key(order).expect("there was room").clone();
            let (gone, kept): (Vec<_>, Vec<_>) = self.tree.drain(..).partition(|entry| {
                entry.namespace == victim.namespace && entry.tokens.starts_with(&victim.tokens)
            });
            self.tree = kept;
            for entry in gone {
                assert_eq!(entry.texts, 0, "a page in use was given away");
                assert!(self.free.insert(entry.page));
            }
        }
        assert!(self.free.remove(&page), "page {page} was not free");
    }

    fn refer(&mut self, pages: &[u32]) {
        for &page in pages {
            self.entry(page).texts += 1;
        }
    }

    fn touch(&mut self, pages: &[u32]) {
        self.now += 1;
        for &page in pages {
            let now = self.now;
            self.entry(page).used = now;
        }
    }

    /// A text loses these pages; the first `shared` of them are in the tree.
    fn lose(&mut self, pages: &[u32], shared: usize) {
        let (tree, own) = pages.split_at(shared);
        for &page in tree {
            self.entry(page).texts -= 1;
        }
        for &page in own {
            assert!(self.free.insert(page), "page {page} is free twice");
        }
    }

    fn share(&mut self, text: &mut Text, before: &[u32], shared: usize) {
        let Some(namespace) = text.namespace else {
            assert_eq!((text.held.shared(), text.held.pages()), (0, before));
            return;
        };
        let whole = (text.done / PAGE as usize).min(before.len());
        let mut now = shared;
        while now < whole && text.joins {
            let tokens = text.prompt[..(now + 1) * PAGE as usize].to_vec();
            let there = self.tree.iter().find(|e| e.namespace == namespace && e.tokens == tokens);
            match there.map(|entry| entry.page) {
                None => {
                    let (page, used) = (before[now], self.now);
                    self.tree.push(Entry { namespace, tokens, page, texts: 1, used });
                    assert_eq!(text.held.pages()[now], page);
                }
                Some(page) if page / self.segment == before[now] / self.segment => {
                    self.entry(page).texts += 1;
                    assert!(self.free.insert(before[now]));
                    assert_eq!(text.held.pages()[now], page, "one page for the same tokens");
                }
                Some(_) => {
                    text.joins = false;
                    break;
                }
            }
            now += 1;
        }
        assert_eq!(text.held.shared(), now);
        assert_eq!(text.held.pages()[now..], before[now..]);
        self.touch(&text.held.pages()[..now]);
    }

    fn check(&self, pool: &PagePool, texts: &[Text], random: &mut Random) {
        let idle = self.tree.iter().filter(|entry| entry.texts == 0).count();
        let count = |n: usize| u32::try_from(n).expect("few");
        let (free, idle) = (count(self.free.len()), count(idle));
        assert_eq!(pool.usage(), Usage { free, idle, used: self.count - free - idle });
        let mut owners = BTreeSet::new();
        let mut texts_of: BTreeMap<u32, u32> = BTreeMap::new();
        for text in texts {
            let (shared, own) = text.held.pages().split_at(text.held.shared());
            for &page in own {
                assert!(owners.insert(page), "two texts have page {page}");
                assert!(!self.free.contains(&page));
                assert!(self.tree.iter().all(|entry| entry.page != page));
            }
            for (at, &page) in shared.iter().enumerate() {
                *texts_of.entry(page).or_default() += 1;
                let entry = self.tree.iter().find(|entry| entry.page == page).expect("in the tree");
                assert_eq!(Some(entry.namespace), text.namespace);
                assert_eq!(entry.tokens, text.prompt[..(at + 1) * PAGE as usize]);
                assert!(entry.tokens.len() <= text.done, "not computed as a prompt");
            }
            for segment in text.held.pages().chunks(self.segment as usize) {
                let shards: BTreeSet<u32> =
                    segment.iter().map(|page| page / self.segment).collect();
                assert_eq!(shards.len(), 1, "a segment is in several shards");
            }
        }
        for entry in &self.tree {
            assert_eq!(entry.texts, texts_of.get(&entry.page).copied().unwrap_or_default());
        }
        let (namespace, prompt) = (Namespace::Key(random.below(2).into()), prompt(random));
        assert_eq!(pool.find(namespace, &prompt), self.find(namespace, &prompt));
    }
}

/// Prompts that often begin alike.
fn prompt(random: &mut Random) -> Vec<u32> {
    let mut tokens = Vec::new();
    for _ in 0..random.below(5) {
        let token = random.below(5) / 3;
        tokens.extend([token; PAGE as usize]);
    }
    let at = random.below(400) as usize;
    if at < tokens.len() {
        tokens[at] = 7;
    }
    let tail = random.below(PAGE + 1) as usize;
    tokens.resize(tokens.len() + tail, 9);
    tokens
}

fn new_text(pool: &mut PagePool, model: &mut Model, random: &mut Random) -> Option<Text> {
    let prompt = prompt(random);
    let namespace = (random.below(8) > 0).then(|| Namespace::Key(random.below(2).into()));
    let length = u32::try_from(prompt.len()).expect("short");
    let now = length * random.below(3) / 2;
    let room = random.below(3) * PAGE;
    let most = length + random.below(4 * PAGE);
    let path = namespace.map(|namespace| model.find(namespace, &prompt)).unwrap_or_default();
    let len = u32::try_from(path.len()).expect("few");
    let pages = most.max(now).max(room).div_ceil(PAGE).max(len);
    let held = pool.hold(Want { namespace, prompt: &prompt, now, room, most });

    // The whole path, or without its last segment if that cannot go on where it is.
    model.refer(&path);
    let wanted = now.max(room).div_ceil(PAGE).max(len);
    let begun = len % model.segment;
    let capacity = |page: &u32| model.capacity(page / model.segment);
    let goes_on =
        begun == 0 || path.last().map(capacity) >= Some(model.segment.min(pages - (len - begun)));
    let mut keep = path.len();
    if !goes_on || !model.has_room(&path, wanted, pages) {
        keep -= begun as usize;
        model.lose(&path[keep..], path.len() - keep);
    }
    let Some(held) = held else {
        let wanted = now.max(room).div_ceil(PAGE);
        assert!(!model.has_room(&path[..keep], wanted, pages), "refused in spite of room");
        model.lose(&path[..keep], keep);
        return None;
    };
    let wanted = now.div_ceil(PAGE);
    assert_eq!((held.shared(), &held.pages()[..keep]), (keep, &path[..keep]));
    assert_eq!(held.pages().len(), (wanted as usize).max(keep));
    for &page in &held.pages()[keep..] {
        model.given(page);
    }
    model.touch(&path[..keep]);
    let done = keep * PAGE as usize;
    Some(Text { namespace, prompt, done, most: pages, joins: true, held })
}

fn grow(pool: &mut PagePool, model: &mut Model, random: &mut Random, text: &mut Text) {
    let before = text.held.pages().to_vec();
    let positions = text.held.positions() + random.below(3 * PAGE);
    let room = model.has_room(&before, positions.div_ceil(PAGE), text.most);
    assert_eq!(pool.has_room(&text.held, positions), room);
    assert_eq!(pool.grow(&mut text.held, positions), room);
    assert_eq!(text.held.pages()[..before.len()], before);
    if room {
        assert_eq!(text.held.positions(), positions.next_multiple_of(PAGE));
        for &page in &text.held.pages()[before.len()..] {
            model.given(page);
        }
    } else {
        assert_eq!(text.held.pages().len(), before.len());
    }
}

fn simulate(seed: u64, steps: u32) -> [u32; 4] {
    let mut random = Random::new(seed);
    let count = 1 + random.below(40);
    let segment = 1 + random.below(12);
    let mut pool = PagePool::new(count, segment);
    let (free, tree) = ((0..count).collect(), Vec::new());
    let mut model = Model { segment, count, free, tree, now: 0 };
    let mut texts: Vec<Text> = Vec::new();
    let [mut hits, mut refused, mut shared, mut given_away] = [0; 4];
    for _ in 0..steps {
        let known = model.tree.len();
        let some = random.below(8) as usize % texts.len().max(1);
        match if texts.len() > 7 { 8 } else { random.below(9) } {
            _ if texts.is_empty() => texts.extend(new_text(&mut pool, &mut model, &mut random)),
            0 | 1 => match new_text(&mut pool, &mut model, &mut random) {
                Some(text) => {
                    hits += u32::from(text.held.shared() > 0);
                    texts.push(text);
                }
                None => refused += 1,
            },
            2 | 3 => {
                grow(&mut pool, &mut model, &mut random, &mut texts[some]);
                given_away += u32::from(model.tree.len() < known);
            }
            4..=6 => {
                let text = &mut texts[some];
                let most = text.prompt.len().min(text.held.positions() as usize);
                let more = most.saturating_sub(text.done);
                text.done += more.min(random.below(3 * PAGE) as usize);
                let before = text.held.pages().to_vec();
                let had = text.held.shared();
                pool.share(&mut text.held, &text.prompt[..text.done]);
                model.share(text, &before, had);
                shared += u32::from(text.held.pages() != before);
            }
            7 => {
                let text = &mut texts[some];
                let (before, had) = (text.held.pages().to_vec(), text.held.shared());
                let to = random.below(text.held.positions() + 2);
                let kept = pool.truncate(&mut text.held, to);
                let whole = (to / PAGE) as usize;
                let keep = if whole < had { whole } else { to.div_ceil(PAGE) as usize };
                let keep = keep.min(before.len());
                assert_eq!(text.held.pages(), &before[..keep]);
                assert_eq!(kept, to.min(text.held.positions()));
                assert_eq!(text.held.shared(), had.min(keep));
                model.touch(&before[..had]);
                model.lose(&before[keep..], had.saturating_sub(keep));
                text.done = text.done.min(kept as usize);
            }
            _ => {
                let text = texts.swap_remove(some);
                let (pages, had) = (text.held.pages().to_vec(), text.held.shared());
                pool.release(text.held);
                model.touch(&pages[..had]);
                model.lose(&pages, had);
            }
        }
        if random.once_in(200) {
            pool.forget();
            let (idle, kept) = model.tree.drain(..).partition(|entry| entry.texts == 0);
            model.tree = kept;
            let idle: Vec<Entry> = idle;
            model.free.extend(idle.iter().map(|entry| entry.page));
        }
        model.check(&pool, &texts, &mut random);
    }
    for text in texts {
        pool.release(text.held);
    }
    pool.forget();
    assert_eq!(pool.usage(), Usage { free: count, idle: 0, used: 0 }, "a page was lost");
    [hits, refused, shared, given_away]
}

#[test]
fn a_pool_is_what_the_naive_model_is() {
    let mut seen = [0; 4];
    for seed in 0..250 {
        for (sum, count) in seen.iter_mut().zip(simulate(seed, 200)) {
            *sum += count;
        }
    }
    eprintln!("hits, refused, joined, given away: {seen:?}");
    assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
}

fn want(prompt: &[u32], now: u32) -> Want<'_> {
    Want { namespace: Some(Namespace::Key(0)), prompt, now, room: 0, most: now }
}

#[test]
fn pages_are_given_away_from_the_end_of_the_text_that_was_used_least_recently() {
    let mut pool = PagePool::new(4, 4);
    let [a, b] = [[1; 64], [2; 64]];
    for text in [&a, &b] {
        let mut held = pool.hold(want(text, 64)).expect("there is room");
        pool.share(&mut held, text);
        pool.release(held);
    }
    assert_eq!(pool.usage(), Usage { free: 0, idle: 4, used: 0 });
    // `a` is used again, so `b` goes first, and its end before its beginning.
    let held = pool.hold(want(&a, 64)).expect("it is there");
    assert_eq!(held.shared(), 2);
    pool.release(held);
    let one = pool.hold(want(&[], 32)).expect("there is room");
    let lengths = |pool: &PagePool| [&a, &b].map(|text| pool.find(Namespace::Key(0), text).len());
    assert_eq!(lengths(&pool), [2, 1]);
    let three = pool.hold(want(&[], 64)).expect("there is room");
    assert_eq!(lengths(&pool), [1, 0]);
    // What a text has is not given away.
    let held = pool.hold(want(&a, 32)).expect("it is there");
    assert!(pool.hold(want(&b, 32)).is_none());
    for held in [one, three, held] {
        pool.release(held);
    }
    assert_eq!(pool.usage(), Usage { free: 3, idle: 1, used: 0 });
}

#[test]
fn texts_of_other_namespaces_and_without_one_share_nothing() {
    let mut pool = PagePool::new(8, 8);
    let text = [5; 70];
    let mut first = pool.hold(want(&text, 70)).expect("there is room");
    assert_eq!(first.pages(), [0, 1, 2]);
    pool.share(&mut first, &text[..63]);
    assert_eq!(first.shared(), 1, "a page is shared when it is whole");
    pool.share(&mut first, &text);
    assert_eq!(first.shared(), 2);
    for (namespace, hits) in [(Some(Namespace::Key(1)), 0), (None, 0), (Some(Namespace::Key(0)), 2)]
    {
        let held = pool.hold(Want { namespace, ..want(&text, 70) }).expect("there is room");
        assert_eq!(held.shared(), hits, "{namespace:?}");
        pool.release(held);
    }
    let mut alone = pool.hold(Want { namespace: None, ..want(&text, 70) }).expect("room");
    pool.share(&mut alone, &text);
    assert_eq!(alone.shared(), 0);
    pool.release(alone);
    // A part of a shared page is not kept: what follows would be written to it.
    assert_eq!(pool.truncate(&mut first, 40), 32);
    assert_eq!((first.pages().len(), first.shared()), (1, 1));
    pool.release(first);
}

#[test]
fn a_segment_goes_on_in_its_shard_or_is_computed_again() {
    // Three shards of 4, 4 and 2 pages.
    let mut pool = PagePool::new(10, 4);
    assert!(pool.can_hold(10 * PAGE) && !pool.can_hold(11 * PAGE));
    let text = [3; 2 * PAGE as usize];
    let mut first = pool.hold(want(&text, 2 * PAGE)).expect("there is room");
    pool.share(&mut first, &text);
    // The first shard has room for two pages more.
    let other = pool.hold(want(&[], 2 * PAGE)).expect("there is room");
    assert_eq!(other.pages()[0] / 4, 1, "where most room is");
    let three = pool.hold(want(&text, 4 * PAGE)).expect("there is room");
    assert_eq!(
        (three.shared(), three.pages()),
        (2, &[first.pages()[0], first.pages()[1], 2, 3][..])
    );
    // It has none now, and the text begins elsewhere, without its pages in the tree.
    let mut four = pool.hold(want(&text, 3 * PAGE - 1)).map(|held| held.shared());
    assert_eq!(four, None, "no shard has three pages");
    pool.release(other);
    let held = pool.hold(want(&text, 3 * PAGE)).expect("there is room");
    four = Some(held.shared());
    assert_eq!((four, held.pages()[0] / 4), (Some(0), 1));
    // The short shard is not for texts that grow beyond it.
    let grows = Want { most: 3 * PAGE, ..want(&[], PAGE) };
    assert_eq!(pool.hold(grows).map(|held| held.pages()[0] / 4), Some(1));
    assert!(pool.hold(grows).is_none());
    let stays = pool.hold(want(&[], PAGE)).expect("there is room");
    assert_eq!(stays.pages()[0], 8);
    for held in [first, three, held, stays] {
        pool.release(held);
    }
}
