//! Samples the next token from logits, deterministically for a seed.
//!
//! The same seed and logits give the same ids, whatever the order of the candidates, and whether
//! or not those that `top_k` drops are among them. For that, probabilities are integers, whose
//! sums are exact.

use std::cmp::Ordering;
use std::collections::HashSet;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::base::error::{Error, Result};

/// Weight of the most likely token. A token that is less than 1 / (2 ONE) times as likely gets
/// weight 0. The weights of 2^24 tokens sum to at most 2^64, which a draw of 64 bits can reach.
const ONE: f64 = (1_u64 << 40) as f64;

/// Candidates that are sorted first. A draw rarely needs more.
const FRONT: usize = 64;

/// Longest top-k list that the device computes.
const MAX_TOP: u32 = 64;

/// How the next token is chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token. From 0 to 2.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Nucleus sampling: keeps the likeliest tokens, up to and including the one with which their
    /// total probability reaches this; 1 keeps all, 0 only the likeliest. From 0 to 1.
    pub top_p: f32,
    /// Keeps tokens with at least this fraction of the likeliest one's probability; 0 keeps all.
    /// From 0 to 1.
    pub min_p: f32,
    /// Divides positive logits of recent tokens, multiplies negative ones; 1 is off. Above 0, up
    /// to 2.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
    };

    /// The default of the command line and of the web package.
    pub const USUAL: Self = Self { temperature: 0.8, top_k: 40, top_p: 0.95, ..Self::GREEDY };
}

impl Default for Sampling {
    fn default() -> Self {
        Self::GREEDY
    }
}

/// Which logits a [`Sampling`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The largest, the lowest id of equal ones.
    Greedy,
    /// This many of the largest, the lower id first among equal ones.
    Top(u32),
    /// All of them.
    All,
}

impl Sampling {
    /// Checks that all settings are in range.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] that lists every setting out of range.
    pub fn validate(&self) -> Result<()> {
        let unit = 0.0..=1.0;
        let mut problems = Vec::new();
        let mut check = |name, value: f32, fits: bool, range| {
            if !fits {
                problems.push(format!("{name} is {value}, expected {range}"));
            }
        };
        let temperature = self.temperature;
        check("temperature", temperature, (0.0..=2.0).contains(&temperature), "0 to 2");
        check("top_p", self.top_p, unit.contains(&self.top_p), "0 to 1");
        check("min_p", self.min_p, unit.contains(&self.min_p), "0 to 1");
        let penalty = self.repetition_penalty;
        check("repetition_penalty", penalty, penalty > 0.0 && penalty <= 2.0, "above 0, up to 2");
        if problems.is_empty() { Ok(()) } else { Err(Error::Usage(problems.join("; "))) }
    }

    /// The settings but the seed, by their names in a `generation_config.json`.
    pub fn to_json(&self) -> Value {
        // As short as it was written: 0.8 as f32 is no round number as f64.
        let short = |value: f32| value.to_string().parse().unwrap_or(f64::from(value));
        json!({
            "temperature": short(self.temperature),
            "top_k": self.top_k,
            "top_p": short(self.top_p),
            "min_p": short(self.min_p),
            "repetition_penalty": short(self.repetition_penalty),
        })
    }

    /// Which candidates [`Sampler::sample`] needs at least.
    pub fn needs(&self) -> Needs {
        // A penalty can bring any token to the front.
        if self.penalizes() {
            Needs::All
        } else if self.temperature == 0.0 {
            Needs::Greedy
        } else if (1..=MAX_TOP).contains(&self.top_k) {
            Needs::Top(self.top_k)
        } else {
            Needs::All
        }
    }

    fn penalizes(&self) -> bool {
        (self.repetition_penalty - 1.0).abs() > 0.0
    }
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

/// Draws tokens.
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha12Rng,
    /// Kept from token to token to reuse its memory.
    scores: Vec<Score>,
}

/// A candidate on its way through the filters.
#[derive(Clone, Copy)]
struct Score {
    id: u32,
    /// The logit after the penalty. In f64 no setting in range can make it infinite.
    value: f64,
    /// The probability in units of `1 / ONE` of the likeliest one's.
    weight: u64,
}

impl Score {
    /// The likelier first, then the lower id.
    fn order(&self, other: &Self) -> Ordering {
        // The sum turns -0 into 0, so that the two tie.
        (other.value + 0.0).total_cmp(&(self.value + 0.0)).then(self.id.cmp(&other.id))
    }
}

impl Sampler {
    /// A sampler at the start of its seed's sequence.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a setting is out of range.
    pub fn new(sampling: Sampling) -> Result<Self> {
        sampling.validate()?;
        let rng = ChaCha12Rng::seed_from_u64(sampling.seed);
        Ok(Self { sampling, rng, scores: Vec::new() })
    }

    /// A sampler at the start of another sequence of the same seed: texts of one prompt differ by
    /// `stream`. Stream 0 is that of [`Sampler::new`].
    ///
    /// # Errors
    ///
    /// Those of [`Sampler::new`].
    pub fn of_stream(sampling: Sampling, stream: u64) -> Result<Self> {
        let mut sampler = Self::new(sampling)?;
        sampler.rng.set_stream(stream);
        Ok(sampler)
    }

    /// Always the likeliest token.
    pub fn greedy() -> Self {
        let rng = ChaCha12Rng::seed_from_u64(Sampling::GREEDY.seed);
        Self { sampling: Sampling::GREEDY, rng, scores: Vec::new() }
    }

    /// The settings.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Changes the settings. The seed's sequence goes on, unless the seed is another.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a setting is out of range. They stay as they were then.
    pub fn change(&mut self, sampling: Sampling) -> Result<()> {
        if sampling.seed != self.sampling.seed {
            *self = Self::new(sampling)?;
        }
        sampling.validate()?;
        self.sampling = sampling;
        Ok(())
    }

    /// Chooses one of `candidates`: at least what [`Sampling::needs`] asks for, each id once.
    ///
    /// The repetition penalty applies to the ids in `recent`. The order is penalty, temperature,
    /// `top_k`, softmax, `top_p`, `min_p`, draw. Takes one number from the seed's sequence, none if
    /// greedy.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if a logit is not finite, [`Error::Usage`] if there are no candidates.
    pub fn sample(&mut self, candidates: &[Candidate], recent: &[u32]) -> Result<u32> {
        self.score(candidates, recent)?;
        let best = self.scores.iter().min_by(|one, other| one.order(other)).copied();
        let best = best.ok_or_else(|| Error::Usage("no candidates to sample from".to_owned()))?;
        if self.sampling.temperature == 0.0 {
            return Ok(best.id);
        }
        let top_k = self.sampling.top_k as usize;
        if (1..self.scores.len()).contains(&top_k) {
            self.scores.select_nth_unstable_by(top_k, Score::order);
            self.scores.truncate(top_k);
        }
        let temperature = f64::from(self.sampling.temperature);
        for score in &mut self.scores {
            // At most exp(0), so no temperature overflows.
            score.weight = whole(((score.value - best.value) / temperature).exp() * ONE);
        }

        let mut ranked = Ranked { scores: &mut self.scores, sorted: 0 };
        let total = ranked.kept_total(&self.sampling);
        // 53 random bits make a fraction below 1.
        let fraction = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let mark = whole((fraction * total as f64).floor());
        let mut mark = u128::from(mark).min(total - 1);
        let mut id = best.id;
        for rank in 0..ranked.scores.len() {
            let score = ranked.get(rank);
            // Nothing from here on can be drawn.
            if score.weight == 0 {
                break;
            }
            id = score.id;
            if mark < u128::from(score.weight) {
                break;
            }
            mark -= u128::from(score.weight);
        }
        Ok(id)
    }

    /// Fills `scores` with the candidates after the penalty.
    fn score(&mut self, candidates: &[Candidate], recent: &[u32]) -> Result<()> {
        let penalty = f64::from(self.sampling.repetition_penalty);
        let recent: HashSet<u32> = if self.sampling.penalizes() {
            recent.iter().copied().collect()
        } else {
            HashSet::new()
        };
        self.scores.clear();
        for &Candidate { id, logit } in candidates {
            check_finite(id, logit)?;
            let mut value = f64::from(logit);
            if recent.contains(&id) {
                value = if value > 0.0 { value / penalty } else { value * penalty };
            }
            self.scores.push(Score { id, value, weight: 0 });
        }
        Ok(())
    }
}

/// Scores that are sorted lazily, only as far as they are read.
struct Ranked<'s> {
    scores: &'s mut [Score],
    /// How many of `scores`, from the front, are sorted.
    sorted: usize,
}

impl Ranked<'_> {
    /// The score of that rank, the likeliest being 0.
    fn get(&mut self, rank: usize) -> Score {
        while rank >= self.sorted {
            let end = (self.sorted * 8).max(FRONT).min(self.scores.len());
            let rest = &mut self.scores[self.sorted..];
            let more = end - self.sorted;
            if more < rest.len() {
                rest.select_nth_unstable_by(more, Score::order);
            }
            rest[..more].sort_unstable_by(Score::order);
            self.sorted = end;
        }
        self.scores[rank]
    }

    /// The summed weight of those that `top_p` and `min_p` keep: the first few, at least one.
    fn kept_total(&mut self, sampling: &Sampling) -> u128 {
        let all: u128 = self.scores.iter().map(|score| u128::from(score.weight)).sum();
        if sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
            return all;
        }
        let enough = f64::from(sampling.top_p) * all as f64;
        let least = f64::from(sampling.min_p) * ONE;
        let mut kept = u128::from(self.get(0).weight);
        for rank in 1..self.scores.len() {
            let weight = self.get(rank).weight;
            if weight == 0
                || (weight as f64) < least
                || (sampling.top_p < 1.0 && kept as f64 >= enough)
            {
                break;
            }
            kept += u128::from(weight);
        }
        kept
    }
}

/// The whole number nearest to `x`, which is from 0 to 2^64.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and x is in range"
)]
fn whole(x: f64) -> u64 {
    x.round() as u64
}

fn check_finite(id: u32, logit: f32) -> Result<()> {
    if logit.is_finite() {
        return Ok(());
    }
    Err(Error::NonFinite { what: format!("token {id}: {logit}") })
}

/// The natural logarithms of the probabilities of `ids` under the softmax of `logits`.
///
/// # Errors
///
/// [`Error::NonFinite`] if a logit is not finite, [`Error::Usage`] if an id has no logit.
pub fn logprobs(logits: &[f32], ids: &[u32]) -> Result<Vec<f64>> {
    let norm = log_sum_exp(logits)?;
    ids.iter()
        .map(|&id| match logits.get(id as usize) {
            Some(&logit) => Ok(f64::from(logit) - norm),
            None => Err(Error::Usage(format!(
                "there is no logit for token {id}; there are {}",
                logits.len()
            ))),
        })
        .collect()
}

/// The `n` likeliest ids, or all if there are fewer, with the natural logarithms of their
/// probabilities. Of equal ones the lower id comes first.
///
/// # Errors
///
/// [`Error::NonFinite`] if a logit is not finite.
pub fn top_logprobs(logits: &[f32], n: usize) -> Result<Vec<(u32, f64)>> {
    let norm = log_sum_exp(logits)?;
    let mut scores: Vec<Score> = (0..)
        .zip(logits)
        .map(|(id, &logit)| Score { id, value: f64::from(logit), weight: 0 })
        .collect();
    let mut ranked = Ranked { scores: &mut scores, sorted: 0 };
    Ok((0..n.min(logits.len()))
        .map(|rank| ranked.get(rank))
        .map(|score| (score.id, score.value - norm))
        .collect())
}

/// `ln Σ exp(logit)`, in f64 and in the order of the ids.
fn log_sum_exp(logits: &[f32]) -> Result<f64> {
    for (id, &logit) in (0..).zip(logits) {
        check_finite(id, logit)?;
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(max)).exp()).sum();
    Ok(f64::from(max) + sum.ln())
}
