//! `perplexity`: how well the model predicts a text.

use std::path::PathBuf;

use clap::Args;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::open::Opened,
    engine::{SessionOptions, session::Session, step::Readback},
    files::native::{FileSource, read_text},
    machine::gpu::Gpu,
    text::sampler::logprobs,
};
use serde_json::{Value, json};

use super::{
    globals::Globals,
    model::{CacheOption, load, locate, open},
    terminal::{check_interrupt, out, out_json},
};

/// Largest text, in bytes.
const MAX_TEXT: u64 = 1 << 30;

/// Windows are this long where the model allows it.
const DEFAULT_WINDOW: u32 = 512;

/// Measure how well the model predicts a text
///
/// The text is one run of tokens, cut into windows without overlap. The first token of each window
/// is not scored.
///
/// With --against, both models read the text, on one device at once, and the report says how far
/// the predictions of the first are from those of the second: the Kullback-Leibler divergence in
/// nats for each position, and how often both have the same likeliest token. The cache of the
/// second is always f32, so that a model compared with itself shows what --cache does.
#[derive(Args, Debug)]
#[command(allow_missing_positional = true)]
#[command(after_help = "\
Examples:
  grok-wgpu perplexity models/demo book.txt
  grok-wgpu perplexity models/demo book.txt --window 256 --json
  grok-wgpu perplexity demo-q4 book.txt --against models/demo
  grok-wgpu perplexity models/demo book.txt --cache q8 --against models/demo")]
pub(super) struct Options {
    /// Folder or file of the model; the one that is shipped if only a text is given
    model: Option<PathBuf>,
    /// The text
    file: PathBuf,
    /// Tokens of a window; 512 or the model's context unless given
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
    /// A model to compare with, as the original of a quantized one; it must have the same tokens
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheOption,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    let text = read_text(&options.file, MAX_TEXT).await?;
    let opened = open(&locate(options.model.as_deref())?, globals).await?;
    let ids = opened.tokenizer().await?.encode(&text)?;
    if ids.len() < 2 {
        return Err(Error::Usage(format!(
            "{} has {} tokens, at least 2 are needed",
            options.file.display(),
            ids.len()
        )));
    }
    let most = opened.config.max_position_embeddings;
    let window = options.window.unwrap_or(DEFAULT_WINDOW.min(most));
    let cache = options.cache.dtype();
    let sizes = SessionOptions::new(window, window.min(32), cache);
    if let Some(original) = &options.against {
        let original = open(original, globals).await?;
        return compare(globals, &opened, &original, &ids, sizes).await;
    }
    let mut session = load(globals, &opened, sizes).await?;

    let bar = terminal.bar("scoring", ids.len() as u64, false);
    let mut sum = 0.0;
    let mut scored = 0_u64;
    for window in ids.chunks(window as usize) {
        sum += negative_log_likelihood(&mut session, window, &mut || bar.inc(32)).await?;
        scored += window.len() as u64 - 1;
    }
    bar.finish_and_clear();
    let mean = sum / scored as f64;
    if globals.json {
        return out_json(&json!({
            "tokens": ids.len(),
            "scored": scored,
            "window": window,
            "nll": sum,
            "nll_per_token": mean,
            "perplexity": mean.exp(),
        }));
    }
    out(&format!(
        "negative log-likelihood {mean:.5} per token ({sum:.3} in all)\n\
         perplexity              {:.4}\n\
         tokens scored           {scored} of {}, windows of {window}\n",
        mean.exp(),
        ids.len()
    ))
}

/// Reads the text with both models, chunk by chunk, so that memory holds one chunk's logits at a
/// time.
async fn compare(
    globals: &Globals,
    opened: &Opened<FileSource>,
    original: &Opened<FileSource>,
    ids: &[u32],
    sizes: SessionOptions,
) -> Result<()> {
    let [ours, theirs] = [opened, original].map(|model| model.config.vocab_size);
    if ours != theirs {
        return Err(Error::Usage(format!(
            "the models cannot be compared: one has {ours} tokens, the other {theirs}"
        )));
    }
    let most = original.config.max_position_embeddings;
    if sizes.context > most {
        return Err(Error::Usage(format!(
            "windows of {} tokens are longer than the other model's context of {most}",
            sizes.context
        )));
    }
    let mut reference =
        load(globals, original, SessionOptions::new(sizes.context, sizes.prefill, DType::F32))
            .await?;
    let mut session = load(globals, opened, sizes).await?;
    let bar = globals.terminal().bar("comparing", ids.len() as u64, false);
    let mut comparison = Comparison::default();
    for window in ids.chunks(sizes.context as usize) {
        reference.rewind(0);
        session.rewind(0);
        let size = sizes.prefill as usize;
        let known = &window[..window.len() - 1];
        for (part, next) in known.chunks(size).zip(window[1..].chunks(size)) {
            check_interrupt()?;
            let theirs = reference.prefill(part, Readback::AllLogits).await?.rows;
            let ours = session.prefill(part, Readback::AllLogits).await?.rows;
            for ((theirs, ours), &id) in theirs.iter().zip(&ours).zip(next) {
                comparison.add(theirs, ours, id)?;
            }
            bar.inc(part.len() as u64);
        }
    }
    bar.finish_and_clear();
    let result = comparison.finish(ids.len(), sizes.context);
    if globals.json { out_json(&result.json()) } else { out(&result.text()) }
}

/// Running totals of a comparison of two models.
#[derive(Default)]
struct Comparison {
    /// Sums of negative log-likelihoods: `[original, other]`.
    nll: [f64; 2],
    /// The Kullback-Leibler divergence at each position.
    divergences: Vec<f64>,
    same: usize,
}

/// Figures of a comparison.
struct Compared {
    tokens: usize,
    window: u32,
    scored: usize,
    /// `[original, other]`.
    perplexity: [f64; 2],
    /// Mean, median, 99th percentile, maximum.
    divergence: [f64; 4],
    same: f64,
}

impl Comparison {
    /// Adds a position whose next token is `id`.
    fn add(&mut self, original: &[f32], other: &[f32], id: u32) -> Result<()> {
        let ids: Vec<u32> = (0..).take(original.len()).collect();
        let [p, q] = [logprobs(original, &ids)?, logprobs(other, &ids)?];
        let at = id as usize;
        for (nll, logprobs) in self.nll.iter_mut().zip([&p, &q]) {
            *nll -= logprobs.get(at).copied().unwrap_or(f64::NEG_INFINITY);
        }
        // The divergence is never negative, but its rounded sum may be.
        let divergence: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        self.divergences.push(divergence.max(0.0));
        self.same += usize::from(likeliest(original) == likeliest(other));
        Ok(())
    }

    fn finish(mut self, tokens: usize, window: u32) -> Compared {
        let scored = self.divergences.len();
        let count = scored.max(1) as f64;
        self.divergences.sort_by(f64::total_cmp);
        // The quantile `of_1000` / 1000 by nearest rank.
        let quantile = |of_1000: usize| {
            let rank = (scored * of_1000).div_ceil(1000).max(1) - 1;
            self.divergences.get(rank).copied().unwrap_or(0.0)
        };
        let mean = self.divergences.iter().sum::<f64>() / count;
        Compared {
            tokens,
            window,
            scored,
            perplexity: self.nll.map(|nll| (nll / count).exp()),
            divergence: [mean, quantile(500), quantile(990), quantile(1000)],
            same: self.same as f64 / count,
        }
    }
}

impl Compared {
    /// Relative increase of the perplexity over the original's.
    fn change(&self) -> f64 {
        self.perplexity[1] / self.perplexity[0] - 1.0
    }

    fn text(&self) -> String {
        let [original, other] = self.perplexity;
        let [mean, median, most_of_100, largest] = self.divergence;
        format!(
            "perplexity of the original {original:.5}\n\
             perplexity                 {other:.5} ({:+.3} %)\n\
             divergence in nats         mean {mean:.6}, median {median:.6}, 99 % {most_of_100:.6}, \
             largest {largest:.6}\n\
             same likeliest token       {:.3} %\n\
             tokens scored              {} of {}, windows of {}\n",
            100.0 * self.change(),
            100.0 * self.same,
            self.scored,
            self.tokens,
            self.window
        )
    }

    fn json(&self) -> Value {
        let [original, other] = self.perplexity;
        let [mean, median, most_of_100, largest] = self.divergence;
        json!({
            "tokens": self.tokens,
            "scored": self.scored,
            "window": self.window,
            "perplexity_of_original": original,
            "perplexity": other,
            "perplexity_change": self.change(),
            "kl_divergence": {
                "mean": mean,
                "median": median,
                "percentile_99": most_of_100,
                "max": largest,
            },
            "same_top_token": self.same,
        })
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

/// The sum over all tokens of a window except the first, which has no prediction.
async fn negative_log_likelihood(
    session: &mut Session<Gpu>,
    ids: &[u32],
    progress: &mut dyn FnMut(),
) -> Result<f64> {
    session.rewind(0);
    let mut sum = 0.0;
    // There is no target for the last token.
    let known = &ids[..ids.len() - 1];
    let size = session.options().prefill as usize;
    for (part, next) in known.chunks(size).zip(ids[1..].chunks(size)) {
        check_interrupt()?;
        let rows = session.prefill(part, Readback::AllLogits).await?.rows;
        for (row, &id) in rows.iter().zip(next) {
            sum -= logprobs(row, &[id])?[0];
        }
        progress();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::Comparison;

    #[test]
    fn divergences_are_those_of_the_definition() {
        let mut comparison = Comparison::default();
        let logits = |p: &[f64]| -> Vec<f32> {
            p.iter().map(|p| grok_wgpu::lab::base::num::round(p.ln())).collect()
        };
        let (p, q) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.25, 0.5]));
        comparison.add(&p, &q, 0).expect("finite");
        for _ in 0..99 {
            comparison.add(&p, &p, 1).expect("finite");
        }
        let compared = comparison.finish(101, 101);
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
}
