//! `logits`: the logits of the next token at each position, to compare engines.

use std::path::{Path, PathBuf};

use clap::Args;
use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::step::Readback,
    files::replace::replace_file,
    text::{sampler::top_logprobs, tokenizer::Tokenizer},
};
use safetensors::{Dtype, tensor::TensorView};

use super::{
    globals::Globals,
    memory::MemoryOption,
    model::{load, locate, open, tokenizer},
    signals::check_interrupt,
    sizes::{CacheOption, PrefillOption, Sizes},
    terminal::{out, out_json},
};

/// Candidates printed for each position.
const SHOWN: usize = 10;

/// Compute the logits of a text
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu logits models/demo --text \"Once upon\"
  grok-wgpu logits models/demo --ids 5,17,3 --all --out logits.safetensors
  grok-wgpu logits --ids 5,17,3 --json")]
pub(super) struct Options {
    /// Folder or file of the model, or `hf://OWNER/NAME`; the demo model if none is given
    model: Option<PathBuf>,
    /// Token ids, with commas between them
    #[arg(long, value_delimiter = ',', required_unless_present = "text")]
    ids: Vec<u32>,
    /// A text, instead of ids; with the token before it that the model's files ask for
    #[arg(long, conflicts_with = "ids")]
    text: Option<String>,
    /// Logits after every token, not only after the last one
    #[arg(long)]
    all: bool,
    /// Write a safetensors file with a tensor `logits`, F32 [positions, vocab]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    prefill: PrefillOption,
    #[command(flatten)]
    cache: CacheOption,
    #[command(flatten)]
    memory: MemoryOption,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    let opened = open(&locate(options.model.as_deref()), globals).await?;
    let ids = match &options.text {
        Some(text) => tokenizer(globals, &opened).await?.encode_prompt(text)?,
        None => options.ids.clone(),
    };
    let most = opened.config.max_position_embeddings;
    let context = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    if context == 0 {
        return Err(Error::Usage("there are no tokens".into()));
    }
    if context > most {
        let context = most as usize;
        return Err(Error::ContextLength { prompt: 0, wanted: ids.len(), context });
    }
    let vocab = opened.config.vocab_size;
    if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
        return Err(Error::Usage(format!("token id {id} is not below vocab_size {vocab}"))
            .with_hint(format!(
                "Ids are 0 to {}; `--text` takes a text.",
                vocab.saturating_sub(1)
            )));
    }
    let sizes = Sizes::new(context, options.prefill, options.cache).within(options.memory);
    let mut session = load(globals, &opened, sizes).await?;
    let mut rows: Vec<Vec<f32>> = Vec::new();
    if options.all {
        let bar = terminal.bar("computing", ids.len() as u64, false);
        for part in ids.chunks(session.options().prefill as usize) {
            check_interrupt()?;
            rows.extend(session.prefill(part, Readback::AllLogits).await?.rows);
            bar.inc(part.len() as u64);
        }
        bar.finish_and_clear();
    } else {
        let reply = session.prefill(&ids, Readback::Logits).await?;
        rows.push(reply.candidates.iter().map(|candidate| candidate.logit).collect());
    }

    if let Some(path) = &options.out {
        write(path, &rows)?;
        terminal.note(format!(
            "wrote logits of {} positions and {} tokens to {}",
            rows.len(),
            opened.config.vocab_size,
            path.display()
        ));
    }
    if globals.json {
        let first = ids.len() - rows.len();
        let positions: Vec<usize> = (first..ids.len()).collect();
        out_json(&serde_json::json!({"ids": ids, "positions": positions, "logits": rows}))
    } else if options.out.is_none() {
        show(&ids, &rows, opened.tokenizer().await.ok().as_ref())
    } else {
        Ok(())
    }
}

/// Writes the file.
fn write(path: &Path, rows: &[Vec<f32>]) -> Result<()> {
    let vocab = rows.first().map_or(0, Vec::len);
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|logit| logit.to_le_bytes()).collect();
    let format = |error: safetensors::SafeTensorError| Error::format(path, error.to_string());
    let view = TensorView::new(Dtype::F32, vec![rows.len(), vocab], &bytes).map_err(format)?;
    let file = safetensors::serialize([("logits", view)], None).map_err(format)?;
    replace_file(path, &file)
}

/// Prints the likeliest next tokens after each position.
fn show(ids: &[u32], rows: &[Vec<f32>], tokenizer: Option<&Tokenizer>) -> Result<()> {
    let text = |before: &[u32], id| {
        let text = tokenizer.and_then(|tokenizer| tokenizer.token_text(before, id).ok());
        text.map_or_else(String::new, |text| format!("{text:?}"))
    };
    for (position, row) in (ids.len() - rows.len()..).zip(rows) {
        let id = ids[position];
        out(&format!("after position {position}, token {id} {}\n", text(&ids[..position], id)))?;
        for (id, logprob) in top_logprobs(row, SHOWN)? {
            let logit = row[id as usize];
            let text = text(&ids[..=position], id);
            out(&format!("{id:>8} {logit:>11.5} {:>8.4}% {text}\n", 100.0 * logprob.exp()))?;
        }
    }
    Ok(())
}
