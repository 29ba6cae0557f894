//! The calls that most programs need of an engine: load, generate, logits.

use std::ops::ControlFlow;

use crate::{
    base::error::Result,
    checkpoint::open::Opened,
    engine::{
        Engine, SessionOptions,
        generation::generate,
        options::{Event, Generated, Options},
        sequence::Sequence,
        step::{Input, Readback, StepOutput, Stepper},
    },
    files::{Source, threads::Shareable},
    machine::Machine,
    model::config::Config,
    text::{sampler::Sampler, tokenizer::Tokenizer},
};

impl<M: Machine> Engine<M> {
    /// Loads a model onto `machine` with [`SessionOptions::of`] its configuration, as they suit the
    /// machine ([`SessionOptions::on`]).
    /// [`Engine::load`] takes other sizes and reports progress.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::load`].
    pub async fn of<S>(machine: M, model: &Opened<S>) -> Result<Self>
    where
        S: Source + Shareable + 'static,
    {
        let options = SessionOptions::of(&model.config).on(&machine);
        Self::load(machine, &model.config, &model.weights, options, &mut |_| Ok(())).await
    }

    /// Generates text after `prompt`, and calls `on_event` for each token.
    ///
    /// The tokens at the beginning of `prompt` that `sequence` holds already are not computed
    /// again, so a conversation passes its whole text each time. [`ControlFlow::Break`] ends the
    /// text with [`FinishReason::Interrupted`](super::options::FinishReason::Interrupted).
    ///
    /// # Errors
    ///
    /// [`Error::ContextLength`](crate::base::error::Error::ContextLength) if the prompt alone is
    /// longer than the context, [`Error::Usage`](crate::base::error::Error::Usage) if it or a stop
    /// text is empty, and those of [`Engine::step`] and [`Sampler::sample`].
    pub async fn generate(
        &mut self,
        sequence: &mut Sequence,
        tokenizer: &Tokenizer,
        sampler: &mut Sampler,
        prompt: &[u32],
        options: &Options,
        mut on_event: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let mut text = Borrowed { engine: self, sequence };
        let mut on_event = |event: Event<'_>| Ok(on_event(event));
        generate(&mut text, tokenizer, sampler, prompt, options, &mut on_event).await
    }

    /// The logits after the last of `ids`, which follow the tokens of `sequence`: `[vocab_size]`.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`].
    pub async fn logits(&mut self, sequence: &mut Sequence, ids: &[u32]) -> Result<Vec<f32>> {
        let output = self.prefill(sequence, ids, Readback::Logits, false).await?;
        Ok(output.candidates.iter().map(|candidate| candidate.logit).collect())
    }

    /// Sends `ids` through the model after the tokens of `sequence`, in chunks of
    /// [`SessionOptions::chunk`]. `routes` asks for [`StepOutput::routes`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::step`].
    pub async fn prefill(
        &mut self,
        sequence: &mut Sequence,
        ids: &[u32],
        read: Readback,
        routes: bool,
    ) -> Result<StepOutput> {
        self.check(sequence, ids)?;
        let mut output = StepOutput::default();
        let mut rest = ids;
        while !rest.is_empty() {
            let input = Input::next_chunk(rest, read, self.options);
            rest = &rest[input.ids.len()..];
            let part = self.run(sequence, input.with_routes(routes)).await?;
            output.candidates = part.candidates;
            output.rows.extend(part.rows);
            output.routes.extend(part.routes);
        }
        Ok(output)
    }
}

/// An engine and one of its sequences, as the loop that generates text drives them.
struct Borrowed<'a, M: Machine> {
    engine: &'a mut Engine<M>,
    sequence: &'a mut Sequence,
}

impl<M: Machine> Stepper for Borrowed<'_, M> {
    fn config(&self) -> &Config {
        self.engine.config()
    }

    fn options(&self) -> SessionOptions {
        self.engine.options()
    }

    fn sequence(&mut self) -> &mut Sequence {
        self.sequence
    }

    async fn step(&mut self, input: Input<'_>) -> Result<StepOutput> {
        self.engine.run(self.sequence, input).await
    }
}
