//! Options of a generation, and its events and results.

use std::sync::Arc;

use crate::{
    engine::step::{Readback, Route},
    model::config::Config,
    text::{constraint::Constraint, sampler::Sampling, shaping::Shaping, tokenizer::Tokenizer},
};

/// When to stop, and what to report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Ids that end the text. They are not part of it.
    pub stop_ids: Vec<u32>,
    /// Texts that end the text. They are not part of it.
    pub stop_texts: Vec<String>,
    /// Whether to report log-probabilities, and for how many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// Whether [`Options::logprobs`] are also those of the prompt's tokens: [`Event::Scored`].
    pub scored: bool,
    /// Whether to report a [`Trace`] with each token.
    pub trace: bool,
    /// What is added to logits before a token is chosen. Log-probabilities are those without it.
    pub shaping: Shaping,
    /// What the text may be: each token is chosen among those that it allows. If nothing may
    /// follow, the text ends.
    pub constraint: Option<Arc<dyn Constraint>>,
}

/// At most [`Options::MAX_TOKENS`] tokens, and nothing but they end the text.
impl Default for Options {
    fn default() -> Self {
        Self {
            max_tokens: Self::MAX_TOKENS as usize,
            stop_ids: Vec::new(),
            stop_texts: Vec::new(),
            logprobs: None,
            scored: false,
            trace: false,
            shaping: Shaping::default(),
            constraint: None,
        }
    }
}

impl Options {
    /// Most tokens of a text, where nobody says how many.
    pub const MAX_TOKENS: u32 = 256;
    /// Most tokens of an answer in a conversation, where nobody says how many.
    pub const MAX_TOKENS_OF_ANSWER: u32 = 1024;

    /// The defaults, with the end tokens of this tokenizer as [`Options::stop_ids`].
    pub fn until_end(tokenizer: &Tokenizer) -> Self {
        Self { stop_ids: tokenizer.stop_ids(), ..Self::default() }
    }

    /// Whether the tokens of the prompt are scored.
    pub(super) fn scores(&self) -> bool {
        self.scored && self.logprobs.is_some()
    }

    /// What each step that generates a token must read back.
    pub fn read(&self, config: &Config, tokenizer: &Tokenizer, sampling: &Sampling) -> Readback {
        // The top-k list of the device could hold only ids that the tokenizer lacks.
        let beyond = tokenizer.vocab_size() < config.vocab_size as usize;
        // A bias can bring any token to the front, and so can a penalty.
        let all = self.logprobs.is_some()
            || self.constraint.is_some()
            || beyond
            || !self.shaping.is_none();
        if all { Readback::Logits } else { sampling.needs().into() }
    }
}

/// Log-probabilities at the position of a token: natural logarithms, before temperature and any
/// other sampling rule.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Logprobs {
    /// Of the token that was chosen.
    pub chosen: f64,
    /// Of the likeliest tokens, in falling order.
    pub top: Vec<(u32, f64)>,
    /// The log-sum-exp of all logits: a logit minus its log-probability.
    pub norm: f64,
}

impl Logprobs {
    /// Those of a token that did not come from a generation.
    pub fn new(chosen: f64, top: Vec<(u32, f64)>, norm: f64) -> Self {
        Self { chosen, top, norm }
    }
}

/// What the model did to generate a token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// Position of the input token, whose logits gave this one.
    pub position: usize,
    /// Factor on the attention logits at that position.
    pub attention_temperature: f32,
    /// The experts that each layer chose there.
    pub routes: Vec<Route>,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that it completes: empty inside a UTF-8 character, or inside what may become a stop
    /// text.
    pub text: String,
    /// Present if they were requested.
    pub logprobs: Option<Logprobs>,
    /// Present if it was requested.
    pub trace: Option<Trace>,
}

/// What is reported to the caller during a generation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Progress of prefill.
    Prompt {
        /// Tokens that have gone through the model.
        done: usize,
        /// Tokens that must go through it: the prompt without what was in the cache.
        total: usize,
    },
    /// The log-probabilities of all tokens of the prompt but the first, in order, once it has gone
    /// through the model; only if [`Options::scored`].
    Scored(&'a [Logprobs]),
    /// The next token.
    Token(&'a Token),
    /// Text that was held back, emitted once no more tokens come.
    Rest(&'a str),
}

impl Event<'_> {
    /// The text that is new with this event; empty for what is about the prompt.
    pub fn text(&self) -> &str {
        match self {
            Self::Prompt { .. } | Self::Scored(_) => "",
            Self::Token(token) => &token.text,
            Self::Rest(text) => text,
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// A stop id was sampled, or a stop text was generated, or the text is all that its constraint
    /// allows.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    Context,
    /// The caller stopped it.
    Interrupted,
}

impl FinishReason {
    /// The name in other programs' terms: `stop`, `length` (also for a full context) or
    /// `interrupted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length | Self::Context => "length",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The result of a generation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// The text of all tokens.
    pub text: String,
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the prompt that were in the cache and did not go through the model again.
    pub reused: usize,
}
