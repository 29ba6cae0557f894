//! How tokens are chosen, as options of a command.

use std::hash::{BuildHasher, Hasher};

use clap::Args;
use grok_wgpu::lab::{
    base::error::Result,
    text::sampler::{Sampler, Sampling},
};

/// How tokens are chosen.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingOptions {
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    #[arg(help = usual("Divides the logits: 0 takes the likeliest token, up to 2", U.temperature))]
    temperature: Option<f32>,
    #[arg(long, value_name = "N")]
    #[arg(help = usual("Keep this many of the likeliest tokens; 0 keeps all", U.top_k))]
    top_k: Option<u32>,
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[arg(help = usual("Keep the likeliest tokens that have this probability together", U.top_p))]
    top_p: Option<f32>,
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[arg(help = usual(
        "Keep tokens with at least this fraction of the likeliest one's probability",
        U.min_p,
    ))]
    min_p: Option<f32>,
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    #[arg(help = usual(
        "Divides positive logits of tokens that were there before; 1 is off",
        U.repetition_penalty,
    ))]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same text; random if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

const U: Sampling = Sampling::USUAL;

/// The help of an option whose default may come from the model.
fn usual(help: &str, value: impl std::fmt::Display) -> String {
    format!("{help} [default: {value}, or as the model's generation_config.json says]")
}

impl SamplingOptions {
    /// Checks the options before a model is opened.
    ///
    /// # Errors
    ///
    /// As [`Sampling::validate`].
    pub(super) fn check(self) -> Result<()> {
        self.over(Sampling::USUAL).validate()
    }

    /// A sampler, with a random seed if none was given. `usual` holds for what was not given.
    pub(super) fn sampler(self, usual: Sampling) -> Result<Sampler> {
        Sampler::new(self.over(usual))
    }

    fn over(self, usual: Sampling) -> Sampling {
        // `RandomState` has random keys, so no crate for random numbers is needed.
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            // 32 bits, short enough to type again.
            seed: self.seed.unwrap_or_else(|| random() >> 32),
        }
    }

    /// Whether the seed of this sampler was drawn at random and matters, so that it must be
    /// printed.
    pub(super) fn seed_is_news(self, sampler: &Sampler) -> bool {
        self.seed.is_none() && sampler.sampling().temperature > 0.0
    }
}
