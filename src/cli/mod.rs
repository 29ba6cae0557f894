//! The command line: parses the arguments and runs the command.

mod adapter;
mod bench;
mod builtin;
mod chat;
mod clock;
#[cfg(target_os = "linux")]
mod environment;
mod expected;
mod form;
mod generate;
mod globals;
mod hub;
mod inspect;
mod logits;
mod memory;
mod model;
mod perplexity;
mod pull;
mod quantize;
mod room;
mod sampling;
mod scan;
mod selftest;
mod serve;
mod signals;
mod sizes;
mod table;
mod terminal;
mod tune;
mod units;
mod waiting;
mod words;

use std::{ffi::OsString, process::ExitCode};

use clap::{
    Arg, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum as _,
    error::ErrorKind,
};
use grok_wgpu::lab::{
    base::error::{Error, Result},
    machine::gpu::{Listed, adapters},
    selftest::adapter as report_adapter,
};
use serde_json::Value;

use self::{globals::Globals, terminal::Terminal, words::Typed};

const EXAMPLES: &str = "\
Examples:
  grok-wgpu generate models/demo \"Once upon a time\"
  grok-wgpu chat models/demo
  grok-wgpu inspect --preset grok-2 --no-device --memory 192GiB
  grok-wgpu help generate

Exit codes: 0 success, 1 failure, 2 usage, 3 bad model or file, 4 out of memory or limits,
5 no GPU or GPU lost, 7 verification failed, 130 interrupted (129, 143 by another signal).

With --json the last line of the standard error has an error as
{\"error\": {\"code\": …, \"message\": …, \"hint\": …}}.";

/// Runs Grok-2-class models on any GPU that WebGPU reaches
#[derive(Debug, Parser)]
#[command(name = "grok-wgpu", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// Whether the command may open a device.
    #[cfg(target_os = "linux")]
    fn needs_drivers(&self) -> bool {
        let without = matches!(
            self.command,
            None | Some(
                Command::Pull(_)
                    | Command::Quantize(_)
                    | Command::Completions { .. }
                    | Command::Man { .. }
            )
        );
        !without || self.globals.list_adapters
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::Options),
    Chat(chat::Options),
    Serve(serve::Options),
    Inspect(inspect::Options),
    Pull(pull::Options),
    Logits(logits::Options),
    Perplexity(perplexity::Options),
    Quantize(quantize::Options),
    Selftest(selftest::Options),
    Bench(bench::Options),
    Tune(tune::Options),
    /// Print a script that completes this program's options in a shell
    #[command(after_help = "\
Examples:
  grok-wgpu completions bash > ~/.local/share/bash-completion/completions/grok-wgpu
  grok-wgpu completions fish > ~/.config/fish/completions/grok-wgpu.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual, as the archives of a release have them
    #[command(hide = true)]
    Man {
        /// The command; the program's own page without
        command: Option<String>,
    },
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let json = args.iter().any(|arg| arg == "--json" || arg == "--json-lines");
    let Parsed { cli, meant } = match parse(&args) {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(error)) => {
            Terminal { quiet: false, color: false }.error(&error, json);
            return error.exit_code().into();
        }
        Err(error) => {
            if let Some(error) = dashed(&error, &args) {
                Terminal { quiet: false, color: false }.error(&error, json);
            } else if json && error.use_stderr() {
                terminal::line(usage_json(&error));
            } else {
                // Help goes to the standard output, which may be closed.
                let _ = error.print();
            }
            return u8::try_from(error.exit_code()).unwrap_or(2).into();
        }
    };
    // Before there is another thread.
    #[cfg(target_os = "linux")]
    if cli.needs_drivers() {
        environment::quiet_drivers(&args);
    }
    let terminal = cli.globals.terminal();
    if let Some(line) = meant {
        terminal.faint(line);
    }
    let result = signals::catch().and_then(|()| pollster::block_on(run(&cli)));
    match (result, signals::ended_by()) {
        (Ok(()) | Err(Error::Interrupted), Some(code)) => code.into(),
        (Ok(()), None) => ExitCode::SUCCESS,
        (Err(error), _) if terminal::is_broken_pipe(&error) => ExitCode::SUCCESS,
        (Err(error @ Error::Interrupted), None) => error.exit_code().into(),
        (Err(error), _) => {
            terminal.error(&error, json);
            error.exit_code().into()
        }
    }
}

/// Parses the arguments, which may be in the words of other programs.
///
/// # Errors
///
/// What clap says, help too; inside, what is said of a word that this program does not have.
fn parse(args: &[OsString]) -> Result<Result<Parsed>, clap::Error> {
    let parse = |args: &[OsString], meant| {
        let matches = command().color(color(args)).try_get_matches_from(args)?;
        Cli::from_arg_matches(&matches).map(|cli| Ok(Parsed { cli, meant }))
    };
    let all = match Typed::of(args, &command()) {
        Typed::Plain => return parse(args, None),
        Typed::Unknown(error) => return Ok(Err(error)),
        Typed::Means(all) => all,
    };
    let mut first = None;
    for args in &all {
        match parse(args, Some(format!("grok-wgpu {}", words::shown(args)))) {
            Ok(parsed) => return Ok(parsed),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or_else(|| parse(args, None), Err)
}

/// A command line that was understood.
struct Parsed {
    cli: Cli,
    /// The same in this program's words, if it was in others.
    meant: Option<String>,
}

/// The program's arguments. A negative number after an option is its value, so that the error is
/// about the value and not about an option `-1`.
fn command() -> clap::Command {
    let values = |arg: Arg| {
        let takes = arg.get_action().takes_values() && !arg.is_positional();
        if takes { arg.allow_negative_numbers(true) } else { arg }
    };
    Cli::command().mut_args(values).mut_subcommands(|command| command.mut_args(values))
}

/// A mistake on the command line as an object: what is wrong, and the rest as the hint.
fn usage_json(error: &clap::Error) -> Value {
    let text = error.render().to_string();
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what = what.strip_prefix("error: ").unwrap_or(what).trim_end();
    terminal::error_json("usage", what, rest.trim())
}

/// The error for a text that begins with a dash and was taken for an option: clap would name its
/// first letter.
fn dashed(error: &clap::Error, args: &[OsString]) -> Option<Error> {
    let is_text = |arg: &&str| arg.starts_with('-') && arg.contains(char::is_whitespace);
    let text = args.iter().filter_map(|arg| arg.to_str()).find(is_text)?;
    let unknown = error.kind() == ErrorKind::UnknownArgument && !text.contains('=');
    let quoted = quoted(text);
    unknown.then(|| {
        Error::Usage(format!("{quoted} begins with a dash, and is no option"))
            .with_hint(format!("Such a text comes last, after `--`: -- {quoted}."))
    })
}

/// A word as it is typed in a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Colours of help and of usage errors, which are written before options are known.
fn color(args: &[OsString]) -> ColorChoice {
    let words = || args.iter().filter_map(|arg| arg.to_str());
    let joined = words().find_map(|arg| arg.strip_prefix("--color="));
    let value = joined.or_else(|| words().skip_while(|arg| *arg != "--color").nth(1));
    value.and_then(|value| ColorChoice::from_str(value, true).ok()).unwrap_or_default()
}

async fn run(cli: &Cli) -> Result<()> {
    let globals = &cli.globals;
    if globals.list_adapters {
        return list_adapters(globals).await;
    }
    match &cli.command {
        Some(Command::Generate(options)) => Box::pin(generate::run(globals, options)).await,
        Some(Command::Chat(options)) => Box::pin(chat::run(globals, options)).await,
        Some(Command::Serve(options)) => Box::pin(serve::run(globals, options)).await,
        Some(Command::Inspect(options)) => inspect::run(globals, options).await,
        Some(Command::Pull(options)) => pull::run(globals, options).await,
        Some(Command::Logits(options)) => logits::run(globals, options).await,
        Some(Command::Perplexity(options)) => Box::pin(perplexity::run(globals, options)).await,
        Some(Command::Quantize(options)) => quantize::run(globals, options).await,
        Some(Command::Selftest(options)) => selftest::run(globals, options).await,
        Some(Command::Bench(options)) => Box::pin(bench::run(globals, options)).await,
        Some(Command::Tune(options)) => tune::run(globals, options).await,
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "grok-wgpu", &mut script);
            terminal::out(&String::from_utf8_lossy(&script))
        }
        Some(Command::Man { command }) => man(command.as_deref()),
        None => {
            let mut command = Cli::command();
            let usage = command.render_usage();
            Err(Error::Usage("a command is needed".into())
                .with_hint(format!("{usage}; `--help` lists the commands.")))
        }
    }
}

async fn list_adapters(globals: &Globals) -> Result<()> {
    let all = adapters().await;
    if globals.json {
        let object = |(i, listed): (usize, &Listed)| {
            let Listed { name, identity, description, .. } = listed;
            let mut object = report_adapter(name, identity, description);
            object["index"] = i.into();
            object
        };
        let all: Vec<Value> = all.iter().enumerate().map(object).collect();
        return terminal::out_json(&all.into());
    }
    if all.is_empty() {
        globals.terminal().note("there is no adapter");
    }
    for (i, adapter) in all.iter().enumerate() {
        terminal::out(&format!("{i}: {}\n", adapter.description))?;
    }
    Ok(())
}

/// Prints a page of the manual.
fn man(name: Option<&str>) -> Result<()> {
    let mut program = command();
    program.build();
    let command = name.map_or(Some(&program), |name| program.find_subcommand(name));
    let command = command.ok_or_else(|| Error::Usage("there is no such command".into()))?;
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .expect("a vector takes whatever is written");
    terminal::out(&String::from_utf8_lossy(&page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn examples_in_the_help_parse() {
        let mut count = 0;
        let cli = Cli::command();
        for command in cli.get_subcommands().chain([&cli]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines() {
                let Some(start) = line.find("grok-wgpu ") else { continue };
                // Drop a redirection; a quoted part is one word.
                let line = line[start..].split('>').next().unwrap_or_default();
                let words = line.split('"').enumerate().flat_map(|(i, part)| {
                    let quoted = i % 2 == 1;
                    if quoted { vec![part] } else { part.split_whitespace().collect() }
                });
                if let Err(error) = Cli::try_parse_from(words)
                    && error.kind() != ErrorKind::DisplayHelp
                {
                    panic!("{line}: {error}");
                }
                count += 1;
            }
        }
        assert!(count > 20, "{count} examples");
    }

    #[test]
    fn colours_are_known_before_parsing() {
        let color = |args: &[&str]| color(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(color(&["x", "--color", "never"]), ColorChoice::Never);
        assert_eq!(color(&["x", "--color=always", "chat"]), ColorChoice::Always);
        assert_eq!(color(&["x", "--color"]), ColorChoice::Auto);
    }
}
