//! The command line: what was typed, and which command it means.

mod bench;
mod chat;
mod generate;
mod inspect;
mod logits;
mod model;
mod perplexity;
mod quantize;
mod selftest;
mod terminal;
mod tune;

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use etcetera::base_strategy::{BaseStrategy as _, choose_native_strategy};
use grok_wgpu::{
    base::error::Result,
    machine::gpu::{AdapterChoice, Profile, adapters},
    model::config::{Compat, Config},
};

use terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  grok-wgpu generate models/demo \"Once upon a time\"
  grok-wgpu chat models/demo
  grok-wgpu inspect --preset grok-2 --no-device

Exit codes: 0 success, 1 failure, 2 usage, 3 bad model or file, 4 out of memory or limits,
5 no GPU or GPU lost, 7 verification failed, 130 interrupted.";

/// Heading of the options that every command has.
const EVERY: &str = "Options of every command";

/// Runs Grok-2-class models on any GPU that WebGPU reaches
#[derive(Debug, Parser)]
#[command(name = "grok-wgpu", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Adapter to run on: part of its name, or its number in --list-adapters
    #[arg(long, global = true, help_heading = EVERY, value_name = "NAME|N", env = "GROK_WGPU_ADAPTER")]
    adapter: Option<String>,
    /// List the adapters of this machine and stop
    #[arg(long, global = true, help_heading = EVERY)]
    list_adapters: bool,
    /// Limits to ask the device for
    #[arg(long, global = true, help_heading = EVERY, value_enum, default_value = "full")]
    limits: Limits,
    /// Whose arithmetic to follow where programs differ
    #[arg(long, global = true, help_heading = EVERY, value_enum, default_value = "reference")]
    compat: Arithmetic,
    /// Folder that keeps compiled shaders between runs, or `none`; the user's own cache if not given
    #[arg(long, global = true, help_heading = EVERY, value_name = "FOLDER")]
    #[arg(env = "GROK_WGPU_PIPELINE_CACHE")]
    pipeline_cache: Option<PathBuf>,
    /// File with what `tune` measured, or `none`; the user's own if not given
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "GROK_WGPU_TUNING")]
    tuning_file: Option<PathBuf>,
    /// Print results as JSON on the standard output
    #[arg(long, global = true, help_heading = EVERY)]
    json: bool,
    /// Print nothing but results and errors
    #[arg(long, short, global = true, help_heading = EVERY)]
    quiet: bool,
    #[arg(help = "When to use colours; NO_COLOR is respected")]
    #[arg(long, global = true, help_heading = EVERY, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// Names of [`Profile`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Limits {
    /// WebGPU's defaults: what a browser gives at the least
    Baseline,
    /// All the adapter has
    Full,
}

const LLAMA_CPP: &str = "llama.cpp's: YaRN where rope_type is \"original\", no cap of router logits, \
    chosen experts' probabilities scaled to a sum of 1, no attention temperature, the tanh form of \
    GELU";

/// Names of [`Compat`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Arithmetic {
    #[value(help = "The released models': SGLang's, and xai-org's own for Grok-1")]
    Reference,
    #[value(name = "llama.cpp", help = LLAMA_CPP)]
    LlamaCpp,
}

impl Arithmetic {
    /// Its value on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::LlamaCpp => "llama.cpp",
        }
    }

    /// A configuration that was not read from a file, with this arithmetic.
    fn apply(self, config: Config) -> Config {
        match self {
            Self::Reference => config,
            Self::LlamaCpp => config.as_llama_cpp(),
        }
    }
}

impl From<Arithmetic> for Compat {
    fn from(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::Reference => Self::Reference,
            Arithmetic::LlamaCpp => Self::LlamaCpp,
        }
    }
}

impl From<Limits> for Profile {
    fn from(limits: Limits) -> Self {
        match limits {
            Limits::Baseline => Self::Baseline,
            Limits::Full => Self::Full,
        }
    }
}

impl Globals {
    fn choice(&self) -> AdapterChoice {
        match self.adapter.as_deref() {
            None | Some("") => AdapterChoice::Best,
            Some(name) => AdapterChoice::Named(name.to_owned()),
        }
    }

    /// Where compiled shaders are kept, if they are.
    fn pipeline_folder(&self) -> Option<PathBuf> {
        let own = choose_native_strategy().ok().map(|own| own.cache_dir().join("grok-wgpu"));
        place(self.pipeline_cache.as_deref(), own)
    }

    /// Where `tune` keeps what it measured, if it does.
    fn tuning_file(&self) -> Option<PathBuf> {
        let own = choose_native_strategy().ok().map(|own| own.data_dir().join("grok-wgpu"));
        place(self.tuning_file.as_deref(), own.map(|own| own.join("tuning.json")))
    }

    /// Tells of a cache that cannot be used, if the person named one: otherwise nobody misses it.
    fn note_pipelines(&self, result: Result<bool>) {
        if let (Err(error), Some(_)) = (result, &self.pipeline_cache) {
            self.terminal().warn(format!("compiled shaders are not kept: {error}"));
        }
    }

    fn terminal(&self) -> Terminal {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !plain && io::stderr().is_terminal(),
        };
        Terminal { quiet: self.quiet, color }
    }
}

/// The place that was named, none where that is `none`, or the user's own.
fn place(named: Option<&Path>, own: Option<PathBuf>) -> Option<PathBuf> {
    match named {
        None => own,
        Some(named) if named.as_os_str().is_empty() || named == Path::new("none") => None,
        Some(named) => Some(named.to_owned()),
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::Options),
    Chat(chat::Options),
    Inspect(inspect::Options),
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
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let parsed = Cli::command()
        .color(color(&args))
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to the standard output, which may be closed.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2).into();
        }
    };
    let terminal = cli.globals.terminal();
    match terminal::catch_interrupts().and_then(|()| pollster::block_on(run(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if terminal::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error @ grok_wgpu::base::error::Error::Interrupted) => error.exit_code().into(),
        Err(error) => {
            terminal.error(error.code(), &error);
            error.exit_code().into()
        }
    }
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
        Some(Command::Generate(options)) => generate::run(globals, options).await,
        Some(Command::Chat(options)) => chat::run(globals, options).await,
        Some(Command::Inspect(options)) => inspect::run(globals, options).await,
        Some(Command::Logits(options)) => logits::run(globals, options).await,
        Some(Command::Perplexity(options)) => perplexity::run(globals, options).await,
        Some(Command::Quantize(options)) => quantize::run(globals, options).await,
        Some(Command::Selftest(options)) => selftest::run(globals, options).await,
        Some(Command::Bench(options)) => bench::run(globals, options).await,
        Some(Command::Tune(options)) => tune::run(globals, options).await,
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "grok-wgpu", &mut script);
            terminal::out(&String::from_utf8_lossy(&script))
        }
        None => {
            let mut command = Cli::command();
            let usage = command.render_usage();
            Err(grok_wgpu::base::error::Error::Usage(format!(
                "a command is needed; try --help\n{usage}"
            )))
        }
    }
}

async fn list_adapters(globals: &Globals) -> Result<()> {
    let all = adapters().await;
    if globals.json {
        return terminal::out_json(&serde_json::json!(all));
    }
    if all.is_empty() {
        globals.terminal().note("there is no adapter");
    }
    for (i, name) in all.iter().enumerate() {
        terminal::out(&format!("{i}: {name}\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_in_the_help_parse() {
        let mut count = 0;
        let cli = Cli::command();
        for command in cli.get_subcommands().chain([&cli]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines() {
                let Some(start) = line.find("grok-wgpu ") else { continue };
                // Up to a redirection; what is quoted is one word.
                let line = line[start..].split('>').next().unwrap_or_default();
                let words = line.split('"').enumerate().flat_map(|(i, part)| {
                    let quoted = i % 2 == 1;
                    if quoted { vec![part] } else { part.split_whitespace().collect() }
                });
                if let Err(error) = Cli::try_parse_from(words) {
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
