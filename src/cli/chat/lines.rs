//! Where the lines of a conversation come from: a terminal with line editing and a history, or a
//! pipe.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        utf8,
    },
    files::replace::{make_parent, set_aside},
};
use rustyline::{
    Context, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{
    super::{
        globals::own_folder,
        signals::{Keys, ended_by, wait_for_line},
        terminal::{Terminal, out},
    },
    command::{COMMANDS, Fenced},
};

/// What came.
#[derive(Debug)]
pub(super) enum Input {
    /// A line, or several that `"""` or pasting hold together.
    Text(String),
    /// The end of the input, by a key of a person too.
    End,
    /// Ctrl-C was pressed twice, or the program must end.
    Stop,
}

/// Where lines come from.
pub(super) struct Lines {
    from: From,
    /// What follows the `"""` that ends a message.
    next: Option<String>,
}

enum From {
    /// Line editing on a terminal.
    Editor {
        editor: Box<Editor<Words, FileHistory>>,
        /// The history file, if there is a place for it.
        history: Option<PathBuf>,
        /// None if the terminal itself edits lines.
        keys: Option<Keys>,
    },
    /// Standard input without line editing.
    Plain,
}

impl Lines {
    /// From here on, what is typed on a terminal waits for the editor.
    pub(super) fn open(terminal: Terminal) -> Self {
        let plain = Self { from: From::Plain, next: None };
        if !io::stdin().is_terminal() {
            return plain;
        }
        let Ok(mut editor) = Editor::new() else { return plain };
        editor.set_helper(Some(Words));
        let mut history = history_file();
        if let Some(path) = history.take_if(|path| make_parent(path).is_err()) {
            terminal.warn(format!("what is typed is not kept in {}", path.display()));
        }
        if let Some(path) = history.as_deref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            let what = match set_aside(path) {
                Ok(aside) => format!("it is {} now", aside.display()),
                Err(error) => error.to_string(),
            };
            terminal.warn(format!("{} cannot be read ({error}); {what}", path.display()));
        }
        let keys = edits().then(Keys::hold);
        Self { from: From::Editor { editor: Box::new(editor), history, keys }, next: None }
    }

    /// Whether a person types them.
    pub(super) fn are_typed(&self) -> bool {
        matches!(self.from, From::Editor { .. })
    }

    /// Has what is typed from now on wait for the next line, whatever changed the terminal.
    pub(super) fn hold_keys(&self) {
        if let From::Editor { keys: Some(keys), .. } = &self.from {
            keys.hold_again();
        }
    }

    /// What comes next.
    pub(super) fn next(&mut self, terminal: Terminal) -> Result<Input> {
        if let Some(text) = self.next.take() {
            return Ok(Input::Text(text));
        }
        let _waits = wait_for_line(self.are_typed());
        if ended_by().is_some() {
            return Ok(Input::Stop);
        }
        match &mut self.from {
            From::Editor { editor, history, .. } => edited(editor, history.as_ref()),
            From::Plain => piped(terminal),
        }
    }

    /// Has `text` come next, unless it is white space.
    pub(super) fn put_back(&mut self, text: &str) {
        self.next = (!text.trim().is_empty()).then(|| text.to_owned());
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("standard input", error)
}

/// The next line of the line editor.
fn edited(editor: &mut Editor<Words, FileHistory>, history: Option<&PathBuf>) -> Result<Input> {
    let mut pressed = false;
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                // The line counts even if the history does not take it. It is appended at once, so
                // that nothing is lost if the chat does not end well, or another one writes.
                let _ = editor.add_history_entry(&line);
                if let Some(path) = history {
                    let _ = editor.append_history(path);
                }
                return Ok(Input::Text(line));
            }
            Err(ReadlineError::Interrupted) if pressed => return Ok(Input::Stop),
            Err(ReadlineError::Interrupted) => {
                pressed = true;
                out("(Ctrl-C again leaves)\n")?;
            }
            Err(ReadlineError::Eof) => return Ok(Input::End),
            Err(ReadlineError::Io(error)) => return Err(failed(error)),
            Err(error) => return Err(failed(io::Error::other(error.to_string()))),
        }
    }
}

/// The next line of a pipe, with those that `"""` adds to it.
fn piped(terminal: Terminal) -> Result<Input> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        let read = io::stdin().lock().read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 && text.is_empty() {
            return Ok(Input::End);
        }
        match utf8::decode(&line) {
            Ok(line) => text += line,
            Err(what) => {
                terminal.warn(format!("a line was not sent: {what}"));
                continue;
            }
        }
        if read == 0 {
            terminal.warn("the message has no \"\"\" at its end");
        } else if matches!(Fenced::new(&text), Some(Fenced::Open(_))) {
            continue;
        }
        return Ok(Input::Text(text));
    }
}

/// Whether the line editor edits on this terminal: it reads whole lines on those that it knows to
/// have no escape sequences.
fn edits() -> bool {
    let plain = ["dumb", "cons25", "emacs"];
    !std::env::var("TERM")
        .is_ok_and(|term| plain.iter().any(|name| term.eq_ignore_ascii_case(name)))
}

/// The history file in this platform's folder for data; `None` if the environment names no such
/// folder.
fn history_file() -> Option<PathBuf> {
    own_folder().map(|own| own.join("history"))
}

/// What the line editor must know of the lines.
struct Words;

impl Helper for Words {}

impl Highlighter for Words {}

impl Hinter for Words {
    type Hint = String;
}

/// Enter does not end a message within `"""`.
impl Validator for Words {
    fn validate(&self, line: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match Fenced::new(line.input()) {
            Some(Fenced::Open(_)) => ValidationResult::Incomplete,
            _ => ValidationResult::Valid(None),
        })
    }
}

/// The key Tab completes commands.
impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = line[..pos].strip_prefix('/').map(|begun| {
            let names = COMMANDS.iter().map(|(name, ..)| *name);
            names.filter(|name| name.starts_with(begun)).map(|name| format!("/{name}")).collect()
        });
        Ok((0, begun.unwrap_or_default()))
    }
}
