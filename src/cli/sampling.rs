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
    #[arg(long, value_name = "T")]
    #[arg(help = usual("Divides the logits: 0 takes the likeliest token, up to 2", U.temperature))]
    temperature: Option<f32>,
    #[arg(long, value_name = "N")]
    #[arg(help = usual("Keep this many of the likeliest tokens; 0 keeps all", U.top_k))]
    top_k: Option<u32>,
    #[arg(long, value_name = "P")]
    #[arg(help = usual("Keep the likeliest tokens that have this probability together", U.top_p))]
    top_p: Option<f32>,
    #[arg(long, value_name = "P")]
    #[arg(help = usual(
        "Keep tokens with at least this fraction of the likeliest one's probability",
        U.min_p,
    ))]
    min_p: Option<f32>,
    #[arg(long, value_name = "F")]
    #[arg(help = usual(
        "Divides positive logits of tokens that were there before; 1 is off",
        U.repetition_penalty,
    ))]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same text; random if not given, or -1
    #[arg(long, value_name = "N", value_parser = seed)]
    seed: Option<Seed>,
}

/// A seed that was given; `None` for one at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seed(Option<u64>);

/// `-1` is what llama.cpp's programs call a random seed.
fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed(None)),
        _ => text.parse().map(|seed| Seed(Some(seed))).map_err(|_| {
            format!("wanted a whole number from 0 to {}, or -1 for a random seed", u64::MAX)
        }),
    }
}

/// A number of tokens to make; `-1` is what llama.cpp's programs call no limit but the context.
pub(super) fn max_tokens(text: &str) -> Result<u32, String> {
    match text {
        "-1" => Ok(u32::MAX),
        _ => text.parse().ok().filter(|&count| count > 0).ok_or_else(|| {
            format!(
                "wanted a whole number from 1 to {}, or -1 for as many as the context holds",
                u32::MAX
            )
        }),
    }
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
            seed: self.given_seed().unwrap_or_else(|| random() >> 32),
        }
    }

    /// The settings that these options change, and whether the seed's sequence begins anew.
    pub(super) fn change(self, current: Sampling) -> (Sampling, bool) {
        let changed = self.over(current);
        let seed = if self.seed.is_some() { changed.seed } else { current.seed };
        (Sampling { seed, ..changed }, self.seed.is_some())
    }

    fn given_seed(self) -> Option<u64> {
        self.seed.and_then(|Seed(seed)| seed)
    }

    /// Whether the seed of this sampler was drawn at random and matters, so that it must be
    /// printed.
    pub(super) fn seed_is_news(self, sampler: &Sampler) -> bool {
        self.given_seed().is_none() && sampler.sampling().temperature > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let none = SamplingOptions {
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: None,
        };
        let current = Sampling { seed: 7, min_p: 0.5, ..Sampling::USUAL };
        assert_eq!(none.change(current), (current, false));
        let given = SamplingOptions { top_k: Some(3), seed: Some(Seed(Some(9))), ..none };
        assert_eq!(given.change(current), (Sampling { top_k: 3, seed: 9, ..current }, true));
        let random = SamplingOptions { seed: Some(Seed(None)), ..none };
        assert!(random.change(current).1 && random.change(current).0.seed != 7);
    }

    #[test]
    fn minus_one_is_random_or_without_limit() {
        assert_eq!(seed("-1"), Ok(Seed(None)));
        assert_eq!(seed("7"), Ok(Seed(Some(7))));
        assert_eq!(max_tokens("-1"), Ok(u32::MAX));
        assert_eq!(max_tokens("12"), Ok(12));
        for wrong in ["-2", "x", "", "1.5"] {
            assert!(seed(wrong).is_err_and(|what| what.contains("-1 for a random")), "{wrong}");
        }
        for wrong in ["0", "-2", "x", "4294967296"] {
            assert!(max_tokens(wrong).is_err_and(|what| what.contains("from 1 to")), "{wrong}");
        }
    }
}
