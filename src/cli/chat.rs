//! `chat`: a conversation, line by line.

mod command;
mod lines;
mod rescue;
mod wrap;

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};
use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::{
        SessionOptions,
        generation::generate_with_room,
        options::{self, Event, FinishReason, Generated},
        resume::Resuming,
        step::Stepper as _,
    },
    files::{native::read_text, replace::replace_file},
    text::{
        chat::{Choice, Message, Role, Scaffold, Trim, choose, encode_chat},
        sampler::{Sampler, Sampling},
        talk::Talk,
        tokenizer::Tokenizer,
    },
};

use self::{
    command::{Command, Fenced, Said, help, set, values},
    lines::{Input, Lines},
    rescue::{Rescue, text_of},
    wrap::{Screen, wrapped},
};
use super::{
    clock::Clock,
    globals::Globals,
    memory::KeepOption,
    model::{Reload, locate, open, tokenizer},
    sampling::{SamplingOptions, max_tokens},
    signals::{answer, forget_interrupts, interrupted, keep},
    sizes::SizeOptions,
    terminal::{Terminal, is_stdout, out},
};

/// Longest conversation that is loaded, in bytes.
const MAX_SAVED: u64 = 64 << 20;

/// Exchanges that are shown of a conversation that is loaded.
const SHOWN: usize = 10;

/// Talk with a model
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu chat models/demo
  grok-wgpu chat models/demo --system \"Answer briefly.\" --temperature 0.5
  printf 'Hello\\n/quit\\n' | grok-wgpu chat models/demo --seed 1

In a conversation, /help lists the commands.")]
pub(super) struct Options {
    /// Folder or file of the model, or `hf://OWNER/NAME`; the demo model if none is given
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
    /// Whether the oldest messages are left out when the context is full; otherwise the
    /// conversation ends there
    #[arg(long, value_enum, default_value = "on")]
    context_shift: Switch,
    /// Numbers after each answer
    #[arg(long, value_enum, default_value = "on")]
    stats: Switch,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    sizes: SizeOptions,
    #[command(flatten)]
    keep: KeepOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// The names of the scaffolds, with what each is.
pub(super) fn template_names() -> PossibleValuesParser {
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
    let opened = open(&locate(options.model.as_deref()), globals).await?;
    let sampler = options.sampling.sampler(opened.sampling)?;
    let tokenizer = tokenizer(globals, &opened).await?;
    let asked = options.template.as_deref().map(Scaffold::named).transpose()?;
    let Choice { scaffold, warning } = choose(&tokenizer, opened.template(), asked);
    if let Some(warning) = warning {
        terminal.warn(warning);
    }
    let mut talk = Talk::default();
    talk.set_system(options.system.as_deref().unwrap_or_default());
    // Fails before the weights are read if the tokenizer has no separator token for chats.
    encode_chat(&tokenizer, scaffold, &[Message::new(Role::User, "")])?;
    let enough = SessionOptions::of(&opened.config).context;
    let sizes = options.sizes.sizes(&opened.config, enough.into());
    let mut settings = options::Options::until_end(&tokenizer);
    settings.max_tokens = options.max_tokens as usize;
    let read = settings.read(&opened.config, &tokenizer, sampler.sampling());
    let mut lines = Lines::open(terminal);
    let reload = Reload { globals, opened: &opened, sizes, prompt: 1, read };
    let session = Resuming::new(reload).await?.keeping_cache(options.keep.wanted());
    terminal.faint("type a message, or /help");
    let _kept = keep();
    let mut chat = Chat {
        terminal,
        session,
        tokenizer: &tokenizer,
        scaffold,
        sampler,
        settings,
        talk,
        shift: options.context_shift == Switch::On,
        stats: options.stats == Switch::On,
        told: false,
        rescue: if lines.are_typed() { Rescue::armed() } else { Rescue::default() },
    };
    let ended = Box::pin(chat.run(&mut lines)).await;
    if !matches!(ended, Ok(End::Asked(_))) {
        drop(lines);
        chat.rescue.write();
    }
    match ended? {
        // A program that sends lines learns of it; a person has seen it.
        End::Asked(Some(error)) | End::Unasked(Some(error)) if !io::stdin().is_terminal() => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// How a chat ended, with the first error that left a message without an answer.
enum End {
    Asked(Option<Error>),
    /// By a signal.
    Unasked(Option<Error>),
}

struct Chat<'t> {
    terminal: Terminal,
    session: Resuming<Reload<'t>>,
    tokenizer: &'t Tokenizer,
    scaffold: &'static Scaffold,
    sampler: Sampler,
    settings: options::Options,
    talk: Talk,
    /// Whether the oldest exchanges make room.
    shift: bool,
    /// Whether there are numbers after an answer.
    stats: bool,
    /// Whether it was told that exchanges are left out.
    told: bool,
    rescue: Rescue,
}

impl Chat<'_> {
    /// Answers until the end.
    async fn run(&mut self, lines: &mut Lines) -> Result<End> {
        let mut failed = None;
        loop {
            let line = match lines.next(self.terminal)? {
                Input::Text(line) => line,
                Input::End => return Ok(End::Asked(failed)),
                Input::Stop => return Ok(End::Unasked(failed)),
            };
            let fenced = Fenced::new(&line);
            if let Some(Fenced::Closed(_, rest)) = &fenced {
                lines.put_back(rest);
            }
            lines.hold_keys();
            let result = match fenced.map_or_else(|| Said::new(&line), |fenced| fenced.said()) {
                Said::Nothing => Ok(()),
                Said::Command(Command::Quit, _) => return Ok(End::Asked(failed)),
                Said::Command(Command::Regen, _) => self.again().await,
                Said::Command(Command::Load, rest) => self.load(rest).await,
                Said::Command(command, rest) => self.command(command, rest),
                Said::NoCommand(text) => {
                    let word = text.split_whitespace().next().unwrap_or(text);
                    let what = format!("{word} is no command, so it is sent; /help lists them");
                    self.terminal.faint(what);
                    self.say(text).await
                }
                Said::Message(text) => self.say(text).await,
            };
            if let Err(error) = result {
                if is_stdout(&error) || matches!(error, Error::Interrupted) {
                    return Err(error);
                }
                self.terminal.warn(format!("there is no answer: {error}"));
                if io::stdin().is_terminal() {
                    self.terminal.hint(&error);
                }
                failed.get_or_insert(error);
            }
        }
    }

    /// Runs a command that gives no answer.
    fn command(&mut self, command: Command, rest: &str) -> Result<()> {
        match command {
            Command::Help => return out(&help()),
            Command::Show => return self.show(),
            Command::Reset => {
                self.talk.clear();
                self.session.sequence().rewind(0);
                self.told = false;
                self.rescue.forget();
                self.terminal.note("a new conversation");
            }
            Command::System => {
                self.talk.set_system(rest);
                self.terminal.note(if rest.is_empty() {
                    "there is no system text"
                } else {
                    "the system text is set"
                });
            }
            Command::Undo => match &self.talk.undo()[..] {
                [] => self.terminal.note("there is nothing to take back"),
                [first, ..] => {
                    self.leave_out()?;
                    self.rescue.note(&self.talk);
                    self.terminal.note(format!("taken back: {}", beginning(&first.content)));
                }
            },
            Command::Save if rest.is_empty() => self.terminal.warn("which file? /save FILE"),
            Command::Save => match replace_file(Path::new(rest), text_of(&self.talk).as_bytes()) {
                Ok(()) => {
                    self.rescue.forget();
                    self.terminal.note(format!("saved to {rest}"));
                }
                Err(error) => self.terminal.warn(error),
            },
            Command::Set => match set(rest, &mut self.sampler, &mut self.settings) {
                Ok(()) => self.terminal.note("it is set; /show lists all"),
                Err(what) => self.terminal.warn(what),
            },
            Command::Stats => match Switch::from_str(rest, true) {
                Ok(switch) => self.stats = switch == Switch::On,
                Err(_) => self.terminal.warn("/stats on, or /stats off"),
            },
            Command::Regen | Command::Load | Command::Quit => {}
        }
        Ok(())
    }

    /// Prints the state of the conversation.
    fn show(&self) -> Result<()> {
        let used = self.talk.ids(self.tokenizer, self.scaffold)?.len();
        let context = self.session.options().context;
        let exchanges = match (self.talk.exchanges(), self.talk.left_out()) {
            (all, 0) => all.to_string(),
            (all, left_out) => format!("{all}, of which the oldest {left_out} are left out"),
        };
        let system = match self.talk.system() {
            "" => "none",
            text => text,
        };
        let on_off = |on| if on { "on" } else { "off" }.to_owned();
        let mut rows = vec![
            ("system text".to_owned(), system.to_owned()),
            ("exchanges".into(), exchanges),
            ("context".into(), format!("{used} of {context} tokens are used")),
            ("context-shift".into(), on_off(self.shift)),
            ("stats".into(), on_off(self.stats)),
        ];
        rows.extend(values(&self.sampler, &self.settings));
        let line = |text: String, (name, value): &_| text + &format!("{name:<18} {value}\n");
        out(&rows.iter().fold(String::new(), line))
    }

    /// Goes on with a conversation that was saved, and shows its end.
    async fn load(&mut self, file: &str) -> Result<()> {
        if file.is_empty() {
            self.terminal.warn("which file? /load FILE");
            return Ok(());
        }
        let path = Path::new(file);
        let read = read_text(path, MAX_SAVED).await;
        match read.and_then(|text| Talk::from_json(&text).map_err(|what| Error::format(path, what)))
        {
            Ok(talk) => {
                self.rescue.write();
                self.talk = talk;
            }
            Err(error) => {
                self.terminal.warn(format!("the conversation is as it was: {error}"));
                return Ok(());
            }
        }
        self.told = false;
        self.leave_out()?;
        let turns = self.talk.turns();
        let people = turns.iter().enumerate().rev().filter(|(_, turn)| turn.role == Role::User);
        let from = people.map(|(at, _)| at).nth(SHOWN - 1).unwrap_or_default();
        if !self.talk.system().is_empty() {
            self.terminal.faint(wrapped(&format!("system text: {}", self.talk.system())));
        }
        if from > 0 {
            self.terminal.faint(format!("({from} earlier messages)"));
        }
        for turn in &turns[from..] {
            match turn.role {
                Role::Assistant => self.terminal.note(wrapped(&turn.content)),
                _ => self.terminal.faint(wrapped(&format!("> {}", turn.content))),
            }
        }
        let exchanges = self.talk.exchanges();
        let regen = match turns.last() {
            Some(turn) if turn.role == Role::User => "; /regen answers the last message",
            _ => "",
        };
        self.terminal.note(format!("loaded {file}, exchanges: {exchanges}{regen}"));
        Ok(())
    }

    /// Answers the last message once more.
    async fn again(&mut self) -> Result<()> {
        let old = self.talk.pop(Role::Assistant);
        if self.talk.turns().last().is_none_or(|turn| turn.role != Role::User) {
            if let Some(old) = old {
                self.talk.push(Role::Assistant, old.content);
            }
            self.terminal.note("there is no message to answer");
            return Ok(());
        }
        let sampling = *self.sampler.sampling();
        if sampling.temperature > 0.0 {
            let seed = sampling.seed.wrapping_add(1);
            self.sampler = Sampler::new(Sampling { seed, ..sampling })?;
            self.terminal.faint(format!("seed {seed}"));
        } else {
            self.terminal.note("at temperature 0 the answer is the same (/set temperature 0.8)");
        }
        let answered = self.answer().await;
        match (old, &answered) {
            (Some(old), Ok(false) | Err(_)) => {
                self.talk.push(Role::Assistant, old.content);
                self.terminal.note("the answer from before stays");
            }
            (None, Ok(false)) => drop(self.talk.pop(Role::User)),
            _ => {}
        }
        self.rescue.note(&self.talk);
        answered.map(|_| ())
    }

    /// Sends a message and prints the answer. After an error, the message is in the conversation
    /// without an answer; if it was refused or stopped before its answer began, it is not.
    async fn say(&mut self, text: &str) -> Result<()> {
        self.talk.push(Role::User, text);
        self.rescue.note(&self.talk);
        if !self.answer().await? {
            self.talk.pop(Role::User);
        }
        self.rescue.note(&self.talk);
        Ok(())
    }

    /// The ids of what the model sees, after leaving out what has no room.
    fn fit(&mut self) -> Result<Vec<u32>> {
        if !self.shift {
            return self.talk.ids(self.tokenizer, self.scaffold);
        }
        let before = self.talk.left_out();
        let context = self.session.options().context as usize;
        let ids = self.talk.fit(self.tokenizer, self.scaffold, context, 0)?;
        if self.talk.left_out() != before {
            // What was generated would go through the model as a prompt now: the answer is that of
            // a conversation without what is left out.
            let sequence = self.session.sequence();
            sequence.rewind(sequence.prompt().len());
        }
        Ok(ids)
    }

    /// Leaves out what has no room. What has none by itself is refused when it is answered.
    fn leave_out(&mut self) -> Result<()> {
        match self.fit() {
            Ok(_) | Err(Error::ContextLength { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The ids of the conversation up to the answer; `None`, with a warning, if it has no room.
    fn prompt(&mut self) -> Result<Option<Vec<u32>>> {
        let context = self.session.options().context as usize;
        let wanted = match self.fit() {
            Ok(ids) if ids.len() < context => return Ok(Some(ids)),
            Ok(ids) => ids.len(),
            Err(Error::ContextLength { prompt, .. }) => prompt,
            Err(error) => return Err(error),
        };
        self.terminal.warn(format!(
            "this message would make {wanted} tokens, but the context holds {context}"
        ));
        self.go_on();
        Ok(None)
    }

    /// Prints an answer to the last message as it comes. Returns whether there is one.
    async fn answer(&mut self) -> Result<bool> {
        let Some(ids) = self.prompt()? else { return Ok(false) };
        self.tell_left_out();
        forget_interrupts();
        let answers = answer();
        let mut clock = Clock::start(self.terminal);
        let mut trim = Trim::default();
        let mut screen = Screen::default();
        let mut on_event = |event: Event<'_>| {
            clock.on_event(event);
            screen.draw(trim.next(event.text()))?;
            Ok(if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let context = self.session.options().context as usize;
        let (talk, scaffold, tokenizer) = (&mut self.talk, self.scaffold, self.tokenizer);
        let shift = self.shift;
        let mut make_room = |made| {
            if !shift {
                return Ok(None);
            }
            match talk.fit(tokenizer, scaffold, context, made) {
                Ok(ids) => Ok(Some(ids)),
                Err(Error::ContextLength { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let made = generate_with_room(
            &mut self.session,
            tokenizer,
            &mut self.sampler,
            &ids,
            &self.settings,
            &mut on_event,
            &mut make_room,
        )
        .await;
        if made.is_ok() || screen.begun() {
            screen.end()?;
        }
        let made = made?;
        forget_interrupts();
        drop(answers);
        self.tell_left_out();
        if self.stats {
            self.terminal.faint(clock.summary(&made, ids.len()));
        }
        Ok(self.finish(made))
    }

    /// Tells, the first time, that the context is full.
    fn tell_left_out(&mut self) {
        let left_out = self.talk.left_out();
        if left_out == 0 || self.told {
            return;
        }
        self.told = true;
        let what = match left_out {
            1 => "exchange is".to_owned(),
            _ => format!("{left_out} exchanges are"),
        };
        let context = self.session.options().context;
        self.terminal.note(format!(
            "the context of {context} tokens is full: the oldest {what} left out, as others will \
             be (/show tells how many; --context-shift off ends the conversation instead)"
        ));
    }

    /// Takes an answer into the conversation, and says why it ended. Returns whether there is one.
    fn finish(&mut self, made: Generated) -> bool {
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
            return false;
        }
        self.talk.push(Role::Assistant, made.text);
        true
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

/// The first line of a text, cut to some words.
fn beginning(text: &str) -> String {
    const MOST: usize = 60;
    let line = text.trim().lines().next().unwrap_or_default();
    let cut: String = line.chars().take(MOST).collect();
    if cut.len() < text.trim().len() { cut + "…" } else { cut }
}
