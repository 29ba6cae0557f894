//! How well a model predicts a text, and how far its predictions are from another's.

use crate::{
    base::error::{Error, Result},
    engine::{session::Session, step::Readback},
    machine::Machine,
    text::sampler::logprobs,
};

/// Running totals of a comparison of two models.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Sums of negative log-likelihoods: `[original, other]`.
    nll: [f64; 2],
    /// The Kullback-Leibler divergence at each position.
    divergences: Vec<f64>,
    same: usize,
}

/// Figures of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Positions that were compared.
    pub scored: usize,
    /// `[original, other]`.
    pub perplexity: [f64; 2],
    /// Kullback-Leibler divergence in nats: mean, median, 99th percentile, maximum.
    pub divergence: [f64; 4],
    /// Share of positions where both have the same likeliest token.
    pub same: f64,
}

impl Comparison {
    /// Adds a position: the logits of both models there, and the token that follows.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if a logit or the divergence is not a finite number, [`Error::Usage`]
    /// if the models have different numbers of tokens or `id` is none of them.
    pub fn add(&mut self, original: &[f32], other: &[f32], id: u32) -> Result<()> {
        let at = id as usize;
        if original.len() != other.len() || at >= original.len() {
            return Err(Error::Usage(format!(
                "token {id} of logits for {} and {} tokens",
                original.len(),
                other.len()
            )));
        }
        let ids: Vec<u32> = (0..).take(original.len()).collect();
        let [p, q] = [logprobs(original, &ids)?, logprobs(other, &ids)?];
        for (nll, logprobs) in self.nll.iter_mut().zip([&p, &q]) {
            *nll -= logprobs[at];
        }
        let divergence: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        if !divergence.is_finite() {
            let what = format!("a divergence of {divergence} at position {}", self.scored());
            return Err(Error::NonFinite { what });
        }
        // It is never negative, but its rounded sum may be.
        self.divergences.push(divergence.max(0.0));
        self.same += usize::from(likeliest(original) == likeliest(other));
        Ok(())
    }

    fn scored(&self) -> usize {
        self.divergences.len()
    }

    /// The figures of all positions.
    pub fn finish(mut self) -> Compared {
        let scored = self.scored();
        let count = scored.max(1) as f64;
        self.divergences.sort_by(f64::total_cmp);
        // The quantile `of_1000` / 1000 by nearest rank.
        let quantile = |of_1000: usize| {
            let rank = (scored * of_1000).div_ceil(1000).max(1) - 1;
            self.divergences.get(rank).copied().unwrap_or(0.0)
        };
        let mean = self.divergences.iter().sum::<f64>() / count;
        Compared {
            scored,
            perplexity: self.nll.map(|nll| (nll / count).exp()),
            divergence: [mean, quantile(500), quantile(990), quantile(1000)],
            same: self.same as f64 / count,
        }
    }
}

impl Compared {
    /// Relative increase of the perplexity over the original's.
    pub fn change(&self) -> f64 {
        self.perplexity[1] / self.perplexity[0] - 1.0
    }
}

/// Index of the largest logit; ties go to the lower index.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// A part of a text that goes through a model by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its tokens, those that it begins with included; at least one.
    ids: Vec<u32>,
    /// How many at its beginning are not scored, at least one: nothing predicts the first.
    given: usize,
}

impl Window {
    /// Its tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Positions that are scored.
    pub fn scored(&self) -> usize {
        self.ids.len() - self.given
    }

    /// Positions that go through the model, up to `size` at a time: the tokens, and for each
    /// whether the one after it is scored, and which it is. Nothing is asked of the last one.
    fn parts(&self, size: usize) -> impl Iterator<Item = (&[u32], impl Iterator<Item = Next>)> {
        let known = self.ids.len() - 1;
        (0..known).step_by(size).map(move |from| {
            let to = known.min(from + size);
            let next = (from + 1..=to).map(|at| (self.ids[at], at >= self.given));
            (&self.ids[from..to], next)
        })
    }
}

/// The token that follows a position, and whether it is scored.
type Next = (u32, bool);

/// Cuts a text into windows of at most `size` tokens, without overlap.
///
/// Each begins with the tokens `begin`, as the model expects of a text; after them all tokens are
/// scored. Without such tokens the first of each window is not.
///
/// # Errors
///
/// [`Error::Usage`] if `size` has no room for a token that is scored.
pub fn windows<'i>(
    begin: &'i [u32],
    ids: &'i [u32],
    size: usize,
) -> Result<impl Iterator<Item = Window> + 'i> {
    let given = begin.len().max(1);
    if size <= given {
        return Err(Error::Usage(format!(
            "windows of {size} tokens are too short, at least {} are needed",
            given + 1
        )));
    }
    Ok(ids
        .chunks(size - begin.len())
        .map(move |part| Window { ids: [begin, part].concat(), given }))
}

/// The sum over the tokens of a window that are scored.
///
/// # Errors
///
/// Those of [`Session::prefill`] and [`logprobs`], and of `progress`, which is called before each
/// chunk with the number of tokens in it.
pub async fn negative_log_likelihood<M: Machine>(
    session: &mut Session<M>,
    window: &Window,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<f64> {
    session.rewind(0);
    let mut sum = 0.0;
    for (part, next) in window.parts(session.options().prefill as usize) {
        progress(part.len())?;
        let rows = session.prefill(part, Readback::AllLogits).await?.rows;
        for (row, (id, _)) in rows.iter().zip(next).filter(|(_, (_, scored))| *scored) {
            sum -= logprobs(row, &[id])?[0];
        }
    }
    Ok(sum)
}

/// Compares two sessions on a window of tokens, chunk by chunk, so that memory holds the logits of
/// one chunk at a time.
///
/// # Errors
///
/// Those of [`Session::prefill`] and [`Comparison::add`], and of `progress`, which is called before
/// each chunk with the number of tokens in it.
pub async fn compare<M: Machine>(
    original: &mut Session<M>,
    other: &mut Session<M>,
    window: &Window,
    comparison: &mut Comparison,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    original.rewind(0);
    other.rewind(0);
    for (part, next) in window.parts(other.options().prefill as usize) {
        progress(part.len())?;
        let theirs = original.prefill(part, Readback::AllLogits).await?.rows;
        let ours = other.prefill(part, Readback::AllLogits).await?.rows;
        for ((theirs, ours), (id, scored)) in theirs.iter().zip(&ours).zip(next) {
            if scored {
                comparison.add(theirs, ours, id)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::num::round;

    #[test]
    fn windows_begin_as_the_model_expects() {
        let ids = [10, 11, 12, 13, 14];
        let all = |begin: &[u32], size| -> Vec<(Vec<u32>, usize)> {
            let windows = windows(begin, &ids, size).expect("room");
            windows.map(|window| (window.ids.clone(), window.scored())).collect()
        };
        assert_eq!(all(&[], 3), [(vec![10, 11, 12], 2), (vec![13, 14], 1)]);
        assert_eq!(all(&[1], 3), [(vec![1, 10, 11], 2), (vec![1, 12, 13], 2), (vec![1, 14], 1)]);
        assert_eq!(all(&[1, 2], 8), [(vec![1, 2, 10, 11, 12, 13, 14], 5)]);
        let window = Window { ids: vec![1, 2, 10, 11, 12], given: 2 };
        let parts: Vec<(Vec<u32>, Vec<Next>)> =
            window.parts(3).map(|(part, next)| (part.to_vec(), next.collect())).collect();
        let wanted = [
            (vec![1, 2, 10], vec![(2, false), (10, true), (11, true)]),
            (vec![11], vec![(12, true)]),
        ];
        assert_eq!(parts, wanted);
        for (begin, size) in [(&[][..], 1), (&[1, 2], 2)] {
            assert_eq!(windows(begin, &ids, size).err().expect("no room").code(), "usage");
        }
    }

    #[test]
    fn divergences_are_those_of_the_definition() {
        let mut comparison = Comparison::default();
        let logits = |p: &[f64]| -> Vec<f32> { p.iter().map(|p| round(p.ln())).collect() };
        let (p, q) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.25, 0.5]));
        comparison.add(&p, &q, 0).expect("finite");
        for _ in 0..99 {
            comparison.add(&p, &p, 1).expect("finite");
        }
        let compared = comparison.finish();
        // 1/2 ln 2 - 1/4 ln 2, at one of a hundred positions.
        let one = 0.25 * std::f64::consts::LN_2;
        let [mean, median, most_of_100, largest] = compared.divergence;
        assert!((mean - one / 100.0).abs() < 1e-9 && (largest - one).abs() < 1e-6);
        assert!(median.abs() < 1e-12 && most_of_100.abs() < 1e-12);
        assert!((compared.same - 0.99).abs() < 1e-12);
        let original = (2_f64.ln() + 99.0 * 4_f64.ln()) / 100.0;
        assert!((compared.perplexity[0] - original.exp()).abs() < 1e-6);
        assert!((compared.change() - (2_f64.ln() / 100.0).exp_m1()).abs() < 1e-6);
    }

    #[test]
    fn what_is_not_finite_is_no_agreement() {
        let mut comparison = Comparison::default();
        // A probability that underflows to nothing, where the other has one.
        let error = comparison.add(&[0.0, 0.0], &[0.0, f32::NEG_INFINITY], 0);
        assert!(matches!(error, Err(Error::NonFinite { .. })), "{error:?}");
        assert!(comparison.add(&[0.0, 0.0], &[0.0], 0).is_err());
        assert!(comparison.add(&[0.0, 0.0], &[0.0, 0.0], 2).is_err());
        assert_eq!(comparison.finish().scored, 0);
    }
}
