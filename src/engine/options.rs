//! What is asked of a text that is made, and what is told of it.

use crate::{
    engine::step::{Readback, Route},
    model::config::Config,
    text::{sampler::Sampling, tokenizer::Tokenizer},
};

/// When to stop, and what to report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most tokens to make.
    pub max_tokens: usize,
    /// Ids that end the text. They are not part of it.
    pub stop_ids: Vec<u32>,
    /// Texts that end the text. They are not part of it.
    pub stop_texts: Vec<String>,
    /// Whether to report log-probabilities, and for how many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// Whether to report what went on in the model.
    pub trace: bool,
}

/// At most [`Options::MAX_TOKENS`] tokens, and nothing but they end the text.
impl Default for Options {
    fn default() -> Self {
        Self {
            max_tokens: Self::MAX_TOKENS as usize,
            stop_ids: Vec::new(),
            stop_texts: Vec::new(),
            logprobs: None,
            trace: false,
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

    /// What is read back of each step that makes a token.
    pub fn read(&self, config: &Config, tokenizer: &Tokenizer, sampling: &Sampling) -> Readback {
        // Ids that the tokenizer lacks could be the whole list of the largest.
        let beyond = tokenizer.vocab_size() < config.vocab_size as usize;
        if self.logprobs.is_some() || beyond { Readback::Logits } else { sampling.needs().into() }
    }
}

/// Log-probabilities at the place of a token, natural logarithms, before any sampling rule.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Trace {
    /// Position of the token that was read to make this one.
    pub position: usize,
    /// Factor on the attention logits at that position.
    pub attention_temperature: f32,
    /// The experts that each layer chose there.
    pub routes: Vec<Route>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that it completes: empty inside a character, or inside what may be a stop text.
    pub text: String,
    /// If they were asked for.
    pub logprobs: Option<Logprobs>,
    /// If it was asked for.
    pub trace: Option<Trace>,
}

/// What the caller hears while the text is made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
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

impl Event<'_> {
    /// The text that is new with this event; empty for progress of the prompt.
    pub fn text(&self) -> &str {
        match self {
            Self::Prompt { .. } => "",
            Self::Token(token) => &token.text,
            Self::Rest(text) => text,
        }
    }
}

/// Why no more tokens came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its text, or a stop text came.
    Stop,
    /// There are as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller wanted no more.
    Interrupted,
}

impl FinishReason {
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
