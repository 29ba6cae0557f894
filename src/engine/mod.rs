//! Prompt in, tokens out: the engine, the texts in its cache, and the loop that makes text.

mod face;
pub mod generation;
pub mod options;
mod plans;
pub mod resume;
pub mod segments;
pub mod sequence;
pub mod session;
pub mod step;

use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{
        plans::{Key, Plans, Wanted},
        sequence::{Kind, Sequence, Slot},
        step::{Answer, Input, Readback, Row, Run, StepOutput, stage},
    },
    kernels::{CACHES, elements_of_chunk},
    machine::Machine,
    model::{LayerCache, Model, alloc_cache, config::Config, rope, weights::Weights},
};

/// Sizes that an engine is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Positions of the key-value cache.
    pub context: u32,
    /// Most tokens of a prompt that go through the model at once.
    pub prefill: u32,
    /// Element type of the key-value cache, one of [`CACHES`].
    pub cache: DType,
}

impl SessionOptions {
    /// Contexts longer than this are made only when asked for: the cache costs memory.
    const DEFAULT_CONTEXT: u32 = 4096;
    /// Tokens at the most in a pass that gives logits of every token: they are large.
    const ALL_LOGITS_ROWS: u32 = 32;

    /// These sizes, which are checked when an engine is made.
    pub const fn new(context: u32, prefill: u32, cache: DType) -> Self {
        Self { context, prefill, cache }
    }

    /// The model's own context up to 4096, prompts by 256 tokens, and a cache of `f32`.
    pub fn of(config: &Config) -> Self {
        Self {
            context: config.max_position_embeddings.min(Self::DEFAULT_CONTEXT),
            prefill: 256,
            cache: DType::F32,
        }
    }

    /// Most tokens of a prompt in a step of which this is read.
    pub fn chunk(&self, read: Readback) -> usize {
        let rows = match read {
            Readback::AllLogits => self.prefill.min(Self::ALL_LOGITS_ROWS),
            _ => self.prefill,
        };
        rows as usize
    }

    /// Whether a model can run like this.
    fn check(&self, c: &Config) -> Result<()> {
        let most = c.max_position_embeddings;
        if self.context == 0 || self.context > most {
            return Err(Error::Usage(format!(
                "the context is {}, expected 1 to max_position_embeddings ({most})",
                self.context
            )));
        }
        if self.prefill == 0 || self.prefill > 4096 {
            return Err(Error::Usage(format!(
                "the prefill chunk is {}, expected 1 to 4096",
                self.prefill
            )));
        }
        let dtype = self.cache;
        if !CACHES.contains(&dtype) {
            return Err(Error::Usage(format!(
                "the cache's element type is {dtype}, expected one of {CACHES:?}"
            )));
        }
        let width = c.num_key_value_heads * c.head_dim;
        let chunk = elements_of_chunk(dtype);
        if !width.is_multiple_of(dtype.block()) || !c.head_dim.is_multiple_of(chunk) {
            return Err(Error::Usage(format!(
                "a cache of {dtype} needs a head_dim that is a multiple of {chunk} and \
                 num_key_value_heads * head_dim a multiple of {}: they are {} and {width}",
                dtype.block(),
                c.head_dim
            )));
        }
        Ok(())
    }
}

/// A model on a machine, with its buffers, recorded plans and a cache. It has no text: what the
/// cache holds is said by the [`Sequence`]s that have a place in it.
#[derive(Debug)]
pub struct Engine<M: Machine> {
    machine: M,
    model: Model,
    options: SessionOptions,
    angles: Vec<rope::Angles>,
    caches: Vec<LayerCache>,
    /// Places for sequences in the caches.
    slots: Vec<Slot>,
    plans: Plans<M::Plan>,
}

impl<M: Machine> Engine<M> {
    /// Loads a model onto `machine`. `progress` hears how many bytes of the weights are done; an
    /// error from it stops the loading.
    pub async fn load(
        mut machine: M,
        config: &Config,
        weights: &impl Weights,
        options: SessionOptions,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let model = Model::alloc(&mut machine, config, weights)?;
        let mut engine = Self::with_model(machine, model, options)?;
        engine.model.fill(&mut engine.machine, weights, progress).await?;
        Ok(engine)
    }

    /// An engine whose weights are still to be filled in: what [`Machine`]s that only count need.
    pub fn with_model(mut machine: M, model: Model, options: SessionOptions) -> Result<Self> {
        let c = &model.config;
        options.check(c)?;
        let caches = (0..c.num_hidden_layers())
            .map(|_| alloc_cache(&mut machine, c, options.context, options.cache))
            .collect::<Result<Vec<_>>>()?;
        let plans = Plans::alloc(&mut machine, c, options, &caches[0])?;
        Ok(Self {
            angles: rope::Angles::of(c),
            machine,
            model,
            options,
            caches,
            // The caches are one run of positions, so they hold one text.
            slots: vec![Slot::default()],
            plans,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to measure with.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Gives the machine back, with its pipelines, for another model.
    pub fn into_machine(self) -> M {
        self.machine
    }

    /// Changes the machine in a way that recorded plans depend on: they are recorded anew.
    pub fn change_machine(&mut self, change: impl FnOnce(&mut M)) {
        change(&mut self.machine);
        self.plans.forget();
    }

    /// What the engine was made for.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// Whether `ids` can follow the tokens of `sequence`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there are none, or one is no token of the model;
    /// [`Error::ContextLength`] if the context is too short for them.
    pub fn check(&self, sequence: &Sequence, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Err(Error::Usage("there are no tokens to run: the prompt is empty".into()));
        }
        let vocab = self.model.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
            return Err(Error::Usage(format!("token id {id} is not below vocab_size {vocab}")));
        }
        let context = self.options.context as usize;
        let before = sequence.tokens().len();
        if before + ids.len() > context {
            return Err(Error::ContextLength { prompt: before, wanted: ids.len(), context });
        }
        Ok(())
    }

    /// Sends tokens of as many texts through the model as there is room for in the cache, which
    /// is one. Gives what came back of each, in order. A run that fails leaves its sequence as it
    /// was.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::check`], [`Error::Usage`] if there are more runs or tokens than a step
    /// takes or if a sequence has no place in the cache, [`Error::NonFinite`] if a logit that was
    /// read is not a finite number, and what the machine gives.
    pub async fn step(&mut self, runs: &mut [Run<'_>]) -> Result<Vec<StepOutput>> {
        if runs.len() > self.slots.len() {
            return Err(Error::Usage(format!(
                "{} texts in a step, where the cache holds {}",
                runs.len(),
                self.slots.len()
            )));
        }
        let mut outputs = Vec::with_capacity(runs.len());
        for run in runs {
            outputs.push(self.run(run.sequence, run.input).await?);
        }
        Ok(outputs)
    }

    /// Sends the tokens of a sequence through the model again, the way they went through before:
    /// after its engine was lost, or its place in the cache was taken. If that fails, the sequence
    /// has its tokens, but no place.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`].
    pub async fn restore(&mut self, sequence: &mut Sequence) -> Result<()> {
        sequence.release();
        let mut again = Sequence::new();
        for (kind, mut rest) in sequence.runs() {
            while let Some(first) = rest.first() {
                let input = match kind {
                    Kind::Prompt => Input::next_chunk(rest, Readback::Nothing, self.options),
                    Kind::Generated => Input::generated(first, Readback::Nothing),
                };
                rest = &rest[input.ids.len()..];
                self.step(&mut [Run { sequence: &mut again, input }]).await?;
            }
        }
        *sequence = again;
        Ok(())
    }

    /// Compiles what a prompt of `tokens` after `before` others and the tokens after it need, all
    /// at once, and records their plans, so that the first token does not wait for compilers.
    ///
    /// # Errors
    ///
    /// What the machine gives, or [`Error::Usage`] if `read` asks for too many candidates.
    pub async fn prepare(&mut self, before: usize, tokens: usize, read: Readback) -> Result<()> {
        let end = (before + tokens + 1).min(self.options.context as usize);
        let rows = tokens.min(self.options.prefill as usize);
        let keys = [
            self.key(Wanted { kind: Kind::Prompt, rows, end: end - 1, read })?,
            self.key(Wanted { kind: Kind::Generated, rows: 1, end, read })?,
        ];
        self.plans.compile(&mut self.machine, &self.model, &self.caches, &keys).await?;
        for key in keys {
            self.plans.record(&mut self.machine, &self.model, &self.caches, key)?;
        }
        Ok(())
    }

    /// The plan of a token that is generated after `before` others, for measuring.
    pub fn decode_plan(&mut self, before: usize, read: Readback) -> Result<&M::Plan> {
        let key = self.key(Wanted { kind: Kind::Generated, rows: 1, end: before + 1, read })?;
        self.plans.record(&mut self.machine, &self.model, &self.caches, key)
    }

    /// The plan of a whole chunk of a prompt after `before` tokens, for measuring.
    pub fn prefill_plan(&mut self, before: usize, read: Readback) -> Result<&M::Plan> {
        let rows = self.options.prefill as usize;
        let end = (before + rows).min(self.options.context as usize);
        let key = self.key(Wanted { kind: Kind::Prompt, rows, end, read })?;
        self.plans.record(&mut self.machine, &self.model, &self.caches, key)
    }

    /// The part of a step that is one text's: stages what changes, runs the plan, and remembers the
    /// tokens.
    async fn run(&mut self, sequence: &mut Sequence, input: Input<'_>) -> Result<StepOutput> {
        let Input { ids, kind, read, routes } = input;
        self.check(sequence, ids)?;
        self.check_size(input)?;
        self.place(sequence)?;
        let before = sequence.tokens().len();
        let end = before + ids.len();
        let key = self.key(Wanted { kind, rows: ids.len(), end, read })?;
        self.plans.record(&mut self.machine, &self.model, &self.caches, key)?;

        let first = u32::try_from(before).expect("the context is a u32");
        let rows: Vec<Row> =
            ids.iter().zip(first..).map(|(&id, position)| Row { id, position }).collect();
        let config = &self.model.config;
        stage(&mut self.machine, config, &self.angles, self.plans.scratch(key), &rows)?;

        let mut wanted = self.plans.logits(key);
        let logits = wanted.len();
        if routes && read != Readback::Nothing {
            wanted.extend(self.plans.routes(key));
        }
        let bytes = self.machine.run_plan(self.plans.recorded(key), &wanted).await?;
        let (logits, routes) = bytes.split_at(logits);
        let output = Answer { read, logits, routes, rows: ids.len(), end }.decode(config)?;
        sequence.extend(ids, kind);
        Ok(output)
    }

    /// Whether there are buffers for so many tokens.
    fn check_size(&self, Input { ids, kind, read, .. }: Input<'_>) -> Result<()> {
        let most = match (kind, read) {
            (Kind::Prompt, _) => self.options.chunk(read),
            (Kind::Generated, Readback::AllLogits) => {
                return Err(Error::Usage(
                    "logits of every token are read of prompts, not of generated tokens".into(),
                ));
            }
            (Kind::Generated, _) => 1,
        };
        if ids.len() > most {
            return Err(Error::Usage(format!(
                "{} tokens of a text in a step, expected at most {most}",
                ids.len()
            )));
        }
        Ok(())
    }

    /// Makes sure that a sequence has a place in the cache, which a new one is given.
    fn place(&self, sequence: &mut Sequence) -> Result<()> {
        if self.slots.iter().any(|slot| sequence.is_in(slot)) {
            return Ok(());
        }
        if !sequence.tokens().is_empty() {
            return Err(Error::Usage(format!(
                "{} tokens are not in the cache: restore the sequence first",
                sequence.tokens().len()
            )));
        }
        let Some(slot) = self.slots.iter().find(|slot| slot.is_free()) else {
            return Err(Error::Usage(format!(
                "the cache holds {} text, and another one is in it",
                self.slots.len()
            )));
        };
        sequence.take_slot(slot);
        Ok(())
    }

    fn key(&mut self, wanted: Wanted) -> Result<Key> {
        self.plans.key(&mut self.machine, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::Synthetic, machine::host::Host};

    fn engine() -> Engine<Host> {
        let config = Config::preset("small").expect("a preset").with_layers(1);
        let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
        let options = SessionOptions { context: 16, prefill: 4, cache: DType::F32 };
        let mut progress = |_| Ok(());
        let load = Engine::load(Host::default(), &config, &weights, options, &mut progress);
        pollster::block_on(load).expect("an engine")
    }

    fn step(
        engine: &mut Engine<Host>,
        sequence: &mut Sequence,
        input: Input<'_>,
    ) -> Result<StepOutput> {
        let mut outputs = pollster::block_on(engine.step(&mut [Run { sequence, input }]))?;
        assert_eq!(outputs.len(), 1);
        Ok(outputs.remove(0))
    }

    const READ: Readback = Readback::Top(2);

    #[test]
    fn texts_take_turns_in_a_cache_that_holds_one() {
        let mut engine = engine();
        let mut alone = Vec::new();
        for prompt in [[200, 201, 202], [5, 6, 7]] {
            let mut text = Sequence::new();
            alone.push([
                step(&mut engine, &mut text, Input::prompt(&prompt, READ)).expect("runs"),
                step(&mut engine, &mut text, Input::generated(&9, READ)).expect("runs"),
                step(&mut engine, &mut text, Input::prompt(&[8], READ)).expect("runs"),
            ]);
        }

        let [mut a, mut b] = [Sequence::new(), Sequence::new()];
        let prompt = Input::prompt(&[200, 201, 202], READ);
        assert_eq!(step(&mut engine, &mut a, prompt).expect("runs"), alone[0][0]);
        let other = Input::prompt(&[5, 6, 7], READ);
        let error = step(&mut engine, &mut b, other).expect_err("there is another text");
        assert!(error.to_string().contains("holds 1 text"), "{error}");
        let mut both =
            [Run { sequence: &mut a, input: prompt }, Run { sequence: &mut b, input: other }];
        let error = pollster::block_on(engine.step(&mut both)).expect_err("too many");
        assert!(error.to_string().contains("2 texts in a step"), "{error}");
        let generated = Input::generated(&9, READ);
        assert_eq!(step(&mut engine, &mut a, generated).expect("runs"), alone[0][1]);

        // The first text makes room, and comes back.
        a.release();
        assert_eq!(step(&mut engine, &mut b, other).expect("runs"), alone[1][0]);
        let error = step(&mut engine, &mut a, generated).expect_err("it is not there");
        assert!(error.to_string().contains("4 tokens are not in the cache"), "{error}");
        assert_eq!(step(&mut engine, &mut b, generated).expect("runs"), alone[1][1]);
        drop(b);
        pollster::block_on(engine.restore(&mut a)).expect("there is room");
        assert_eq!(a.tokens(), [200, 201, 202, 9]);
        let last = Input::prompt(&[8], READ);
        assert_eq!(step(&mut engine, &mut a, last).expect("runs"), alone[0][2]);
    }

    #[test]
    fn a_step_that_cannot_be_leaves_the_text_as_it_was() {
        let (mut engine, mut text) = (engine(), Sequence::new());
        step(&mut engine, &mut text, Input::prompt(&[1, 2], READ)).expect("runs");
        let vocab = engine.config().vocab_size;
        let wrong = [
            (Input::prompt(&[], READ), "no tokens"),
            (Input::prompt(&[1; 5], READ), "expected at most 4"),
            (Input::prompt(&[1; 15], READ), "context"),
            (Input::generated(&vocab, READ), "vocab_size"),
            (Input::generated(&1, Readback::AllLogits), "not of generated tokens"),
            (Input { kind: Kind::Generated, ..Input::prompt(&[1, 2], READ) }, "expected at most 1"),
            (Input::prompt(&[1], Readback::Top(0)), "0 candidates"),
        ];
        for (input, what) in wrong {
            let error = step(&mut engine, &mut text, input).expect_err(what);
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(text.tokens(), [1, 2], "{what}");
        }
        assert_eq!(pollster::block_on(engine.step(&mut [])).expect("nothing to do"), []);
    }
}
