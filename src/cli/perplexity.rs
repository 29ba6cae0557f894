//! `perplexity`: how well the model predicts a text.

use std::path::PathBuf;

use clap::Args;
use grok_wgpu::{
    Error, Gpu, Result, logprobs,
    platform::native::read_text,
    session::{Read, Session, Sizes},
};
use serde_json::json;

use super::{
    Globals,
    model::{Opened, locate},
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
#[derive(Args, Debug)]
#[command(allow_missing_positional = true)]
#[command(after_help = "\
Examples:
  grok-wgpu perplexity models/demo book.txt
  grok-wgpu perplexity models/demo book.txt --window 256 --json")]
pub(super) struct Options {
    /// Folder or file of the model; the one that is shipped if only a text is given
    model: Option<PathBuf>,
    /// The text
    file: PathBuf,
    /// Tokens of a window; 512 or the model's context unless given
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    let text = read_text(&options.file, MAX_TEXT)?;
    let opened = Opened::open(&locate(options.model.as_deref())?, globals).await?;
    let ids = opened.tokenizer()?.encode(&text)?;
    if ids.len() < 2 {
        return Err(Error::Usage(format!(
            "{} has {} tokens, at least 2 are needed",
            options.file.display(),
            ids.len()
        )));
    }
    let most = opened.config.max_position_embeddings;
    let window = options.window.unwrap_or(DEFAULT_WINDOW.min(most));
    let sizes = Sizes { context: window, prefill: window.min(32) };
    let mut session = opened.load(globals, sizes).await?;

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

/// The sum over all tokens of a window but the first.
async fn negative_log_likelihood(
    session: &mut Session<Gpu>,
    ids: &[u32],
    progress: &mut dyn FnMut(),
) -> Result<f64> {
    session.rewind(0);
    let mut sum = 0.0;
    // What follows the last token is not known.
    let known = &ids[..ids.len() - 1];
    let size = session.sizes().prefill as usize;
    for (part, next) in known.chunks(size).zip(ids[1..].chunks(size)) {
        check_interrupt()?;
        let rows = session.prefill(part, Read::AllLogits).await?.rows;
        for (row, &id) in rows.iter().zip(next) {
            sum -= logprobs(row, &[id])?[0];
        }
        progress();
    }
    Ok(sum)
}
