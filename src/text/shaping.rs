//! What is added to logits before a token is chosen: biases by id, and penalties for tokens that
//! were generated before.

use std::collections::{BTreeMap, HashMap};

use super::sampler::Candidate;
use crate::base::error::{Error, Result};

/// Largest penalty, and largest bias, on either side of 0.
const PENALTY: f32 = 2.0;
const BIAS: f32 = 100.0;

/// Changes to logits, by OpenAI's names. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Shaping {
    /// Is subtracted from the logit of a token for each time that the text has it. The prompt does
    /// not count. From -2 to 2.
    pub frequency_penalty: f32,
    /// Is subtracted once from the logit of a token that the text has. From -2 to 2.
    pub presence_penalty: f32,
    /// Is added to the logits of these ids. From -100 to 100: -100 rules a token out in practice.
    pub logit_bias: BTreeMap<u32, f32>,
}

impl Shaping {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that all numbers are in range.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that names the first one out of range.
    pub fn validate(&self) -> Result<()> {
        for (name, penalty) in [
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ] {
            if !(-PENALTY..=PENALTY).contains(&penalty) {
                return Err(Error::Usage(format!("{name} is {penalty}, expected -2 to 2")));
            }
        }
        let wrong = self.logit_bias.iter().find(|(_, bias)| !(-BIAS..=BIAS).contains(*bias));
        if let Some((id, bias)) = wrong {
            let what = format!("the logit_bias of token {id} is {bias}, expected -100 to 100");
            return Err(Error::Usage(what));
        }
        Ok(())
    }

    /// Changes the logits of `candidates`, of a text with these generated tokens.
    pub fn apply(&self, candidates: &mut [Candidate], made: impl Iterator<Item = u32>) {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        if self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 {
            for id in made {
                *counts.entry(id).or_default() += 1;
            }
        }
        for Candidate { id, logit } in candidates {
            if let Some(&count) = counts.get(id) {
                // A text has far fewer than 2^24 tokens.
                *logit -= count as f32 * self.frequency_penalty + self.presence_penalty;
            }
            if let Some(bias) = self.logit_bias.get(id) {
                *logit += bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_change_by_what_the_text_has() {
        let shaping = Shaping {
            frequency_penalty: 0.5,
            presence_penalty: -0.25,
            logit_bias: BTreeMap::from([(1, 3.0), (3, -100.0)]),
        };
        let mut candidates: Vec<Candidate> =
            (0..4).map(|id| Candidate { id, logit: 1.0 }).collect();
        shaping.apply(&mut candidates, [2, 1, 2, 9].into_iter());
        let logits: Vec<f32> = candidates.iter().map(|candidate| candidate.logit).collect();
        assert_eq!(logits, [1.0, 1.0 - 0.25 + 3.0, 1.0 - 0.75, -99.0]);
        assert!(!shaping.is_none() && Shaping::default().is_none());
    }

    #[test]
    fn numbers_out_of_range_are_errors() {
        let with = |frequency_penalty, presence_penalty, bias| Shaping {
            frequency_penalty,
            presence_penalty,
            logit_bias: BTreeMap::from([(7, bias)]),
        };
        assert!(with(2.0, -2.0, 100.0).validate().is_ok());
        for (shaping, what) in [
            (with(2.1, 0.0, 0.0), "frequency_penalty is 2.1"),
            (with(0.0, f32::NAN, 0.0), "presence_penalty is NaN"),
            (with(0.0, 0.0, -101.0), "logit_bias of token 7 is -101"),
        ] {
            let error = shaping.validate().expect_err("out of range").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
