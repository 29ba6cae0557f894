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
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    #[arg(default_value_t = Sampling::USUAL.temperature)]
    temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = Sampling::USUAL.top_k)]
    top_k: u32,
    /// Keep the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[arg(default_value_t = Sampling::USUAL.top_p)]
    top_p: f32,
    /// Keep tokens with at least this fraction of the likeliest one's probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[arg(default_value_t = Sampling::USUAL.min_p)]
    min_p: f32,
    /// Divides positive logits of tokens that were there before; 1 is off
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    #[arg(default_value_t = Sampling::USUAL.repetition_penalty)]
    repetition_penalty: f32,
    /// The same seed gives the same text; random if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingOptions {
    /// A sampler, with a random seed if none was given.
    pub(super) fn sampler(self) -> Result<Sampler> {
        // `RandomState` has random keys, so no crate for random numbers is needed.
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        Sampler::new(Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            // 32 bits, short enough to type again.
            seed: self.seed.unwrap_or_else(|| random() >> 32),
        })
    }

    /// Whether the seed was drawn at random and matters, so that it must be printed.
    pub(super) fn seed_is_news(self) -> bool {
        self.seed.is_none() && self.temperature > 0.0
    }
}
