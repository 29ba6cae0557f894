//! A text that goes on when the context is full: a shorter prompt takes the place of its own.

use std::{borrow::BorrowMut, ops::ControlFlow};

use super::{Generation, Next, State};
use crate::{
    base::error::{Error, Result},
    engine::{
        options::{Event, Generated, Options},
        step::Stepper,
    },
    text::{sampler::Sampler, tokenizer::Tokenizer},
};

impl<S: BorrowMut<Sampler>> Generation<'_, S> {
    /// Whether the context has no room for the last token, so that the text ends here unless its
    /// prompt is replaced.
    pub fn is_full(&self) -> bool {
        self.state == State::Token
            && !self.is_whole()
            && self.made.tokens.len() < self.options.max_tokens
            && self.ids.len() > self.session.context as usize
    }

    /// Goes on after another prompt. What was generated so far goes through the model once more, as
    /// the end of that prompt.
    ///
    /// Returns how much of it the `cached` tokens begin with, to which the caller must rewind the
    /// cache. They must have gone through the model as a prompt: then the text goes on as it would
    /// with an empty cache.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the context is not full, or the prompt is empty;
    /// [`Error::ContextLength`] if the prompt and what was generated have no room either.
    pub fn replace_prompt(&mut self, prompt: &[u32], cached: &[u32]) -> Result<usize> {
        if !self.is_full() || prompt.is_empty() {
            return Err(Error::Usage("this text needs no other prompt, or has none".into()));
        }
        let context = self.session.context as usize;
        let mut ids = prompt.to_vec();
        ids.extend(self.made.tokens.iter().map(|token| token.id));
        if ids.len() > context {
            return Err(Error::ContextLength { prompt: ids.len(), wanted: 1, context });
        }
        (self.prompt, self.ids) = (ids.len(), ids);
        self.state = State::Prompt;
        Ok(self.skip(cached))
    }
}

/// As [`generate`](super::generate), but where the context is full, `make_room` is asked for a
/// shorter prompt after which the text goes on. It is given the number of tokens generated so far,
/// for which there must be room as well. If it has none, the text ends.
///
/// # Errors
///
/// Those of [`generate`](super::generate), of [`Generation::replace_prompt`] and of `make_room`.
pub async fn generate_with_room<S: Stepper>(
    stepper: &mut S,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: &Options,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<ControlFlow<()>>,
    make_room: &mut dyn FnMut(usize) -> Result<Option<Vec<u32>>>,
) -> Result<Generated> {
    let (config, session) = (stepper.config(), stepper.options());
    let mut generation =
        Generation::new(config, session, tokenizer, sampler, prompt, options.clone())?;
    let sequence = stepper.sequence();
    sequence.rewind(generation.reuse(sequence.tokens()));
    loop {
        match generation.advance()? {
            Next::Step(input) => match stepper.step(input).await {
                // A step that takes long may be asked to stop.
                Err(Error::Interrupted) => generation.interrupt(),
                output => generation.accept(output?)?,
            },
            Next::Event(event) => {
                if on_event(event)?.is_break() {
                    generation.interrupt();
                }
            }
            Next::Done => return Ok(generation.into_generated()),
        }
        if generation.is_full()
            && let Some(prompt) = make_room(generation.made.tokens.len())?
        {
            let sequence = stepper.sequence();
            sequence.rewind(generation.replace_prompt(&prompt, sequence.prompt())?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::tensor::DType,
        checkpoint::Synthetic,
        engine::{SessionOptions, options::FinishReason, session::Session},
        machine::host::Host,
        model::config::Config,
        text::{sampler::Sampling, tokenizer::synthetic_tok_json},
    };

    fn session() -> Session<Host> {
        let config = Config::preset("small").expect("a preset").with_layers(1);
        let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
        let sizes = SessionOptions::new(12, 4, DType::F32);
        pollster::block_on(Session::load(
            Host::default(),
            &config,
            &weights,
            sizes,
            &mut |_| Ok(()),
        ))
        .expect("a session")
    }

    fn tokenizer() -> Tokenizer {
        let json = synthetic_tok_json(512).expect("in range");
        Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
    }

    /// Text after `prompt`, with the prompts that are asked for in turn; also returns how many
    /// tokens there were each time, and the prompts' progress.
    fn run(
        session: &mut Session<Host>,
        prompt: &[u32],
        options: &Options,
        shorter: &[&[u32]],
    ) -> (Generated, Vec<usize>, Vec<(usize, usize)>) {
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let (mut asked, mut progress) = (Vec::new(), Vec::new());
        let mut on_event = |event: Event<'_>| {
            if let Event::Prompt { done, total } = event {
                progress.push((done, total));
            }
            Ok(ControlFlow::Continue(()))
        };
        let mut make_room = |made| {
            asked.push(made);
            Ok(shorter.get(asked.len() - 1).map(|ids| ids.to_vec()))
        };
        let tokenizer = tokenizer();
        let made = generate_with_room(
            session,
            &tokenizer,
            &mut sampler,
            prompt,
            options,
            &mut on_event,
            &mut make_room,
        );
        let made = pollster::block_on(made).expect("a text");
        (made, asked, progress)
    }

    fn ids(made: &Generated) -> Vec<u32> {
        made.tokens.iter().map(|token| token.id).collect()
    }

    const LONG: [u32; 10] = [200, 201, 202, 203, 204, 205, 206, 207, 208, 209];

    /// The bits of the logits too: the log-probabilities are those of a fresh session.
    #[test]
    fn a_text_goes_on_as_after_the_shorter_prompt() {
        let options = Options { max_tokens: 9, logprobs: Some(3), ..Options::default() };
        let mut session = session();
        let shorter = [&LONG[..4]];
        let (made, asked, progress) = run(&mut session, &LONG, &options, &shorter);
        // Twelve positions hold ten tokens of the prompt and two of three that are generated.
        assert_eq!(asked, [3]);
        assert_eq!((made.finish, made.tokens.len()), (FinishReason::Length, 9));
        // Four of seven tokens are in the cache.
        assert_eq!(progress, [(4, 10), (8, 10), (10, 10), (3, 3)]);

        let (_, rest) = made.tokens.split_at(3);
        let prompt = [&LONG[..4], &ids(&made)[..3]].concat();
        let fresh = Options { max_tokens: 6, ..options };
        let (again, ..) = run(&mut self::session(), &prompt, &fresh, &[]);
        for (token, fresh) in rest.iter().zip(&again.tokens) {
            assert_eq!((token.id, &token.logprobs), (fresh.id, &fresh.logprobs));
        }
    }

    #[test]
    fn a_text_ends_if_there_is_no_shorter_prompt() {
        let options = Options { max_tokens: 40, ..Options::default() };
        let (made, asked, _) = run(&mut session(), &LONG, &options, &[&LONG[..5], &LONG[..1]]);
        // One more token than positions, whenever it is asked.
        assert_eq!(asked, [3, 8, 12]);
        assert_eq!((made.finish, made.tokens.len()), (FinishReason::Context, 12));
        assert_eq!(made.text, tokenizer().decode_lossy(&ids(&made)).expect("ids"));
    }

    #[test]
    fn a_prompt_is_replaced_only_where_it_must_be() {
        let session = session();
        let (config, sizes) = (session.config().clone(), session.options());
        let tokenizer = tokenizer();
        let options = Options::default();
        let sampler = Sampler::greedy();
        let mut text =
            Generation::new(&config, sizes, &tokenizer, sampler, &LONG, options).expect("a text");
        assert!(!text.is_full());
        assert_eq!(text.replace_prompt(&[9], &[]).expect_err("too early").code(), "usage");
        text.state = State::Token;
        text.ids.extend([1, 2, 3]);
        assert!(text.is_full());
        let long = text.replace_prompt(&[9; 13], &[]).expect_err("too long");
        assert_eq!(long.code(), "context_length_exceeded");
        assert_eq!(text.replace_prompt(&[], &[]).expect_err("empty").code(), "usage");
        assert_eq!(text.replace_prompt(&[9, 8], &[9, 7]).expect("shorter"), 1);
    }
}
