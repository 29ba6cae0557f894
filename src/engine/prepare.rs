//! Compiles and records the passes of an engine before they are needed, and gives their plans to
//! those who measure.

use super::{
    Engine,
    plans::{Key, Wanted},
    sequence::Kind,
    step::Readback,
};
use crate::{
    base::error::{Error, Result},
    machine::Machine,
};

impl<M: Machine> Engine<M> {
    /// Compiles the pipelines that a prompt of `tokens` after `before` others needs, and those of
    /// the tokens generated after it, all at once, and records the plans. Then the first token does
    /// not wait for compilation.
    ///
    /// # Errors
    ///
    /// Errors of the machine; [`Error::Usage`] if `read` asks for too many candidates.
    pub async fn prepare(&mut self, before: usize, tokens: usize, read: Readback) -> Result<()> {
        let keys = self.keys(before, tokens, read)?;
        self.plans.compile(&mut self.machine, &self.views, &self.caches, &keys).await?;
        for key in keys {
            self.record(key)?;
        }
        Ok(())
    }

    /// Compiles one pipeline after another, for callers that show progress or do other work in
    /// between: those of prompts or of generated tokens, as `kinds` says, with steps that read
    /// `read`. A prompt and its first token need those of [`Kind::Prompt`] only. What is missing
    /// later is compiled by the step that needs it.
    ///
    /// `progress` is called with the pipelines that exist and how many there are, first and after
    /// each; an error from it ends the work and keeps what exists. In browsers other tasks have a
    /// turn in between. While no sequence is in the cache, each program runs once, as in
    /// [`Engine::warm_up`]. At the end the plans are recorded.
    ///
    /// # Errors
    ///
    /// Errors of the machine and of `progress`; [`Error::Usage`] if `read` asks for too many
    /// candidates.
    pub async fn compile_each(
        &mut self,
        kinds: &[Kind],
        read: Readback,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let keys = [Kind::Prompt, Kind::Generated].into_iter().zip(self.keys(0, 1, read)?);
        let keys = keys.filter(|(kind, _)| kinds.contains(kind)).map(|(_, key)| key);
        let keys: Vec<Key> = keys.collect();
        let run = self.is_empty();
        let parts = (&self.views, &self.caches[..]);
        self.plans.compile_each(&mut self.machine, parts, &keys, run, progress).await?;
        for key in keys {
            self.record(key)?;
        }
        Ok(())
    }

    /// Whether no sequence is in the cache.
    pub(super) fn is_empty(&self) -> bool {
        self.pool.free() == self.pool.count()
    }

    /// Has every program that [`Engine::prepare`] compiles with these arguments run once, on next
    /// to no work, for drivers that compile a program when it first runs. Results are those of an
    /// engine that has not done this. `progress` is called with the programs that have run and how
    /// many there are; an error from it ends the work.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a sequence is in the cache; those of [`Engine::prepare`] and of
    /// `progress`.
    pub async fn warm_up(
        &mut self,
        tokens: usize,
        read: Readback,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        if !self.is_empty() {
            return Err(Error::Usage("an engine is warmed up before its first text".into()));
        }
        let keys = self.keys(0, tokens, read)?;
        if !keys.iter().all(|&key| self.plans.has(key)) {
            self.prepare(0, tokens, read).await?;
        }
        let plans: Vec<&M::Plan> =
            keys.iter().flat_map(|&key| self.plans.recorded(key).segments()).collect();
        self.machine.warm_up(&plans, progress).await
    }

    /// The decode plan of a token generated after `before` others, for measurements.
    ///
    /// # Errors
    ///
    /// Errors of the machine; [`Error::Usage`] if `read` asks for too many candidates, or if the
    /// pass is cut, since weights are brought.
    pub fn decode_plan(&mut self, before: usize, read: Readback) -> Result<&M::Plan> {
        let key = self.key(Wanted::of_one(Kind::Generated, 1, before + 1, read))?;
        self.only_plan(key)
    }

    /// The prefill plan of a whole chunk of a prompt after `before` tokens, for measurements.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::decode_plan`].
    pub fn prefill_plan(&mut self, before: usize, read: Readback) -> Result<&M::Plan> {
        let rows = self.options.prefill as usize;
        let end = (before + rows).min(self.options.context as usize);
        let key = self.key(Wanted::of_one(Kind::Prompt, rows, end, read))?;
        self.only_plan(key)
    }

    /// The plan of a pass that is not cut.
    fn only_plan(&mut self, key: Key) -> Result<&M::Plan> {
        self.record(key)?;
        self.plans.recorded(key).only()
    }

    /// Records the pass if that was not done.
    pub(super) fn record(&mut self, key: Key) -> Result<()> {
        let of = (&self.views, &self.caches[..]);
        let cut = self.streamer.as_ref().map(super::streamer::Streamer::computes);
        self.plans.record(&mut self.machine, of, key, cut).map(|_| ())
    }

    /// The plans of a prompt of `tokens` after `before` others, and of the token after it.
    fn keys(&mut self, before: usize, tokens: usize, read: Readback) -> Result<[Key; 2]> {
        let end = (before + tokens + 1).min(self.options.context as usize);
        let rows = tokens.min(self.options.prefill as usize);
        Ok([
            self.key(Wanted::of_one(Kind::Prompt, rows, end - 1, read))?,
            self.key(Wanted::of_one(Kind::Generated, 1, end, read))?,
        ])
    }
}
