//! `perplexity`: how well the model predicts a text.

use std::path::PathBuf;

use clap::Args;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::open::Opened,
    engine::SessionOptions,
    files::native::{FileSource, read_text},
    measure::perplexity::{self, Compared, Comparison, Window, negative_log_likelihood},
};
use serde_json::{Value, json};

use super::{
    globals::Globals,
    memory::MemoryOption,
    model::{load, locate, open, tokenizer},
    signals::check_interrupt,
    sizes::{CacheOption, Sizes},
    terminal::{out, out_json},
};

/// Largest text, in bytes.
const MAX_TEXT: u64 = 1 << 30;

/// Windows are this long where the model allows it.
const DEFAULT_WINDOW: u32 = 512;

/// Measure how well the model predicts a text
///
/// The text is one run of tokens, cut into windows without overlap. A window begins with the token
/// that the model's files put before a text (BOS), and all of the text is scored; where they put
/// none there, the first token of each window is not scored.
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
    /// Folder or file of the model, or `hf://OWNER/NAME`; the demo model if only a text is given
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
    #[command(flatten)]
    memory: MemoryOption,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    if options.model.is_none() && options.file.is_dir() {
        let model = options.file.display();
        return Err(Error::Usage(format!("of which text? {model} is a folder"))
            .with_hint(format!("A text file comes last: grok-wgpu perplexity {model} FILE.")));
    }
    let text = read_text(&options.file, MAX_TEXT).await?;
    let opened = open(&locate(options.model.as_deref()), globals).await?;
    let tokenizer = tokenizer(globals, &opened).await?;
    let ids = tokenizer.encode(&text)?;
    let begin = tokenizer.begin_ids();
    let needed = if begin.is_empty() { 2 } else { 1 };
    if ids.len() < needed {
        return Err(Error::Usage(format!(
            "{} has {} tokens, at least {needed} are needed",
            options.file.display(),
            ids.len()
        )));
    }
    let most = opened.config.max_position_embeddings;
    let window = options.window.unwrap_or(DEFAULT_WINDOW.min(most));
    let cache = options.cache.dtype();
    let sizes = SessionOptions::new(window, window.min(32), cache);
    let windows = perplexity::windows(begin, &ids, window as usize)?;
    if let Some(original) = &options.against {
        let original = open(&locate(Some(original)), globals).await?;
        let sizes = (sizes, options.memory);
        return compare(globals, &opened, &original, windows, ids.len(), sizes).await;
    }
    let mut session = load(globals, &opened, Sizes::from(sizes).within(options.memory)).await?;

    let bar = terminal.bar("scoring", ids.len() as u64, false);
    let mut sum = 0.0;
    let mut scored = 0_u64;
    let mut progress = |tokens: usize| {
        bar.inc(tokens as u64);
        check_interrupt()
    };
    for window in windows {
        sum += negative_log_likelihood(&mut session, &window, &mut progress).await?;
        scored += window.scored() as u64;
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

/// Reads the text with both models.
async fn compare(
    globals: &Globals,
    opened: &Opened<FileSource>,
    original: &Opened<FileSource>,
    windows: impl Iterator<Item = Window>,
    tokens: usize,
    (sizes, memory): (SessionOptions, MemoryOption),
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
    let exact = SessionOptions::new(sizes.context, sizes.prefill, DType::F32);
    let mut reference = load(globals, original, Sizes::from(exact).within(memory)).await?;
    let mut session = load(globals, opened, Sizes::from(sizes).within(memory)).await?;
    let bar = globals.terminal().bar("comparing", tokens as u64, false);
    let mut progress = |tokens: usize| {
        bar.inc(tokens as u64);
        check_interrupt()
    };
    let mut sums = Comparison::default();
    for window in windows {
        perplexity::compare(&mut reference, &mut session, &window, &mut sums, &mut progress)
            .await?;
    }
    bar.finish_and_clear();
    let result = Report { tokens, window: sizes.context, compared: sums.finish() };
    if globals.json { out_json(&result.json()) } else { out(&result.text()) }
}

/// What is printed of a comparison.
struct Report {
    tokens: usize,
    window: u32,
    compared: Compared,
}

impl Report {
    fn text(&self) -> String {
        let [original, other] = self.compared.perplexity;
        let [mean, median, most_of_100, largest] = self.compared.divergence;
        format!(
            "perplexity of the original {original:.5}\n\
             perplexity                 {other:.5} ({:+.3} %)\n\
             divergence in nats         mean {mean:.6}, median {median:.6}, 99 % {most_of_100:.6}, \
             largest {largest:.6}\n\
             same likeliest token       {:.3} %\n\
             tokens scored              {} of {}, windows of {}\n",
            100.0 * self.compared.change(),
            100.0 * self.compared.same,
            self.compared.scored,
            self.tokens,
            self.window
        )
    }

    fn json(&self) -> Value {
        let [original, other] = self.compared.perplexity;
        let [mean, median, most_of_100, largest] = self.compared.divergence;
        json!({
            "tokens": self.tokens,
            "scored": self.compared.scored,
            "window": self.window,
            "perplexity_of_original": original,
            "perplexity": other,
            "perplexity_change": self.compared.change(),
            "kl_divergence": {
                "mean": mean,
                "median": median,
                "percentile_99": most_of_100,
                "max": largest,
            },
            "same_top_token": self.compared.same,
        })
    }
}
