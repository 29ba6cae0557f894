//! The loop that makes text: a prompt goes in, one token after another comes out.

use std::ops::ControlFlow;

use crate::{
    base::error::{Error, Result},
    engine::session::{Read, Reply, Route, Steps},
    model::{config::Config, rope},
    text::{
        sampler::{Candidate, Sampler, Sampling, logprobs, top_logprobs},
        stop::StopTexts,
        tokenizer::Tokenizer,
    },
};

/// When to stop, and what to report.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Most tokens to make.
    pub max_tokens: usize,
    /// Ids that end the text. They are not part of it.
    pub stop_ids: Vec<u32>,
    /// Texts that end the text. They are not part of it.
    pub stop_texts: Vec<String>,
    /// Whether to report log-probabilities, and for how many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// Whether to report what went on in the model.
    pub inside: bool,
}

impl Settings {
    /// What is read back of each step that makes a token.
    pub fn read(&self, config: &Config, tokenizer: &Tokenizer, sampling: &Sampling) -> Read {
        // Ids that the tokenizer lacks could be the whole list of the largest.
        let beyond = tokenizer.vocab_size() < config.vocab_size as usize;
        if self.logprobs.is_some() || beyond { Read::Logits } else { sampling.needs().into() }
    }
}

/// Log-probabilities at the place of a token, natural logarithms, before any sampling rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was chosen.
    pub chosen: f64,
    /// Of the likeliest tokens, in falling order.
    pub top: Vec<(u32, f64)>,
    /// A logit less its log-probability: the logarithm of the sum of all exponentials.
    pub norm: f64,
}

/// What went on in the model when a token was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Inside {
    /// Position of the token that was read to make this one.
    pub position: usize,
    /// Factor on the attention logits at that position.
    pub attention_temperature: f32,
    /// The experts that each layer chose there.
    pub routes: Vec<Route>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that it completes: empty inside a character, or inside what may be a stop text.
    pub text: String,
    /// If they were asked for.
    pub logprobs: Option<Logprobs>,
    /// If it was asked for.
    pub inside: Option<Inside>,
}

/// What the caller hears while the text is made.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Tokens of the prompt that have gone through the model, of all that must.
    Prompt {
        /// Done so far.
        done: usize,
        /// All of them, without those that were in the cache.
        total: usize,
    },
    /// The next token.
    Token(&'a Token),
    /// Text that was held back until it was clear that no more tokens come.
    Rest(&'a str),
}

/// Why no more tokens came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its text, or a stop text came.
    Stop,
    /// There are as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller wanted no more.
    Interrupted,
}

impl Finish {
    /// The name that other programs know: `stop`, `length` or `interrupted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length | Self::Context => "length",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A text that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The text of all tokens.
    pub text: String,
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that were in the cache and did not go through the model again.
    pub reused: usize,
}

/// Makes text after `prompt`.
///
/// What the session's cache has in common with the prompt is kept. `on_event` may stop the work
/// between tokens, and between chunks of the prompt.
///
/// # Errors
///
/// [`Error::ContextLength`] if the prompt alone is longer than the context, [`Error::Usage`] if it
/// is empty; what the session, the sampler and `on_event` give.
pub async fn generate<S: Steps>(
    session: &mut S,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    prompt: &[u32],
    settings: &Settings,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<ControlFlow<()>>,
) -> Result<Generation> {
    let context = session.sizes().context as usize;
    if prompt.is_empty() {
        return Err(Error::Usage("the prompt is empty".into()));
    }
    if prompt.len() > context {
        return Err(Error::ContextLength { prompt: prompt.len(), wanted: 1, context });
    }
    let mut stops = StopTexts::new(&settings.stop_texts)?;
    // The model may have more rows than there are tokens; the rest must never be chosen.
    let vocab = tokenizer.vocab_size().min(session.config().vocab_size as usize);
    let read = settings.read(session.config(), tokenizer, sampler.sampling());

    let same = session.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count();
    // The last token must go through the model for its logits.
    let reused = same.min(prompt.len() - 1);
    session.rewind(reused);
    session.report_routes(settings.inside);
    let mut made =
        Generation { text: String::new(), tokens: Vec::new(), finish: Finish::Length, reused };
    let Some(mut reply) = prefill(session, &prompt[reused..], read, on_event).await? else {
        return Ok(Generation { finish: Finish::Interrupted, ..made });
    };

    let mut stream = tokenizer.stream();
    while made.tokens.len() < settings.max_tokens {
        reply.candidates.retain(|candidate| (candidate.id as usize) < vocab);
        let id = sampler.sample(&reply.candidates, session.tokens())?;
        if settings.stop_ids.contains(&id) {
            made.finish = Finish::Stop;
            break;
        }
        let logprobs =
            settings.logprobs.map(|count| report(&reply.candidates, id, count)).transpose()?;
        let inside = settings.inside.then(|| look(session, &mut reply));
        let (text, stopped) = stops.push(&stream.push(id)?);
        let token = Token { id, text, logprobs, inside };
        made.text.push_str(&token.text);
        let flow = on_event(Event::Token(&token))?;
        made.tokens.push(token);
        if stopped {
            made.finish = Finish::Stop;
            return Ok(made);
        }
        if flow.is_break() {
            made.finish = Finish::Interrupted;
            break;
        }
        if made.tokens.len() == settings.max_tokens {
            break;
        }
        if session.tokens().len() == context {
            made.finish = Finish::Context;
            break;
        }
        reply = session.decode(id, read).await?;
    }
    let (mut rest, stopped) = stops.push(&stream.finish()?);
    if stopped {
        made.finish = Finish::Stop;
    } else {
        rest.push_str(&stops.rest());
    }
    if !rest.is_empty() {
        // There is nothing left to stop.
        let _ = on_event(Event::Rest(&rest))?;
        made.text.push_str(&rest);
    }
    Ok(made)
}

/// Sends the prompt through the model; `None` if the caller stopped it.
async fn prefill<S: Steps>(
    session: &mut S,
    ids: &[u32],
    read: Read,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<ControlFlow<()>>,
) -> Result<Option<Reply>> {
    let mut reply = Reply::default();
    let mut done = 0;
    for part in ids.chunks(session.sizes().prefill as usize) {
        done += part.len();
        let read = if done == ids.len() { read } else { Read::Nothing };
        reply = session.prefill(part, read).await?;
        if on_event(Event::Prompt { done, total: ids.len() })?.is_break() {
            return Ok(None);
        }
    }
    Ok(Some(reply))
}

/// What went on in the model at the last token that went through it.
fn look<S: Steps>(session: &S, reply: &mut Reply) -> Inside {
    let position = session.tokens().len() - 1;
    // The context is a u32, so positions in it are.
    let pos = u32::try_from(position).unwrap_or(u32::MAX);
    Inside {
        position,
        attention_temperature: rope::temperature(session.config().attention.temperature_len, pos),
        routes: std::mem::take(&mut reply.routes),
    }
}

/// The log-probabilities among all candidates, which are in the order of their ids.
fn report(candidates: &[Candidate], id: u32, count: usize) -> Result<Logprobs> {
    let logits: Vec<f32> = candidates.iter().map(|candidate| candidate.logit).collect();
    let top = top_logprobs(&logits, count)?;
    let chosen = logprobs(&logits, &[id])?[0];
    // The id is one of the candidates, whose places are their ids.
    Ok(Logprobs { chosen, top, norm: f64::from(logits[id as usize]) - chosen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::tensor::DType,
        checkpoint::Synthetic,
        engine::session::{Session, Sizes},
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
        let sizes = Sizes { context, prefill: 2, cache: DType::F32 };
        pollster::block_on(async {
            Session::load(Host::default(), &config, &weights, sizes, &mut |_| Ok(())).await
        })
        .expect("a session")
    }

    fn settings(max_tokens: usize) -> Settings {
        Settings { max_tokens, ..Settings::default() }
    }

    /// Greedy text after three tokens; `hear` says when to stop.
    fn run(
        session: &mut Session<Host>,
        settings: &Settings,
        hear: &mut dyn FnMut(Event<'_>) -> bool,
    ) -> Generation {
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let mut on_event = |event: Event<'_>| {
            Ok(if hear(event) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        let tokenizer = tokenizer(512);
        let prompt = [200, 201, 202];
        let made = generate(session, &tokenizer, &mut sampler, &prompt, settings, &mut on_event);
        pollster::block_on(made).expect("a text")
    }

    fn ids(made: &Generation) -> Vec<u32> {
        made.tokens.iter().map(|token| token.id).collect()
    }

    #[test]
    fn every_end_is_told_apart() {
        let all = run(&mut session(64), &settings(6), &mut |_| true);
        assert_eq!((all.finish, all.tokens.len(), all.reused), (Finish::Length, 6, 0));
        // Three of the prompt, one made from a full cache.
        let full = run(&mut session(3), &settings(6), &mut |_| true);
        assert_eq!((full.finish, ids(&full)), (Finish::Context, ids(&all)[..1].to_vec()));
        assert_eq!(full.finish.name(), "length");

        let stop = ids(&all)[3];
        let first = ids(&all).iter().position(|&id| id == stop).expect("it is there");
        let stops = Settings { stop_ids: vec![stop], ..settings(6) };
        let stopped = run(&mut session(64), &stops, &mut |_| true);
        assert_eq!((stopped.finish, ids(&stopped)), (Finish::Stop, ids(&all)[..first].to_vec()));

        let mut left = 2;
        let stopped = run(&mut session(64), &settings(6), &mut |event| {
            left -= usize::from(matches!(event, Event::Token(_)));
            left > 0
        });
        assert_eq!((stopped.finish, ids(&stopped)), (Finish::Interrupted, ids(&all)[..2].to_vec()));
        let nothing = run(&mut session(64), &settings(6), &mut |_| false);
        assert_eq!((nothing.finish, nothing.tokens.len()), (Finish::Interrupted, 0));
    }

    #[test]
    fn events_are_the_text_in_pieces() {
        let (mut text, mut prompt) = (String::new(), Vec::new());
        let made = run(&mut session(64), &settings(8), &mut |event| {
            match event {
                Event::Prompt { done, total } => prompt.push((done, total)),
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
        let first = run(&mut session, &settings(4), &mut |_| true);
        let again = run(&mut session, &settings(4), &mut |_| true);
        assert_eq!((first.reused, again.reused), (0, 2));
        assert_eq!(ids(&first), ids(&again));
    }

    #[test]
    fn logprobs_are_of_the_whole_vocabulary() {
        let settings = Settings { logprobs: Some(512), ..settings(2) };
        for token in run(&mut session(64), &settings, &mut |_| true).tokens {
            let logprobs = token.logprobs.expect("asked for");
            assert_eq!(logprobs.top[0], (token.id, logprobs.chosen));
            let total: f64 = logprobs.top.iter().map(|(_, logprob)| logprob.exp()).sum();
            assert!((total - 1.0).abs() < 1e-9, "{total}");
        }
    }

    #[test]
    fn stop_texts_end_the_text_before_them() {
        let all = run(&mut session(64), &settings(8), &mut |_| true);
        // A text that begins in one token and ends in another.
        let (before, stop) = all.text.split_at(all.tokens[0].text.len() + 1);
        let stop: String = stop.chars().take(3).collect();
        let stops = Settings { stop_texts: vec![stop.clone()], ..settings(8) };
        let made = run(&mut session(64), &stops, &mut |_| true);
        let first = all.text.find(&stop).expect("it is there");
        assert_eq!((made.finish, made.text.as_str()), (Finish::Stop, &all.text[..first]));
        assert!(before.starts_with(&made.text) && made.tokens.len() < 8);
        let empty = Settings { stop_texts: vec![String::new()], ..settings(8) };
        let (mut session, tokenizer) = (session(64), tokenizer(512));
        let mut sampler = Sampler::new(Sampling::default()).expect("in range");
        let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
        let made = generate(&mut session, &tokenizer, &mut sampler, &[9], &empty, &mut on_event);
        assert_eq!(pollster::block_on(made).expect_err("empty").code(), "usage");
    }

    #[test]
    fn what_is_inside_comes_with_each_token() {
        let mut session = session(64);
        let inside = Settings { inside: true, logprobs: Some(1), ..settings(3) };
        let made = run(&mut session, &inside, &mut |_| true);
        let plain = run(&mut session, &settings(3), &mut |_| true);
        assert_eq!(ids(&made), ids(&plain));
        assert!(plain.tokens.iter().all(|token| token.inside.is_none()));
        for (i, token) in made.tokens.iter().enumerate() {
            let inside = token.inside.as_ref().expect("asked for");
            assert_eq!(inside.position, 2 + i);
            assert!((inside.attention_temperature - 1.0).abs() < f32::EPSILON);
            let config = session.config().clone();
            assert_eq!(inside.routes.len(), config.num_hidden_layers() as usize);
            for route in &inside.routes {
                assert_eq!(route.experts.len(), config.num_experts_per_tok() as usize);
                assert!(route.experts.iter().all(|&e| e < config.num_local_experts()));
                assert!(route.probs.is_sorted_by(|a, b| a >= b) && route.probs[0] <= 1.0);
            }
        }
        // The same choice as is read back on its own; the last chunk has one token.
        session.rewind(0);
        pollster::block_on(session.prefill(&[200, 201, 202], Read::Top(1))).expect("runs");
        let alone = pollster::block_on(session.routes(false, 1)).expect("there are routes");
        let first = made.tokens[0].inside.as_ref().expect("asked for");
        for ((experts, probs), route) in alone.iter().zip(&first.routes) {
            assert_eq!((experts, probs), (&route.experts, &route.probs));
        }
    }

    #[test]
    fn rows_without_a_token_are_never_chosen() {
        // The model has 512 rows; most of them have no token.
        let tokenizer = tokenizer(300);
        let sampling = Sampling { temperature: 2.0, seed: 5, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling).expect("in range");
        let mut on_event = |_: Event<'_>| Ok(ControlFlow::Continue(()));
        let mut session = session(64);
        let settings = settings(40);
        let made =
            generate(&mut session, &tokenizer, &mut sampler, &[50], &settings, &mut on_event);
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
            let settings = settings(1);
            let made =
                generate(&mut session, &tokenizer, &mut sampler, prompt, &settings, &mut on_event);
            assert_eq!(pollster::block_on(made).expect_err("cannot be").code(), code);
        }
    }
}
