//! `generate`: text after a prompt.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Read as _},
    ops::ControlFlow,
    path::{Path, PathBuf, is_separator},
};

use clap::Args;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        utf8,
    },
    engine::{
        generation::generate,
        options::{self, Event, FinishReason, Generated},
        resume::Resuming,
    },
    files::native::read_text,
    text::tokenizer::Tokenizer,
};
use serde_json::{Value, json};

use super::{
    clock::Clock,
    globals::Globals,
    model::{Reload, SizeOptions, locate, open, tokenizer},
    sampling::{SamplingOptions, max_tokens},
    signals::{interrupted, keep},
    terminal::{Terminal, out, out_json},
};

/// Longest text that is read as a prompt, in bytes.
const MAX_PROMPT: u64 = 64 << 20;

/// Continue a text
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu generate models/demo \"Once upon a time\" --max-tokens 200
  echo \"Once upon a time\" | grok-wgpu generate models/demo -
  grok-wgpu generate models/demo --file story.txt --temperature 0 --json
  grok-wgpu generate models/demo -- \"- a prompt that begins with a dash\"

A single word or text is the model if there is a file or folder of this name, or if it begins as a
path or an address does (/, ./, ../, hf://); otherwise it is the prompt, for the shipped model.")]
pub(super) struct Options {
    /// Folder or file of the model; the one that is shipped if only a prompt is given
    model: Option<OsString>,
    /// The text to continue; `-` reads it from the standard input, without its last line end
    prompt: Option<String>,
    /// Read the text to continue from a UTF-8 file, without its last line end
    #[arg(long, short, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Most tokens to make; -1 for as many as the context holds
    #[arg(long, short = 'n', value_name = "N", default_value_t = options::Options::MAX_TOKENS)]
    #[arg(value_parser = max_tokens)]
    max_tokens: u32,
    /// Report log-probabilities of each token and of the N likeliest ones (with --json)
    #[arg(long, value_name = "N", requires = "json")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=20))]
    logprobs: Option<u8>,
    /// Print the prompt before what the model adds
    #[arg(long, conflicts_with = "json")]
    echo: bool,
    /// Go on after the model has ended its text
    #[arg(long)]
    ignore_eos: bool,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    sizes: SizeOptions,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    options.sampling.check()?;
    let (model, prompt) = options.model_and_prompt(terminal).await?;
    let opened = open(&locate(model.as_deref())?, globals).await?;
    let mut sampler = options.sampling.sampler(opened.sampling)?;
    let tokenizer = tokenizer(globals, &opened).await?;
    let ids = tokenizer.encode_prompt(&prompt)?;
    if ids.is_empty() {
        return Err(Error::Usage("the prompt is empty".into()));
    }
    let wanted = ids.len() as u64 + u64::from(options.max_tokens);
    let sizes = options.sizes.sizes(&opened.config, wanted);
    if ids.len() > sizes.context as usize {
        let context = sizes.context as usize;
        return Err(Error::ContextLength { prompt: ids.len(), wanted: 1, context });
    }
    let seed = sampler.sampling().seed;
    let mut settings = options::Options::until_end(&tokenizer);
    if options.ignore_eos {
        settings.stop_ids.clear();
    }
    settings.max_tokens = options.max_tokens as usize;
    settings.logprobs = options.logprobs.map(usize::from);
    let read = settings.read(&opened.config, &tokenizer, sampler.sampling());
    let reload = Reload { globals, opened: &opened, sizes, prompt: ids.len(), read };
    let mut session = Resuming::new(reload).await?;
    if options.sampling.seed_is_news(&sampler) {
        terminal.faint(format!("seed {seed}"));
    }

    let _kept = keep();
    if options.echo {
        out(&prompt)?;
    }
    let mut clock = Clock::start();
    let mut on_event = |event: Event<'_>| {
        clock.on_event(event);
        if !globals.json {
            out(event.text())?;
        }
        Ok(if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let made =
        generate(&mut session, &tokenizer, &mut sampler, &ids, &settings, &mut on_event).await?;
    if globals.json {
        out_json(&report(&made, &tokenizer, &ids, seed, &clock))?;
    } else {
        out("\n")?;
        terminal.faint(clock.summary(&made, ids.len()));
    }
    match made.finish {
        FinishReason::Interrupted => Err(Error::Interrupted),
        FinishReason::Context => {
            terminal.note(format!("stopped: the context of {} tokens is full", sizes.context));
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Options {
    /// The model, if one was named, and the prompt.
    async fn model_and_prompt(&self, terminal: Terminal) -> Result<(Option<PathBuf>, String)> {
        if let Some(file) = &self.file {
            return Ok((
                self.model.as_ref().map(PathBuf::from),
                without_line_end(&read_text(file, MAX_PROMPT).await?).to_owned(),
            ));
        }
        let (model, prompt) = match (&self.model, self.prompt.as_deref()) {
            (Some(word), None) if !is_model(Path::new(word)) => {
                let text = word.to_str().ok_or_else(|| {
                    Error::Usage("the prompt is not UTF-8 text, and there is no such file".into())
                })?;
                if text.contains(is_separator) && !text.contains(char::is_whitespace) {
                    terminal.note(format!("{text} is the prompt: there is no such file"));
                }
                (None, Some(text))
            }
            (model, prompt) => (model.as_ref(), prompt),
        };
        let prompt = match prompt {
            Some("-") => read_stdin()?,
            Some(text) => text.to_owned(),
            None if io::stdin().is_terminal() => {
                return Err(Error::Usage("there is no prompt".into())
                    .with_hint("Give a text, --file FILE, or - for the standard input."));
            }
            None => read_stdin()?,
        };
        Ok((model.map(PathBuf::from), prompt))
    }
}

/// Whether the only word on the command line is a model: it exists, or begins as only paths and
/// addresses do.
fn is_model(word: &Path) -> bool {
    if word == Path::new("-") {
        return false;
    }
    let text = word.to_string_lossy();
    let begins =
        |start: &str| text.strip_prefix(start).is_some_and(|rest| rest.starts_with(is_separator));
    let named = ["", ".", ".."].into_iter().any(begins) || text.contains("://");
    (named && !text.contains(char::is_whitespace)) || word.exists()
}

fn read_stdin() -> Result<String> {
    const STDIN: &str = "standard input";
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_PROMPT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(STDIN, error))?;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Error::format(STDIN, format!("more than {MAX_PROMPT} bytes are not read")));
    }
    let text = utf8::decode(&bytes).map_err(|what| Error::format(STDIN, what))?;
    Ok(without_line_end(text).to_owned())
}

/// A prompt without the last line end, which `echo` and editors add. All other line ends stay as
/// they are.
fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn report(
    made: &Generated,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    seed: u64,
    clock: &Clock,
) -> Value {
    let mut before = prompt.to_vec();
    let logprobs: Vec<Value> = made
        .tokens
        .iter()
        .filter_map(|token| {
            let found = token.logprobs.as_ref()?;
            let text = |id| tokenizer.token_text(&before, id).unwrap_or_default();
            let top: Vec<Value> = found
                .top
                .iter()
                .map(|&(id, logprob)| json!({"id": id, "text": text(id), "logprob": logprob}))
                .collect();
            let (id, logprob) = (token.id, found.chosen);
            let report = json!({"id": id, "text": text(id), "logprob": logprob, "top": top});
            before.push(id);
            Some(report)
        })
        .collect();
    let mut report = json!({
        "text": made.text,
        "ids": made.tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
        "finish_reason": made.finish.name(),
        "prompt_tokens": prompt.len(),
        "seed": seed,
        "timings": {
            "prompt_seconds": clock.prompt.as_secs_f64(),
            "prompt_tokens_per_second": clock.prompt_rate(prompt.len()),
            "first_token_seconds": clock.first.map(|first| first.as_secs_f64()),
            "tokens_per_second": clock.rate(made.tokens.len()),
            "total_seconds": clock.start.elapsed().as_secs_f64(),
        },
    });
    if !logprobs.is_empty() {
        report["logprobs"] = logprobs.into();
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_word_is_a_model_or_a_prompt() {
        for word in ["src", "Cargo.toml", "/no/such", "./no", "../no", "hf://a/b"] {
            assert!(is_model(Path::new(word)), "{word}");
        }
        for word in ["-", "and/or", "Hello", "", "a/b/c", "/ is a slash", ".", "..."] {
            assert_eq!(is_model(Path::new(word)), word == ".", "{word}");
        }
    }
}
