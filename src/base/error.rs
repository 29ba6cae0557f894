//! Everything that can go wrong, as one enum with stable codes and a hint on what to do.

use std::{io::ErrorKind, path::PathBuf};

use crate::base::{
    num::size,
    tensor::{DType, Shape},
};

/// Result with the crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, worded for the person who has to fix it.
///
/// [`Error::code`] is stable: exit codes and the names that other languages see come from it.
/// [`Error::hint`] says what to do.
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
         {context}"
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
    #[error("out of device memory: {}", shortage(what, *bytes, *held, why))]
    OutOfMemory {
        /// What was to be stored.
        what: String,
        /// Bytes asked for, where that is known.
        bytes: Option<u64>,
        /// Bytes that this engine had allocated on the device already.
        held: u64,
        /// What the device said.
        why: String,
    },
    /// No usable adapter.
    #[error("no usable GPU adapter: {0}")]
    Adapter(String),
    /// The device refused something, or did not finish.
    #[error("the GPU device failed: {0}")]
    Device(String),
    /// The device refused a variant of a kernel, and then the plain one as well.
    #[error(
        "the GPU device failed: it refuses the program `{program}`, and what would have run in its \
         place: {why}"
    )]
    Refused {
        /// The kernel, its variant and the type of its weights.
        program: String,
        /// What the device said.
        why: String,
        /// Whether variants were chosen by measurement.
        measured: bool,
    },
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
    /// A schema or a grammar that no text can be made of.
    #[error("{0}")]
    Schema(String),
    /// A text of a prescribed form that cannot go on.
    #[error("the text cannot go on as its grammar prescribes: {0}")]
    DeadEnd(String),
    /// A check of the engine against its oracle failed.
    #[error("verification failed: {0}")]
    Verification(String),
    /// The user stopped the work.
    #[error("interrupted")]
    Interrupted,
    /// One of the other errors, where more is known of what to do than its kind tells.
    #[error("{error}")]
    Hinted {
        /// The error.
        error: Box<Error>,
        /// What [`Error::hint`] returns.
        hint: String,
    },
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
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Adapter(_) => "no_adapter",
            Self::Device(_) | Self::Refused { .. } => "device",
            Self::Lost(_) => "device_lost",
            Self::NonFinite { .. } => "non_finite",
            Self::Schema(_) => "invalid_schema",
            Self::DeadEnd(_) => "grammar_dead_end",
            Self::Verification(_) => "verification",
            Self::Interrupted => "interrupted",
            Self::Hinted { error, .. } => error.code(),
        }
    }

    /// What the user can do about it: a sentence or two, which the message does not contain.
    pub fn hint(&self) -> &str {
        match self {
            Self::Usage(_) => "Correct what was asked for; `--help` lists a command's options.",
            Self::Io { source, .. } => of_io(source.kind()),
            Self::Format { .. } => {
                "The file is damaged, incomplete or of another kind: get it again, or name another."
            }
            Self::Config { .. } => {
                "Take the config.json that belongs to these weights, as the model's publisher has \
                 it."
            }
            Self::Checkpoint { .. } => {
                "The files must be those of one model, and complete: config.json, a tokenizer and \
                 all files of weights. Get those that are wrong again."
            }
            Self::Tokenizer { .. } => {
                "Put the tokenizer that belongs to the model, tokenizer.tok.json or \
                 tokenizer.json, beside its weights."
            }
            Self::ContextLength { .. } => {
                "Shorten the prompt, or make the context longer (`--context`)."
            }
            Self::Operand { .. } | Self::Aliased { .. } | Self::Rank { .. } => {
                "This is a fault of the engine: please report it with the whole message."
            }
            Self::Limit { .. } => {
                "Take a shorter context (`--context`), shorter chunks of the prompt \
                 (`--prefill`), weights of fewer bits (`quantize`), or another adapter \
                 (`--adapter`)."
            }
            Self::OutOfMemory { .. } => {
                "Close other programs that use the graphics card, or take a shorter context \
                 (`--context`), shorter chunks of the prompt (`--prefill`), a smaller cache \
                 (`--cache q8`) or weights of fewer bits (`quantize`). `inspect` shows what the \
                 model needs."
            }
            Self::Adapter(_) => {
                "`grok-wgpu --list-adapters` lists what there is. A container needs the graphics \
                 card passed to it."
            }
            Self::Refused { measured: true, .. } => {
                "`--tuning-file none` does without what `tune` measured; `tune` measures anew."
            }
            Self::Device(_) | Self::Refused { .. } => {
                "Run it again. If it fails again, update the graphics driver; `selftest` checks \
                 device and driver."
            }
            Self::Lost(_) => {
                "Run it again. If the device is lost again, close other programs that use the \
                 graphics card, and update its driver."
            }
            Self::NonFinite { .. } => {
                "Compare the files of the weights with their publisher's checksums; `selftest` \
                 checks device and driver."
            }
            Self::Schema(_) => {
                "Leave out what is named, or say it with other keywords; README.md has those that \
                 are obeyed."
            }
            Self::DeadEnd(_) => {
                "Make the grammar simpler, or let it end where the text has come to."
            }
            Self::Verification(_) => {
                "Update the graphics driver; if it still fails, please report it with what \
                 `selftest --report FILE` writes."
            }
            Self::Interrupted => "It was stopped on request: run it again.",
            Self::Hinted { hint, .. } => hint,
        }
    }

    /// The same error with another [`Error::hint`].
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        let error = match self {
            Self::Hinted { error, .. } => error,
            other => Box::new(other),
        };
        Self::Hinted { error, hint: hint.into() }
    }

    /// Whether the error is about the device (its limits, its memory, its loss), not the request.
    pub fn is_of_device(&self) -> bool {
        match self {
            Self::Hinted { error, .. } => error.is_of_device(),
            _ => matches!(
                self,
                Self::Limit { .. }
                    | Self::OutOfMemory { .. }
                    | Self::Device(_)
                    | Self::Refused { .. }
                    | Self::Lost(_)
            ),
        }
    }

    /// The exit code of the command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::ContextLength { .. } | Self::Schema(_) => 2,
            Self::Io { .. }
            | Self::Format { .. }
            | Self::Config { .. }
            | Self::Checkpoint { .. }
            | Self::Tokenizer { .. } => 3,
            Self::Limit { .. } | Self::OutOfMemory { .. } => 4,
            Self::Adapter(_) | Self::Device(_) | Self::Refused { .. } | Self::Lost(_) => 5,
            Self::Verification(_) => 7,
            Self::Interrupted => 130,
            Self::Hinted { error, .. } => error.exit_code(),
            Self::Operand { .. }
            | Self::Aliased { .. }
            | Self::Rank { .. }
            | Self::NonFinite { .. }
            | Self::DeadEnd(_) => 1,
        }
    }

    /// The same error; if memory or a limit did not suffice, it says that `what` was to be stored.
    #[must_use]
    pub fn storing(mut self, purpose: impl FnOnce() -> String) -> Self {
        if let Self::OutOfMemory { what, .. } | Self::Limit { what, .. } = &mut self {
            *what = format!("{} ({what})", purpose());
        }
        self
    }

    /// The same error; if memory did not suffice, with the hint that `remedy` gives.
    #[must_use]
    pub fn with_remedy(self, remedy: impl FnOnce() -> String) -> Self {
        if matches!(self, Self::OutOfMemory { .. }) { self.with_hint(remedy()) } else { self }
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

/// The hint for a file that could not be read or written.
fn of_io(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => {
            "Check the name; one that does not begin with a slash starts from the current folder."
        }
        ErrorKind::PermissionDenied => {
            "Give this user permission to it, or take another place (`ls -l` shows who may do \
             what)."
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "Make room on that disk, or take another one; what was written stays where it can be \
             continued."
        }
        ErrorKind::FileTooLarge => {
            "Raise the limit of file sizes (`ulimit -f`), or take a disk that has larger files."
        }
        ErrorKind::ReadOnlyFilesystem => "Take a place that can be written to.",
        ErrorKind::UnexpectedEof => "The file is incomplete: get it again.",
        _ => "Check the file and the disk or network that it is on, and run it again.",
    }
}

/// What did not fit into a device's memory.
fn shortage(what: &str, bytes: Option<u64>, held: u64, why: &str) -> String {
    let held = size(held);
    match bytes {
        Some(bytes) => {
            format!("{what} needs {}, and {held} are allocated already ({why})", size(bytes))
        }
        None => format!("{what}, where {held} are allocated already ({why})"),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each variant. The match has no wildcard, so that a new variant is added here.
    fn all() -> Vec<Error> {
        let path = || PathBuf::from("x");
        let shape = || Shape::from([1]);
        let (what, problems) = (String::new, || vec!["x".to_owned()]);
        let all = vec![
            Error::Usage(what()),
            Error::Io { path: path(), source: ErrorKind::NotFound.into() },
            Error::Format { path: path(), what: what() },
            Error::Config { path: path(), problems: problems() },
            Error::Checkpoint { path: path(), problems: problems() },
            Error::Tokenizer { path: path(), what: what() },
            Error::ContextLength { prompt: 1, wanted: 1, context: 1 },
            Error::Operand {
                kernel: "k",
                operand: "o",
                got_dtype: DType::F32,
                got: shape(),
                want_dtype: DType::F32,
                want: shape(),
            },
            Error::Aliased { kernel: "k", first: "a", second: "b" },
            Error::Rank { got: shape(), want: 1 },
            Error::Limit { what: what(), got: 2, limit: 1 },
            Error::OutOfMemory { what: what(), bytes: Some(1), held: 1, why: what() },
            Error::Adapter(what()),
            Error::Device(what()),
            Error::Refused { program: what(), why: what(), measured: true },
            Error::Lost(what()),
            Error::NonFinite { what: what() },
            Error::Verification(what()),
            Error::Interrupted,
            Error::Schema(what()),
            Error::DeadEnd(what()),
            Error::Usage(what()).with_hint("Do this."),
        ];
        let place = |error: &Error| match error {
            Error::Usage(_) => 0,
            Error::Io { .. } => 1,
            Error::Format { .. } => 2,
            Error::Config { .. } => 3,
            Error::Checkpoint { .. } => 4,
            Error::Tokenizer { .. } => 5,
            Error::ContextLength { .. } => 6,
            Error::Operand { .. } => 7,
            Error::Aliased { .. } => 8,
            Error::Rank { .. } => 9,
            Error::Limit { .. } => 10,
            Error::OutOfMemory { .. } => 11,
            Error::Adapter(_) => 12,
            Error::Device(_) => 13,
            Error::Refused { .. } => 14,
            Error::Lost(_) => 15,
            Error::NonFinite { .. } => 16,
            Error::Verification(_) => 17,
            Error::Interrupted => 18,
            Error::Schema(_) => 19,
            Error::DeadEnd(_) => 20,
            Error::Hinted { .. } => 21,
        };
        assert!(all.iter().map(place).eq(0..all.len()), "one of each, in this order");
        all
    }

    #[test]
    fn every_error_has_a_hint() {
        let kinds = [
            ErrorKind::PermissionDenied,
            ErrorKind::StorageFull,
            ErrorKind::FileTooLarge,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::UnexpectedEof,
            ErrorKind::Other,
        ];
        let more = kinds.map(|kind| Error::io("x", kind.into()));
        for error in all().iter().chain(&more) {
            let hint = error.hint();
            assert!(hint.len() > 5 && hint.ends_with('.'), "{error:?}: {hint:?}");
            assert!(hint.starts_with(|c: char| c.is_uppercase() || c == '`'), "{hint:?}");
            assert!(!error.to_string().contains(hint), "{error}: {hint}");
        }
    }

    #[test]
    fn a_hint_changes_nothing_else() {
        let with = || Error::Lost("gone".into()).with_hint("A.").with_hint("Do this.");
        let plain = Error::Lost("gone".into());
        assert_eq!(with().hint(), "Do this.");
        assert_eq!(with().to_string(), plain.to_string());
        assert_eq!((with().code(), with().exit_code()), (plain.code(), plain.exit_code()));
        assert!(with().is_of_device());
        assert!(matches!(with(), Error::Hinted { error, .. } if matches!(*error, Error::Lost(_))));
    }
}
