//! The options that every command has, and what follows from them.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use clap::{Args, ColorChoice, ValueEnum};
use etcetera::base_strategy::{BaseStrategy as _, choose_native_strategy};
use grok_wgpu::lab::{
    base::error::Result,
    machine::gpu::{AdapterChoice, LimitProfile},
    model::config::{Compat, Config},
};

use super::terminal::{self, Terminal};

/// Heading of the options that every command has.
const EVERY: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub(super) struct Globals {
    /// Adapter to run on: part of its name, or its number in --list-adapters
    #[arg(long, global = true, help_heading = EVERY, value_name = "NAME|N")]
    #[arg(env = "GROK_WGPU_ADAPTER")]
    pub(super) adapter: Option<String>,
    /// List the adapters of this machine and stop
    #[arg(long, global = true, help_heading = EVERY)]
    pub(super) list_adapters: bool,
    /// Limits to ask the device for
    #[arg(long, global = true, help_heading = EVERY, value_enum, default_value = "full")]
    pub(super) limits: Limits,
    /// Whose arithmetic to follow where programs differ
    #[arg(long, global = true, help_heading = EVERY, value_enum, default_value = "reference")]
    pub(super) compat: Arithmetic,
    /// Go on with weights that are NaN or infinite, which are refused otherwise
    #[arg(long, global = true, help_heading = EVERY)]
    pub(super) allow_non_finite: bool,
    /// Folder that keeps compiled shaders between runs, or `none`; the user's own cache if not
    /// given
    #[arg(long, global = true, help_heading = EVERY, value_name = "FOLDER")]
    #[arg(env = "GROK_WGPU_PIPELINE_CACHE")]
    pub(super) pipeline_cache: Option<PathBuf>,
    /// File with what `tune` measured, or `none`; the user's own if not given
    #[arg(long, global = true, help_heading = EVERY, value_name = "FILE", env = "GROK_WGPU_TUNING")]
    pub(super) tuning_file: Option<PathBuf>,
    /// Longest time that the device should work at once, in milliseconds; 0 for no limit
    ///
    /// Windows resets a device that works for two seconds without a break. Passes that would take
    /// longer than this are divided. The default is 1000, and 0 on adapters that run on a CPU.
    #[arg(long, global = true, help_heading = EVERY, value_name = "MS")]
    pub(super) submission_ms: Option<u32>,
    /// Do not run each shader once before a text: its first tokens wait for drivers that compile
    /// shaders when they first run
    #[arg(long, global = true, help_heading = EVERY)]
    pub(super) no_warmup: bool,
    /// Print results as JSON on the standard output
    #[arg(long, global = true, help_heading = EVERY)]
    pub(super) json: bool,
    /// Print nothing but results and errors
    #[arg(long, short, global = true, help_heading = EVERY)]
    pub(super) quiet: bool,
    #[arg(help = "When to use colours; NO_COLOR is respected")]
    #[arg(long, global = true, help_heading = EVERY, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
}

/// Names of [`LimitProfile`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Limits {
    /// WebGPU's defaults: what a browser gives at the least
    Baseline,
    /// All the adapter has
    Full,
}

const LLAMA_CPP: &str = "llama.cpp's: YaRN where rope_type is \"original\", no cap of router \
    logits, chosen experts' probabilities scaled to a sum of 1, no attention temperature, the tanh \
    form of GELU";

/// Names of [`Compat`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Arithmetic {
    #[value(help = "The released models': SGLang's, and xai-org's own for Grok-1")]
    Reference,
    #[value(name = "llama.cpp", help = LLAMA_CPP)]
    LlamaCpp,
}

impl Arithmetic {
    /// Its value on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::LlamaCpp => "llama.cpp",
        }
    }

    /// A configuration that did not come from a file, with this arithmetic.
    pub(super) fn apply(self, config: Config) -> Config {
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

impl From<Limits> for LimitProfile {
    fn from(limits: Limits) -> Self {
        match limits {
            Limits::Baseline => Self::Baseline,
            Limits::Full => Self::Full,
        }
    }
}

impl Globals {
    pub(super) fn choice(&self) -> AdapterChoice {
        match self.adapter.as_deref() {
            None | Some("") => AdapterChoice::Best,
            Some(name) => AdapterChoice::Named(name.to_owned()),
        }
    }

    /// The folder of the pipeline cache, if there is to be one.
    pub(super) fn pipeline_folder(&self) -> Option<PathBuf> {
        let own = choose_native_strategy().ok().map(|own| own.cache_dir().join("grok-wgpu"));
        place(self.pipeline_cache.as_deref(), own)
    }

    /// The file with the measurements of `tune`, if there is to be one.
    pub(super) fn tuning_file(&self) -> Option<PathBuf> {
        place(self.tuning_file.as_deref(), own_folder().map(|own| own.join("tuning.json")))
    }

    /// Warns of a pipeline cache that cannot be used, but only if the user named its folder.
    pub(super) fn note_pipelines(&self, result: Result<bool>) {
        if let (Err(error), Some(_)) = (result, &self.pipeline_cache) {
            self.terminal().warn(format!("compiled shaders are not kept: {error}"));
        }
    }

    pub(super) fn terminal(&self) -> Terminal {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || terminal::is_dumb();
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !plain && io::stderr().is_terminal(),
        };
        Terminal { quiet: self.quiet, color }
    }
}

/// `named`, but no path if that is `none` or empty; `own` if nothing was named.
fn place(named: Option<&Path>, own: Option<PathBuf>) -> Option<PathBuf> {
    match named {
        None => own,
        Some(named) if named.as_os_str().is_empty() || named == Path::new("none") => None,
        Some(named) => Some(named.to_owned()),
    }
}

/// Where this platform keeps a program's data, if the person has a home.
pub(super) fn own_folder() -> Option<PathBuf> {
    choose_native_strategy().ok().map(|own| own.data_dir().join("grok-wgpu"))
}
