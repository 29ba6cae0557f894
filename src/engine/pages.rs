//! The pages of a KV cache: which text has which, and which of them several texts share.
//!
//! A page that was computed as part of a prompt depends on its tokens and those before it, and on
//! nothing else. Such pages are in a tree, and a text whose prompt begins with the same tokens has
//! them without computing them again. Nothing here knows a device or what is in a page.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use crate::machine::step::PAGE;

/// Positions of a page.
const POSITIONS: usize = PAGE as usize;

/// Texts of one namespace share pages. Those of others do not, since the time to a first token
/// tells whether somebody has sent the same prompt before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The texts of one API key, or of all if they are to share.
    Key(u64),
    /// The texts of one request.
    Request(u64),
}

/// What a new text needs.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// With which other texts it may share pages; with none if this is absent.
    pub namespace: Option<Namespace>,
    /// Its first tokens: those that may be there already, and need not go through the model.
    pub prompt: &'a [u32],
    /// Positions that it needs pages for now.
    pub now: u32,
    /// Positions that there must be room for, if that is more, without giving it the pages.
    pub room: u32,
    /// Positions that it will need at the most.
    pub most: u32,
}

/// The pages of one text. They are its own until [`PagePool::release`], so it is not to be dropped.
#[derive(Debug)]
#[must_use = "its pages are not free before it is released"]
pub struct Held {
    namespace: Option<Namespace>,
    /// In the order of positions. The first `shared` are in the tree, on one path.
    pages: Vec<u32>,
    shared: usize,
    /// Whether the page after the shared ones may be in the tree. It may not once another page with
    /// its tokens is there, in another shard.
    joins: bool,
    /// Most pages that it will need.
    most: u32,
}

impl Held {
    /// The numbers of its pages, in the order of positions: its page table.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// How many pages at its beginning other texts can have as well. Nothing is to be written to
    /// them.
    pub fn shared(&self) -> usize {
        self.shared
    }

    /// Positions that its pages have room for.
    pub fn positions(&self) -> u32 {
        count(self.pages.len()) * PAGE
    }
}

/// How many pages of a pool are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nothing is in them.
    pub free: u32,
    /// No text has them, but one may come whose prompt they begin. They are free when needed.
    pub idle: u32,
    /// Texts have them.
    pub used: u32,
}

/// The pages of a cache, with the tree of those that are shared.
///
/// It never has more entries than pages. A page in the tree that no text has is *idle*; it is given
/// away when pages are needed, the least recently used first, and never before a page that follows
/// it.
#[derive(Debug)]
pub struct PagePool {
    /// Pages of a segment: as many as a shard has, but for the last.
    segment: u32,
    pages: Vec<Page>,
    shards: Vec<Shard>,
    /// The pages of the tree.
    tree: HashMap<Key, u32>,
    /// Counts uses.
    now: u64,
}

/// Pages that are in one tensor.
#[derive(Debug)]
struct Shard {
    pages: u32,
    free: Vec<u32>,
    /// Idle pages in the order in which they are given away. Whoever uses a page uses all before
    /// it, so those that follow it come first: they were used no later, and are deeper.
    idle: BTreeSet<Order>,
}

impl Shard {
    /// Pages that a text can have.
    fn room(&self) -> u32 {
        count(self.free.len() + self.idle.len())
    }
}

/// When a page was used, its place in its text, and its number.
type Order = (u64, Reverse<u32>, u32);

#[derive(Debug)]
enum Page {
    Free,
    /// Of one text.
    Own,
    Shared(Node),
}

/// A page in the tree.
#[derive(Debug)]
struct Node {
    key: Key,
    /// Its place in its text.
    depth: u32,
    /// Texts that have it.
    texts: u32,
    /// When a text came or left that has it.
    used: u64,
    /// Pages of the tree that follow it.
    followers: BTreeSet<u32>,
}

/// What a page holds follows from its tokens and all before them. Tokens are compared one by one,
/// so no two pages are taken for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    after: After,
    tokens: [u32; POSITIONS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum After {
    Nothing(Namespace),
    Page(u32),
}

impl PagePool {
    /// A pool of so many free pages, cut into shards of `segment` pages; the last may be shorter.
    ///
    /// A text is cut into segments of that many pages too, and a segment lies in one shard.
    pub fn new(pages: u32, segment: u32) -> Self {
        let segment = segment.max(1);
        let shards = (0..pages)
            .step_by(segment as usize)
            .map(|first| {
                let len = segment.min(pages - first);
                let free = (first..first + len).rev().collect();
                Shard { pages: len, free, idle: BTreeSet::new() }
            })
            .collect();
        let pages = (0..pages).map(|_| Page::Free).collect();
        Self { segment, pages, shards, tree: HashMap::new(), now: 0 }
    }

    /// How many pages are what.
    pub fn usage(&self) -> Usage {
        let of = |part: fn(&Shard) -> usize| count(self.shards.iter().map(part).sum());
        let (free, idle) = (of(|shard| shard.free.len()), of(|shard| shard.idle.len()));
        Usage { free, idle, used: count(self.pages.len()) - free - idle }
    }

    /// Whether a text of so many positions has room if it is alone.
    pub fn can_hold(&self, positions: u32) -> bool {
        let room = self.shards.iter().map(|shard| shard.pages).collect();
        let pages = positions.div_ceil(PAGE);
        self.places(room, None, 0..pages, pages).is_some()
    }

    /// The pages of the tree with which `prompt` begins.
    pub fn find(&self, namespace: Namespace, prompt: &[u32]) -> Vec<u32> {
        let mut path = Vec::new();
        let mut after = After::Nothing(namespace);
        for tokens in prompt.as_chunks().0 {
            let Some(&page) = self.tree.get(&Key { after, tokens: *tokens }) else { break };
            path.push(page);
            after = After::Page(page);
        }
        path
    }

    /// Pages for a new text: those of the tree with which its prompt begins, and others as far as
    /// it needs them now. Nothing, and no change, if there is not enough room.
    ///
    /// A segment that is begun in the tree must go on in the same shard. If there is no room, the
    /// text has none of its pages from the tree.
    pub fn hold(&mut self, want: Want<'_>) -> Option<Held> {
        let Want { namespace, prompt, now, room, most } = want;
        let room = room.max(now);
        let path = namespace.map(|namespace| self.find(namespace, prompt)).unwrap_or_default();
        let most = most.max(room).div_ceil(PAGE).max(count(path.len()));
        let mut held = Held { namespace, shared: path.len(), pages: path, joins: true, most };
        for &page in &held.pages {
            self.refer(page);
        }
        if !self.goes_on(&held) || !self.has_room(&held, room) {
            let segments = held.pages.len() / self.segment as usize;
            self.cut(&mut held, segments * self.segment as usize);
        }
        if !self.has_room(&held, room) || !self.grow(&mut held, now) {
            self.cut(&mut held, 0);
            return None;
        }
        self.touch(&held);
        Some(held)
    }

    /// Gives a text room for so many positions from its beginning, and leaves it as it was if there
    /// is none. Idle pages are taken if none are free.
    #[must_use]
    pub fn grow(&mut self, held: &mut Held, positions: u32) -> bool {
        let Some(places) = self.places_for(held, positions) else { return false };
        for (shard, pages) in places {
            for _ in 0..pages {
                let page = self.take(shard);
                held.pages.push(page);
            }
        }
        true
    }

    /// Whether [`PagePool::grow`] would find room.
    pub fn has_room(&self, held: &Held, positions: u32) -> bool {
        self.places_for(held, positions).is_some()
    }

    /// Whether a text that needs its next page may get one of those that `other` has.
    pub fn competes(&self, held: &Held, other: &Held) -> bool {
        let begun = !held.pages.len().is_multiple_of(self.segment as usize);
        let last = held.pages.last().filter(|_| begun).map(|&page| self.shard_of(page));
        other.pages.iter().any(|&page| last.is_none_or(|last| self.shard_of(page) == last))
    }

    /// Puts pages of a text into the tree. `prompt` is its tokens that have gone through the model
    /// as a prompt, from its beginning, without those after a generated one. Pages that are there
    /// already, computed for another text, take the place of its own, which are free then.
    pub fn share(&mut self, held: &mut Held, prompt: &[u32]) {
        let Some(namespace) = held.namespace else { return };
        let pages = held.pages.len().min(prompt.len() / POSITIONS);
        for (at, tokens) in prompt.as_chunks().0[..pages].iter().enumerate().skip(held.shared) {
            if !held.joins {
                break;
            }
            let page = held.pages[at];
            let before = at.checked_sub(1).map(|before| held.pages[before]);
            let after = before.map_or(After::Nothing(namespace), After::Page);
            let key = Key { after, tokens: *tokens };
            match self.tree.get(&key).copied() {
                None => self.insert(page, key, count(at)),
                Some(there) if self.shard_of(there) == self.shard_of(page) => {
                    self.refer(there);
                    self.free(page);
                    held.pages[at] = there;
                }
                Some(_) => {
                    held.joins = false;
                    break;
                }
            }
            held.shared = at + 1;
        }
        self.touch(held);
    }

    /// Keeps the first positions of a text, and the pages that they need. Returns how many
    /// positions it keeps: the others of a shared page go too, since what follows would be written
    /// to it.
    pub fn truncate(&mut self, held: &mut Held, positions: u32) -> u32 {
        let whole = positions / PAGE;
        let own = whole as usize >= held.shared && !positions.is_multiple_of(PAGE);
        self.touch(held);
        self.cut(held, whole as usize + usize::from(own));
        positions.min(if own { held.positions() } else { whole * PAGE })
    }

    /// Frees the pages of a text. Those in the tree stay there, and are idle once no other text has
    /// them.
    pub fn release(&mut self, mut held: Held) {
        self.touch(&held);
        self.cut(&mut held, 0);
    }

    /// Frees all idle pages, for instance since their content is lost.
    pub fn forget(&mut self) {
        for shard in 0..self.shards.len() {
            while self.give_away(shard) {}
        }
    }

    fn shard_of(&self, page: u32) -> usize {
        (page / self.segment) as usize
    }

    /// Whether the shard in which a text's last segment is begun can hold the whole segment.
    fn goes_on(&self, held: &Held) -> bool {
        let pages = count(held.pages.len());
        let begun = pages % self.segment;
        let needed = self.segment.min(held.most.max(pages) - (pages - begun));
        let last = held.pages.last().filter(|_| begun > 0);
        last.is_none_or(|&page| self.shards[self.shard_of(page)].pages >= needed)
    }

    fn places_for(&self, held: &Held, positions: u32) -> Option<Vec<(usize, u32)>> {
        let pages = positions.div_ceil(PAGE);
        let last = held.pages.last().map(|&page| self.shard_of(page));
        let room = self.shards.iter().map(Shard::room).collect();
        self.places(room, last, count(held.pages.len())..pages, held.most.max(pages))
    }

    /// In which shards a text has its next pages, and how many; nothing if there is not enough
    /// room. `last` is where it is now, and `most` are the pages that it will have at the end.
    ///
    /// A segment goes where most room is, of the shards that can hold all that it will have.
    fn places(
        &self,
        mut room: Vec<u32>,
        last: Option<usize>,
        pages: std::ops::Range<u32>,
        most: u32,
    ) -> Option<Vec<(usize, u32)>> {
        let mut places = Vec::new();
        let mut at = pages.start;
        while at < pages.end {
            let begun = at % self.segment;
            let wanted = (self.segment - begun).min(pages.end - at);
            let shard = if begun > 0 {
                last.filter(|&shard| room[shard] >= wanted)
            } else {
                let needed = self.segment.min(most - at);
                let fits =
                    |&shard: &usize| self.shards[shard].pages >= needed && room[shard] >= wanted;
                let best = |&shard: &usize| (room[shard], Reverse(shard));
                (0..room.len()).filter(fits).max_by_key(best)
            }?;
            room[shard] -= wanted;
            places.push((shard, wanted));
            at += wanted;
        }
        Some(places)
    }

    /// A page of a shard that has room, for one text.
    fn take(&mut self, shard: usize) -> u32 {
        if self.shards[shard].free.is_empty() {
            self.give_away(shard);
        }
        let page = self.shards[shard].free.pop().expect("room was counted before");
        self.pages[page as usize] = Page::Own;
        page
    }

    fn free(&mut self, page: u32) {
        let shard = self.shard_of(page);
        self.pages[page as usize] = Page::Free;
        self.shards[shard].free.push(page);
    }

    /// Frees the idle page of a shard that was used least recently, with those that follow it in
    /// other shards. Returns whether there was one.
    fn give_away(&mut self, shard: usize) -> bool {
        let Some(&(_, _, page)) = self.shards[shard].idle.first() else { return false };
        if let Some(&Node { key: Key { after: After::Page(before), .. }, .. }) = self.node(page)
            && let Some(before) = self.node_mut(before)
        {
            before.followers.remove(&page);
        }
        let mut gone = vec![page];
        while let Some(page) = gone.pop() {
            if let Page::Shared(node) =
                std::mem::replace(&mut self.pages[page as usize], Page::Free)
            {
                self.tree.remove(&node.key);
                let shard = self.shard_of(page);
                self.shards[shard].idle.remove(&(node.used, Reverse(node.depth), page));
                gone.extend(node.followers);
                self.free(page);
            }
        }
        true
    }

    fn node(&self, page: u32) -> Option<&Node> {
        match &self.pages[page as usize] {
            Page::Shared(node) => Some(node),
            Page::Free | Page::Own => None,
        }
    }

    fn node_mut(&mut self, page: u32) -> Option<&mut Node> {
        match &mut self.pages[page as usize] {
            Page::Shared(node) => Some(node),
            Page::Free | Page::Own => None,
        }
    }

    /// Puts a text's own page into the tree.
    fn insert(&mut self, page: u32, key: Key, depth: u32) {
        if let After::Page(before) = key.after
            && let Some(before) = self.node_mut(before)
        {
            before.followers.insert(page);
        }
        self.tree.insert(key.clone(), page);
        let node = Node { key, depth, texts: 1, used: self.now, followers: BTreeSet::new() };
        self.pages[page as usize] = Page::Shared(node);
    }

    /// One more text has this page of the tree.
    fn refer(&mut self, page: u32) {
        let Some(node) = self.node_mut(page) else { return };
        node.texts += 1;
        if node.texts == 1 {
            let order = (node.used, Reverse(node.depth), page);
            let shard = self.shard_of(page);
            self.shards[shard].idle.remove(&order);
        }
    }

    /// One text less has it.
    fn leave(&mut self, page: u32) {
        let Some(node) = self.node_mut(page) else { return };
        node.texts -= 1;
        if node.texts == 0 {
            let order = (node.used, Reverse(node.depth), page);
            let shard = self.shard_of(page);
            self.shards[shard].idle.insert(order);
        }
    }

    /// Notes that a text's pages in the tree are used now.
    fn touch(&mut self, held: &Held) {
        self.now += 1;
        let now = self.now;
        for &page in &held.pages[..held.shared] {
            if let Some(node) = self.node_mut(page) {
                node.used = now;
            }
        }
    }

    /// Takes all but the first `keep` pages from a text.
    fn cut(&mut self, held: &mut Held, keep: usize) {
        while held.pages.len() > keep
            && let Some(page) = held.pages.pop()
        {
            if held.pages.len() < held.shared {
                self.leave(page);
            } else {
                self.free(page);
            }
        }
        held.shared = held.shared.min(keep);
    }
}

/// Pages are numbered by u32.
fn count(pages: usize) -> u32 {
    u32::try_from(pages).expect("a cache has fewer pages than 2^32")
}
