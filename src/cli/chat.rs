//! `chat`: a conversation, line by line.

use std::{
    io::{self, BufRead, IsTerminal},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::{
        SessionOptions,
        generation::generate,
        options::{self, Event, FinishReason, Generated},
        session::Session,
    },
    files::replace::{make_parent, replace_file},
    machine::gpu::Gpu,
    text::{
        chat::{Message, Role, Trim, encode_chat},
        sampler::Sampler,
        tokenizer::Tokenizer,
    },
};
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::{Value, json};

use super::{
    clock::Clock,
    globals::{Globals, own_folder},
    model::{SizeOptions, load, locate, open, prepare},
    sampling::SamplingOptions,
    terminal::{Terminal, forget_interrupts, interrupted, out},
};

const HELP: &str = "\
/reset         begin a new conversation; the system text stays
/system TEXT   set the system text, or remove it if there is no TEXT
/save FILE     write the conversation to a JSON file
/help          this list
/quit          leave (also Ctrl-D, or Ctrl-C twice)
Ctrl-C stops an answer.";

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
    /// Most tokens of an answer
    #[arg(long, short = 'n', value_name = "N")]
    #[arg(default_value_t = options::Options::MAX_TOKENS_OF_ANSWER)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    sizes: SizeOptions,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    if globals.json {
        return Err(Error::Usage("chat has no --json: use generate".into()));
    }
    let terminal = globals.terminal();
    let sampler = options.sampling.sampler()?;
    let opened = open(&locate(options.model.as_deref())?, globals).await?;
    let tokenizer = opened.tokenizer().await?;
    let mut messages = Vec::new();
    set_system(&mut messages, options.system.as_deref().unwrap_or_default());
    // Fails before the weights are read if the tokenizer has no separator token for chats.
    encode_chat(&tokenizer, &[Message::new(Role::User, "")])?;
    let enough = SessionOptions::of(&opened.config).context;
    let sizes = options.sizes.sizes(&opened.config, enough.into());
    let mut session = load(globals, &opened, sizes).await?;
    let mut settings = options::Options::until_end(&tokenizer);
    settings.max_tokens = options.max_tokens as usize;
    let read = settings.read(session.config(), &tokenizer, sampler.sampling());
    prepare(globals, &mut session, 1, read).await?;
    terminal.faint("type a message, or /help");
    let mut chat = Chat { terminal, session, tokenizer: &tokenizer, sampler, settings, messages };
    let mut lines = Lines::open();
    while let Some(line) = lines.next()? {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Some(command) = line.strip_prefix('/') {
            if chat.command(command)?.is_break() {
                break;
            }
        } else {
            chat.answer(line).await?;
        }
    }
    lines.save();
    Ok(())
}

struct Chat<'t> {
    terminal: Terminal,
    session: Session<Gpu>,
    tokenizer: &'t Tokenizer,
    sampler: Sampler,
    settings: options::Options,
    messages: Vec<Message>,
}

impl Chat<'_> {
    /// Runs a command line without its slash; `Break` ends the chat.
    fn command(&mut self, line: &str) -> Result<ControlFlow<()>> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "quit" | "exit" => return Ok(ControlFlow::Break(())),
            "help" => out(&format!("{HELP}\n"))?,
            "reset" => {
                self.messages.retain(|message| message.role == Role::System);
                self.session.rewind(0);
                self.terminal.note("a new conversation");
            }
            "system" => {
                set_system(&mut self.messages, rest);
                self.terminal.note(if rest.is_empty() {
                    "there is no system text"
                } else {
                    "the system text is set"
                });
            }
            "save" if rest.is_empty() => self.terminal.warn("which file? /save FILE"),
            "save" => match save(Path::new(rest), &self.messages) {
                Ok(()) => self.terminal.note(format!("saved to {rest}")),
                Err(error) => self.terminal.warn(error),
            },
            _ => self.terminal.warn(format!("/{name} is not known; /help lists the commands")),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Sends a message and prints the answer as it comes.
    async fn answer(&mut self, text: &str) -> Result<()> {
        self.messages.push(Message::new(Role::User, text));
        let ids = encode_chat(self.tokenizer, &self.messages)?;
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
    fn open() -> Self {
        if !io::stdin().is_terminal() {
            return Self::Plain;
        }
        let Ok(mut editor) = DefaultEditor::new() else { return Self::Plain };
        let history = history_file();
        if let Some(path) = &history {
            // There is no history file before the first conversation.
            let _ = editor.load_history(path);
        }
        Self::Editor { editor: Box::new(editor), history }
    }

    /// The next line; `None` at the end, or after Ctrl-C was pressed twice.
    fn next(&mut self) -> Result<Option<String>> {
        let failed = |error| Error::io("standard input", error);
        let editor = match self {
            Self::Editor { editor, .. } => editor,
            Self::Plain => {
                let mut line = String::new();
                let read = io::stdin().lock().read_line(&mut line).map_err(failed)?;
                return Ok((read > 0).then_some(line));
            }
        };
        let mut pressed = false;
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    // The line counts even if the history does not take it.
                    let _ = editor.add_history_entry(&line);
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

    fn save(&mut self) {
        if let Self::Editor { editor, history: Some(path), .. } = self {
            // Losing the history is not worth an error.
            let _ = make_parent(path);
            let _ = editor.save_history(path);
        }
    }
}

/// The history file in this platform's folder for data; `None` if the environment names no such
/// folder.
fn history_file() -> Option<PathBuf> {
    own_folder().map(|own| own.join("history"))
}
