//! What a scheduler is asked for, and what it plans.

use std::ops::Range;

use crate::engine::pages::Namespace;

/// The number of a text. It is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// How much may happen at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Positions of a text.
    pub context: u32,
    /// Texts that are under way, without those that are paused: the generated tokens of a step.
    pub rows: u32,
    /// Tokens of prompts in a step.
    pub chunk: u32,
    /// Texts of which a step has tokens of the prompt.
    pub runs: u32,
    /// Texts that wait to begin.
    pub queue: usize,
    /// Microseconds that a step should take at the most while texts generate. It has a page of a
    /// prompt in any case.
    pub stall: u64,
    /// A text begins if there is room for its prompt and this many generated tokens.
    pub reserve: u32,
}

/// A text that is asked for, or several of one prompt.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose it is: keys have equal shares of the work.
    pub key: u64,
    /// With which other texts it shares pages of its prompt.
    pub namespace: Option<Namespace>,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Generated tokens at the most. The context may end a text before.
    pub max_tokens: u32,
    /// How many texts are generated from the prompt. It goes through the model once.
    pub copies: u32,
    /// When it ends, finished or not, in microseconds.
    pub deadline: Option<u64>,
    /// Whether the logits of all tokens of the prompt are read. Then each text has all of it go
    /// through the model, the last token by itself, and no more than this many others in a step.
    pub scored: Option<u32>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to do.
    #[error("the prompt is empty, or no texts are asked for")]
    Empty,
    /// The prompt leaves no room in the context.
    #[error("the prompt has {prompt} tokens, but the context holds {context}")]
    Context {
        /// Its tokens.
        prompt: usize,
        /// Positions of a text.
        context: u32,
    },
    /// The cache is too small for it.
    #[error("the text may have {positions} positions, for which the whole cache has no room")]
    Cache {
        /// Positions that it may need.
        positions: u32,
    },
    /// Too many others wait.
    #[error("{waiting} texts are waiting, and {wanted} more are wanted, of at most {most}")]
    Full {
        /// Texts that wait.
        waiting: usize,
        /// Texts that were asked for.
        wanted: u32,
        /// Texts that may wait.
        most: usize,
    },
}

/// A generated token that goes through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The text.
    pub id: Id,
    /// The token's position.
    pub position: u32,
    /// The token after it is known: it is run again, since the text had lost its pages. Its logits
    /// are not needed.
    pub forced: bool,
}

/// Tokens of a prompt that go through the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The text.
    pub id: Id,
    /// Their positions.
    pub positions: Range<u32>,
    /// Whether the logits of the last one are needed.
    pub read: bool,
}

/// A text that loses its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preempted {
    /// The text.
    pub id: Id,
    /// The pages, in the order of its positions. Others may have them from this step on.
    pub pages: Vec<u32>,
    /// Positions whose keys and values are in them.
    pub positions: u32,
}

/// A text that has pages now, for the first time or again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The text.
    pub id: Id,
    /// Pages at its beginning whose content was there.
    pub shared: usize,
    /// Pages after these whose content is to be copied from the host.
    pub copied: Range<usize>,
    /// Positions that need not go through the model, once these are copied.
    pub positions: u32,
}

/// What to do next, in this order: what is in the pages of preempted texts is kept on the host, if
/// it is to be kept; pages of placed texts are copied from there; then all rows and runs go through
/// the model, in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Texts whose time is over. They are gone.
    pub expired: Vec<Id>,
    /// Texts that lose their pages, and will have others.
    pub preempted: Vec<Preempted>,
    /// Texts that have pages now.
    pub placed: Vec<Placed>,
    /// Generated tokens: one of each text.
    pub rows: Vec<Row>,
    /// Tokens of prompts: one run of each text.
    pub runs: Vec<Run>,
}

impl Plan {
    /// Whether nothing goes through the model.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.runs.is_empty()
    }
}

/// What became of a row or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The text goes on. If its logits were read, it has one more token.
    GoesOn,
    /// The text has ended, or has failed.
    Over,
}

/// What a text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits in the queue.
    Waiting,
    /// It has begun, and has lost its pages: it waits for some.
    Preempted,
    /// It keeps its pages, and is not to go on.
    Paused,
    /// Its prompt goes through the model.
    Prompt,
    /// Its tokens are generated.
    Generating,
}

impl Phase {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Preempted => "preempted",
            Self::Paused => "paused",
            Self::Prompt => "prompt",
            Self::Generating => "generating",
        }
    }
}

/// How far a text has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The text.
    pub id: Id,
    /// What it does.
    pub phase: Phase,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Positions that are in the cache.
    pub cached: u32,
    /// Tokens that it has generated.
    pub generated: u32,
    /// Tokens that it may generate.
    pub most: u32,
    /// Pages that it has.
    pub pages: usize,
}
