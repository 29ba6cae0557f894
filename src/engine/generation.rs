//! Text generation as a state machine: which step it needs next, and what it has produced.

mod constrained;
mod planned;
mod scored;
mod shift;

use std::{
    borrow::{BorrowMut, Cow},
    ops::ControlFlow,
};

use crate::{
    base::error::{Error, Result},
    engine::{
        SessionOptions,
        options::{Event, FinishReason, Generated, Logprobs, Options, Token, Trace},
        step::{Input, Readback, Route, StepOutput, Stepper},
    },
    model::{config::Config, rope},
    text::{
        sampler::Sampler,
        stop::StopTexts,
        tokenizer::{StreamDecoder, Tokenizer},
    },
};

use self::constrained::Constrained;
pub use self::shift::generate_with_room;

/// What a [`Generation`] asks of its driver next.
#[derive(Clone, Copy, Debug)]
pub enum Next<'a> {
    /// Run this step, and give the result to [`Generation::accept`].
    Step(Input<'a>),
    /// Report this to the caller.
    Event(Event<'a>),
    /// The generation has ended.
    Done,
}

/// The generation of one text, without the engine that runs the model.
///
/// A driver owns the engine: [`generate`] drives one generation, a scheduler many in turn. The
/// generation names the next step, takes its result, samples, and emits events for the caller.
pub struct Generation<'t, S = Sampler> {
    options: Options,
    session: SessionOptions,
    attn_temperature_len: u32,
    /// Ids from here on are never sampled.
    vocab: usize,
    read: Readback,
    sampler: S,
    stream: StreamDecoder<'t>,
    stops: StopTexts,
    /// What may come next, if the text is to be of some form.
    constrained: Option<Constrained>,
    /// The prompt, then the generated tokens.
    ids: Vec<u32>,
    /// Tokens of the prompt: of what goes through the model as one.
    prompt: usize,
    /// Tokens of the prompt that are in the KV cache.
    sent: usize,
    /// Tokens of the prompt that were there before its first step.
    skipped: usize,
    output: StepOutput,
    /// Log-probabilities of the prompt's tokens but the first, as far as they are wanted and known.
    scores: Vec<Logprobs>,
    /// The text of the [`Event::Rest`] emitted last.
    rest: String,
    state: State,
    made: Generated,
}

/// The state of a [`Generation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next chunk of the prompt must go through the model.
    Prompt,
    /// A chunk of the prompt has gone through; its event is due.
    Chunk,
    /// The prompt has; its log-probabilities are due, if they are wanted.
    Scored,
    /// There are logits to sample from.
    Sample,
    /// The event of a token was emitted.
    Token,
    /// The last generated token must go through the model.
    Decode,
    /// No more tokens come; text that was held back is due.
    Rest,
    /// Finished.
    Done,
}

impl<'t, S: BorrowMut<Sampler>> Generation<'t, S> {
    /// Prepares to generate after `prompt`, for a model with this configuration on an engine with
    /// these options. The sampler may be borrowed, so that its state carries over to the next text.
    ///
    /// # Errors
    ///
    /// [`Error::ContextLength`] if the prompt alone is longer than the context, [`Error::Usage`] if
    /// it or a stop text is empty or a penalty out of range, [`Error::Tokenizer`] if the prompt
    /// cannot be decoded; those of the constraint.
    pub fn new(
        config: &Config,
        session: SessionOptions,
        tokenizer: &'t Tokenizer,
        sampler: S,
        prompt: &[u32],
        options: Options,
    ) -> Result<Self> {
        let context = session.context as usize;
        options.shaping.validate()?;
        if prompt.is_empty() {
            return Err(Error::Usage("the prompt is empty".into()));
        }
        if prompt.len() > context {
            return Err(Error::ContextLength { prompt: prompt.len(), wanted: 1, context });
        }
        Ok(Self {
            session,
            attn_temperature_len: config.attention.temperature_len,
            // The vocabulary of the model may be padded beyond that of the tokenizer.
            vocab: tokenizer.vocab_size().min(config.vocab_size as usize),
            read: options.read(config, tokenizer, sampler.borrow().sampling()),
            sampler,
            stream: tokenizer.stream_after(prompt)?,
            stops: StopTexts::new(&options.stop_texts)?,
            constrained: Constrained::new(&options)?,
            options,
            ids: prompt.to_vec(),
            prompt: prompt.len(),
            sent: 0,
            skipped: 0,
            output: StepOutput::default(),
            scores: Vec::new(),
            rest: String::new(),
            state: State::Prompt,
            made: Generated {
                text: String::new(),
                tokens: Vec::new(),
                finish: FinishReason::Interrupted,
                reused: 0,
            },
        })
    }

    /// The length of the prefix that the prompt shares with the `cached` tokens, which need not go
    /// through the model again. The caller must rewind the cache to this length. Call it before the
    /// first step.
    ///
    /// The last token of a prompt always goes through, for its logits.
    pub fn reuse(&mut self, cached: &[u32]) -> usize {
        if self.sent == self.skipped {
            self.made.reused = self.skip(cached);
        }
        self.made.reused
    }

    /// Begins the prompt after what it shares with the `cached` tokens.
    fn skip(&mut self, cached: &[u32]) -> usize {
        let prompt = &self.ids[..self.prompt];
        let same = cached.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // Tokens that are to be scored go through the model.
        self.skipped = if self.options.scores() { 0 } else { same.min(self.prompt - 1) };
        self.sent = self.skipped;
        self.skipped
    }

    /// Advances to the next step or event. Returns the same step until a result is accepted.
    ///
    /// # Errors
    ///
    /// Errors of the sampler, the tokenizer and the constraint.
    pub fn advance(&mut self) -> Result<Next<'_>> {
        loop {
            match self.state {
                State::Prompt | State::Decode => return Ok(Next::Step(self.input())),
                State::Chunk => {
                    let left = self.sent < self.prompt;
                    self.state = if left { State::Prompt } else { State::Scored };
                    let skipped = self.skipped;
                    let (done, total) = (self.sent - skipped, self.prompt - skipped);
                    return Ok(Next::Event(Event::Prompt { done, total }));
                }
                State::Scored => {
                    self.state = State::Sample;
                    if self.options.scores() {
                        return Ok(Next::Event(Event::Scored(&self.scores)));
                    }
                }
                State::Sample => {
                    self.sample()?;
                    if self.state != State::Rest {
                        let last = self.made.tokens.len() - 1;
                        return Ok(Next::Event(Event::Token(&self.made.tokens[last])));
                    }
                }
                State::Token => {
                    if self.is_whole() {
                        self.end(FinishReason::Stop);
                    } else if self.made.tokens.len() == self.options.max_tokens {
                        self.end(FinishReason::Length);
                    } else if self.ids.len() > self.session.context as usize {
                        self.end(FinishReason::Context);
                    } else {
                        self.state = State::Decode;
                    }
                }
                State::Rest => {
                    self.state = State::Done;
                    let (mut rest, stopped) = self.stops.push(&self.stream.finish()?);
                    if stopped {
                        self.made.finish = FinishReason::Stop;
                    } else {
                        rest.push_str(&self.stops.rest());
                    }
                    if !rest.is_empty() {
                        self.made.text.push_str(&rest);
                        self.rest = rest;
                        return Ok(Next::Event(Event::Rest(&self.rest)));
                    }
                }
                State::Done => return Ok(Next::Done),
            }
        }
    }

    /// Takes the result of the step that [`Generation::advance`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if no step is due.
    pub fn accept(&mut self, output: StepOutput) -> Result<()> {
        match self.state {
            State::Prompt => {
                self.sent += self.input().ids.len();
                self.score(&output)?;
                self.state = State::Chunk;
            }
            State::Decode => self.state = State::Sample,
            _ => return Err(Error::Usage("this text has asked for no step".into())),
        }
        self.output = output;
        Ok(())
    }

    /// Ends the generation early: only text that was held back is still emitted.
    pub fn interrupt(&mut self) {
        if !matches!(self.state, State::Rest | State::Done) {
            self.end(FinishReason::Interrupted);
        }
    }

    /// What was generated so far.
    pub fn into_generated(self) -> Generated {
        self.made
    }

    /// The step that is due.
    fn input(&self) -> Input<'_> {
        let last = self.prompt - 1;
        let input = if self.state == State::Prompt && self.options.scores() && self.sent < last {
            Input::next_chunk(&self.ids[self.sent..last], Readback::AllLogits, self.session)
        } else if self.state == State::Prompt {
            Input::next_chunk(&self.ids[self.sent..self.prompt], self.read, self.session)
        } else {
            let last = self.ids.last().expect("a prompt has tokens");
            Input::generated(last, self.read)
        };
        input.with_routes(self.options.trace)
    }

    /// Whether its form is complete, and lets nothing follow.
    fn is_whole(&self) -> bool {
        self.constrained.as_ref().is_some_and(Constrained::is_over)
    }

    fn end(&mut self, finish: FinishReason) {
        self.made.finish = finish;
        self.state = State::Rest;
    }

    /// Samples the next token, or ends the text.
    fn sample(&mut self) -> Result<()> {
        if self.made.tokens.len() >= self.options.max_tokens {
            self.end(FinishReason::Length);
            return Ok(());
        }
        if self.is_whole() {
            self.end(FinishReason::Stop);
            return Ok(());
        }
        let StepOutput { mut candidates, routes, .. } = std::mem::take(&mut self.output);
        candidates.retain(|candidate| (candidate.id as usize) < self.vocab);
        // What may be chosen from, unless it is all of them as they are.
        let mut shaped = match &self.constrained {
            None => Cow::Borrowed(&candidates[..]),
            Some(constrained) => Cow::Owned(constrained.choose(&candidates)?),
        };
        if !self.options.shaping.is_none() {
            let made = self.made.tokens.iter().map(|token| token.id);
            self.options.shaping.apply(shaped.to_mut(), made);
        }
        let id = self.sampler.borrow_mut().sample(&shaped, &self.ids)?;
        if self.options.stop_ids.contains(&id) {
            self.end(FinishReason::Stop);
            return Ok(());
        }
        let count = self.options.logprobs;
        let logprobs = count.map(|count| scored::candidates(&candidates, id, count)).transpose()?;
        let trace = self.options.trace.then(|| self.trace(routes));
        let (text, stopped) = self.stops.push(&self.stream.push(id)?);
        self.made.text.push_str(&text);
        self.made.tokens.push(Token { id, text, logprobs, trace });
        self.ids.push(id);
        self.state = State::Token;
        if let Some(constrained) = &mut self.constrained {
            constrained.push(id, &self.options)?;
        }
        if stopped {
            self.made.finish = FinishReason::Stop;
            self.state = State::Done;
        }
        Ok(())
    }

    /// The trace of the last token that went through the model.
    fn trace(&self, mut routes: Vec<Vec<Route>>) -> Trace {
        let position = self.ids.len() - 1;
        // The context is a u32, so every position fits in one.
        let pos = u32::try_from(position).unwrap_or(u32::MAX);
        Trace {
            position,
            attention_temperature: rope::temperature(self.attn_temperature_len, pos),
            routes: routes.pop().unwrap_or_default(),
        }
    }
}

/// Generates text after `prompt`.
///
/// The prefix that the cache shares with the prompt is reused. `on_event` may stop the generation
/// between tokens, and between chunks of the prompt.
///
/// # Errors
///
/// Those of [`Generation::new`]; errors of the engine, the sampler and `on_event`.
pub async fn generate<S: Stepper>(
    stepper: &mut S,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: &Options,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<ControlFlow<()>>,
) -> Result<Generated> {
    let mut no_room = |_| Ok(None);
    generate_with_room(stepper, tokenizer, sampler, prompt, options, on_event, &mut no_room).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::tensor::DType,
        checkpoint::Synthetic,
        engine::{sequence::Sequence, session::Session, step::Run},
        machine::host::Host,
        model::config::Config,
        text::{sampler::Sampling, tokenizer::synthetic_tok_json},
    };

    fn tokenizer(vocab: u32) -> Tokenizer {
        let json = synthetic_tok_json(vocab).expect("in range");
        Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
    }

    fn session(context: u32) -> Session<Host> {
        let config = Config::preset("small").expect("a preset").with_layers(1);
        let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
        let sizes = SessionOptions::new(context, 2, DType::F32);
        pollster::block_on(async {
            Session::load(Host::default(), &config, &weights, sizes, &mut |_| Ok(())).await
        })
        .expect("a session")
    }

    fn options(max_tokens: usize) -> Options {
        Options { max_tokens, ..Options::default() }
    }

    /// Greedy text after three tokens; `hear` says when to stop.
    fn run(
        session: &mut Session<Host>,
        options: &Options,
        hear: &mut dyn FnMut(Event<'_>) -> bool,
    ) -> Generated {
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let mut on_event = |event: Event<'_>| {
            Ok(if hear(event) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        let tokenizer = tokenizer(512);
        let prompt = [200, 201, 202];
        let made = generate(session, &tokenizer, &mut sampler, &prompt, options, &mut on_event);
        pollster::block_on(made).expect("a text")
    }

    fn ids(made: &Generated) -> Vec<u32> {
        made.tokens.iter().map(|token| token.id).collect()
    }

    #[test]
    fn every_end_is_told_apart() {
        let all = run(&mut session(64), &options(6), &mut |_| true);
        assert_eq!((all.finish, all.tokens.len(), all.reused), (FinishReason::Length, 6, 0));
        // Three tokens of the prompt fill the cache; their logits give one more token.
        let full = run(&mut session(3), &options(6), &mut |_| true);
        assert_eq!((full.finish, ids(&full)), (FinishReason::Context, ids(&all)[..1].to_vec()));
        assert_eq!(full.finish.name(), "length");

        let stop = ids(&all)[3];
        let first = ids(&all).iter().position(|&id| id == stop).expect("it is there");
        let stops = Options { stop_ids: vec![stop], ..options(6) };
        let stopped = run(&mut session(64), &stops, &mut |_| true);
        assert_eq!(
            (stopped.finish, ids(&stopped)),
            (FinishReason::Stop, ids(&all)[..first].to_vec())
        );

        let mut left = 2;
        let stopped = run(&mut session(64), &options(6), &mut |event| {
            left -= usize::from(matches!(event, Event::Token(_)));
            left > 0
        });
        assert_eq!(
            (stopped.finish, ids(&stopped)),
            (FinishReason::Interrupted, ids(&all)[..2].to_vec())
        );
        let nothing = run(&mut session(64), &options(6), &mut |_| false);
        assert_eq!((nothing.finish, nothing.tokens.len()), (FinishReason::Interrupted, 0));
    }

    #[test]
    fn events_are_the_text_in_pieces() {
        let (mut text, mut prompt) = (String::new(), Vec::new());
        let made = run(&mut session(64), &options(8), &mut |event| {
            match event {
                Event::Prompt { done, total } => prompt.push((done, total)),
                Event::Scored(_) => panic!("nobody asked for it"),
                Event::Token(token) => text += &token.text,
                Event::Rest(rest) => text += rest,
            }
            true
        });
        assert_eq!(prompt, [(2, 3), (3, 3)]);
        assert_eq!(made.text, text);
        assert_eq!(made.text, tokenizer(512).decode_lossy(&ids(&made)).expect("ids"));
    }

    #[test]
    fn what_is_cached_is_not_run_again() {
        let mut session = session(64);
        let first = run(&mut session, &options(4), &mut |_| true);
        let again = run(&mut session, &options(4), &mut |_| true);
        assert_eq!((first.reused, again.reused), (0, 2));
        assert_eq!(ids(&first), ids(&again));
    }

    #[test]
    fn logprobs_are_of_the_whole_vocabulary() {
        let options = Options { logprobs: Some(512), ..options(2) };
        for token in run(&mut session(64), &options, &mut |_| true).tokens {
            let logprobs = token.logprobs.expect("asked for");
            assert_eq!(logprobs.top[0], (token.id, logprobs.chosen));
            let total: f64 = logprobs.top.iter().map(|(_, logprob)| logprob.exp()).sum();
            assert!((total - 1.0).abs() < 1e-9, "{total}");
        }
    }

    #[test]
    fn stop_texts_end_the_text_before_them() {
        let all = run(&mut session(64), &options(8), &mut |_| true);
        // A stop text that begins in one token and ends in another.
        let (before, stop) = all.text.split_at(all.tokens[0].text.len() + 1);
        let stop: String = stop.chars().take(3).collect();
        let stops = Options { stop_texts: vec![stop.clone()], ..options(8) };
        let made = run(&mut session(64), &stops, &mut |_| true);
        let first = all.text.find(&stop).expect("it is there");
        assert_eq!((made.finish, made.text.as_str()), (FinishReason::Stop, &all.text[..first]));
        assert!(before.starts_with(&made.text) && made.tokens.len() < 8);
        let empty = Options { stop_texts: vec![String::new()], ..options(8) };
        let (mut session, tokenizer) = (session(64), tokenizer(512));
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
        let made = generate(&mut session, &tokenizer, &mut sampler, &[9], &empty, &mut on_event);
        assert_eq!(pollster::block_on(made).expect_err("empty").code(), "usage");
    }

    #[test]
    fn what_is_inside_comes_with_each_token() {
        let mut session = session(64);
        let trace = Options { trace: true, logprobs: Some(1), ..options(3) };
        let made = run(&mut session, &trace, &mut |_| true);
        let plain = run(&mut session, &options(3), &mut |_| true);
        assert_eq!(ids(&made), ids(&plain));
        assert!(plain.tokens.iter().all(|token| token.trace.is_none()));
        for (i, token) in made.tokens.iter().enumerate() {
            let trace = token.trace.as_ref().expect("asked for");
            assert_eq!(trace.position, 2 + i);
            assert!((trace.attention_temperature - 1.0).abs() < f32::EPSILON);
            let config = session.config().clone();
            assert_eq!(trace.routes.len(), config.num_hidden_layers() as usize);
            for route in &trace.routes {
                assert_eq!(route.experts.len(), config.num_experts_per_tok() as usize);
                assert!(route.experts.iter().all(|&e| e < config.num_local_experts()));
                assert!(route.probs.is_sorted_by(|a, b| a >= b) && route.probs[0] <= 1.0);
            }
        }
        // Routes are the same as where the logits of all tokens are read.
        session.rewind(0);
        session.report_routes(true);
        let all = session.prefill(&[200, 201, 202], Readback::AllLogits);
        let all = pollster::block_on(all).expect("runs").routes;
        let first = made.tokens[0].trace.as_ref().expect("asked for");
        assert_eq!((all.len(), &all[2]), (3, &first.routes));
    }

    #[test]
    fn rows_without_a_token_are_never_chosen() {
        // The model has 512 rows; most of them have no token.
        let tokenizer = tokenizer(300);
        let sampling = Sampling { temperature: 2.0, seed: 5, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).expect("in range");
        let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
        let mut session = session(64);
        let options = options(40);
        let made = generate(&mut session, &tokenizer, &mut sampler, &[50], &options, &mut on_event);
        let made = pollster::block_on(made).expect("a text");
        assert_eq!(made.tokens.len(), 40);
        assert!(ids(&made).iter().all(|&id| id < 300));
    }

    #[test]
    fn prompts_that_cannot_be_are_errors() {
        let (mut session, tokenizer) = (session(4), tokenizer(512));
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
        for (prompt, code) in [(&[][..], "usage"), (&[9; 5], "context_length_exceeded")] {
            let options = options(1);
            let made =
                generate(&mut session, &tokenizer, &mut sampler, prompt, &options, &mut on_event);
            assert_eq!(pollster::block_on(made).expect_err("cannot be").code(), code);
        }
    }

    /// As a scheduler does: texts that are generated in turn give the same as each alone.
    #[test]
    fn texts_by_turns_are_those_that_are_made_alone() {
        let tokenizer = tokenizer(512);
        let prompts = [vec![200, 201, 202], vec![7; 5]];
        let sampling = |seed| Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let options = options(6);
        let mut session = session(64);
        let alone = [0, 1].map(|i| {
            let mut sampler = Sampler::new(sampling(i as u64)).expect("in range");
            session.rewind(0);
            let mut quiet = |_: Event<'_>| Ok(ControlFlow::Continue(()));
            let prompt = &prompts[i];
            let made =
                generate(&mut session, &tokenizer, &mut sampler, prompt, &options, &mut quiet);
            pollster::block_on(made).expect("a text")
        });

        session.rewind(0);
        session.sequence().release();
        let (config, sizes) = (session.config().clone(), session.options());
        let mut texts = [0, 1].map(|i| {
            let sampler = Sampler::new(sampling(i as u64)).expect("in range");
            let made =
                Generation::new(&config, sizes, &tokenizer, sampler, &prompts[i], options.clone());
            (made.expect("a text"), Sequence::new())
        });
        let engine = session.engine();
        let mut left = texts.len();
        while left > 0 {
            left = 0;
            for (text, sequence) in &mut texts {
                // The cache has room for one text, so each turn restores its sequence.
                pollster::block_on(engine.restore(sequence)).expect("there is room");
                loop {
                    match text.advance().expect("a token") {
                        Next::Step(input) => {
                            let step = Run { sequence: &mut *sequence, input };
                            let mut outputs =
                                pollster::block_on(engine.step(&mut [step])).expect("runs");
                            let output = outputs.remove(0).expect("it runs alone");
                            text.accept(output).expect("it was asked for");
                            left += 1;
                            break;
                        }
                        Next::Event(_) => {}
                        Next::Done => break,
                    }
                }
                sequence.release();
            }
        }
        assert_eq!(texts.map(|(text, _)| text.into_generated()), alone);
    }

    #[test]
    fn steps_are_asked_for_until_they_are_taken() {
        let (session, tokenizer) = (session(64), tokenizer(512));
        let sampler = Sampler::new(Sampling::default()).expect("in range");
        let prompt = [200, 201, 202];
        let (config, sizes) = (session.config(), session.options());
        let made = Generation::new(config, sizes, &tokenizer, sampler, &prompt, options(1));
        let mut text = made.expect("a text");
        assert_eq!(text.reuse(&[200, 9]), 1);
        for _ in 0..2 {
            let Next::Step(input) = text.advance().expect("a step") else { panic!("a step first") };
            assert_eq!((input.ids, input.read), (&prompt[1..], Readback::Top(1)));
        }
        text.accept(StepOutput::default()).expect("it was asked for");
        assert_eq!(text.accept(StepOutput::default()).expect_err("it was not").code(), "usage");
        assert_eq!(text.reuse(&prompt), 1, "too late");
        text.interrupt();
        assert!(matches!(text.advance(), Ok(Next::Done)));
        let made = text.into_generated();
        assert_eq!((made.finish, made.tokens.len()), (FinishReason::Interrupted, 0));
    }
}
