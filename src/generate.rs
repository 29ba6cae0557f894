//! The loop that makes text: a prompt goes in, one token after another comes out.

use std::ops::ControlFlow;

use crate::{
    Candidate, Error, Result, Sampler, Tokenizer, logprobs,
    machine::Machine,
    session::{Read, Reply, Session},
    top_logprobs,
};

/// When to stop, and what to report.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most tokens to make.
    pub max_tokens: usize,
    /// Ids that end the text. They are not part of it.
    pub stop_ids: Vec<u32>,
    /// Whether to report log-probabilities, and for how many of the likeliest tokens.
    pub logprobs: Option<usize>,
}

/// Log-probabilities at the place of a token, natural logarithms, before any sampling rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was chosen.
    pub chosen: f64,
    /// Of the likeliest tokens, in falling order.
    pub top: Vec<(u32, f64)>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that it completes: empty inside a character.
    pub text: String,
    /// If they were asked for.
    pub logprobs: Option<Logprobs>,
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
    /// The model ended its text.
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
pub async fn generate<M: Machine>(
    session: &mut Session<M>,
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
    // The model may have more rows than there are tokens; the rest must never be chosen.
    let vocab = tokenizer.vocab_size().min(session.config().vocab_size as usize);
    let all = settings.logprobs.is_some() || vocab < session.config().vocab_size as usize;
    let read = if all { Read::Logits } else { sampler.sampling().needs().into() };

    let same = session.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count();
    // The last token must go through the model for its logits.
    let reused = same.min(prompt.len() - 1);
    session.rewind(reused);
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
        let token = Token { id, text: stream.push(id)?, logprobs };
        made.text.push_str(&token.text);
        let flow = on_event(Event::Token(&token))?;
        made.tokens.push(token);
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
    let rest = stream.finish()?;
    if !rest.is_empty() {
        // There is nothing left to stop.
        let _ = on_event(Event::Rest(&rest))?;
        made.text.push_str(&rest);
    }
    Ok(made)
}

/// Sends the prompt through the model; `None` if the caller stopped it.
async fn prefill<M: Machine>(
    session: &mut Session<M>,
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

/// The log-probabilities among all candidates, which are in the order of their ids.
fn report(candidates: &[Candidate], id: u32, count: usize) -> Result<Logprobs> {
    let logits: Vec<f32> = candidates.iter().map(|candidate| candidate.logit).collect();
    let top = top_logprobs(&logits, count)?;
    Ok(Logprobs { chosen: logprobs(&logits, &[id])?[0], top })
}
