//! What people type who know other programs, and what it is here.

use std::{ffi::OsString, path::Path};

use clap::Command;
use grok_wgpu::lab::{base::error::Error, files::hub::SCHEME};

/// What a word is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    /// An option whose value is the model: here, the first word after the command.
    Model,
    /// An option whose value is the prompt: here, the last word.
    Prompt,
    /// An option whose value is a model of the Hugging Face hub: here, the first word after the
    /// command, with `hf://`.
    Hub,
    /// A command of another name.
    Is(&'static str),
    /// The command `chat`, or `generate` if a text follows the model.
    Run,
    /// Nothing: what to type instead.
    Says(&'static str),
}

/// Commands that take a model as their first word.
const WITH_MODEL: &[&str] =
    &["generate", "chat", "serve", "inspect", "logits", "perplexity", "quantize", "bench", "tune"];

/// Commands that make a text.
const OF_TEXTS: &[&str] = &["generate", "chat"];

/// The commands after which a word means something, none for the command itself; the word, in all
/// its spellings; what it is here. Each command without such an option of its own is there.
const WORDS: &[(&[&str], &[&str], Here)] = &[
    (&[], &["run"], Here::Run),
    (&[], &["download"], Here::Is("pull")),
    (&[], &["server"], Here::Is("serve")),
    (
        &[],
        &["list", "ls", "ps", "rm", "stop"],
        Here::Says(
            "Models are folders and files that you name, and none stays loaded: `grok-wgpu \
             inspect FOLDER` shows one.",
        ),
    ),
    (&[], &["show", "info"], Here::Says("The command is `inspect`: `grok-wgpu inspect MODEL`.")),
    (&[], &["version"], Here::Says("The option is `--version`: `grok-wgpu --version`.")),
    (WITH_MODEL, &["-m", "--model"], Here::Model),
    (&["generate"], &["-p", "--prompt"], Here::Prompt),
    (
        &["chat"],
        &["-p", "--prompt"],
        Here::Says(
            "`chat` reads its messages line by line; `grok-wgpu generate MODEL TEXT` takes one \
             text.",
        ),
    ),
    (
        &["generate"],
        &["-i", "-cnv", "--interactive", "--conversation"],
        Here::Says("A conversation is another command: `grok-wgpu chat MODEL`."),
    ),
    (
        OF_TEXTS,
        &["-c", "--ctx-size", "--ctx", "--num-ctx"],
        Here::Says("The option is `--context TOKENS`."),
    ),
    (OF_TEXTS, &["--temp"], Here::Says("The option is `--temperature T`.")),
    (OF_TEXTS, &["-s"], Here::Says("The option is `--seed N`.")),
    (
        WITH_MODEL,
        &["-ngl", "--n-gpu-layers", "--gpu-layers"],
        Here::Says("Leave it out: all layers run on the device that `--adapter` names."),
    ),
    (WITH_MODEL, &["-hf", "--hf-repo"], Here::Hub),
    (
        &["perplexity"],
        &["-f", "--file"],
        Here::Says("The text is the last word: `grok-wgpu perplexity MODEL FILE`."),
    ),
    (
        &["selftest"],
        &["-m", "--model"],
        Here::Says("`--bisect MODEL` checks a whole model; without it, no model is needed."),
    ),
];

/// What was typed, as this program has it.
#[derive(Debug)]
pub(super) enum Typed {
    /// As it was.
    Plain,
    /// In other words; the first that the program understands.
    Means(Vec<Vec<OsString>>),
    /// Nothing that this program does.
    Unknown(Error),
}

impl Typed {
    /// Translates what was typed. `program` knows the commands and the options that take a value.
    pub(super) fn of(args: &[OsString], program: &Command) -> Self {
        let at = command_at(args, program);
        let Some((at, word)) = at.and_then(|at| Some((at, args[at].to_str()?))) else {
            let is_command = |arg: &OsString| {
                arg.to_str().is_some_and(|word| program.find_subcommand(word).is_some())
            };
            let without = at.is_none() && !args.iter().skip(1).any(is_command);
            return if without { Self::without_command(args) } else { Self::Plain };
        };
        if word == "help" {
            return Self::help(args, at);
        }
        match here(None, word) {
            Some(Here::Says(what)) => unknown(word, what),
            Some(Here::Is(command)) => {
                let mut args = args.to_vec();
                args[at] = command.into();
                Self::Means(vec![args])
            }
            Some(_) => {
                let as_command = |name: &str| {
                    let mut args = args.to_vec();
                    args[at] = name.into();
                    match Self::of_command(args.clone(), at, name) {
                        Self::Means(mut all) => all.swap_remove(0),
                        _ => args,
                    }
                };
                Self::Means(["chat", "generate"].map(as_command).into())
            }
            None if program.find_subcommand(word).is_none() && is_model(word) => {
                let what = format!("`{word}` is no command of this program");
                Self::Unknown(
                    Error::Usage(what)
                        .with_hint(format!("A command comes first: `grok-wgpu chat {word}`.")),
                )
            }
            None => Self::of_command(args.to_vec(), at, word),
        }
    }

    /// A request for help, which may be about another program's command.
    fn help(args: &[OsString], at: usize) -> Self {
        let Some(about) = args.get(at + 1).and_then(|arg| arg.to_str()) else { return Self::Plain };
        match here(None, about) {
            Some(Here::Says(what)) => unknown(about, what),
            Some(here) => {
                let mut args = args.to_vec();
                args[at + 1] = if let Here::Is(command) = here { command } else { "chat" }.into();
                Self::Means(vec![args])
            }
            None => Self::Plain,
        }
    }

    /// A model or a prompt without a command, as llama.cpp's programs have it.
    fn without_command(args: &[OsString]) -> Self {
        let has =
            |like, of| options(args, 1).any(|(_, word, _)| here(Some(of), word) == Some(like));
        let model = has(Here::Model, "chat") || has(Here::Hub, "chat");
        let command = match (has(Here::Prompt, "generate"), model) {
            (true, _) => "generate",
            (_, true) => "chat",
            _ => return Self::Plain,
        };
        let mut args = args.to_vec();
        args.insert(1, command.into());
        Self::of_command(args, 1, command)
    }

    /// A command of this program with options of others.
    fn of_command(mut args: Vec<OsString>, at: usize, command: &str) -> Self {
        let (mut model, mut prompt) = (None, None);
        loop {
            let found = options(&args, at + 1).find_map(|(i, word, attached)| {
                Some((i, word, attached.map(OsString::from), here(Some(command), word)?))
            });
            let (i, value, into, place, of_hub) = match found {
                None => break,
                Some((_, word, _, Here::Says(what))) => return unknown(word, what),
                Some((i, _, value, Here::Prompt)) => (i, value, &mut prompt, "last", false),
                Some((i, _, value, here)) => (i, value, &mut model, "first", here == Here::Hub),
            };
            let value = value.or_else(|| (i + 1 < args.len()).then(|| args.remove(i + 1)));
            let name = args.remove(i);
            // Given twice: the program's own words are about it.
            if into.is_some() {
                return Self::Plain;
            }
            let Some(value) = value else {
                let what = format!("nothing follows `{}`", name.to_string_lossy());
                let hint = format!("What it names comes {place} here, without an option.");
                return Self::Unknown(Error::Usage(what).with_hint(hint));
            };
            *into = Some(if of_hub { named_on_hub(value) } else { value });
        }
        if model.is_none() && prompt.is_none() {
            return Self::Plain;
        }
        if let Some(model) = model {
            args.insert(at + 1, model);
        }
        if let Some(prompt) = prompt {
            if args.iter().any(|arg| arg == "--") {
                return Self::Plain;
            }
            args.extend(["--".into(), prompt]);
        }
        Self::Means(vec![args])
    }
}

/// A model of the hub, as every command takes it.
fn named_on_hub(name: OsString) -> OsString {
    if name.to_str().is_some_and(|name| name.starts_with(SCHEME)) {
        return name;
    }
    let mut whole = OsString::from(SCHEME);
    whole.push(name);
    whole
}

/// What a word is after a command, or as one.
fn here(command: Option<&str>, word: &str) -> Option<Here> {
    let after = |commands: &&[&str]| match command {
        None => commands.is_empty(),
        Some(command) => commands.contains(&command),
    };
    WORDS
        .iter()
        .find(|(commands, words, _)| after(commands) && words.contains(&word))
        .map(|&(.., here)| here)
}

fn unknown(word: &str, what: &str) -> Typed {
    Typed::Unknown(Error::Usage(format!("this program has no `{word}`")).with_hint(what))
}

/// The options from an index on, up to `--`: where each is, its name, and the value after its `=`.
fn options(args: &[OsString], from: usize) -> impl Iterator<Item = (usize, &str, Option<&str>)> {
    args.iter().enumerate().skip(from).take_while(|(_, arg)| *arg != "--").filter_map(|(i, arg)| {
        let word = arg.to_str().filter(|word| word.len() > 1 && word.starts_with('-'))?;
        Some(match word.split_once('=').filter(|(name, _)| name.starts_with("--")) {
            Some((name, value)) => (i, name, Some(value)),
            None => (i, word, None),
        })
    })
}

/// Where the command is: the first word that is neither an option nor the value of one that all
/// commands have.
fn command_at(args: &[OsString], program: &Command) -> Option<usize> {
    let takes_value = |name: &str| {
        let own = |arg: &&clap::Arg| {
            name.strip_prefix("--").is_some_and(|long| arg.get_long() == Some(long))
        };
        program.get_arguments().find(own).is_some_and(|arg| arg.get_action().takes_values())
    };
    let mut rest = args.iter().enumerate().skip(1);
    while let Some((i, arg)) = rest.next() {
        match arg.to_str() {
            Some("--") => return None,
            Some(word) if word.len() > 1 && word.starts_with('-') => {
                // An option that is none of all commands: what follows may be its value.
                let name = word.split('=').next().unwrap_or(word);
                let known = program.get_arguments().any(|arg| {
                    let short = arg.get_short().map(|short| format!("-{short}"));
                    let long = arg.get_long().map(|long| format!("--{long}"));
                    [short, long].into_iter().flatten().any(|own| own == name)
                });
                if !known {
                    return None;
                }
                if takes_value(name) && !word.contains('=') {
                    rest.next();
                }
            }
            _ => return Some(i),
        }
    }
    None
}

/// Whether a word in the place of a command looks like a model.
fn is_model(word: &str) -> bool {
    let path = Path::new(word);
    word.contains('/') || path.extension().is_some_and(|end| end == "gguf") || path.exists()
}

/// What was typed, in words that a shell takes.
pub(super) fn shown(args: &[OsString]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    let word = |arg: &OsString| {
        let text = arg.to_string_lossy();
        if !text.is_empty() && text.chars().all(plain) { text.into() } else { super::quoted(&text) }
    };
    args.iter().skip(1).map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        std::iter::once("grok-wgpu").chain(line.split(' ')).map(OsString::from).collect()
    }

    /// What the program takes for a line: the line itself, another one, or what it says.
    fn taken(line: &str) -> String {
        let program = super::super::command();
        let parses = |args: &Vec<OsString>| {
            let parsed = super::super::command().try_get_matches_from(args);
            // A request for help is an error of that kind.
            parsed.map_or_else(|error| error.kind() == ErrorKind::DisplayHelp, |_| true)
        };
        match Typed::of(&args(line), &program) {
            Typed::Plain => line.to_owned(),
            Typed::Means(all) => {
                let found = all.iter().find(|args| parses(args));
                found.map_or_else(|| format!("{all:?} do not parse"), |args| shown(args))
            }
            Typed::Unknown(error) => format!("{error}. {}", error.hint()),
        }
    }

    /// Every line that people bring along, with what becomes of it.
    const LINES: &[(&str, &str)] = &[
        ("run demo", "chat demo"),
        ("run demo Hello", "generate demo Hello"),
        ("run demo Hello --seed 1", "generate demo Hello --seed 1"),
        ("run demo --temperature 0", "chat demo --temperature 0"),
        ("run -m demo -p Hello", "generate demo -- Hello"),
        ("-q run demo", "-q chat demo"),
        ("--adapter run chat demo", "--adapter run chat demo"),
        ("--color=never run demo", "--color=never chat demo"),
        ("pull xai-org/grok-2", "pull xai-org/grok-2"),
        ("download xai-org/grok-2", "pull xai-org/grok-2"),
        ("server demo", "serve demo"),
        ("serve -m demo", "serve demo"),
        ("list", "inspect FOLDER"),
        ("ls", "inspect FOLDER"),
        ("ps", "inspect FOLDER"),
        ("rm demo", "inspect FOLDER"),
        ("stop", "inspect FOLDER"),
        ("show demo", "grok-wgpu inspect MODEL"),
        ("info demo", "grok-wgpu inspect MODEL"),
        ("version", "grok-wgpu --version"),
        ("models/x.gguf", "grok-wgpu chat models/x.gguf"),
        ("x.gguf -n 3", "grok-wgpu chat x.gguf"),
        ("generate -m demo Hello", "generate demo Hello"),
        ("generate Hello -m demo", "generate demo Hello"),
        ("generate --model=demo -n 4 --prompt=Hello", "generate demo -n 4 -- Hello"),
        ("generate -p Hello", "generate -- Hello"),
        ("generate demo --prompt --dashed", "generate demo -- --dashed"),
        ("generate demo -p a -- b", "generate demo -p a -- b"),
        ("-m demo -p Hello -n 4", "generate demo -n 4 -- Hello"),
        ("-m demo", "chat demo"),
        ("-hf xai-org/grok-2", "chat hf://xai-org/grok-2"),
        ("-p Hello", "generate -- Hello"),
        ("-q --model demo", "chat demo -q"),
        ("chat -m demo", "chat demo"),
        ("chat --model demo --system Brief", "chat demo --system Brief"),
        ("chat demo -p Hello", "grok-wgpu generate MODEL TEXT"),
        ("chat demo --prompt=Hello", "grok-wgpu generate MODEL TEXT"),
        ("generate demo -i", "grok-wgpu chat MODEL"),
        ("generate demo -cnv", "grok-wgpu chat MODEL"),
        ("generate demo --interactive", "grok-wgpu chat MODEL"),
        ("generate demo --conversation", "grok-wgpu chat MODEL"),
        ("generate demo Hi -c 4096", "--context TOKENS"),
        ("chat demo --ctx-size 4096", "--context TOKENS"),
        ("chat demo --ctx 4096", "--context TOKENS"),
        ("chat demo --num-ctx 4096", "--context TOKENS"),
        ("chat demo --temp 0", "--temperature T"),
        ("generate demo Hi -s 1", "--seed N"),
        ("generate demo Hi -ngl 99", "--adapter"),
        ("chat demo --n-gpu-layers 99", "--adapter"),
        ("bench demo --gpu-layers 99", "--adapter"),
        ("chat -hf xai-org/grok-2", "chat hf://xai-org/grok-2"),
        ("chat -hf hf://xai-org/grok-2", "chat hf://xai-org/grok-2"),
        ("generate --hf-repo xai-org/grok-2 Hi", "generate hf://xai-org/grok-2 Hi"),
        ("inspect -m demo", "inspect demo"),
        ("logits -m demo --ids 1", "logits demo --ids 1"),
        ("perplexity -m demo text.txt", "perplexity demo text.txt"),
        ("perplexity demo -f text.txt", "grok-wgpu perplexity MODEL FILE"),
        ("perplexity demo --file text.txt", "grok-wgpu perplexity MODEL FILE"),
        ("quantize -m demo small --type q4", "quantize demo small --type q4"),
        ("bench -m demo --prompt 8", "bench demo --prompt 8"),
        ("tune --model demo", "tune demo"),
        ("selftest -m demo", "--bisect MODEL"),
        ("selftest --model demo", "--bisect MODEL"),
        // Words of this program.
        ("chat demo", "chat demo"),
        ("help chat", "help chat"),
        ("help", "help"),
        ("help run", "help chat"),
        ("help pull", "help pull"),
        ("help download", "help pull"),
        ("generate demo -- -m", "generate demo -- -m"),
        ("generate demo run", "generate demo run"),
        ("nonsense", "nonsense"),
        ("--list-adapters", "--list-adapters"),
        ("generate -m", "comes first here"),
        ("generate demo --prompt", "comes last here"),
        ("generate -m a -m b", "generate -m a -m b"),
        ("--seed 1 generate demo -p Hello", "--seed 1 generate demo -p Hello"),
    ];

    #[test]
    fn words_of_other_programs_are_understood_or_answered() {
        for (line, wanted) in LINES {
            let taken = taken(line);
            let said = taken.contains(". ") && taken.contains(wanted);
            assert!(taken == *wanted || said, "{line}: {taken}");
        }
    }

    #[test]
    fn every_word_of_the_table_has_a_line() {
        for (commands, words, here) in WORDS {
            for word in *words {
                let has =
                    |(line, _): &(&str, &str)| line.split([' ', '=']).any(|part| part == *word);
                assert!(LINES.iter().any(has), "{word}");
            }
            for command in *commands {
                let mut program = super::super::command();
                program.build();
                let own = program.find_subcommand(command).expect("a command");
                for word in *words {
                    let is = |name: Option<String>| name.as_deref() == Some(*word);
                    let long = |arg: &clap::Arg| is(arg.get_long().map(|long| format!("--{long}")));
                    let short = |arg: &clap::Arg| is(arg.get_short().map(|c| format!("-{c}")));
                    let known = own.get_arguments().any(|arg| long(arg) || short(arg));
                    assert!(!known, "`{command}` has an option {word} of its own");
                }
            }
            if let Here::Says(what) = here {
                let one = what.ends_with('.') && !what.contains(". ") && what.contains('`');
                assert!(one, "one sentence: {what}");
            }
        }
    }
}
