//! An engine with one sequence.

use std::fmt;

use super::{
    Engine, Moved, SessionOptions,
    sequence::{Kind, Sequence},
    step::{Input, Readback, StepOutput, Stepper},
};
use crate::{
    base::error::Result,
    machine::Machine,
    model::{Model, Placement, config::Config, weights::Lasting},
};

/// An engine and the only sequence in its cache, for callers that need no more than one.
pub struct Session<M: Machine> {
    engine: Engine<M>,
    sequence: Sequence,
    report_routes: bool,
}

/// Shows the sequence only: a machine and its plans need not implement `Debug`.
impl<M: Machine> fmt::Debug for Session<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl<M: Machine> From<Engine<M>> for Session<M> {
    fn from(engine: Engine<M>) -> Self {
        Self { engine, sequence: Sequence::new(), report_routes: false }
    }
}

impl<M: Machine> Session<M> {
    /// Loads a model onto `machine`, as [`Engine::load`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::load`].
    pub async fn load(
        machine: M,
        config: &Config,
        weights: &impl Lasting,
        options: SessionOptions,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        Ok(Engine::load(machine, config, weights, options, progress).await?.into())
    }

    /// Loads a model onto `machine`, as [`Engine::load_placed`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::load_placed`].
    pub async fn load_placed(
        machine: M,
        config: &Config,
        weights: &impl Lasting,
        options: SessionOptions,
        placement: Placement,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let load = Engine::load_placed(machine, config, weights, options, placement, progress);
        Ok(load.await?.into())
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        self.engine.config()
    }

    /// Whether weights are brought to the machine while it runs.
    pub fn streams(&self) -> bool {
        self.engine.streams()
    }

    /// What was brought to the machine so far: see [`Engine::moved`].
    pub fn moved(&self) -> Moved {
        self.engine.moved()
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.engine.model()
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        self.engine.machine()
    }

    /// The machine, for measurements.
    pub fn machine_mut(&mut self) -> &mut M {
        self.engine.machine_mut()
    }

    /// The engine, whose cache holds the sequence.
    pub fn engine(&mut self) -> &mut Engine<M> {
        &mut self.engine
    }

    /// Returns the engine, without the sequence.
    pub fn into_engine(self) -> Engine<M> {
        self.engine
    }

    /// Returns the machine, with its compiled pipelines, for another model.
    pub fn into_machine(self) -> M {
        self.engine.into_machine()
    }

    /// The sizes of the engine.
    pub fn options(&self) -> SessionOptions {
        self.engine.options()
    }

    /// Gives the engine other sizes: see [`Engine::resize`]. The sequence is empty then.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::resize`].
    pub fn resize(&mut self, options: SessionOptions) -> Result<()> {
        self.sequence = Sequence::new();
        self.engine.resize(options)
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }

    /// Drops all tokens after the first `keep`.
    pub fn rewind(&mut self, keep: usize) {
        self.sequence.rewind(keep);
    }

    /// Sets whether [`Session::prefill`] and [`Session::decode`] return [`StepOutput::routes`].
    pub fn report_routes(&mut self, wanted: bool) {
        self.report_routes = wanted;
    }

    /// Runs a prompt through the model, in chunks, after the tokens in the cache.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`]. Chunks that succeeded stay in the cache.
    pub async fn prefill(&mut self, ids: &[u32], read: Readback) -> Result<StepOutput> {
        self.engine.prefill(&mut self.sequence, ids, read, self.report_routes).await
    }

    /// Runs one generated token through the model.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`].
    pub async fn decode(&mut self, id: u32, read: Readback) -> Result<StepOutput> {
        self.step(Input::generated(&id, read).with_routes(self.report_routes)).await
    }

    /// Compiles the pipelines of a prompt of `tokens` and the tokens after it: see
    /// [`Engine::prepare`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::prepare`].
    pub async fn prepare(&mut self, tokens: usize, read: Readback) -> Result<()> {
        self.engine.prepare(self.sequence.tokens().len(), tokens, read).await
    }

    /// Compiles one pipeline after another: see [`Engine::compile_each`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::compile_each`].
    pub async fn compile_each(
        &mut self,
        kinds: &[Kind],
        read: Readback,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        self.engine.compile_each(kinds, read, progress).await
    }

    /// Has the programs of a prompt of `tokens` and the tokens after it run once: see
    /// [`Engine::warm_up`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::warm_up`].
    pub async fn warm_up(
        &mut self,
        tokens: usize,
        read: Readback,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        self.engine.warm_up(tokens, read, progress).await
    }

    /// The plan of a decode step at the current length, for measurements.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::decode_plan`].
    pub fn decode_plan(&mut self, read: Readback) -> Result<&M::Plan> {
        self.engine.decode_plan(self.sequence.tokens().len(), read)
    }

    /// The plan of a whole prefill chunk at the current length, for measurements.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::prefill_plan`].
    pub fn prefill_plan(&mut self, read: Readback) -> Result<&M::Plan> {
        self.engine.prefill_plan(self.sequence.tokens().len(), read)
    }

    async fn step(&mut self, input: Input<'_>) -> Result<StepOutput> {
        self.engine.run(&mut self.sequence, input).await
    }
}

impl<M: Machine> Stepper for Session<M> {
    fn config(&self) -> &Config {
        self.engine.config()
    }

    fn options(&self) -> SessionOptions {
        self.engine.options()
    }

    fn sequence(&mut self) -> &mut Sequence {
        &mut self.sequence
    }

    async fn step(&mut self, input: Input<'_>) -> Result<StepOutput> {
        self.step(input).await
    }
}
