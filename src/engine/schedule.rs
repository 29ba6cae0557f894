//! Which texts go through the model in the next step: admission, fairness, chunks of prompts, and
//! what happens when pages run out.
//!
//! It knows prompts, counts and pages, and neither a device nor a clock: time comes in as a number.
//! A driver asks for a [`Plan`], runs it, and tells what became of each row.

mod plan;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

pub use self::plan::{
    Id, Limits, Outcome, Phase, Placed, Plan, Preempted, Progress, Refusal, Request, Row, Run,
};
use crate::{
    engine::pages::{Held, Namespace, PagePool, Usage, Want},
    machine::step::PAGE,
};

/// What a generated token counts in the account of a key, where one of a prompt counts 1: prompts
/// go through the model several times as fast.
const GENERATED: u64 = 8;

/// Accounts of keys that have no text, at most.
const ACCOUNTS: usize = 1024;

#[derive(Debug)]
struct Text {
    key: u64,
    namespace: Option<Namespace>,
    prompt: Arc<[u32]>,
    /// Tokens that it may generate.
    most: u32,
    deadline: Option<u64>,
    /// Most tokens of the prompt in a step, if all its logits are read.
    scored: Option<u32>,
    /// The text whose prompt it has too. It begins after that prompt has gone through the model.
    copy_of: Option<Id>,
    paused: bool,
    /// Tokens that it has generated. All but the last have gone through the model.
    generated: u32,
    /// Positions whose keys and values are in its pages.
    cached: u32,
    /// While it is under way.
    held: Option<Held>,
    /// The step in which it last had a row.
    served: u64,
}

impl Text {
    fn length(&self) -> u32 {
        tokens(self.prompt.len())
    }

    /// Positions that it may have.
    fn positions(&self) -> u32 {
        self.length() + self.most.saturating_sub(1)
    }

    /// Positions of tokens that there are.
    fn known(&self) -> u32 {
        self.length() + self.generated
    }

    /// Whether its next token is one that it has generated.
    fn decodes(&self) -> bool {
        self.held.is_some() && !self.paused && self.cached >= self.length()
    }
}

/// What a key has had.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Tokens, weighted.
    had: u64,
    /// Texts that wait or are under way.
    texts: usize,
}

/// Decides what goes through the model in each step.
///
/// **Admission.** Texts wait in a bounded queue, and begin when there are rows and pages for them.
/// The next one is of the key that has had the least, by tokens; of one key the first comes first.
/// A key that had nothing to do starts level with the others. A text that has no room yet is not
/// overtaken by smaller ones.
///
/// **Steps.** All texts under way have a token in each step. Prompts fill what time is left, the
/// first text first; as long as others generate, a step has as many tokens of prompts as fit the
/// longest stall at the measured pace.
///
/// **Pages.** When they run out, the text that began last loses its pages, and nobody begins before
/// it goes on. The first text never waits for others. A paused text keeps its pages, unless nobody
/// else could go on.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pool: PagePool,
    /// All texts, in the order in which they were asked for.
    texts: BTreeMap<Id, Text>,
    /// Those that have not begun.
    waiting: Vec<Id>,
    /// Those that have begun, in that order, with and without pages.
    begun: Vec<Id>,
    accounts: HashMap<u64, Account>,
    /// What the key had had whose text began last.
    level: u64,
    next: u64,
    steps: u64,
    /// Microseconds that a token of a prompt takes, averaged over steps.
    pace: Option<u64>,
    /// When the step began that is under way.
    since: u64,
}

impl Scheduler {
    /// A scheduler for the pages of this pool, which is empty.
    pub fn new(limits: Limits, pool: PagePool) -> Self {
        let limits = Limits {
            rows: limits.rows.max(1),
            chunk: limits.chunk.max(1),
            runs: limits.runs.max(1),
            ..limits
        };
        Self {
            limits,
            pool,
            texts: BTreeMap::new(),
            waiting: Vec::new(),
            begun: Vec::new(),
            accounts: HashMap::new(),
            level: 0,
            next: 0,
            steps: 0,
            pace: None,
            since: 0,
        }
    }

    /// Puts texts into the queue: all of a request, or none.
    ///
    /// # Errors
    ///
    /// A [`Refusal`], which says why.
    pub fn submit(&mut self, request: Request) -> Result<Vec<Id>, Refusal> {
        let Request { key, namespace, prompt, max_tokens, copies, deadline, scored } = request;
        let Limits { context, queue: most, .. } = self.limits;
        if prompt.is_empty() || copies == 0 {
            return Err(Refusal::Empty);
        }
        let length = u32::try_from(prompt.len()).ok().filter(|&length| length <= context);
        let Some(length) = length else {
            return Err(Refusal::Context { prompt: prompt.len(), context });
        };
        // The last token needs no position.
        let max_tokens = max_tokens.min((context - length).saturating_add(1));
        let positions = length + max_tokens.saturating_sub(1);
        if !self.pool.can_hold(positions) {
            return Err(Refusal::Cache { positions });
        }
        let waiting = self.waiting.len();
        if waiting.saturating_add(copies as usize) > most {
            return Err(Refusal::Full { waiting, wanted: copies, most });
        }
        let first = Id(self.next);
        let namespace = namespace.or((copies > 1).then_some(Namespace::Request(first.0)));
        // What is shared would not go through the model.
        let namespace = namespace.filter(|_| scored.is_none());
        let prompt: Arc<[u32]> = prompt.into();
        let ids: Vec<Id> = (self.next..).map(Id).take(copies as usize).collect();
        self.next += u64::from(copies);
        for &id in &ids {
            let text = Text {
                key,
                namespace,
                prompt: prompt.clone(),
                most: max_tokens,
                deadline,
                scored,
                copy_of: (id != first && scored.is_none()).then_some(first),
                paused: false,
                generated: 0,
                cached: 0,
                held: None,
                served: 0,
            };
            self.texts.insert(id, text);
            self.waiting.push(id);
        }
        let account = self.accounts.entry(key).or_default();
        if account.texts == 0 {
            account.had = account.had.max(self.level);
        }
        account.texts += ids.len();
        Ok(ids)
    }

    /// Ends a text, whatever it does. Its pages are free at once, for the next step. Returns
    /// whether there was one.
    pub fn cancel(&mut self, id: Id) -> bool {
        let Some(text) = self.texts.remove(&id) else { return false };
        if let Some(held) = text.held {
            self.pool.release(held);
        }
        self.waiting.retain(|&other| other != id);
        self.begun.retain(|&other| other != id);
        if let Some(account) = self.accounts.get_mut(&text.key) {
            account.texts -= 1;
        }
        self.forget_accounts();
        true
    }

    /// Has a text wait, which keeps its pages: its reader is slow.
    pub fn pause(&mut self, id: Id) {
        if let Some(text) = self.texts.get_mut(&id) {
            text.paused = true;
        }
    }

    /// Has a paused text go on.
    pub fn resume(&mut self, id: Id) {
        if let Some(text) = self.texts.get_mut(&id) {
            text.paused = false;
        }
    }

    /// Takes the pages from all texts, as their content is lost with a device. They go on in the
    /// order in which they began. What the last plan asked for is not to be reported.
    pub fn lost(&mut self) {
        for text in self.texts.values_mut() {
            if let Some(held) = text.held.take() {
                self.pool.release(held);
            }
            text.cached = 0;
        }
        self.pool.forget();
    }

    /// The pages of a text that is under way, in the order of its positions.
    pub fn pages(&self, id: Id) -> Option<&[u32]> {
        self.texts.get(&id)?.held.as_ref().map(Held::pages)
    }

    /// How many texts have not begun.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many texts there are: those that wait, are under way, or have lost their pages.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// How far all texts have come, in the order in which they were asked for.
    pub fn progress(&self) -> impl Iterator<Item = Progress> {
        self.texts.iter().map(|(&id, text)| {
            let phase = match &text.held {
                None if self.waiting.contains(&id) => Phase::Waiting,
                None => Phase::Preempted,
                Some(_) if text.paused => Phase::Paused,
                Some(_) if text.cached < text.length() => Phase::Prompt,
                Some(_) => Phase::Generating,
            };
            let &Text { cached, generated, most, .. } = text;
            let pages = text.held.as_ref().map_or(0, |held| held.pages().len());
            Progress { id, phase, prompt: text.length(), cached, generated, most, pages }
        })
    }

    /// How many pages are what.
    pub fn usage(&self) -> Usage {
        self.pool.usage()
    }

    /// The next step, at the time `now`, in microseconds. `kept` says how many pages of the
    /// beginning of a text that was preempted are on the host.
    ///
    /// The step is to be reported to [`Scheduler::done`] before the next one is asked for, unless
    /// it is empty.
    pub fn next(&mut self, now: u64, kept: &dyn Fn(Id) -> usize) -> Plan {
        self.steps += 1;
        self.since = now;
        let mut plan = Plan::default();
        let late = |text: &Text| text.deadline.is_some_and(|deadline| deadline <= now);
        plan.expired =
            self.texts.iter().filter(|(_, text)| late(text)).map(|(&id, _)| id).collect();
        for &id in &plan.expired {
            self.cancel(id);
        }
        for id in self.decoding() {
            if let Some(row) = self.row(id, &mut plan.preempted) {
                plan.rows.push(row);
            }
        }
        // Who has lost pages just now would lose them again.
        if plan.preempted.is_empty() {
            self.place(&mut plan, kept);
        }
        self.fill(&mut plan);
        plan
    }

    /// Reports a step that has run, with what became of its rows and runs, in their order. Returns
    /// the texts that have all tokens that they may have, which end with it.
    ///
    /// # Panics
    ///
    /// If there are not as many outcomes as rows and runs.
    pub fn done(&mut self, plan: &Plan, rows: &[Outcome], runs: &[Outcome], now: u64) -> Vec<Id> {
        assert_eq!(
            (plan.rows.len(), plan.runs.len()),
            (rows.len(), runs.len()),
            "one outcome for each"
        );
        let prompts: u32 =
            plan.runs.iter().map(|run| run.positions.end - run.positions.start).sum();
        if prompts > 0 {
            let pace = now.saturating_sub(self.since) / u64::from(prompts);
            self.pace = Some(self.pace.map_or(pace, |before| u64::midpoint(before, pace)));
        }
        let rows = plan.rows.iter().zip(rows).map(|(row, &outcome)| {
            let positions = row.position..row.position + 1;
            (row.id, positions, !row.forced, outcome)
        });
        let runs = plan.runs.iter().zip(runs);
        let runs = runs.map(|(run, &outcome)| (run.id, run.positions.clone(), run.read, outcome));
        let mut full = Vec::new();
        for (id, positions, read, outcome) in rows.chain(runs) {
            // It may have been cancelled meanwhile.
            let Some(text) = self.texts.get_mut(&id) else { continue };
            let Some(held) = text.held.as_mut() else { continue };
            text.cached = positions.end;
            self.pool.share(held, &text.prompt[..text.prompt.len().min(text.cached as usize)]);
            let mut over = outcome == Outcome::Over;
            if read && !over {
                text.generated += 1;
                if let Some(account) = self.accounts.get_mut(&text.key) {
                    account.had += GENERATED;
                }
                if text.generated >= text.most {
                    full.push(id);
                    over = true;
                }
            }
            if over {
                self.cancel(id);
            }
        }
        full
    }

    fn text(&self, id: Id) -> &Text {
        &self.texts[&id]
    }

    fn text_mut(&mut self, id: Id) -> &mut Text {
        self.texts.get_mut(&id).expect("lists have only texts that there are")
    }

    /// The texts whose next token is a generated one, as many as a step takes: those that have
    /// waited longest, in the order in which they began.
    fn decoding(&self) -> Vec<Id> {
        let decodes = |&id: &Id| self.text(id).decodes();
        let mut ids: Vec<(usize, Id)> =
            self.begun.iter().copied().filter(decodes).enumerate().collect();
        let rows = self.limits.rows as usize;
        if ids.len() > rows {
            ids.sort_by_key(|&(order, id)| (self.text(id).served, order));
            ids.truncate(rows);
            ids.sort_unstable();
        }
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// The row of a text, which gets a page if it needs one, from others if there is none. Nothing
    /// if it has lost its pages itself.
    fn row(&mut self, id: Id, preempted: &mut Vec<Preempted>) -> Option<Row> {
        let position = self.text(id).cached;
        loop {
            let text = self.texts.get_mut(&id)?;
            let held = text.held.as_mut()?;
            if self.pool.grow(held, position + 1) {
                break;
            }
            let victim = self.victim(id).unwrap_or(id);
            preempted.push(self.preempt(victim));
        }
        let steps = self.steps;
        let text = self.text_mut(id);
        text.served = steps;
        Some(Row { id, position, forced: position + 1 < text.known() })
    }

    /// The text that loses its pages for this one: the one that began last, of those after it;
    /// otherwise one that is paused.
    fn victim(&self, id: Id) -> Option<Id> {
        let own = self.text(id).held.as_ref()?;
        let at = self.begun.iter().position(|&other| other == id)?;
        let (before, after) = self.begun.split_at(at);
        let competes = |&&other: &&Id| {
            let held = self.text(other).held.as_ref();
            other != id && held.is_some_and(|held| self.pool.competes(own, held))
        };
        let paused = |&&other: &&Id| self.text(other).paused;
        let victim = after.iter().rev().find(competes);
        victim.or_else(|| before.iter().rev().filter(paused).find(competes)).copied()
    }

    fn preempt(&mut self, id: Id) -> Preempted {
        let text = self.texts.get_mut(&id).expect("only texts with pages lose them");
        let held = text.held.take().expect("only texts with pages lose them");
        let positions = std::mem::take(&mut text.cached);
        let pages = held.pages().to_vec();
        self.pool.release(held);
        Preempted { id, pages, positions }
    }

    /// Gives pages to texts that have none: first to those that had some, in the order in which
    /// they began; then, if all of these have, to those that wait.
    fn place(&mut self, plan: &mut Plan, kept: &dyn Fn(Id) -> usize) {
        let mut active = self.begun.iter().filter(|&&id| self.is_active(id)).count();
        while active < self.limits.rows as usize {
            let again = |&&id: &&Id| self.text(id).held.is_none() && !self.text(id).paused;
            let again = self.begun.iter().find(again).copied();
            let Some(id) = again.or_else(|| self.first_waiting()) else { break };
            let kept = if again.is_some() { kept(id) } else { 0 };
            let Some(placed) = self.hold(id, kept) else {
                // Paused texts may have all pages.
                let last = |&&id: &&Id| self.text(id).held.is_some();
                let Some(&last) = self.begun.iter().rev().find(last).filter(|_| active == 0) else {
                    break;
                };
                plan.preempted.push(self.preempt(last));
                continue;
            };
            active += 1;
            let text = &self.texts[&id];
            if again.is_none() {
                let account = self.accounts.entry(text.key).or_default();
                self.level = self.level.max(account.had);
                account.had += u64::from(text.length() - placed.positions);
                self.waiting.retain(|&other| other != id);
                self.begun.push(id);
            }
            if text.decodes() && plan.rows.len() < self.limits.rows as usize {
                plan.rows.extend(self.row(id, &mut plan.preempted));
            }
            plan.placed.push(placed);
        }
    }

    fn is_active(&self, id: Id) -> bool {
        let text = self.text(id);
        text.held.is_some() && !text.paused
    }

    /// The next text to begin: the first of the key that has had the least.
    fn first_waiting(&self) -> Option<Id> {
        let had = |text: &Text| self.accounts.get(&text.key).map_or(0, |account| account.had);
        let ready = |&&id: &&Id| {
            let text = self.text(id);
            let first = text.copy_of.and_then(|id| self.texts.get(&id));
            !text.paused && first.is_none_or(|first| first.generated > 0)
        };
        self.waiting.iter().filter(ready).min_by_key(|&&id| had(self.text(id))).copied()
    }

    /// Gives a text pages, if there is room for its tokens and some more.
    fn hold(&mut self, id: Id, kept: usize) -> Option<Placed> {
        let text = self.texts.get_mut(&id)?;
        let (length, most) = (text.length(), text.positions());
        // The last token goes through the model, for its logits.
        let there = text.known() - 1;
        let now = text.known().min(most);
        let mut held = self.pool.hold(Want {
            namespace: text.namespace,
            prompt: &text.prompt[..there.min(length) as usize],
            now,
            room: now.saturating_add(self.limits.reserve).min(most),
            most,
        })?;
        let shared = held.shared();
        let copied = shared..kept.min((there / PAGE) as usize).max(shared);
        text.cached = tokens(copied.end) * PAGE;
        self.pool.share(&mut held, &text.prompt[..text.prompt.len().min(text.cached as usize)]);
        text.held = Some(held);
        Some(Placed { id, shared, copied, positions: text.cached })
    }

    /// Adds tokens of prompts to a step.
    fn fill(&mut self, plan: &mut Plan) {
        let mut left = self.allowance(!plan.rows.is_empty());
        // Whole pages, so that those after them can be shared.
        let unit = PAGE.min(self.limits.chunk);
        for &id in &self.begun {
            let text = self.text(id);
            let from = text.cached;
            if !self.is_active(id) || from >= text.length() {
                continue;
            }
            if left == 0 || plan.runs.len() >= self.limits.runs as usize {
                break;
            }
            // The last token is read as it is in other texts.
            let apart = text.scored.is_some() && from + 1 < text.length();
            let end = text.length() - u32::from(apart);
            let most = text.scored.map_or(left, |most| most.min(left));
            let mut to = end.min(from.saturating_add(most));
            if to < end {
                to = from + (to - from) / unit * unit;
            }
            if to == from {
                break;
            }
            left -= to - from;
            let read = to == text.length() && text.generated == 0;
            plan.runs.push(Run { id, positions: from..to, read });
        }
    }

    /// Tokens of prompts that a step may have.
    fn allowance(&self, others_generate: bool) -> u32 {
        let Limits { chunk, stall, .. } = self.limits;
        if !others_generate {
            return chunk;
        }
        let fit = self.pace.map_or(0, |pace| stall / pace.max(1));
        let fit = u32::try_from(fit).unwrap_or(u32::MAX);
        (fit / PAGE * PAGE).max(PAGE).min(chunk)
    }

    /// Drops accounts that say no more than that a key starts level with the others.
    fn forget_accounts(&mut self) {
        if self.texts.is_empty() {
            self.accounts.clear();
            self.level = 0;
            return;
        }
        let level = self.level;
        self.accounts.retain(|_, account| account.texts > 0 || account.had > level);
        let idle = self.accounts.iter().filter(|(_, account)| account.texts == 0);
        if idle.clone().count() > ACCOUNTS {
            let least = idle.min_by_key(|(key, account)| (account.had, **key)).map(|(key, _)| *key);
            if let Some(key) = least {
                self.accounts.remove(&key);
            }
        }
    }
}

fn tokens(count: usize) -> u32 {
    u32::try_from(count).expect("a context is a u32")
}
