//! Writes a checkpoint of synthetic weights: any size, any layout, no download.
//!
//! `cargo run --release --example make_checkpoint -- --preset small --layout tp --slices 8 \
//!     --out /tmp/small`

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{
        Synthetic,
        folder::{open_config, write_checkpoint},
        write::Layout,
    },
    model::config::{Config, PRESETS},
};
use pollster::block_on;

#[derive(Parser)]
struct Options {
    /// A configuration by name.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    #[arg(required_unless_present = "config")]
    preset: Option<String>,
    /// A config.json, instead of a name.
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// How the weights are spread over files.
    #[arg(long, value_enum, default_value = "single")]
    layout: Files,
    /// Files of `indexed`, slices of `tp`.
    #[arg(long, default_value_t = 8)]
    slices: u32,
    /// Element type.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Element,
    /// Another seed gives other weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder to write. It is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Files {
    /// One file.
    Single,
    /// Several files and an index.
    Indexed,
    /// As Grok-2 was released: a file for each kind of tensor, experts in slices.
    Tp,
    /// One file with the names of hpcai-tech/grok-1.
    Grok1,
}

#[derive(Clone, Copy, ValueEnum)]
enum Element {
    F32,
    F16,
    Bf16,
}

fn main() -> std::process::ExitCode {
    match run(&Options::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code().into()
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let config = match (&options.config, &options.preset) {
        (Some(path), _) => {
            let (config, warnings) = block_on(open_config(path))?;
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            config
        }
        (None, Some(name)) => Config::preset(name)
            .ok_or_else(|| Error::Usage(format!("no preset is called {name}")))?,
        (None, None) => return Err(Error::Usage("--preset or --config is needed".into())),
    };
    let layout = match options.layout {
        Files::Single => Layout::Single,
        Files::Indexed => Layout::Indexed { shards: options.slices },
        Files::Tp => Layout::TensorParallel { slices: options.slices },
        Files::Grok1 => Layout::Grok1,
    };
    let dtype = match options.dtype {
        Element::F32 => DType::F32,
        Element::F16 => DType::F16,
        Element::Bf16 => DType::BF16,
    };
    let weights = Synthetic::new(&config, dtype, options.seed)?;
    block_on(write_checkpoint(&options.out, &config, &weights, layout))?;
    let bytes = weights.bytes();
    eprintln!("wrote {bytes} bytes of {dtype} weights to {}", options.out.display());
    Ok(())
}
