//! Everything that can go wrong, as one enum with stable codes.

use std::path::PathBuf;

use crate::base::tensor::{DType, Shape};

/// Result with the crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, worded for the person who has to fix it.
///
/// [`Error::code`] is stable: exit codes and the names that other languages see come from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not have the form it should have.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, where, and what was expected.
        what: String,
    },
    /// Fields of `config.json` that make no sense. All of them at once.
    #[error("{}: {}", path.display(), list(problems))]
    Config {
        /// The file.
        path: PathBuf,
        /// One sentence each: the field, what it was, what was wanted.
        problems: Vec<String>,
    },
    /// A checkpoint that does not fit its configuration. All mismatches at once.
    #[error("{}: {}", path.display(), list(problems))]
    Checkpoint {
        /// The checkpoint's folder or file.
        path: PathBuf,
        /// One sentence each: the tensor, what was found, what was wanted.
        problems: Vec<String>,
    },
    /// A tokenizer that cannot be used, or text or ids it cannot translate.
    #[error("{}: {what}", path.display())]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// More tokens than the context holds.
    #[error(
        "the prompt has {prompt} tokens and {wanted} more are wanted, but the context holds \
         {context}; shorten the prompt or make the context longer"
    )]
    ContextLength {
        /// Tokens already there.
        prompt: usize,
        /// Tokens asked for beyond them.
        wanted: usize,
        /// Positions of the key-value cache.
        context: usize,
    },
    /// A kernel was handed a tensor of the wrong element type or shape.
    #[error("{kernel}: operand `{operand}` is {got_dtype}{got}, expected {want_dtype}{want}")]
    Operand {
        /// Kernel that refused the tensor.
        kernel: &'static str,
        /// Operand name, as in the WGSL file.
        operand: &'static str,
        /// Element type found.
        got_dtype: DType,
        /// Shape found.
        got: Shape,
        /// Element type required.
        want_dtype: DType,
        /// Shape required.
        want: Shape,
    },
    /// One tensor was bound twice, at least once for writing.
    #[error("{kernel}: `{first}` and `{second}` are the same tensor")]
    Aliased {
        /// Kernel that refused the tensors.
        kernel: &'static str,
        /// Operand bound first.
        first: &'static str,
        /// Operand bound second.
        second: &'static str,
    },
    /// A tensor has the wrong number of axes.
    #[error("expected {want} axes, got shape {got}")]
    Rank {
        /// Shape found.
        got: Shape,
        /// Number of axes required.
        want: usize,
    },
    /// Something larger than the device allows.
    #[error("{what}: {got} is more than this device allows ({limit})")]
    Limit {
        /// What was too large.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// The device ran out of memory.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// No usable adapter.
    #[error("no usable GPU adapter: {0}")]
    Adapter(String),
    /// The device refused something, or did not finish.
    #[error("the GPU device failed: {0}")]
    Device(String),
    /// The device was lost, for example by a driver reset or an unplugged adapter. A new one may
    /// work.
    #[error("the GPU device was lost: {0}")]
    Lost(String),
    /// Logits that are not numbers.
    #[error("the model produced logits that are not finite numbers ({what})")]
    NonFinite {
        /// Where.
        what: String,
    },
    /// A check of the engine against its oracle failed.
    #[error("verification failed: {0}")]
    Verification(String),
    /// The user stopped the work.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A stable, machine-readable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Io { .. } => "io",
            Self::Format { .. } => "format",
            Self::Config { .. } => "config",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Tokenizer { .. } => "tokenizer",
            Self::ContextLength { .. } => "context_length_exceeded",
            Self::Operand { .. } | Self::Aliased { .. } | Self::Rank { .. } => "operand",
            Self::Limit { .. } => "limit",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::Adapter(_) => "no_adapter",
            Self::Device(_) => "device",
            Self::Lost(_) => "device_lost",
            Self::NonFinite { .. } => "non_finite",
            Self::Verification(_) => "verification",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the error is about the device (its limits, its memory, its loss), not the request.
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::Limit { .. } | Self::OutOfMemory(_) | Self::Device(_) | Self::Lost(_))
    }

    /// The exit code of the command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::ContextLength { .. } => 2,
            Self::Io { .. }
            | Self::Format { .. }
            | Self::Config { .. }
            | Self::Checkpoint { .. }
            | Self::Tokenizer { .. } => 3,
            Self::Limit { .. } | Self::OutOfMemory(_) => 4,
            Self::Adapter(_) | Self::Device(_) | Self::Lost(_) => 5,
            Self::Verification(_) => 7,
            Self::Interrupted => 130,
            Self::Operand { .. }
            | Self::Aliased { .. }
            | Self::Rank { .. }
            | Self::NonFinite { .. } => 1,
        }
    }

    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// An [`Error::Format`] about `path`.
    pub fn format(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Format { path: path.into(), what: what.into() }
    }
}

/// One problem on the same line, several on lines of their own.
fn list(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => many
            .iter()
            .fold(format!("{} problems", many.len()), |text, problem| text + "\n  - " + problem),
    }
}
