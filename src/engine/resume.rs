//! A session that outlives its device: what was in the cache goes through a new one again.

use crate::{
    base::error::{Error, Result},
    engine::session::{Read, Reply, Session, Sizes, Steps},
    machine::Machine,
    model::config::Config,
};

/// How often in a row a new device is tried for one step.
const TRIES: u32 = 3;

/// Makes sessions of one model and one size, each on a new device.
#[expect(async_fn_in_trait, reason = "a session is one thread, and browser futures are not Send")]
pub trait Rebuild {
    /// What the sessions run on.
    type Machine: Machine;

    /// A session with all weights and an empty cache.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the new device was lost too: then another is tried.
    async fn build(&mut self) -> Result<Session<Self::Machine>>;

    /// Hears what happens to devices.
    fn hear(&mut self, change: Change<'_>);
}

/// What happens to a device.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// It is gone, for this reason.
    Lost(&'a Error),
    /// Another one has the weights and the cache.
    Restored,
    /// There will be no other, for this reason, until the next step tries again.
    Failed(&'a Error),
}

/// A session that is made again when its device is lost. Steps that were under way are repeated,
/// so that whoever takes them notices only the time.
///
/// Tokens go through the new device the way they went through the lost one, prompts as prompts and
/// generated tokens one by one, so that the cache has the same bits on the same adapter.
pub struct Resuming<R: Rebuild> {
    rebuild: R,
    /// None from a loss until the next step.
    session: Option<Session<R::Machine>>,
    config: Config,
    sizes: Sizes,
    tokens: Vec<u32>,
    /// Whether each token was generated.
    generated: Vec<bool>,
    report_routes: bool,
}

/// What goes through the model in a step.
#[derive(Clone, Copy)]
enum Input<'a> {
    Prompt(&'a [u32]),
    Generated(u32),
}

impl<R: Rebuild> Resuming<R> {
    /// Builds the first session.
    pub async fn new(mut rebuild: R) -> Result<Self> {
        let session = rebuild.build().await?;
        Ok(Self {
            config: session.config().clone(),
            sizes: session.sizes(),
            session: Some(session),
            rebuild,
            tokens: Vec::new(),
            generated: Vec::new(),
            report_routes: false,
        })
    }

    /// Makes the session whole if its device was lost. A step would do the same when it comes.
    pub async fn heal(&mut self) -> Result<()> {
        self.persist(async |session| session.machine_mut().flush().await).await
    }

    /// Does `work`, on another device if the one there is gets lost.
    async fn persist<T>(
        &mut self,
        work: impl AsyncFn(&mut Session<R::Machine>) -> Result<T>,
    ) -> Result<T> {
        let mut losses = 0;
        loop {
            let result = match self.ready().await {
                Ok(session) => work(session).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error @ Error::Lost(_)) => {
                    self.session = None;
                    losses += 1;
                    if losses > TRIES {
                        self.rebuild.hear(Change::Failed(&error));
                        return Err(error);
                    }
                    self.rebuild.hear(Change::Lost(&error));
                }
                result => {
                    if let (Err(error), None) = (&result, &self.session) {
                        self.rebuild.hear(Change::Failed(error));
                    }
                    return result;
                }
            }
        }
    }

    /// The session, or a new one that has seen the same tokens.
    async fn ready(&mut self) -> Result<&mut Session<R::Machine>> {
        if self.session.is_none() {
            let mut session = self.rebuild.build().await?;
            let mut at = 0;
            for run in self.generated.chunk_by(|a, b| a == b) {
                let ids = &self.tokens[at..at + run.len()];
                if run[0] {
                    for &id in ids {
                        session.decode(id, Read::Nothing).await?;
                    }
                } else {
                    session.prefill(ids, Read::Nothing).await?;
                }
                at += run.len();
            }
            session.machine_mut().flush().await?;
            self.rebuild.hear(Change::Restored);
            self.session = Some(session);
        }
        Ok(self.session.as_mut().expect("made above"))
    }

    async fn step(&mut self, input: Input<'_>, read: Read) -> Result<Reply> {
        let report_routes = self.report_routes;
        let keep = self.tokens.len();
        let result = self
            .persist(async |session| {
                // What a step that failed has left there, or one that was rewound.
                session.rewind(keep);
                session.report_routes(report_routes);
                let reply = match input {
                    Input::Prompt(ids) => session.prefill(ids, read).await?,
                    Input::Generated(id) => session.decode(id, read).await?,
                };
                if read == Read::Nothing {
                    // Losses are seen, and others have a turn, at every step.
                    session.machine_mut().flush().await?;
                }
                Ok(reply)
            })
            .await;
        if result.is_ok() {
            match input {
                Input::Prompt(ids) => self.tokens.extend_from_slice(ids),
                Input::Generated(id) => self.tokens.push(id),
            }
            self.generated.resize(self.tokens.len(), matches!(input, Input::Generated(_)));
        }
        result
    }
}

impl<R: Rebuild> Steps for Resuming<R> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    fn rewind(&mut self, keep: usize) {
        self.tokens.truncate(keep);
        self.generated.truncate(keep);
    }

    fn report_routes(&mut self, wanted: bool) {
        self.report_routes = wanted;
    }

    async fn prefill(&mut self, ids: &[u32], read: Read) -> Result<Reply> {
        self.step(Input::Prompt(ids), read).await
    }

    async fn decode(&mut self, id: u32, read: Read) -> Result<Reply> {
        self.step(Input::Generated(id), read).await
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, ops::ControlFlow, rc::Rc};

    use super::*;
    use crate::{
        base::tensor::{DType, Shape, Tensor},
        checkpoint::Synthetic,
        engine::generate::{Event, Generation, Settings, generate},
        machine::{Role, host::Host, kernel::Executor},
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
    }

    impl Mortal {
        fn live(&mut self) -> Result<()> {
            self.left = self.left.checked_sub(1).ok_or_else(|| Error::Lost("a test".into()))?;
            Ok(())
        }
    }

    impl Machine for Mortal {
        type Plan = <Host as Machine>::Plan;

        fn alloc(&mut self, role: Role, dtype: DType, shape: Shape) -> Result<Tensor> {
            self.host.alloc(role, dtype, shape)
        }

        fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
            Machine::write(&mut self.host, tensor, offset, bytes)
        }

        fn record(
            &mut self,
            program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        ) -> Result<Self::Plan> {
            self.host.record(program)
        }

        async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
            self.live()?;
            self.host.run_plan(plan, read).await
        }

        async fn flush(&mut self) -> Result<()> {
            self.host.flush().await
        }

        fn max_binding_bytes(&self) -> u64 {
            self.host.max_binding_bytes()
        }
    }

    struct Maker {
        lives: Lives,
        heard: Vec<&'static str>,
    }

    impl Rebuild for Maker {
        type Machine = Mortal;

        async fn build(&mut self) -> Result<Session<Mortal>> {
            let left = {
                let mut lives = self.lives.borrow_mut();
                if lives.len() > 1 { lives.remove(0) } else { lives[0] }
            };
            let config = Config::preset("small").expect("one").with_layers(1);
            let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
            let sizes = Sizes { context: 64, prefill: 2, cache: DType::Q8 };
            let machine = Mortal { host: Host::default(), left };
            Session::load(machine, &config, &weights, sizes, &mut |_| Ok(())).await
        }

        fn hear(&mut self, change: Change<'_>) {
            self.heard.push(match change {
                Change::Lost(_) => "lost",
                Change::Restored => "restored",
                Change::Failed(_) => "failed",
            });
        }
    }

    /// Two texts, the second with the first in the cache; what was heard besides.
    fn run(lives: &[u32]) -> Result<(Vec<Generation>, Vec<&'static str>)> {
        pollster::block_on(async {
            let lives = Rc::new(RefCell::new(lives.to_vec()));
            let mut session = Resuming::new(Maker { lives, heard: Vec::new() }).await?;
            let json = synthetic_tok_json(512).expect("in range");
            let tokenizer = Tokenizer::from_tok_json("synthetic", json.as_bytes())?;
            let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
            let mut sampler = Sampler::new(sampling)?;
            let settings = Settings { max_tokens: 4, ..Settings::default() };
            let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
            let mut made = Vec::new();
            let mut prompt = vec![200, 201, 202];
            for _ in 0..2 {
                let text = generate(
                    &mut session,
                    &tokenizer,
                    &mut sampler,
                    &prompt,
                    &settings,
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
    fn a_step_that_failed_leaves_no_tokens() {
        let lives = Rc::new(RefCell::new(vec![1000]));
        pollster::block_on(async {
            let mut session = Resuming::new(Maker { lives, heard: Vec::new() }).await?;
            session.prefill(&[200, 201], Read::Top(1)).await?;
            let error = session.prefill(&[9; 63], Read::Top(1)).await.expect_err("too long");
            assert_eq!((error.code(), session.tokens().len()), ("context_length_exceeded", 2));
            let one = session.decode(202, Read::Top(1)).await?;
            session.rewind(2);
            assert_eq!(session.decode(202, Read::Top(1)).await?, one);
            Ok::<_, Error>(())
        })
        .expect("the session goes on");
    }
}
