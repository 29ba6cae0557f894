//! Prompt in, tokens out: the engine, the sequences in its KV cache, and the loop that generates
//! text.

mod batch;
mod face;
pub mod generation;
mod keep;
mod lay;
#[cfg(feature = "host-compute")]
mod on_host;
#[cfg(not(feature = "host-compute"))]
#[path = "on_host_absent.rs"]
mod on_host;
pub mod options;
mod page_pool;
pub mod pages;
mod plans;
mod pool;
mod prepare;
pub mod resume;
pub mod schedule;
pub mod segments;
pub mod sequence;
pub mod session;
mod sizes;
pub mod step;
pub mod store;
mod streamer;
mod table;
pub mod texts;
mod views;

pub(crate) use plans::top_lists;
pub use sizes::{HostCompute, SessionOptions};
pub use streamer::{Heed, Moved};

use crate::{
    base::error::{Error, Result},
    engine::{
        on_host::OnHost,
        page_pool::PagePool,
        plans::{Key, Plans, Wanted},
        sequence::Sequence,
        store::Store,
        streamer::Streamer,
        table::Table,
        views::Views,
    },
    machine::{Machine, step::PAGE},
    model::{
        LayerCache, Model, Placement, Scratch,
        ahead::Ahead,
        alloc_pool,
        config::Config,
        rope,
        weights::{Lasting, Stored},
    },
};

/// A model on a machine, with its buffers, recorded plans and KV cache. It knows no texts: the
/// tokens in the cache are listed by the [`Sequence`]s that have pages of it.
#[derive(Debug)]
pub struct Engine<M: Machine> {
    machine: M,
    views: Views,
    table: Table,
    /// Brings the weights that are not on the machine, if there are some.
    streamer: Option<Streamer>,
    options: SessionOptions,
    angles: Vec<rope::Angles>,
    caches: Vec<LayerCache>,
    /// Pages of the caches that no sequence has.
    pool: PagePool,
    plans: Plans<M::Plan>,
    /// Tensors of the machine before the caches.
    weights: usize,
}

impl<M: Machine> Engine<M> {
    /// Loads a model onto `machine`. `progress` is called with the number of bytes of weights read
    /// so far; an error from it stops the loading. After an error, a borrowed machine has the
    /// tensors that it had before. The engine keeps a clone of `weights`, of which it reads what is
    /// not on the machine: the embedding table, unless it is the head as well.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `options` do not suit the model, [`Error::Limit`] if a row of a matrix
    /// or a buffer is larger than a binding; errors of `weights`, the machine and `progress`.
    pub async fn load(
        machine: M,
        config: &Config,
        weights: &impl Lasting,
        options: SessionOptions,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        Self::load_placed(machine, config, weights, options, Placement::WHOLE, progress).await
    }

    /// The same, with only those weights on the machine that `placement` names. The others are read
    /// from the clone of `weights` whenever a step needs them. No bit of a result depends on it.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::load`]; [`Error::Usage`] if there is not room for the experts of a token.
    pub async fn load_placed(
        machine: M,
        config: &Config,
        weights: &impl Lasting,
        options: SessionOptions,
        placement: Placement,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let cpu = OnHost::new;
        Self::load_beside(cpu, machine, config, weights, options, placement, progress).await
    }

    /// The same, beside the CPU that `cpu` makes if the options want one.
    async fn load_beside(
        cpu: impl FnOnce(HostCompute) -> Result<OnHost>,
        mut machine: M,
        config: &Config,
        weights: &impl Lasting,
        options: SessionOptions,
        placement: Placement,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let keep = machine.tensor_count();
        let on_host = options.host_compute.map(cpu).transpose()?;
        let loaded = async {
            let model = Model::placed(&mut machine, config, weights, placement)?;
            let tensors = machine.tensor_count();
            let (caches, plans) = Self::buffers(&mut machine, &model, options)?;
            // Browsers report errors of allocations only here, and weights may take long to read.
            machine.flush().await?;
            let weights = Ahead::new(Stored::new(weights));
            let (table, read) = Table::load(&model, weights.weights()).await?;
            progress(read)?;
            model.fill(&mut machine, &weights, &mut |done| progress(read + done)).await?;
            let views = Views::new(model);
            let streamer = Streamer::of(&views, weights, on_host);
            Ok(((views, table, streamer), (caches, plans), tensors))
        };
        match loaded.await {
            Ok((views, buffers, tensors)) => {
                Ok(Self::new(machine, views, options, buffers, tensors))
            }
            Err(error) => {
                machine.truncate(keep);
                Err(error)
            }
        }
    }

    /// An engine whose weights are allocated and not uploaded. Used by `Counting`, which allocates
    /// but never runs.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `options` do not suit the model; errors of the machine's allocation.
    pub fn with_model(mut machine: M, model: Model, options: SessionOptions) -> Result<Self> {
        let weights = machine.tensor_count();
        let buffers = Self::buffers(&mut machine, &model, options)?;
        let table = Table::zeros(&model);
        Ok(Self::new(machine, (Views::new(model), table, None), options, buffers, weights))
    }

    /// Allocates everything but weights.
    fn buffers(
        machine: &mut M,
        model: &Model,
        options: SessionOptions,
    ) -> Result<(Vec<LayerCache>, Plans<M::Plan>)> {
        let c = &model.config;
        options.check(c)?;
        let positions = [options.context, options.positions()];
        let caches = (0..c.num_hidden_layers())
            .map(|_| alloc_pool(machine, c, positions, options.cache))
            .collect::<Result<Vec<_>>>()?;
        let plans = Plans::alloc(machine, model, options, &caches[0])?;
        Ok((caches, plans))
    }

    fn new(
        machine: M,
        (views, table, streamer): (Views, Table, Option<Streamer>),
        options: SessionOptions,
        (caches, plans): (Vec<LayerCache>, Plans<M::Plan>),
        weights: usize,
    ) -> Self {
        Self {
            angles: rope::Angles::of(&views.model().config),
            machine,
            views,
            table,
            streamer,
            pool: pool_of(&caches[0]),
            options,
            caches,
            plans,
            weights,
        }
    }

    /// Gives the engine other sizes, with a new cache and new buffers: sequences lose their pages.
    /// If the device refuses them, those of before are made again.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::with_model`].
    pub fn resize(&mut self, options: SessionOptions) -> Result<()> {
        options.check(&self.views.model().config)?;
        let before = self.options;
        let made = self.make_buffers(options);
        if made.is_err() {
            self.make_buffers(before)?;
        }
        made
    }

    fn make_buffers(&mut self, options: SessionOptions) -> Result<()> {
        self.machine.truncate(self.weights);
        (self.caches, self.plans) = Self::buffers(&mut self.machine, self.views.model(), options)?;
        self.pool = pool_of(&self.caches[0]);
        self.options = options;
        Ok(())
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.views.model().config
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.views.model()
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for measurements.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Returns the machine, with its compiled pipelines, for another model.
    pub fn into_machine(self) -> M {
        self.machine
    }

    /// Changes the machine in a way that recorded plans depend on: they are dropped and recorded
    /// again.
    pub fn change_machine(&mut self, change: impl FnOnce(&mut M)) {
        change(&mut self.machine);
        self.plans.forget();
    }

    /// The sizes of the engine.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// The buffers of a chunk of a prompt: shorter ones use their first rows.
    pub fn prompt_buffers(&self) -> &Scratch {
        self.plans.largest()
    }

    /// Checks that `ids` can follow the tokens of `sequence`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `ids` is empty or an id is not below `vocab_size`;
    /// [`Error::ContextLength`] if the context is too short for them.
    pub fn check(&self, sequence: &Sequence, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Err(Error::Usage("there are no tokens to run: the prompt is empty".into()));
        }
        let vocab = self.views.model().config.vocab_size;
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

    /// Replays the tokens of a sequence the way they went through the model before, after its
    /// engine was lost or its pages of the cache were taken. If that fails, the sequence keeps its
    /// tokens, but has no pages.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`].
    pub async fn restore(&mut self, sequence: &mut Sequence) -> Result<()> {
        self.restore_from(sequence, &mut Store::new(0)).await.map(|_| ())
    }

    /// Has `heed` called while a step brings weights, before each matrix and after each part of
    /// some MiB: an error from it ends the step, and [`Error::Interrupted`] the text.
    pub fn while_bringing(&mut self, heed: Option<Box<Heed>>) {
        if let Some(streamer) = &mut self.streamer {
            streamer.heed(heed);
        }
    }

    /// Whether weights are brought to the machine while it runs.
    pub fn streams(&self) -> bool {
        self.streamer.is_some()
    }

    /// What was brought to the machine so far.
    pub fn moved(&self) -> Moved {
        self.streamer.as_ref().map(Streamer::moved).unwrap_or_default()
    }

    fn key(&mut self, wanted: Wanted) -> Result<Key> {
        self.plans.key(&mut self.machine, wanted)
    }
}

/// The pages of a cache.
fn pool_of(cache: &LayerCache) -> PagePool {
    let slots = cache.shards.iter().map(|shard| shard.len).sum::<u32>();
    PagePool::new(slots / PAGE, cache.segment / PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::tensor::DType,
        checkpoint::Synthetic,
        engine::{
            sequence::Kind,
            step::{Input, Readback, Run, StepOutput},
        },
        machine::host::Host,
    };

    fn engine() -> Engine<Host> {
        of_sizes(16, 4)
    }

    fn of_sizes(context: u32, prefill: u32) -> Engine<Host> {
        let config = Config::preset("small").expect("a preset").with_layers(1);
        let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
        let options = SessionOptions::new(context, prefill, DType::F32);
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
        outputs.remove(0)
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
        assert!(error.to_string().contains("0 free pages"), "{error}");
        let mut both =
            [Run { sequence: &mut a, input: prompt }, Run { sequence: &mut b, input: other }];
        let error = pollster::block_on(engine.step(&mut both)).expect_err("too many");
        assert!(error.to_string().contains("2 texts in a step"), "{error}");
        let generated = Input::generated(&9, READ);
        assert_eq!(step(&mut engine, &mut a, generated).expect("runs"), alone[0][1]);

        // The first sequence frees the pages, and is restored.
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

    /// The first rows of a buffer are a tensor of their own, on the host as on a device.
    #[test]
    fn a_short_prompt_takes_rows_that_a_long_one_has_filled() {
        let (mut engine, mut text) = (of_sizes(64, 33), Sequence::new());
        let long: Vec<u32> = (100..133).collect();
        step(&mut engine, &mut text, Input::prompt(&long, READ)).expect("runs");
        let tensors = engine.machine().tensor_count();
        drop(text);
        let short = |engine: &mut Engine<Host>| {
            let input = Input::prompt(&[5, 6, 7], READ).with_routes(true);
            step(engine, &mut Sequence::new(), input).expect("runs")
        };
        let after = short(&mut engine);
        assert_eq!(after, short(&mut self::engine()));
        assert_eq!(engine.machine().tensor_count(), tensors, "no other buffers");
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
        assert!(pollster::block_on(engine.step(&mut [])).expect("nothing to do").is_empty());
    }
}
