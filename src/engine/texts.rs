//! Many texts that are generated on one engine: the scheduler's plans are run, and each text is
//! told what came of its tokens.

mod lasting;

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    base::error::{Error, Result},
    engine::{
        Engine, SessionOptions,
        generation::{Generation, Next},
        options::{Event, Generated, Options},
        pages::{Namespace, PagePool},
        schedule::{Id, Limits, Outcome, Placed, Plan, Refusal, Request, Scheduler},
        sequence::{Kind, Sequence},
        step::{Readback, Run, StepOutput},
        store::Store,
    },
    machine::{Machine, step::PAGE},
    model::config::Config,
    text::{sampler::Sampler, tokenizer::Tokenizer},
};

/// How texts share an engine.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Sharing {
    /// Texts that may wait to begin.
    pub queue: usize,
    /// Microseconds that a step should take at the most while texts generate: it has as many tokens
    /// of prompts as fit, and a page of 32 in any case.
    pub stall: u64,
    /// Generated tokens for which there must be room before a text begins.
    pub reserve: u32,
    /// Bytes of pages that are kept on the host for texts that have lost theirs.
    pub host_bytes: u64,
    /// Whether finished pages are copied to the host after each step, as many as the cache has at
    /// the least, so that little is computed again after the loss of a device. With `None` it is
    /// done if weights are brought while the model runs.
    pub keep: Option<bool>,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { queue: 64, stall: 250_000, reserve: 256, host_bytes: 1 << 30, keep: None }
    }
}

impl Sharing {
    /// The same with so many bytes of pages on the host.
    #[must_use]
    pub fn with_host_bytes(self, host_bytes: u64) -> Self {
        Self { host_bytes, ..self }
    }

    /// The same with finished pages copied to the host after each step, or not.
    #[must_use]
    pub fn keeping(self, keep: Option<bool>) -> Self {
        Self { keep, ..self }
    }
}

/// Whose a text is, and until when it is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim {
    /// Keys have equal shares of the work.
    pub key: u64,
    /// The texts with which it shares pages of its prompt; with none if this is absent.
    pub namespace: Option<Namespace>,
    /// When it ends, finished or not, in microseconds.
    pub deadline: Option<u64>,
}

/// Why texts are not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The scheduler has no place for them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// They cannot be generated as was asked for.
    #[error(transparent)]
    Wrong(#[from] Error),
}

/// One text.
struct Text<'t> {
    generation: Generation<'t>,
    sequence: Sequence,
    /// Whether it has left the queue.
    begun: bool,
    /// Its first pages that were copied to the host, or for which there was no room there.
    kept: usize,
}

impl Text<'_> {
    /// Reports what there is to report. Returns whether the text has ended.
    fn tell(&mut self, id: Id, on_event: &mut OnEvent<'_>) -> Result<bool> {
        loop {
            match self.generation.advance()? {
                Next::Step(_) => return Ok(false),
                Next::Done => return Ok(true),
                Next::Event(event) => {
                    if on_event(id, News::Event(event)).is_break() {
                        self.generation.interrupt();
                    }
                }
            }
        }
    }

    /// Has the first tokens in the cache, which are there already.
    fn begin_at(&mut self, positions: usize) {
        self.sequence.rewind(positions);
        // What it has not run itself is there because others have, as a prompt.
        let ids = self.generation.ids();
        self.sequence.extend(&ids[self.sequence.tokens().len()..positions], Kind::Prompt);
        self.generation.reuse(self.sequence.tokens());
    }
}

/// What is told of a text.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// It has left the queue.
    Begun,
    /// It has come so far.
    Event(Event<'a>),
}

/// Is told the news of each text, and may end it by those that are events.
pub type OnEvent<'a> = dyn FnMut(Id, News<'_>) -> ControlFlow<()> + 'a;

/// What went through the model in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Generated tokens, each of another text.
    pub rows: usize,
    /// Tokens of prompts.
    pub prompt: usize,
}

impl Ran {
    fn of(plan: &Plan) -> Self {
        let tokens = plan.runs.iter().map(|run| run.positions.len()).sum();
        Self { rows: plan.rows.len(), prompt: tokens }
    }

    /// Whether nothing did: there are no texts, or all are paused.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// A text that has ended: what was generated, or why it failed.
pub type Ended = (Id, Result<Generated>);

/// Texts on an engine, whose cache is theirs alone.
///
/// No bit of a text depends on the others, on when it came, or on whether it had lost its pages.
pub struct Texts<'t, M: Machine> {
    /// `None` from a loss until another one takes its place.
    engine: Option<Engine<M>>,
    config: Config,
    sizes: SessionOptions,
    scheduler: Scheduler,
    tokenizer: &'t Tokenizer,
    by_id: BTreeMap<Id, Text<'t>>,
    /// Pages of texts that have lost theirs.
    store: Store,
    /// Whether finished pages are copied there after each step.
    keeps: bool,
    ended: Vec<Ended>,
    preemptions: u64,
    losses: lasting::Losses,
}

impl<'t, M: Machine> Texts<'t, M> {
    /// Texts on this engine.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a step of the engine takes only one text, or if a text is in its cache.
    pub fn new(engine: Engine<M>, tokenizer: &'t Tokenizer, sharing: Sharing) -> Result<Self> {
        let limits = Self::limits(engine.options(), sharing)?;
        let pool = Self::pool(&engine)?;
        let keeps = sharing.keep.unwrap_or_else(|| engine.streams());
        let whole = if keeps { engine.cache_bytes() } else { 0 };
        Ok(Self {
            config: engine.config().clone(),
            sizes: engine.options(),
            engine: Some(engine),
            scheduler: Scheduler::new(limits, pool),
            tokenizer,
            by_id: BTreeMap::new(),
            store: Store::new(sharing.host_bytes.max(whole)),
            keeps,
            ended: Vec::new(),
            preemptions: 0,
            losses: lasting::Losses::default(),
        })
    }

    /// All pages of the engine's cache.
    fn pool(engine: &Engine<M>) -> Result<PagePool> {
        let (free, count) = (engine.pool.free(), engine.pool.count());
        if free < count {
            return Err(Error::Usage(format!(
                "{free} of {count} pages of the cache are free, expected all: release the texts \
                 in it"
            )));
        }
        let number = |pages: usize| u32::try_from(pages).expect("positions are a u32");
        Ok(PagePool::new(number(count), number(engine.pool.segment())))
    }

    /// What fits a step of the engine.
    fn limits(options: SessionOptions, sharing: Sharing) -> Result<Limits> {
        if options.rows < 2 {
            return Err(Error::Usage(
                "a step takes one text, expected two or more: give the engine more rows".into(),
            ));
        }
        // A step has places for a fourth as many prompts as generated tokens.
        let runs = (options.rows / 5).max(1);
        Ok(Limits {
            context: options.context,
            rows: options.rows - runs,
            chunk: options.prefill,
            runs,
            queue: sharing.queue,
            stall: sharing.stall,
            reserve: sharing.reserve,
        })
    }

    /// Puts texts after this prompt into the queue, one for each sampler; all or none. The prompt
    /// goes through the model once.
    ///
    /// # Errors
    ///
    /// [`NotTaken::Refused`] if there is no place for them, [`NotTaken::Wrong`] with the errors of
    /// [`Generation::new`].
    pub fn submit(
        &mut self,
        prompt: &[u32],
        samplers: Vec<Sampler>,
        options: &Options,
        claim: Claim,
    ) -> Result<Vec<Id>, NotTaken> {
        let Self { config, sizes, .. } = self;
        if let Some(id) = prompt.iter().find(|&&id| id >= config.vocab_size) {
            let what = format!("token id {id} is not below vocab_size {}", config.vocab_size);
            return Err(Error::Usage(what).into());
        }
        let texts = samplers
            .into_iter()
            .map(|sampler| {
                let options = options.clone();
                let generation =
                    Generation::new(config, *sizes, self.tokenizer, sampler, prompt, options)?;
                Ok(Text { generation, sequence: Sequence::new(), begun: false, kept: 0 })
            })
            .collect::<Result<Vec<_>>>()?;
        let Claim { key, namespace, deadline } = claim;
        let all = sizes.chunk(Readback::AllLogits);
        let scored = options.scores().then(|| u32::try_from(all).unwrap_or(u32::MAX));
        let ids = self.scheduler.submit(Request {
            key,
            namespace,
            prompt: prompt.to_vec(),
            max_tokens: u32::try_from(options.max_tokens).unwrap_or(u32::MAX),
            copies: u32::try_from(texts.len()).unwrap_or(u32::MAX),
            deadline,
            scored,
        })?;
        self.by_id.extend(ids.iter().copied().zip(texts));
        Ok(ids)
    }

    /// The scheduler: how many texts and pages there are.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// How often texts have lost their pages to others.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Has a text wait, and keep its pages, until it is to go on.
    pub fn pause(&mut self, id: Id, paused: bool) {
        if paused {
            self.scheduler.pause(id);
        } else {
            self.scheduler.resume(id);
        }
    }

    /// Ends a text at once. Returns what was generated, if there is such a text.
    pub fn cancel(&mut self, id: Id) -> Option<Generated> {
        self.scheduler.cancel(id);
        self.by_id.remove(&id).map(|text| text.generation.into_generated())
    }

    /// The texts that have ended since this was last asked, those cancelled excepted.
    pub fn ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Puts another engine with the same model and sizes in the place of one whose device was lost.
    ///
    /// # Errors
    ///
    /// Those of [`Texts::new`].
    pub fn replace(&mut self, engine: Engine<M>) -> Result<()> {
        Self::pool(&engine)?;
        self.engine = Some(engine);
        self.lost();
        Ok(())
    }

    /// No text has pages any more.
    fn lost(&mut self) {
        self.scheduler.lost();
        for text in self.by_id.values_mut() {
            text.sequence.release();
        }
    }

    /// Runs one step. `clock` tells the time in microseconds.
    ///
    /// A text that fails ends, and the others go on.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`]. No text has changed then, and the step can be tried again. After
    /// [`Error::Lost`] that takes another engine: [`Texts::replace`], or [`Texts::step_on`], which
    /// does both.
    pub async fn step(
        &mut self,
        clock: &mut dyn FnMut() -> u64,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Ran> {
        if let Err(error) = self.keep_finished().await {
            self.lost();
            return Err(error);
        }
        let (texts, store) = (&self.by_id, &self.store);
        let kept = |id: Id| texts.get(&id).map_or(0, |text| store.count(&text.sequence));
        let plan = self.scheduler.next(clock(), &kept);
        for &id in &plan.expired {
            self.end(id, Ok(()));
        }
        for placed in &plan.placed {
            let Some(text) = self.by_id.get_mut(&placed.id).filter(|text| !text.begun) else {
                continue;
            };
            text.begun = true;
            let _ = on_event(placed.id, News::Begun);
        }
        let ran = self.run(&plan).await;
        let outputs = match ran {
            Ok(outputs) => outputs,
            Err(error) => {
                // Pages that were to be copied may not be there.
                self.lost();
                return Err(error);
            }
        };
        let mut over = BTreeMap::new();
        for (id, output) in outputs {
            match self.accept(&plan, id, output, on_event) {
                Ok(false) => {}
                ended => _ = over.insert(id, ended.map(|_| ())),
            }
        }
        let outcome = |id| if over.contains_key(&id) { Outcome::Over } else { Outcome::GoesOn };
        let rows: Vec<Outcome> = plan.rows.iter().map(|row| outcome(row.id)).collect();
        let runs: Vec<Outcome> = plan.runs.iter().map(|run| outcome(run.id)).collect();
        let full = self.scheduler.done(&plan, &rows, &runs, clock());
        for (id, result) in over.into_iter().chain(full.into_iter().map(|id| (id, Ok(())))) {
            self.end(id, result);
        }
        Ok(Ran::of(&plan))
    }

    /// Copies pages to the host that the last step has finished, if that is wanted.
    async fn keep_finished(&mut self) -> Result<()> {
        let Some(engine) = self.engine.as_mut().filter(|_| self.keeps) else { return Ok(()) };
        for text in self.by_id.values_mut() {
            let finished = text.sequence.tokens().len() / PAGE as usize;
            if finished > text.kept {
                engine.keep(&text.sequence, &mut self.store).await?;
                text.kept = finished;
            }
        }
        Ok(())
    }

    /// Takes a text out, which has ended.
    fn end(&mut self, id: Id, result: Result<()>) {
        if let Some(text) = self.by_id.remove(&id) {
            self.ended.push((id, result.map(|()| text.generation.into_generated())));
        }
    }

    /// Moves pages as the plan says, and runs its tokens. Returns the result of each text.
    async fn run(&mut self, plan: &Plan) -> Result<Vec<(Id, Result<StepOutput>)>> {
        let lost = || Error::Lost("the engine was lost, and no other has its place".into());
        let engine = self.engine.as_mut().ok_or_else(lost)?;
        for preempted in &plan.preempted {
            self.preemptions += 1;
            let Some(text) = self.by_id.get_mut(&preempted.id) else { continue };
            engine.keep(&text.sequence, &mut self.store).await?;
            text.sequence.release();
        }
        for Placed { id, copied, positions, .. } in &plan.placed {
            let Some(text) = self.by_id.get_mut(id) else { continue };
            let pages = self.scheduler.pages(*id).unwrap_or_default();
            if !copied.is_empty() {
                // The store knows them by all tokens that the text had.
                let to = &pages[copied.clone()];
                engine.put_back(to, &text.sequence, &mut self.store, copied.start).await?;
            }
            engine.lend(&mut text.sequence, pages)?;
            text.begin_at(*positions as usize);
        }
        let rows = plan.rows.iter().map(|row| {
            let at = row.position as usize;
            (row.id, (at..at + 1, !row.forced))
        });
        let runs = plan.runs.iter().map(|run| {
            let at = run.positions.start as usize..run.positions.end as usize;
            (run.id, (at, run.read))
        });
        let mut wanted: BTreeMap<Id, _> = rows.chain(runs).collect();
        let (mut ids, mut runs) = (Vec::new(), Vec::new());
        for (&id, Text { generation, sequence, .. }) in &mut self.by_id {
            let Some((positions, read)) = wanted.remove(&id) else { continue };
            engine.lend(sequence, self.scheduler.pages(id).unwrap_or_default())?;
            ids.push(id);
            runs.push(Run { sequence, input: generation.input_at(positions, read) });
        }
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let outputs = engine.step(&mut runs).await?;
        Ok(ids.into_iter().zip(outputs).collect())
    }

    /// Gives a text the result of its tokens. Returns whether it has ended.
    fn accept(
        &mut self,
        plan: &Plan,
        id: Id,
        output: Result<StepOutput>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<bool> {
        let Some(text) = self.by_id.get_mut(&id) else { return Ok(true) };
        let output = output?;
        if let Some(run) = plan.runs.iter().find(|run| run.id == id) {
            text.generation.accept_prompt(run.positions.end as usize, output)?;
        } else if plan.rows.iter().any(|row| row.id == id && !row.forced) {
            text.generation.accept(output)?;
        }
        text.tell(id, on_event)
    }
}
