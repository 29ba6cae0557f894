//! A session that survives the loss of its device: a new engine gets the text into its cache.

use crate::{
    base::error::{Error, Result},
    engine::{
        Engine, SessionOptions,
        sequence::{Kind, Sequence},
        step::{Input, Readback, StepOutput, Stepper},
        store::Store,
    },
    machine::{Machine, step::PAGE},
    model::config::Config,
};

/// Most replacement devices tried in a row for one step.
pub(super) const TRIES: u32 = 3;

/// Builds engines with the same model and sizes, each on a new device.
#[expect(async_fn_in_trait, reason = "an engine is one thread, and browser futures are not Send")]
pub trait Rebuild {
    /// The machine that the engines run on.
    type Machine: Machine;

    /// Builds an engine with all weights and an empty cache.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the new device was lost too, upon which another is tried; any other error
    /// ends the step.
    async fn build(&mut self) -> Result<Engine<Self::Machine>>;

    /// Called when a device is lost or replaced.
    fn on_change(&mut self, change: Change<'_>);
}

/// What happened to the device.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// It was lost, for this reason.
    Lost(&'a Error),
    /// A new device has the weights and the cache.
    Restored {
        /// Tokens of the text that went through the model again; the others were kept.
        replayed: usize,
    },
    /// It could not be replaced, for this reason. The next step tries again.
    Failed(&'a Error),
}

/// An engine with one text. When the device is lost, the engine is rebuilt and the step repeated,
/// so that callers notice only the delay.
///
/// The text is replayed the way it went through the lost device, prompts by prefill and generated
/// tokens one by one, so that the cache has the same bits on the same adapter. Where finished pages
/// of the cache are kept on the host, only the tokens after them are replayed: that is done for
/// models of which weights are brought while they run, whose tokens take long, and for others with
/// [`Resuming::keeping_cache`].
pub struct Resuming<R: Rebuild> {
    rebuild: R,
    /// `None` from a loss until the next step.
    engine: Option<Engine<R::Machine>>,
    config: Config,
    options: SessionOptions,
    text: Text,
}

/// A text, and the pages of its cache that are on the host.
#[derive(Default)]
struct Text {
    sequence: Sequence,
    store: Option<Store>,
}

impl Text {
    /// Copies pages that the last step finished to the host, if they are to be there. `before` is
    /// how many tokens there were before it. Returns whether the machine was waited for.
    async fn keep<M: Machine>(&mut self, engine: &mut Engine<M>, before: usize) -> Result<bool> {
        let Self { sequence, store: Some(store) } = self else { return Ok(false) };
        let page = PAGE as usize;
        if before / page == sequence.tokens().len() / page {
            return Ok(false);
        }
        Ok(engine.keep(sequence, store).await? > 0)
    }

    /// Gets the text into the cache of a new engine. Returns how many tokens were replayed.
    async fn restore<M: Machine>(&mut self, engine: &mut Engine<M>) -> Result<usize> {
        let mut none = Store::new(0);
        let store = self.store.as_mut().unwrap_or(&mut none);
        engine.restore_from(&mut self.sequence, store).await
    }
}

impl<R: Rebuild> Resuming<R> {
    /// Builds the first engine.
    ///
    /// # Errors
    ///
    /// Those of [`Rebuild::build`].
    pub async fn new(mut rebuild: R) -> Result<Self> {
        let engine = rebuild.build().await?;
        let session = Self {
            config: engine.config().clone(),
            options: engine.options(),
            engine: Some(engine),
            rebuild,
            text: Text::default(),
        };
        Ok(session.keeping_cache(None))
    }

    /// Sets whether finished pages of the cache, of 32 positions, are copied to the host, where
    /// they take as much memory as on the device at the most. After a loss they are written back. A
    /// step that finishes a page waits for the copy, which is a submission of its own. With `None`
    /// it is done if weights are brought while the model runs.
    #[must_use]
    pub fn keeping_cache(mut self, wanted: Option<bool>) -> Self {
        if let Some(engine) = &self.engine {
            let keeps = wanted.unwrap_or_else(|| engine.streams());
            self.text.store = keeps.then(|| Store::new(engine.cache_bytes()));
        }
        self
    }

    /// Rebuilds the engine if its device was lost. A step would do the same.
    ///
    /// # Errors
    ///
    /// Those of [`Rebuild::build`] and [`Engine::restore`]; [`Error::Lost`] if replacement devices
    /// are lost as well.
    pub async fn heal(&mut self) -> Result<()> {
        self.persist(async |engine, _| engine.machine_mut().flush().await).await
    }

    /// Compiles one pipeline after another, and begins anew if the device is lost: see
    /// [`Engine::compile_each`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::compile_each`] and [`Resuming::heal`].
    pub async fn compile_each(
        &mut self,
        kinds: &[Kind],
        read: Readback,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        self.persist(async |engine, _| engine.compile_each(kinds, read, progress).await).await
    }

    /// Runs `work`; if the device is lost, runs it again on a new one, [`TRIES`] times at most.
    async fn persist<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Engine<R::Machine>, &mut Text) -> Result<T>,
    ) -> Result<T> {
        let mut losses = 0;
        loop {
            let result = match self.ready().await {
                Ok((engine, text)) => work(engine, text).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error @ Error::Lost(_)) => {
                    self.engine = None;
                    losses += 1;
                    if losses > TRIES {
                        self.rebuild.on_change(Change::Failed(&error));
                        return Err(error);
                    }
                    self.rebuild.on_change(Change::Lost(&error));
                }
                result => {
                    // A device that was lost for want of memory: another one would be, too. Its
                    // memory is freed, and the next step, which may be shorter, tries again.
                    let lost = |engine: &Engine<R::Machine>| engine.machine().is_lost();
                    if result.is_err() && self.engine.as_ref().is_some_and(lost) {
                        self.engine = None;
                    }
                    if let (Err(error), None) = (&result, &self.engine) {
                        self.rebuild.on_change(Change::Failed(error));
                    }
                    return result;
                }
            }
        }
    }

    /// The engine and the text. After a loss, builds a new engine first and restores the text.
    async fn ready(&mut self) -> Result<(&mut Engine<R::Machine>, &mut Text)> {
        if self.engine.is_none() {
            // Loading has large futures, and happens seldom.
            let mut engine = Box::pin(self.rebuild.build()).await?;
            let replayed = self.text.restore(&mut engine).await?;
            engine.machine_mut().flush().await?;
            self.rebuild.on_change(Change::Restored { replayed });
            self.engine = Some(engine);
        }
        Ok((self.engine.as_mut().expect("made above"), &mut self.text))
    }
}

impl<R: Rebuild> Stepper for Resuming<R> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn options(&self) -> SessionOptions {
        self.options
    }

    fn sequence(&mut self) -> &mut Sequence {
        &mut self.text.sequence
    }

    async fn step(&mut self, input: Input<'_>) -> Result<StepOutput> {
        let before = self.text.sequence.tokens().len();
        self.persist(async |engine, text| {
            let output = engine.run(&mut text.sequence, input).await?;
            let mut waited = text.keep(engine, before).await;
            if matches!(waited, Ok(false)) && input.read == Readback::Nothing {
                // This step waits for no readback: the flush shows a loss at once, and lets other
                // tasks run.
                waited = engine.machine_mut().flush().await.map(|()| true);
            }
            // The step is repeated, or fails: either way its tokens do not count.
            waited.inspect_err(|_| text.sequence.rewind(before))?;
            Ok(output)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, ops::ControlFlow, rc::Rc};

    use super::*;
    use crate::{
        base::tensor::{DType, Tensor},
        checkpoint::Synthetic,
        engine::{
            generation::generate,
            options::{Event, Generated, Options},
        },
        machine::{Span, host::Host, kernel::Executor},
        text::{
            sampler::{Sampler, Sampling},
            tokenizer::{Tokenizer, synthetic_tok_json},
        },
    };

    /// How many plans each device runs before it is lost; the last number is for the last device.
    type Lives = Rc<RefCell<Vec<u32>>>;

    struct Mortal {
        host: Host,
        left: u32,
        /// Whether it is lost for want of memory.
        of_memory: bool,
        lost: bool,
    }

    impl Mortal {
        fn live(&mut self) -> Result<()> {
            let Some(left) = self.left.checked_sub(1) else {
                self.lost = true;
                let (what, why) = ("a test".to_owned(), "it is lost".to_owned());
                return Err(if self.of_memory {
                    Error::OutOfMemory { what, bytes: None, held: 0, why }
                } else {
                    Error::Lost(why)
                });
            };
            self.left = left;
            Ok(())
        }
    }

    impl Machine for Mortal {
        type Plan = <Host as Machine>::Plan;

        crate::machine::forward_machine!(host);

        fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
            Machine::write(&mut self.host, tensor, offset, bytes)
        }

        fn record(
            &mut self,
            program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        ) -> Result<Self::Plan> {
            self.host.record(program)
        }

        async fn compile_each(
            &mut self,
            _: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
            _: bool,
            progress: &mut dyn FnMut(usize, usize) -> Result<()>,
        ) -> Result<()> {
            progress(0, 1)?;
            self.live()?;
            progress(1, 1)
        }

        async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
            self.live()?;
            self.host.run_plan(plan, read).await
        }

        async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
            self.live()?;
            self.host.read(spans).await
        }

        fn is_lost(&self) -> bool {
            self.lost
        }
    }

    struct Maker {
        lives: Lives,
        heard: Vec<&'static str>,
        of_memory: bool,
    }

    impl Rebuild for Maker {
        type Machine = Mortal;

        async fn build(&mut self) -> Result<Engine<Mortal>> {
            let left = {
                let mut lives = self.lives.borrow_mut();
                if lives.len() > 1 { lives.remove(0) } else { lives[0] }
            };
            let config = Config::preset("small").expect("one").with_layers(1);
            let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
            let options = SessionOptions::new(64, 2, DType::Q8);
            let machine =
                Mortal { host: Host::default(), left, of_memory: self.of_memory, lost: false };
            Engine::load(machine, &config, &weights, options, &mut |_| Ok(())).await
        }

        fn on_change(&mut self, change: Change<'_>) {
            self.heard.push(match change {
                Change::Lost(_) => "lost",
                Change::Restored { .. } => "restored",
                Change::Failed(_) => "failed",
            });
        }
    }

    /// Generates two texts, the second with the first in the cache; also returns the changes that
    /// were reported.
    fn run(lives: &[u32]) -> Result<(Vec<Generated>, Vec<&'static str>)> {
        pollster::block_on(async {
            let lives = Rc::new(RefCell::new(lives.to_vec()));
            let mut session =
                Resuming::new(Maker { lives, heard: Vec::new(), of_memory: false }).await?;
            let json = synthetic_tok_json(512).expect("in range");
            let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes())?;
            let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
            let mut sampler = Sampler::new(sampling)?;
            let options = Options { max_tokens: 4, ..Options::default() };
            let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
            let mut made = Vec::new();
            let mut prompt = vec![200, 201, 202];
            for _ in 0..2 {
                let text = generate(
                    &mut session,
                    &tokenizer,
                    &mut sampler,
                    &prompt,
                    &options,
                    &mut on_event,
                );
                let text = text.await?;
                prompt.extend(text.tokens.iter().map(|token| token.id).chain([203]));
                made.push(text);
            }
            Ok((made, session.rebuild.heard))
        })
    }

    #[test]
    fn the_text_is_the_same_wherever_devices_are_lost() {
        let (whole, heard) = run(&[1000]).expect("a text");
        assert_eq!(heard, [""; 0]);
        for life in 0..9 {
            let (made, heard) = run(&[life, 1000]).expect("a text");
            assert_eq!(made, whole, "lost after {life} steps");
            assert_eq!(heard, ["lost", "restored"], "lost after {life} steps");
        }
        // A device that dies while the cache is filled again.
        let (made, heard) = run(&[6, 2, 1000]).expect("a text");
        assert_eq!((made, heard), (whole, vec!["lost", "lost", "restored"]));
    }

    #[test]
    fn devices_that_all_die_are_an_error() {
        assert_eq!(run(&[5, 0]).expect_err("no device lives").code(), "device_lost");
    }

    #[test]
    fn a_device_that_is_lost_while_pipelines_are_compiled_is_replaced() {
        let lives = Rc::new(RefCell::new(vec![0, 1000]));
        pollster::block_on(async {
            let maker = Maker { lives, heard: Vec::new(), of_memory: false };
            let mut session = Resuming::new(maker).await?;
            let mut told = Vec::new();
            let mut progress = |done, all| {
                told.push((done, all));
                Ok(())
            };
            session.compile_each(&[Kind::Prompt], Readback::Top(1), &mut progress).await?;
            assert_eq!(session.rebuild.heard, ["lost", "restored"]);
            assert_eq!(told, [(0, 1), (0, 1), (1, 1)]);
            // What its listener asks for is no loss.
            let stop = &mut |_, _| Err(Error::Interrupted);
            let stopped = session.compile_each(&[Kind::Prompt], Readback::Top(1), stop).await;
            assert_eq!(stopped.expect_err("stopped").code(), "interrupted");
            assert_eq!(session.rebuild.heard.len(), 2);
            Ok::<_, Error>(())
        })
        .expect("the session goes on");
    }

    #[test]
    fn a_device_that_is_lost_for_want_of_memory_is_not_replaced_in_the_same_step() {
        let lives = Rc::new(RefCell::new(vec![1, 1000]));
        pollster::block_on(async {
            let maker = Maker { lives: lives.clone(), heard: Vec::new(), of_memory: true };
            let mut session = Resuming::new(maker).await?;
            let read = Readback::Top(1);
            let first = session.step(Input::prompt(&[200, 201], read)).await?;
            let error = session.step(Input::generated(&202, read)).await.expect_err("no memory");
            assert_eq!(
                (error.code(), &session.rebuild.heard[..]),
                ("out_of_memory", &["failed"][..])
            );
            // The next step, which may be smaller, gets a device of its own.
            session.step(Input::generated(&202, read)).await?;
            assert_eq!(session.rebuild.heard, ["failed", "restored"]);
            session.sequence().rewind(0);
            assert_eq!(session.step(Input::prompt(&[200, 201], read)).await?, first);
            Ok::<_, Error>(())
        })
        .expect("the session goes on");
    }

    #[test]
    fn a_step_that_failed_leaves_no_tokens() {
        let lives = Rc::new(RefCell::new(vec![1000]));
        pollster::block_on(async {
            let mut session =
                Resuming::new(Maker { lives, heard: Vec::new(), of_memory: false }).await?;
            let read = Readback::Top(1);
            session.step(Input::prompt(&[200, 201], read)).await?;
            let error = session.step(Input::prompt(&[9; 63], read)).await.expect_err("too long");
            let left = session.sequence().tokens().len();
            assert_eq!((error.code(), left), ("context_length_exceeded", 2));
            let one = session.step(Input::generated(&202, read)).await?;
            session.sequence().rewind(2);
            assert_eq!(session.step(Input::generated(&202, read)).await?, one);
            Ok::<_, Error>(())
        })
        .expect("the session goes on");
    }
}
