//! `chat`: a conversation, line by line.

use std::{
    io::{self, BufRead, IsTerminal},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser},
};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        utf8,
    },
    engine::{
        SessionOptions,
        generation::generate,
        options::{self, Event, FinishReason, Generated},
        resume::Resuming,
        step::Stepper as _,
    },
    files::replace::{make_parent, replace_file, set_aside},
    text::{
        chat::{Choice, Message, Role, Scaffold, Trim, choose, encode_chat},
        sampler::Sampler,
        tokenizer::Tokenizer,
    },
};
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::{Value, json};

use super::{
    clock::Clock,
    globals::{Globals, own_folder},
    model::{Reload, SizeOptions, locate, open, tokenizer},
    sampling::{SamplingOptions, max_tokens},
    signals::{ended_by, forget_interrupts, interrupted, keep, wait_for_line},
    terminal::{Terminal, is_stdout, out},
};

/// A command within a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Reset,
    System,
    Save,
    Help,
    Quit,
}

/// The commands by the words after a slash, with what follows them and what they do. A second word
/// for a command has no text of its own.
const COMMANDS: [(&str, &str, &str, Command); 6] = [
    ("reset", "", "begin a new conversation; the system text stays", Command::Reset),
    ("system", "TEXT", "set the system text, or remove it if there is no TEXT", Command::System),
    ("save", "FILE", "write the conversation to a JSON file", Command::Save),
    ("help", "", "this list", Command::Help),
    ("quit", "", "leave (also Ctrl-D, or Ctrl-C twice)", Command::Quit),
    ("exit", "", "", Command::Quit),
];

/// What `/help` prints.
fn help() -> String {
    let told = COMMANDS.iter().filter(|(_, _, what, _)| !what.is_empty());
    let line = |word: String, what: &str| format!("{word:<14} {what}\n");
    let mut text: String =
        told.map(|(name, after, what, _)| line(format!("/{name} {after}"), what)).collect();
    text += &line("//TEXT".into(), "send a message that begins with a slash");
    text + "Any other line is a message. Ctrl-C stops an answer.\n"
}

/// Talk with a model
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu chat models/demo
  grok-wgpu chat models/demo --system \"Answer briefly.\" --temperature 0.5
  printf 'Hello\\n/quit\\n' | grok-wgpu chat models/demo --seed 1

In a conversation, /help lists the commands.")]
pub(super) struct Options {
    /// Folder or file of the model; the one that is shipped if none is given
    model: Option<PathBuf>,
    /// Instructions for the whole conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How conversations are written for the model, instead of as its files say
    #[arg(long, value_name = "NAME", value_parser = template_names())]
    template: Option<String>,
    /// Most tokens of an answer; -1 for as many as the context holds
    #[arg(long, short = 'n', value_name = "N")]
    #[arg(default_value_t = options::Options::MAX_TOKENS_OF_ANSWER)]
    #[arg(value_parser = max_tokens)]
    max_tokens: u32,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    sizes: SizeOptions,
}

/// The names of the scaffolds, with what each is.
fn template_names() -> PossibleValuesParser {
    let named =
        |scaffold: &'static Scaffold| PossibleValue::new(scaffold.name).help(scaffold.about);
    PossibleValuesParser::new(Scaffold::ALL.map(named))
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    if globals.json {
        return Err(Error::Usage("chat has no --json".into())
            .with_hint("Take `generate`, which has, or pipe the messages to `chat`."));
    }
    let terminal = globals.terminal();
    options.sampling.check()?;
    let opened = open(&locate(options.model.as_deref())?, globals).await?;
    let sampler = options.sampling.sampler(opened.sampling)?;
    let tokenizer = tokenizer(globals, &opened).await?;
    let asked = options.template.as_deref().map(Scaffold::named).transpose()?;
    let Choice { scaffold, warning } = choose(&tokenizer, opened.template(), asked);
    if let Some(warning) = warning {
        terminal.warn(warning);
    }
    let mut messages = Vec::new();
    set_system(&mut messages, options.system.as_deref().unwrap_or_default());
    // Fails before the weights are read if the tokenizer has no separator token for chats.
    encode_chat(&tokenizer, scaffold, &[Message::new(Role::User, "")])?;
    let enough = SessionOptions::of(&opened.config).context;
    let sizes = options.sizes.sizes(&opened.config, enough.into());
    let mut settings = options::Options::until_end(&tokenizer);
    settings.max_tokens = options.max_tokens as usize;
    let read = settings.read(&opened.config, &tokenizer, sampler.sampling());
    let session =
        Resuming::new(Reload { globals, opened: &opened, sizes, prompt: 1, read }).await?;
    terminal.faint("type a message, or /help");
    let tokenizer = &tokenizer;
    let mut chat = Chat { terminal, session, tokenizer, scaffold, sampler, settings, messages };
    let mut lines = Lines::open(terminal);
    let mut failed = None;
    let _kept = keep();
    while let Some(line) = lines.next(terminal)? {
        let result = match Said::new(&line) {
            Said::Nothing => Ok(()),
            Said::Command(command, rest) => {
                if chat.command(command, rest)?.is_break() {
                    break;
                }
                Ok(())
            }
            Said::NoCommand(text) => {
                let word = text.split_whitespace().next().unwrap_or(text);
                terminal.faint(format!("{word} is no command, so it is sent; /help lists them"));
                chat.answer(text).await
            }
            Said::Message(text) => chat.answer(text).await,
        };
        if let Err(error) = result {
            if is_stdout(&error) || matches!(error, Error::Interrupted) {
                return Err(error);
            }
            terminal.warn(format!("there is no answer: {error}"));
            if io::stdin().is_terminal() {
                terminal.hint(&error);
            }
            failed.get_or_insert(error);
        }
    }
    // A program that sends lines learns of it; a person has seen it.
    match failed {
        Some(error) if !io::stdin().is_terminal() => Err(error),
        _ => Ok(()),
    }
}

/// What a line is.
#[derive(Debug, PartialEq)]
enum Said<'l> {
    Nothing,
    /// The command, and what follows it.
    Command(Command, &'l str),
    /// A message that begins with a slash, which could have been meant for a command.
    NoCommand(&'l str),
    Message(&'l str),
}

impl<'l> Said<'l> {
    /// A line that begins with a slash is a command if it has a command's name, and a message
    /// otherwise, such as a path. A second slash makes any line a message.
    fn new(line: &'l str) -> Self {
        let text = line.trim_end();
        let Some(rest) = text.trim_start().strip_prefix('/') else {
            return if text.trim().is_empty() { Self::Nothing } else { Self::Message(text) };
        };
        if rest.starts_with('/') {
            return Self::Message(rest);
        }
        let (name, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match COMMANDS.iter().find(|(known, ..)| *known == name) {
            Some(&(.., command)) => Self::Command(command, after.trim()),
            None => Self::NoCommand(text),
        }
    }
}

struct Chat<'t> {
    terminal: Terminal,
    session: Resuming<Reload<'t>>,
    tokenizer: &'t Tokenizer,
    scaffold: &'static Scaffold,
    sampler: Sampler,
    settings: options::Options,
    messages: Vec<Message>,
}

impl Chat<'_> {
    /// Runs a command; `Break` ends the chat.
    fn command(&mut self, command: Command, rest: &str) -> Result<ControlFlow<()>> {
        match command {
            Command::Quit => return Ok(ControlFlow::Break(())),
            Command::Help => out(&help())?,
            Command::Reset => {
                self.messages.retain(|message| message.role == Role::System);
                self.session.sequence().rewind(0);
                self.terminal.note("a new conversation");
            }
            Command::System => {
                set_system(&mut self.messages, rest);
                self.terminal.note(if rest.is_empty() {
                    "there is no system text"
                } else {
                    "the system text is set"
                });
            }
            Command::Save if rest.is_empty() => self.terminal.warn("which file? /save FILE"),
            Command::Save => match save(Path::new(rest), &self.messages) {
                Ok(()) => self.terminal.note(format!("saved to {rest}")),
                Err(error) => self.terminal.warn(error),
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Sends a message and prints the answer as it comes. After an error, the message is in the
    /// conversation without an answer.
    async fn answer(&mut self, text: &str) -> Result<()> {
        self.messages.push(Message::new(Role::User, text));
        let ids = encode_chat(self.tokenizer, self.scaffold, &self.messages)?;
        let context = self.session.options().context;
        if ids.len() >= context as usize {
            self.messages.pop();
            self.terminal.warn(format!(
                "this message would make {} tokens, but the context holds {context}",
                ids.len()
            ));
            self.go_on();
            return Ok(());
        }
        forget_interrupts();
        let mut clock = Clock::start();
        let mut trim = Trim::default();
        let mut on_event = |event: Event<'_>| {
            clock.on_event(event);
            out(trim.next(event.text()))?;
            Ok(if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let (session, sampler) = (&mut self.session, &mut self.sampler);
        let made =
            generate(session, self.tokenizer, sampler, &ids, &self.settings, &mut on_event).await?;
        out("\n")?;
        forget_interrupts();
        self.terminal.faint(clock.summary(&made, ids.len()));
        self.finish(made);
        Ok(())
    }

    fn finish(&mut self, made: Generated) {
        match made.finish {
            FinishReason::Stop => {}
            FinishReason::Interrupted => self.terminal.note("stopped"),
            FinishReason::Length => self.terminal.note(format!(
                "the answer was cut at {} tokens (--max-tokens)",
                self.settings.max_tokens
            )),
            FinishReason::Context => {
                let context = self.session.options().context;
                self.terminal.warn(format!("the context of {context} tokens is full"));
                self.go_on();
            }
            other => self.terminal.note(other.name()),
        }
        if made.tokens.is_empty() && made.finish == FinishReason::Interrupted {
            // There is no answer, so the question leaves the conversation too.
            self.messages.pop();
        } else {
            self.messages.push(Message::new(Role::Assistant, made.text));
        }
    }

    fn go_on(&self) {
        let most = self.session.config().max_position_embeddings;
        let context = self.session.options().context;
        let longer = if context < most {
            format!(", or start again with a longer one (--context, up to {most})")
        } else {
            String::new()
        };
        self.terminal
            .note(format!("/save FILE keeps the conversation, /reset begins anew{longer}"));
    }
}

fn set_system(messages: &mut Vec<Message>, text: &str) {
    messages.retain(|message| message.role != Role::System);
    if !text.is_empty() {
        messages.insert(0, Message::new(Role::System, text));
    }
}

/// Writes the conversation as a list of messages, as chat interfaces have them.
fn save(path: &Path, messages: &[Message]) -> Result<()> {
    let list: Vec<Value> = messages
        .iter()
        .map(|message| json!({"role": message.role.name(), "content": message.content}))
        .collect();
    replace_file(path, format!("{:#}\n", json!({ "messages": list })).as_bytes())
}

/// Where lines come from.
enum Lines {
    /// Line editing on a terminal, and the history file if there is a place for it.
    Editor { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    /// Standard input without line editing.
    Plain,
}

impl Lines {
    fn open(terminal: Terminal) -> Self {
        if !io::stdin().is_terminal() {
            return Self::Plain;
        }
        let Ok(mut editor) = DefaultEditor::new() else { return Self::Plain };
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
        Self::Editor { editor: Box::new(editor), history }
    }

    /// The next line; `None` at the end, after Ctrl-C was pressed twice, or if the program must
    /// end.
    fn next(&mut self, terminal: Terminal) -> Result<Option<String>> {
        let failed = |error| Error::io("standard input", error);
        let _waits = wait_for_line(matches!(self, Self::Editor { .. }));
        if ended_by().is_some() {
            return Ok(None);
        }
        let (editor, history) = match self {
            Self::Editor { editor, history } => (editor, history),
            Self::Plain => loop {
                let mut line = Vec::new();
                let read = io::stdin().lock().read_until(b'\n', &mut line).map_err(failed)?;
                if read == 0 {
                    return Ok(None);
                }
                match utf8::decode(&line) {
                    Ok(line) => return Ok(Some(line.to_owned())),
                    Err(what) => terminal.warn(format!("a line was not sent: {what}")),
                }
            },
        };
        let mut pressed = false;
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    // The line counts even if the history does not take it. It is appended at once,
                    // so that nothing is lost if the chat does not end well, or another one writes.
                    let _ = editor.add_history_entry(&line);
                    if let Some(path) = history {
                        let _ = editor.append_history(path);
                    }
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) if pressed => return Ok(None),
                Err(ReadlineError::Interrupted) => {
                    pressed = true;
                    out("(Ctrl-C again leaves)\n")?;
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Io(error)) => return Err(failed(error)),
                Err(error) => return Err(failed(io::Error::other(error.to_string()))),
            }
        }
    }
}

/// The history file in this platform's folder for data; `None` if the environment names no such
/// folder.
fn history_file() -> Option<PathBuf> {
    own_folder().map(|own| own.join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_is_a_message() {
        for (line, said) in [
            ("", Said::Nothing),
            (" \t\n", Said::Nothing),
            ("hello\n", Said::Message("hello")),
            ("    an indented line\r\n", Said::Message("    an indented line")),
            ("/help\n", Said::Command(Command::Help, "")),
            ("/exit", Said::Command(Command::Quit, "")),
            ("  /system  Be brief. \n", Said::Command(Command::System, "Be brief.")),
            ("/etc/hosts looks wrong", Said::NoCommand("/etc/hosts looks wrong")),
            ("/helpful?", Said::NoCommand("/helpful?")),
            ("//help", Said::Message("/help")),
            ("/", Said::NoCommand("/")),
        ] {
            assert_eq!(Said::new(line), said, "{line:?}");
        }
    }
    #[test]
    fn the_list_of_commands_has_each_of_them() {
        let help = help();
        for (name, after, what, command) in COMMANDS {
            let same = |&&(_, _, told, of): &&(&str, &str, &str, Command)| {
                of == command && !told.is_empty()
            };
            assert_eq!(COMMANDS.iter().filter(same).count(), 1, "{name}");
            assert!(what.is_empty() || help.contains(&format!("/{name} {after}")), "{help}");
        }
        assert!(help.contains("/reset         begin a new conversation"), "{help}");
    }
}
