//! The scheduler in a simulated world: random texts that come, pause, fail and leave, caches that
//! are too small, devices that are lost. What is in each slot of the cache is simulated too, so
//! that a text that reads a page which is not its own is seen. Needs no device.

#[path = "common/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};

use grok_wgpu::lab::{
    engine::{
        pages::{Namespace, PagePool},
        schedule::{Id, Limits, Outcome, Placed, Plan, Refusal, Request, Scheduler},
    },
    machine::step::PAGE,
};
use random::Random;

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("few")
}

/// What a slot holds: it follows from the token, how it went through the model, and all before it.
fn slot(before: u64, token: u32, generated: bool) -> u64 {
    let word = (before ^ u64::from(token)).wrapping_add(u64::from(generated) << 40);
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) | 1
}

#[derive(Debug)]
struct Text {
    key: u64,
    namespace: Option<Namespace>,
    prompt: u32,
    most: u32,
    deadline: Option<u64>,
    copy_of: Option<Id>,
    tokens: Vec<u32>,
    /// What the slots of its tokens should hold.
    slots: Vec<u64>,
    paused: bool,
    began: bool,
    cached: u32,
    /// Pages that are on the host, and what they hold.
    kept: Vec<u64>,
    /// Steps in which it could have had a row and had none.
    skipped: u32,
    /// Steps in which it waited to begin, and the work that was ahead of it when it came.
    waited: u64,
    ahead: u64,
}

impl Text {
    fn push(&mut self, token: u32) {
        let before = self.slots.last().copied().unwrap_or_default();
        self.slots.push(slot(before, token, count(self.tokens.len()) >= self.prompt));
        self.tokens.push(token);
    }

    fn generated(&self) -> u32 {
        count(self.tokens.len()) - self.prompt
    }

    /// Steps that it takes when it is the first, if it has lost its pages before.
    fn work(&self, unit: u32) -> u64 {
        2 * u64::from(self.prompt.div_ceil(unit) + self.most + 1)
    }
}

/// What a key has had, by this test's own count.
#[derive(Default)]
struct Accounts {
    had: BTreeMap<u64, u64>,
    level: u64,
}

#[derive(Debug, Default)]
struct Seen {
    steps: u64,
    ended: u64,
    cancelled: u64,
    expired: u64,
    refused: u64,
    preempted: u64,
    copied: u64,
    hits: u64,
    forced: u64,
    lost: u64,
}

struct World {
    random: Random,
    scheduler: Scheduler,
    limits: Limits,
    pages: u32,
    segment: u32,
    cache: Vec<u64>,
    /// In which namespace each page was written.
    written: Vec<Option<Namespace>>,
    texts: BTreeMap<Id, Text>,
    /// In the order in which they began.
    begun: Vec<Id>,
    accounts: Accounts,
    now: u64,
    pace: Option<u64>,
    work: u64,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let pages = 3 + random.below(30);
        let segment = if random.once_in(3) { 1 + random.below(pages) } else { pages };
        let limits = Limits {
            context: PAGE * (2 + random.below(8)) + random.below(PAGE),
            rows: 1 + random.below(8),
            chunk: [8, 32, 40, 64, 100, 256][random.below(6) as usize],
            runs: 1 + random.below(4),
            queue: 1 + random.below(20) as usize,
            stall: u64::from(random.below(3000)),
            reserve: random.below(40),
        };
        Self {
            scheduler: Scheduler::new(limits, PagePool::new(pages, segment)),
            limits,
            pages,
            segment,
            cache: vec![0; (pages * PAGE) as usize],
            written: vec![None; pages as usize],
            texts: BTreeMap::new(),
            begun: Vec::new(),
            accounts: Accounts::default(),
            now: 0,
            pace: None,
            work: 0,
            seen: Seen::default(),
            random,
        }
    }

    fn unit(&self) -> u32 {
        PAGE.min(self.limits.chunk)
    }

    fn submit(&mut self) {
        let random = &mut self.random;
        let mut prompt = Vec::new();
        for _ in 0..random.below(6) {
            prompt.extend(vec![random.below(4) / 3; PAGE as usize]);
        }
        prompt.resize(prompt.len() + random.below(PAGE) as usize, 9);
        let request = Request {
            key: random.below(4).into(),
            namespace: (!random.once_in(6)).then(|| Namespace::Key(random.below(2).into())),
            prompt,
            max_tokens: random.below(70),
            copies: if random.once_in(5) { random.below(4) } else { 1 },
            deadline: random.once_in(6).then(|| self.now + u64::from(random.below(100_000))),
            scored: None,
        };
        let Request { key, copies, max_tokens, deadline, .. } = request;
        let (prompt, waiting) = (request.prompt.clone(), self.waiting().count());
        let length = count(prompt.len());
        let room = self.limits.context.saturating_sub(length) + 1;
        let most = max_tokens.min(room);
        let ids = match self.scheduler.submit(request.clone()) {
            Ok(ids) => ids,
            Err(refusal) => {
                self.seen.refused += 1;
                match refusal {
                    Refusal::Empty => assert!(prompt.is_empty() || copies == 0),
                    Refusal::Context { .. } => assert!(length > self.limits.context),
                    Refusal::Cache { positions } => {
                        assert_eq!(positions, length + most.saturating_sub(1));
                        assert!(
                            positions.div_ceil(PAGE) > self.pages / self.segment * self.segment
                        );
                    }
                    Refusal::Full { .. } => {
                        assert!(waiting + copies as usize > self.limits.queue);
                    }
                }
                return;
            }
        };
        assert!(!prompt.is_empty() && copies > 0 && length <= self.limits.context);
        assert!(waiting + ids.len() <= self.limits.queue, "more wait than may");
        if !self.texts.values().any(|text| text.key == key) {
            let had = self.accounts.had.entry(key).or_default();
            *had = (*had).max(self.accounts.level);
        }
        let unit = self.unit();
        let active: u64 = self.begun.iter().map(|id| self.texts[id].work(unit)).sum();
        let own = (copies > 1).then_some(Namespace::Request(ids[0].0));
        for &id in &ids {
            let mut text = Text {
                key,
                namespace: request.namespace.or(own),
                prompt: length,
                most,
                deadline,
                copy_of: (id != ids[0]).then_some(ids[0]),
                tokens: Vec::new(),
                slots: Vec::new(),
                paused: false,
                began: false,
                cached: 0,
                kept: Vec::new(),
                skipped: 0,
                waited: 0,
                // What begins before it is added to both.
                ahead: self.work,
            };
            text.ahead = text.ahead.wrapping_sub(active);
            for &token in &prompt {
                text.push(token);
            }
            assert!(self.texts.insert(id, text).is_none(), "a number is used twice");
        }
    }

    fn waiting(&self) -> impl Iterator<Item = (&Id, &Text)> {
        self.texts.iter().filter(|(_, text)| !text.began)
    }

    fn remove(&mut self, id: Id) {
        self.texts.remove(&id).expect("a text");
        self.begun.retain(|&other| other != id);
        if self.texts.is_empty() {
            self.accounts = Accounts::default();
        }
    }

    fn some_text(&mut self) -> Option<Id> {
        let at = self.random.below(count(self.texts.len()).max(1)) as usize;
        self.texts.keys().nth(at).copied()
    }

    fn disturb(&mut self) {
        let Some(id) = self.some_text() else { return };
        let unit = self.unit();
        match self.random.below(30) {
            0 if self.random.once_in(4) => {
                assert!(self.scheduler.cancel(id) && !self.scheduler.cancel(id));
                self.remove(id);
                self.seen.cancelled += 1;
            }
            1..=4 => {
                self.scheduler.pause(id);
                self.texts.get_mut(&id).expect("a text").paused = true;
            }
            5..=12 => self.resume(id, unit),
            13 if self.random.once_in(20) => self.lose(),
            _ => {}
        }
    }

    /// The device is lost, and what is in its memory.
    fn lose(&mut self) {
        self.scheduler.lost();
        self.cache.fill(0);
        self.texts.values_mut().for_each(|text| text.cached = 0);
        let unit = self.unit();
        self.work += self.begun.iter().map(|id| self.texts[id].work(unit)).sum::<u64>();
        self.seen.lost += 1;
    }

    fn resume(&mut self, id: Id, unit: u32) {
        self.scheduler.resume(id);
        let text = self.texts.get_mut(&id).expect("a text");
        // It may have to be computed again.
        self.work += if text.paused { text.work(unit) } else { 0 };
        text.paused = false;
    }

    /// A step: the plan is checked, and run on the simulated cache.
    fn step(&mut self) {
        self.now += u64::from(self.random.below(50));
        let decoding: Vec<Id> = self.begun.iter().copied().filter(|&id| self.decodes(id)).collect();
        let texts = &self.texts;
        let kept = |id: Id| texts[&id].kept.len() / PAGE as usize;
        let plan = self.scheduler.next(self.now, &kept);
        self.seen.steps += 1;
        let expired = self.texts.iter().filter(|(_, text)| text.deadline <= Some(self.now));
        let expired: Vec<Id> =
            expired.filter(|(_, text)| text.deadline.is_some()).map(|(&id, _)| id).collect();
        assert_eq!(plan.expired, expired);
        self.seen.expired += expired.len() as u64;
        for id in expired {
            self.remove(id);
        }

        self.preempt(&plan);
        for placed in &plan.placed {
            self.place(placed);
        }
        self.check_pages();
        self.check_order(&plan);
        self.check_progress(&plan, &decoding);
        self.run(&plan);
        for (_, text) in self.texts.iter_mut().filter(|(_, text)| !text.began && !text.paused) {
            text.waited += u64::from(!plan.is_empty());
        }
    }

    fn has_pages(&self, id: Id) -> bool {
        self.scheduler.pages(id).is_some()
    }

    fn decodes(&self, id: Id) -> bool {
        let text = &self.texts[&id];
        self.has_pages(id) && !text.paused && text.cached >= text.prompt
    }

    fn preempt(&mut self, plan: &Plan) {
        for preempted in &plan.preempted {
            self.seen.preempted += 1;
            let text = self.texts.get_mut(&preempted.id).expect("a text");
            assert_eq!(preempted.positions, text.cached);
            let of = |at: u32| preempted.pages[(at / PAGE) as usize] * PAGE + at % PAGE;
            let slots: Vec<u64> = (0..text.cached).map(|at| self.cache[of(at) as usize]).collect();
            assert_eq!(slots, text.slots[..text.cached as usize], "others wrote to its pages");
            // The host keeps some of it.
            let pages = self.random.below(text.cached / PAGE + 1);
            text.kept = slots[..(pages * PAGE) as usize].to_vec();
            text.cached = 0;
        }
    }

    fn place(&mut self, placed: &Placed) {
        let &Placed { id, shared, ref copied, positions } = placed;
        let table = self.scheduler.pages(id).expect("it has pages").to_vec();
        self.seen.hits += u64::from(shared > 0);
        self.seen.copied += copied.len() as u64;
        assert!(copied.start == shared && copied.end >= shared);
        assert_eq!(positions, count(copied.end) * PAGE);
        let text = &self.texts[&id];
        for &page in &table[..shared] {
            assert_eq!(self.written[page as usize], text.namespace, "of another namespace");
        }
        for at in count(copied.start) * PAGE..count(copied.end) * PAGE {
            let page = table[(at / PAGE) as usize];
            self.cache[(page * PAGE + at % PAGE) as usize] = text.kept[at as usize];
            self.written[page as usize] = text.namespace;
        }
        let again = text.began;
        if again {
            let earlier = self.begun.iter().take_while(|&&other| other != id);
            for &earlier in earlier {
                assert!(self.has_pages(earlier) || self.texts[&earlier].paused, "out of order");
            }
        } else {
            assert_eq!(copied.len(), 0);
            self.check_turn(id);
            let unit = self.unit();
            let text = &self.texts[&id];
            let ahead = self.work.wrapping_sub(text.ahead);
            assert!(text.waited <= ahead, "waited {} steps for {ahead}", text.waited);
            self.work += text.work(unit);
            let had = self.accounts.had.get_mut(&text.key).expect("an account");
            self.accounts.level = self.accounts.level.max(*had);
            *had += u64::from(text.prompt - positions);
            self.begun.push(id);
        }
        let text = self.texts.get_mut(&id).expect("a text");
        (text.began, text.cached, text.skipped) = (true, positions, 0);
        let known = count(text.tokens.len());
        assert!(positions < known, "nothing is left to run");
    }

    /// A new text begins: it is its turn.
    fn check_turn(&self, id: Id) {
        for (&other, text) in &self.texts {
            assert!(!text.began || text.paused || self.has_pages(other), "{other:?} was before");
        }
        let ready = |text: &Text| {
            let first = text.copy_of.and_then(|first| self.texts.get(&first));
            !text.paused && first.is_none_or(|first| first.generated() > 0)
        };
        let text = &self.texts[&id];
        assert!(ready(text));
        for (&other, waiting) in self.waiting().filter(|(_, text)| ready(text)) {
            let (own, theirs) = (self.accounts.had[&text.key], self.accounts.had[&waiting.key]);
            assert!((own, id) <= (theirs, other), "{other:?} should have been before {id:?}");
        }
    }

    fn check_pages(&self) {
        let mut used: BTreeSet<u32> = BTreeSet::new();
        for &id in self.texts.keys() {
            let Some(pages) = self.scheduler.pages(id) else { continue };
            used.extend(pages);
            for segment in pages.chunks(self.segment as usize) {
                assert!(
                    segment.iter().all(|page| page / self.segment == segment[0] / self.segment)
                );
            }
        }
        let usage = self.scheduler.usage();
        assert_eq!(usage.used, count(used.len()));
        assert_eq!(usage.used + usage.idle + usage.free, self.pages);
        assert_eq!(self.scheduler.len(), self.texts.len());
        assert_eq!(self.scheduler.waiting(), self.waiting().count());
    }

    /// Who began last loses pages first.
    fn check_order(&self, plan: &Plan) {
        for preempted in plan.preempted.iter().filter(|_| self.segment == self.pages) {
            if self.texts[&preempted.id].paused {
                continue;
            }
            let later = self.begun.iter().skip_while(|&&id| id != preempted.id);
            for &later in later {
                assert!(!self.has_pages(later), "{later:?} began later than {preempted:?}");
            }
        }
    }

    fn check_progress(&mut self, plan: &Plan, decoding: &[Id]) {
        let in_plan: BTreeSet<Id> =
            plan.rows.iter().map(|row| row.id).chain(plan.runs.iter().map(|run| run.id)).collect();
        assert_eq!(in_plan.len(), plan.rows.len() + plan.runs.len(), "a text is there twice");
        assert!(in_plan.iter().all(|id| !self.texts[id].paused));
        if plan.is_empty() {
            for text in self.texts.values() {
                let first = text.copy_of.and_then(|id| self.texts.get(&id));
                let blocked = first.is_some_and(|first| first.paused && first.generated() == 0);
                assert!(text.paused || blocked, "nothing runs, and {text:?} could");
            }
        }
        let Limits { rows, chunk, runs, stall, .. } = self.limits;
        assert!(plan.rows.len() <= rows as usize && plan.runs.len() <= runs as usize);
        let prompts: u32 = plan.runs.iter().map(|run| count(run.positions.len())).sum();
        assert!(prompts <= chunk);
        if !plan.rows.is_empty() {
            let fit = self.pace.map_or(0, |pace| stall / pace.max(1));
            assert!(u64::from(prompts) <= fit.max(PAGE.into()), "{prompts} stall others");
        }
        // Who can have a row has one, or soon.
        let turns = count(decoding.len()).div_ceil(rows);
        for &id in decoding {
            let there = in_plan.contains(&id) || !self.has_pages(id);
            let Some(text) = self.texts.get_mut(&id) else { continue };
            text.skipped = if there { 0 } else { text.skipped + 1 };
            let most = turns.max(count(self.begun.len()).div_ceil(rows));
            assert!(text.skipped <= most, "{id:?} was skipped {} times", text.skipped);
        }
        let first = self.begun.iter().find(|&&id| self.has_pages(id) && !self.texts[&id].paused);
        if let Some(first) = first
            && turns <= 1
        {
            assert!(in_plan.contains(first), "the first text does not go on");
        }
    }

    fn run(&mut self, plan: &Plan) {
        let rows: Vec<_> =
            plan.rows.iter().map(|row| (row.id, row.position..row.position + 1)).collect();
        let runs: Vec<_> = plan.runs.iter().map(|run| (run.id, run.positions.clone())).collect();
        let prompts = u64::from(runs.iter().map(|(_, run)| count(run.len())).sum::<u32>());
        let mut users: BTreeMap<u32, u32> = BTreeMap::new();
        for page in self.texts.keys().filter_map(|&id| self.scheduler.pages(id)).flatten() {
            *users.entry(*page).or_default() += 1;
        }
        for (id, positions) in rows.iter().chain(&runs) {
            let text = self.texts.get_mut(id).expect("a text");
            let table = self.scheduler.pages(*id).expect("it has pages");
            let of = |at: u32| (table[(at / PAGE) as usize] * PAGE + at % PAGE) as usize;
            assert_eq!(positions.start, text.cached);
            for before in [text.cached.saturating_sub(1), self.random.below(text.cached.max(1))] {
                if before < text.cached {
                    assert_eq!(self.cache[of(before)], text.slots[before as usize], "{id:?}");
                }
            }
            for at in positions.clone() {
                let page = table[(at / PAGE) as usize];
                assert_eq!(users[&page], 1, "{id:?} writes to page {page} of others");
                self.cache[of(at)] = text.slots[at as usize];
                self.written[page as usize] = text.namespace;
            }
            text.cached = positions.end;
        }
        for (row, (id, _)) in plan.rows.iter().zip(&rows) {
            let text = &self.texts[id];
            assert!(row.position >= text.prompt);
            assert_eq!(row.forced, row.position + 1 < count(text.tokens.len()));
            self.seen.forced += u64::from(row.forced);
        }
        for run in &plan.runs {
            let text = &self.texts[&run.id];
            assert!(run.positions.end <= text.prompt);
            let last = run.positions.end == text.prompt && text.generated() == 0;
            assert_eq!(run.read, last);
        }
        if self.random.once_in(1000) {
            return self.lose();
        }
        let mut outcome = || if self.random.once_in(60) { Outcome::Over } else { Outcome::GoesOn };
        let of_rows: Vec<Outcome> = rows.iter().map(|_| outcome()).collect();
        let of_runs: Vec<Outcome> = runs.iter().map(|_| outcome()).collect();
        let took = u64::from(self.random.below(300)) + prompts * u64::from(self.random.below(40));
        let since = self.now;
        self.now += took;
        // A reader may leave while the step runs.
        let gone = self.some_text().filter(|_| self.random.once_in(100));
        if let Some(id) = gone {
            assert!(self.scheduler.cancel(id));
        }
        let full = self.scheduler.done(plan, &of_rows, &of_runs, self.now);
        if let Some(pace) = (self.now - since).checked_div(prompts) {
            self.pace = Some(self.pace.map_or(pace, |before| u64::midpoint(before, pace)));
        }
        let read = plan.rows.iter().map(|row| !row.forced).chain(plan.runs.iter().map(|r| r.read));
        let outcomes = of_rows.iter().chain(&of_runs);
        let mut filled = Vec::new();
        for ((read, outcome), (id, _)) in read.zip(outcomes).zip(rows.iter().chain(&runs)) {
            if gone == Some(*id) {
                continue;
            }
            let text = self.texts.get_mut(id).expect("a text");
            let mut over = *outcome == Outcome::Over;
            if read && !over {
                text.push(u32::try_from(text.slots.last().expect("a prompt") % 50).expect("small"));
                *self.accounts.had.get_mut(&text.key).expect("an account") += 8;
                over = text.generated() >= text.most;
                filled.extend(over.then_some(*id));
            }
            if over {
                self.remove(*id);
                self.seen.ended += 1;
                assert!(!self.has_pages(*id));
            }
        }
        if let Some(id) = gone {
            self.remove(id);
            self.seen.cancelled += 1;
        }
        assert_eq!(full, filled);
        self.check_pages();
    }

    /// No more texts come, and nobody is slow: all end.
    fn drain(&mut self) {
        let unit = self.unit();
        for id in self.texts.keys().copied().collect::<Vec<_>>() {
            self.resume(id, unit);
        }
        let work: u64 = self.texts.values().map(|text| text.work(unit)).sum();
        let turns = u64::from(count(self.begun.len()).div_ceil(self.limits.rows).max(1));
        let mut steps = 0;
        while !self.texts.is_empty() {
            self.step();
            steps += 1;
            assert!(steps <= work * turns, "{} texts do not end", self.texts.len());
        }
        let usage = self.scheduler.usage();
        assert_eq!((usage.used, usage.free + usage.idle), (0, self.pages), "a page was lost");
        assert!(self.scheduler.is_empty() && self.scheduler.waiting() == 0);
    }
}

#[test]
fn every_text_ends_in_100_000_random_steps() {
    let mut all = Seen::default();
    for seed in 0..200 {
        let mut world = World::new(seed);
        let busy = 1 + world.random.below(20);
        for _ in 0..450 {
            if world.random.once_in(busy) {
                world.submit();
            }
            world.disturb();
            world.step();
        }
        world.drain();
        let seen = world.seen;
        all.steps += seen.steps;
        all.ended += seen.ended;
        all.cancelled += seen.cancelled;
        all.expired += seen.expired;
        all.refused += seen.refused;
        all.preempted += seen.preempted;
        all.copied += seen.copied;
        all.hits += seen.hits;
        all.forced += seen.forced;
        all.lost += seen.lost;
    }
    eprintln!("{all:?}");
    let Seen { ended, cancelled, expired, refused, preempted, copied, hits, forced, lost, .. } =
        all;
    assert!(all.steps >= 100_000);
    let counts = [ended, cancelled, expired, refused, preempted, copied, hits, forced, lost];
    assert!(counts.iter().all(|&count| count >= 100), "{all:?}");
}

/// Runs a step in which no text ends.
fn go_on(scheduler: &mut Scheduler) -> Plan {
    let plan = scheduler.next(0, &|_| 0);
    let [rows, runs] = [plan.rows.len(), plan.runs.len()].map(|n| vec![Outcome::GoesOn; n]);
    assert_eq!(scheduler.done(&plan, &rows, &runs, 0), []);
    plan
}

fn request(prompt: Vec<u32>, copies: u32, scored: Option<u32>) -> Request {
    let (namespace, deadline) = (scored.map(|_| Namespace::Key(0)), None);
    Request { key: 0, namespace, prompt, max_tokens: 9, copies, deadline, scored }
}

/// Each goes through the model by itself, and the last token of each too.
#[test]
fn prompts_that_are_scored_share_nothing() {
    let limits =
        Limits { context: 256, rows: 4, chunk: 64, runs: 4, queue: 8, stall: 1000, reserve: 8 };
    let mut scheduler = Scheduler::new(limits, PagePool::new(16, 16));
    let ids = scheduler.submit(request(vec![5; 70], 2, Some(32))).expect("there is room");
    let mut there = [0; 2];
    for _ in 0..9 {
        for run in go_on(&mut scheduler).runs {
            let of = ids.iter().position(|&id| id == run.id).expect("one of both");
            assert_eq!(run.positions.start, there[of], "all of it, in order");
            assert!(run.positions.len() <= 32 && (run.positions.end < 70 || run.read));
            assert!(!run.read || run.positions.len() == 1, "{run:?}");
            there[of] = run.positions.end;
        }
    }
    assert_eq!(there, [70; 2]);
}

#[test]
fn copies_of_a_prompt_run_it_once_and_share_its_whole_pages() {
    let limits =
        Limits { context: 256, rows: 4, chunk: 64, runs: 4, queue: 8, stall: 1000, reserve: 8 };
    let mut scheduler = Scheduler::new(limits, PagePool::new(16, 16));
    let prompt = vec![5; 70];
    let text = request(prompt, 3, None);
    let ids = scheduler.submit(text).expect("there is room");
    let lengths = |plan: &Plan| -> Vec<(Id, usize)> {
        plan.runs.iter().map(|run| (run.id, run.positions.len())).collect()
    };
    assert_eq!(lengths(&go_on(&mut scheduler)), [(ids[0], 64)]);
    assert_eq!(lengths(&go_on(&mut scheduler)), [(ids[0], 6)]);
    let plan = go_on(&mut scheduler);
    assert_eq!((plan.rows.len(), lengths(&plan)), (1, vec![(ids[1], 6), (ids[2], 6)]));
    let pages: Vec<_> = ids.iter().map(|&id| scheduler.pages(id).expect("under way")).collect();
    let first = &pages[0][..2];
    assert!(pages.iter().all(|pages| pages.len() == 3 && pages[..2] == *first));
    assert_eq!(scheduler.usage().used, 5, "two pages of all, and one of each");
    assert_eq!(go_on(&mut scheduler).rows.len(), 3);
}
