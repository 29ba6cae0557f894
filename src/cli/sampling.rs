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
    /// Divides the logits: 0 takes the likeliest token, up to 2
    #[arg(long, value_name = "T", default_value_t = Sampling::USUAL.temperature, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = Sampling::USUAL.top_k)]
    top_k: u32,
    /// Keep the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", default_value_t = Sampling::USUAL.top_p, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep tokens with at least this fraction of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = Sampling::USUAL.min_p, allow_negative_numbers = true)]
    min_p: f32,
    /// Divides positive logits of tokens that were there before; 1 is off
    #[arg(long, value_name = "F", default_value_t = Sampling::USUAL.repetition_penalty, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// The same seed gives the same text; random if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingOptions {
    /// A sampler; the seed is made up if none was given.
    pub(super) fn sampler(self) -> Result<Sampler> {
        // The standard library's hash keys are random.
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        Sampler::new(Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            // Short enough to be typed again.
            seed: self.seed.unwrap_or_else(|| random() >> 32),
        })
    }

    /// Whether a person must be told the seed to have the same text again.
    pub(super) fn seed_is_news(self) -> bool {
        self.seed.is_none() && self.temperature > 0.0
    }
}
