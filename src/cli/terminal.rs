//! Output: notes, warnings, progress and colours on the standard error; results on the standard
//! output.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use grok_wgpu::lab::base::error::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// What stands for the standard output in errors.
const STDOUT: &str = "standard output";

/// How to write to the terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) quiet: bool,
    pub(crate) color: bool,
}

impl Terminal {
    /// A line on the standard error, unless `--quiet` was given.
    pub(crate) fn note(self, text: impl Display) {
        if !self.quiet {
            line(printable(&text.to_string()));
        }
    }

    /// A note in a faint colour.
    pub(crate) fn faint(self, text: impl Display) {
        if !self.quiet {
            line(self.paint("2", printable(&text.to_string())));
        }
    }

    /// A warning: the command continues.
    pub(crate) fn warn(self, text: impl Display) {
        if !self.quiet {
            let text = text.to_string();
            line(format!("{}: {}", self.paint("1;33", "warning"), printable(&text)));
        }
    }

    /// The error that ends the program, and what to do about it; one line of JSON if `json`.
    pub(crate) fn error(self, error: &Error, json: bool) {
        let text = error.to_string();
        if json {
            return line(error_json(error.code(), &text, error.hint()));
        }
        let label = self.paint("1;31", format!("error[{}]", error.code()));
        line(format!("{label}: {}", printable(&text)));
        self.hint(error);
    }

    /// What to do about an error.
    pub(crate) fn hint(self, error: &Error) {
        line(format!("{}: {}", self.paint("1;36", "hint"), printable(error.hint())));
    }

    /// Text in an ANSI style, if colours are wanted.
    pub(crate) fn paint(self, style: &str, text: impl Display) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// A progress bar on the standard error if that is a terminal, else a hidden one. `bytes` shows
    /// units of memory.
    pub(crate) fn bar(self, what: &'static str, total: u64, bytes: bool) -> ProgressBar {
        let target = if self.quiet || is_dumb() || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let count = if bytes {
            "{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        } else {
            "{pos} of {len}, {elapsed}"
        };
        let template = format!("{{msg}} [{{bar:30}}] {count}");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(style);
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }
}

/// An error as an object, for programs.
pub(crate) fn error_json(code: &str, message: &str, hint: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "hint": hint } })
}

pub(crate) fn line(text: impl Display) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether the terminal says that it knows no escape sequences.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Text without control characters but line ends and tabs: the others are escaped. A model, a
/// tokenizer or a file name cannot send escape sequences to a terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(hostile) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.replace("\r\n", "\n").chars() {
        if hostile(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Writes to the standard output at once. On a terminal, control characters are escaped.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let text = if stdout.is_terminal() { printable(text) } else { text.into() };
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::io(STDOUT, error))
}

/// Writes a JSON value and a line's end to the standard output.
pub(crate) fn out_json(value: &Value) -> Result<()> {
    out(&format!("{value}\n"))
}

/// Whether the error is one of the standard output.
pub(crate) fn is_stdout(error: &Error) -> bool {
    matches!(error, Error::Io { path, .. } if path.as_os_str() == STDOUT)
}

/// Whether the error is a broken pipe on the standard output.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    is_stdout(error)
        && matches!(error, Error::Io { source, .. }
            if source.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\tb\nc \u{e9}"), "a\tb\nc \u{e9}");
        assert_eq!(printable("\x1b[31mred\x07"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(printable("\u{9b}31m\x7f"), "\\u{9b}31m\\u{7f}");
        assert_eq!(printable("over\rwritten\r\n"), "over\\rwritten\n");
    }
}
