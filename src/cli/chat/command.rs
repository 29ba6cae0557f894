//! What a line of a conversation is: a message or a command.

use clap::{CommandFactory as _, Parser};
use grok_wgpu::lab::{base::error::Result, engine::options, text::sampler::Sampler};

use super::super::sampling::{SamplingOptions, max_tokens};

/// A command within a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Reset,
    System,
    Regen,
    Undo,
    Save,
    Load,
    Set,
    Show,
    Stats,
    Help,
    Quit,
}

/// The commands by the words after a slash, with what follows them and what they do. A second word
/// for a command has no text of its own.
pub(super) const COMMANDS: [(&str, &str, &str, Command); 15] = [
    ("regen", "", "answer the last message again, with a new seed", Command::Regen),
    ("undo", "", "take back the last message and its answer", Command::Undo),
    ("reset", "", "begin a new conversation; the system text stays (also /clear)", Command::Reset),
    ("clear", "", "", Command::Reset),
    ("system", "TEXT", "set the system text, or remove it if there is no TEXT", Command::System),
    ("save", "FILE", "write the conversation to a JSON file", Command::Save),
    ("load", "FILE", "go on with a conversation that was saved", Command::Load),
    ("set", "NAME VALUE", "change an option of sampling, as in /set temperature 0.5", Command::Set),
    ("show", "", "system text, options, and how much of the context is used", Command::Show),
    ("stats", "on|off", "numbers after each answer", Command::Stats),
    ("help", "", "this list (also /?)", Command::Help),
    ("?", "", "", Command::Help),
    ("quit", "", "leave (also /bye, /exit, Ctrl-D, or Ctrl-C twice)", Command::Quit),
    ("exit", "", "", Command::Quit),
    ("bye", "", "", Command::Quit),
];

/// What begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";

/// What `/help` prints.
pub(super) fn help() -> String {
    let told = COMMANDS.iter().filter(|(_, _, what, _)| !what.is_empty());
    let line = |word: String, what: &str| format!("{word:<16} {what}\n");
    let mut text: String =
        told.map(|(name, after, what, _)| line(format!("/{name} {after}"), what)).collect();
    text += &line("//TEXT".into(), "send a message that begins with a slash");
    text += &line(FENCE.into(), "begin a message of several lines, which the next \"\"\" ends");
    text + "Any other line is a message. Ctrl-V Ctrl-J begins another line of it, and\n\
            pasted text keeps its lines. Ctrl-C stops an answer.\n"
}

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'l> {
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
    pub(super) fn new(line: &'l str) -> Self {
        let text = line.trim_end();
        let Some(rest) = text.trim_start().strip_prefix('/') else {
            return Self::message(text);
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

    /// A message, unless it is empty.
    fn message(text: &'l str) -> Self {
        if text.trim().is_empty() { Self::Nothing } else { Self::Message(text) }
    }
}

/// What begins with `"""`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fenced<'l> {
    /// The message that has begun has no end.
    Open(&'l str),
    /// What the next `"""` ended, and what follows that.
    Closed(&'l str, &'l str),
}

impl<'l> Fenced<'l> {
    /// `None` if the text does not begin with `"""`. The ends of the lines of the two `"""` are no
    /// part of the message.
    pub(super) fn new(text: &'l str) -> Option<Self> {
        let text = text.trim_start().strip_prefix(FENCE)?;
        let body = |text: &'l str| {
            let first = text.strip_prefix('\r').unwrap_or(text).strip_prefix('\n').unwrap_or(text);
            let last = first.strip_suffix('\n').unwrap_or(first);
            last.strip_suffix('\r').unwrap_or(last)
        };
        Some(match text.split_once(FENCE) {
            Some((message, rest)) => Self::Closed(body(message), rest),
            None => Self::Open(body(text)),
        })
    }

    /// What was said.
    pub(super) fn said(&self) -> Said<'l> {
        let (Self::Open(text) | Self::Closed(text, _)) = *self;
        Said::message(text)
    }
}

/// The options that `/set` changes, each by the name that it has on the command line.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Values {
    #[command(flatten)]
    sampling: SamplingOptions,
    #[arg(long, value_parser = max_tokens, allow_negative_numbers = true)]
    max_tokens: Option<u32>,
}

/// Changes what `text`, a name and a value, says.
///
/// # Errors
///
/// A sentence, if there is no such option, or if it cannot have this value. Nothing is changed.
pub(super) fn set(
    text: &str,
    sampler: &mut Sampler,
    options: &mut options::Options,
) -> Result<(), String> {
    let (name, value) = text.split_once(['=', ' ', '\t']).unwrap_or((text, ""));
    let name = name.trim_start_matches('-').replace('_', "-");
    let value = value.trim();
    let command = Values::command();
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    if !known.contains(&&*name) {
        let what = if name.is_empty() { "/set NAME VALUE" } else { "there is no such option" };
        return Err(format!("{what}; NAME is {}", known.join(", ")));
    }
    if value.is_empty() {
        return Err(format!("which value? /set {name} VALUE"));
    }
    let values = Values::try_parse_from([format!("--{name}={value}")]).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })?;
    let (sampling, anew) = values.sampling.change(*sampler.sampling());
    let changed = if anew {
        Sampler::new(sampling).map(|new| *sampler = new)
    } else {
        sampler.change(sampling)
    };
    changed.map_err(|error| error.to_string())?;
    if let Some(count) = values.max_tokens {
        options.max_tokens = count as usize;
    }
    Ok(())
}

/// The options that `/set` changes, with their values.
pub(super) fn values(sampler: &Sampler, options: &options::Options) -> Vec<(String, String)> {
    let sampling = sampler.sampling();
    let settings = sampling.to_json();
    let named = settings.as_object().into_iter().flatten();
    let mut values: Vec<(String, String)> =
        named.map(|(name, value)| (name.replace('_', "-"), value.to_string())).collect();
    values.push(("seed".into(), sampling.seed.to_string()));
    let most = match u32::try_from(options.max_tokens) {
        Ok(count) if count < u32::MAX => count.to_string(),
        _ => "-1 (as many as the context holds)".into(),
    };
    values.push(("max-tokens".into(), most));
    values
}

#[cfg(test)]
mod tests {
    use grok_wgpu::lab::text::sampler::Sampling;

    use super::*;

    #[test]
    fn what_is_no_command_is_a_message() {
        for (line, said) in [
            ("", Said::Nothing),
            (" \t\n", Said::Nothing),
            ("hello\n", Said::Message("hello")),
            ("    an indented line\r\n", Said::Message("    an indented line")),
            ("/help\n", Said::Command(Command::Help, "")),
            ("/?", Said::Command(Command::Help, "")),
            ("/exit", Said::Command(Command::Quit, "")),
            ("/bye", Said::Command(Command::Quit, "")),
            ("/clear", Said::Command(Command::Reset, "")),
            ("/set temperature 0.5 ", Said::Command(Command::Set, "temperature 0.5")),
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
    fn three_quotes_are_around_a_message() {
        use Fenced::{Closed, Open};
        for (text, fenced) in [
            ("hello", None),
            ("say \"\"\"", None),
            ("\"\"\"", Some(Open(""))),
            ("  \"\"\"one\ntwo", Some(Open("one\ntwo"))),
            ("\"\"\"\none\n\n  two\n\"\"\"", Some(Closed("one\n\n  two", ""))),
            ("\"\"\"\r\none\r\n\"\"\"\r", Some(Closed("one", "\r"))),
            ("\"\"\"/quit\"\"\" /quit", Some(Closed("/quit", " /quit"))),
            ("\"\"\"\"\"\"", Some(Closed("", ""))),
        ] {
            assert_eq!(Fenced::new(text), fenced, "{text:?}");
        }
        assert_eq!(Closed(" \n", "").said(), Said::Nothing);
        assert_eq!(Open("/quit").said(), Said::Message("/quit"));
    }

    #[test]
    fn the_list_of_commands_has_each_of_them() {
        let help = help();
        for (name, after, what, command) in COMMANDS {
            let same = |&&(_, _, told, of): &&(&str, &str, &str, Command)| {
                of == command && !told.is_empty()
            };
            assert_eq!(COMMANDS.iter().filter(same).count(), 1, "{name}");
            assert!(help.contains(&format!("/{name}")), "{name}: {help}");
            assert!(what.is_empty() || help.contains(&format!("/{name} {after}")), "{help}");
        }
        assert!(help.contains("/reset           begin a new conversation"), "{help}");
        for told in ["pasted", "Ctrl-V Ctrl-J", "\"\"\""] {
            assert!(help.contains(told), "{help}");
        }
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }

    #[test]
    fn options_are_set_as_on_the_command_line() {
        let start = Sampling { seed: 7, ..Sampling::USUAL };
        let mut sampler = Sampler::new(start).expect("in range");
        let mut options = options::Options::default();
        for (text, name, value) in [
            ("temperature 0.5", "temperature", "0.5"),
            ("--top-p=0.25", "top-p", "0.25"),
            ("top_k 12", "top-k", "12"),
            ("min-p  0.1", "min-p", "0.1"),
            ("repetition-penalty 1.5", "repetition-penalty", "1.5"),
            ("seed 99", "seed", "99"),
            ("max-tokens 5", "max-tokens", "5"),
            ("max-tokens -1", "max-tokens", "-1 (as many as the context holds)"),
        ] {
            set(text, &mut sampler, &mut options).expect(text);
            let values = values(&sampler, &options);
            assert!(values.contains(&(name.into(), value.into())), "{text}: {values:?}");
        }
        let before = (*sampler.sampling(), options.max_tokens);
        for (text, told) in [
            ("", "/set NAME VALUE; NAME is temperature, top-k, top-p, min-p"),
            ("help", "there is no such option; NAME is temperature"),
            ("temperature", "which value? /set temperature VALUE"),
            ("temperature 3", "temperature is 3, expected 0 to 2"),
            ("top-k many", "invalid value 'many' for '--top-k"),
            ("seed -2", "-1 for a random seed"),
            ("max-tokens 0", "wanted a whole number from 1 to"),
        ] {
            let error = set(text, &mut sampler, &mut options).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!((*sampler.sampling(), options.max_tokens), before);
    }
}
