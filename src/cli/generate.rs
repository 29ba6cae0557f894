//! `generate`: text after a prompt.

mod many;
mod report;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Read as _},
    ops::ControlFlow,
    path::{Path, PathBuf, is_separator},
};

use clap::{Args, builder::NonEmptyStringValueParser};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        utf8,
    },
    checkpoint::open::Opened,
    engine::{
        generation::generate,
        options::{self, Event, FinishReason},
        resume::Resuming,
    },
    files::native::{FileSource, read_text},
    text::{
        chat::{Choice, Message, Role, choose, encode_chat},
        sampler::Sampling,
        tokenizer::Tokenizer,
    },
};

use self::report::{Form, Printer};
use super::{
    clock::Clock,
    form::FormOptions,
    globals::Globals,
    memory::KeepOption,
    model::{Reload, locate, open, tokenizer},
    sampling::{SamplingOptions, max_tokens},
    signals::{interrupted, keep},
    sizes::SizeOptions,
    terminal::{Terminal, out},
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
  grok-wgpu generate models/demo \"Tell me a story.\" --system \"Be brief.\" --stop \"The end\"
  grok-wgpu generate models/demo \"Once upon a time\" --json-lines
  grok-wgpu generate models/demo \"Tom as JSON:\" --schema person.json
  grok-wgpu generate models/demo -- \"- a prompt that begins with a dash\"

With --json-lines, each line of the output is an object. Its `type` is
  token   `text` is new; `id`; with --logprobs, `logprob` and `top`
  rest    `text` that was held back, as it could have been the beginning of a stop text
  end     the last line: `finish_reason` (stop, length or interrupted), `usage` (prompt_tokens,
          completion_tokens, total_tokens), `seed`, `timings` without the compiling of shaders

With --out, many texts are made at once. Each line of --file is an object with a `prompt`, and
perhaps `id`, `max_tokens`, `seed` and `stop`, a list of texts. Each line of the output is one with
`id`, `text`, `ids`, `finish_reason`, `usage` and `seed`, or `error`, in the order of the prompts. A
text is the one that is made alone with its seed.

A single word or text is the model if there is a file or folder of this name, or if it begins as a
path or an address does (/, ./, ../, hf://); otherwise it is the prompt, for the shipped model.")]
pub(super) struct Options {
    /// Folder or file of the model, or `hf://OWNER/NAME`; the demo model if only a prompt is given
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
    /// A text that ends the generation, and is no part of it; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Instructions for an answer: the prompt is then a message of a conversation, as in `chat`
    #[arg(long, value_name = "TEXT", conflicts_with = "echo")]
    system: Option<String>,
    /// Print a JSON object for each piece of text as it comes, and a last one with the usage
    #[arg(long, conflicts_with_all = ["json", "echo"])]
    json_lines: bool,
    /// Report log-probabilities of each token and of the N likeliest ones (with --json or
    /// --json-lines)
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=20))]
    logprobs: Option<u8>,
    /// Print the prompt before what the model adds
    #[arg(long, conflicts_with = "json")]
    echo: bool,
    /// Continue all prompts of --file, which has a JSON object on each line, and write the texts to
    /// this file
    #[arg(long, value_name = "FILE", requires = "file")]
    #[arg(conflicts_with_all = ["json", "json_lines", "echo", "system", "logprobs"])]
    out: Option<PathBuf>,
    /// Texts that are made at once [default: 8]
    #[arg(long, value_name = "N", requires = "out")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=48))]
    rows: Option<u32>,
    /// Go on after the model has ended its text
    #[arg(long)]
    ignore_eos: bool,
    #[command(flatten)]
    form: FormOptions,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    sizes: SizeOptions,
    #[command(flatten)]
    keep: KeepOption,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    options.sampling.check()?;
    let form = options.form(globals.json)?;
    let (model, prompt) = options.model_and_prompt(terminal).await?;
    let opened = open(&locate(model.as_deref()), globals).await?;
    let mut sampler = options.sampling.sampler(opened.sampling)?;
    let tokenizer = tokenizer(globals, &opened).await?;
    let mut settings = options.settings(&tokenizer);
    settings.constraint = options.form.constraint(&tokenizer).await?;
    if let Some(out) = &options.out {
        let how = (sampler.sampling(), &settings);
        return options.many(globals, &opened, &tokenizer, how, (&prompt, out)).await;
    }
    let ids = options.encode(terminal, &opened, &tokenizer, &prompt)?;
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
    let read = settings.read(&opened.config, &tokenizer, sampler.sampling());
    let reload = Reload { globals, opened: &opened, sizes, prompt: ids.len(), read };
    let mut session = Resuming::new(reload).await?.keeping_cache(options.keep.wanted());
    if options.sampling.seed_is_news(&sampler) {
        terminal.faint(format!("seed {seed}"));
    }

    let _kept = keep();
    if options.echo {
        out(&prompt)?;
    }
    let answers = options.system.is_some();
    let mut printer = Printer::new(form, &tokenizer, &ids, seed, answers);
    let mut clock = Clock::start(terminal);
    let mut on_event = |event: Event<'_>| {
        clock.on_event(event);
        printer.event(event)?;
        Ok(if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let made =
        generate(&mut session, &tokenizer, &mut sampler, &ids, &settings, &mut on_event).await?;
    printer.end(&made, &clock)?;
    if form == Form::Text {
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
    /// What a text is, but for its sampling and its form.
    fn settings(&self, tokenizer: &Tokenizer) -> options::Options {
        let mut settings = options::Options::until_end(tokenizer);
        if self.ignore_eos {
            settings.stop_ids.clear();
        }
        settings.stop_texts.clone_from(&self.stop);
        settings.max_tokens = self.max_tokens as usize;
        settings.logprobs = self.logprobs.map(usize::from);
        settings
    }

    /// Generates the texts after all prompts of a file.
    async fn many(
        &self,
        globals: &Globals,
        opened: &Opened<FileSource>,
        tokenizer: &Tokenizer,
        (sampling, settings): (&Sampling, &options::Options),
        (lines, out): (&str, &Path),
    ) -> Result<()> {
        let file = self.file.as_deref().unwrap_or(Path::new("-"));
        let asked = many::parse(file, lines, tokenizer, (self.max_tokens, *sampling))?;
        let wanted = |text: &many::Asked| text.ids.len() as u64 + u64::from(text.most);
        let longest = asked.iter().map(wanted).max().unwrap_or_default();
        let sizes = self.sizes.sizes(&opened.config, longest);
        let rows = self.rows.unwrap_or(many::ROWS);
        // Each has room for the whole context.
        let sizes = sizes.for_texts(rows, rows);
        let read = settings.read(&opened.config, tokenizer, sampling);
        let prompt = asked.iter().map(|text| text.ids.len()).max().unwrap_or_default();
        let reload = Reload { globals, opened, sizes, prompt, read };
        let kept = self.keep.wanted();
        many::run(globals.terminal(), reload, (tokenizer, settings), kept, asked, out).await
    }

    /// How the text is printed; `json` says whether `--json` was given.
    fn form(&self, json: bool) -> Result<Form> {
        match (json, self.json_lines) {
            (true, _) => Ok(Form::Json),
            (_, true) => Ok(Form::Lines),
            _ if self.logprobs.is_some() => {
                Err(Error::Usage("log-probabilities are reported as JSON alone".into())
                    .with_hint("Add `--json` or `--json-lines` to `--logprobs`."))
            }
            _ => Ok(Form::Text),
        }
    }

    /// The ids of the prompt; with `--system`, those of a conversation up to the answer.
    fn encode(
        &self,
        terminal: Terminal,
        opened: &Opened<FileSource>,
        tokenizer: &Tokenizer,
        prompt: &str,
    ) -> Result<Vec<u32>> {
        let Some(system) = &self.system else { return tokenizer.encode_prompt(prompt) };
        let Choice { scaffold, warning } = choose(tokenizer, opened.template(), None);
        match warning {
            Some(warning) => terminal.warn(warning),
            None if opened.template().is_none() => terminal.note(format!(
                "the model brings no chat template: the conversation is written as {}'s",
                scaffold.name
            )),
            None => {}
        }
        let mut messages = vec![Message::new(Role::User, prompt)];
        if !system.is_empty() {
            messages.insert(0, Message::new(Role::System, system.as_str()));
        }
        encode_chat(tokenizer, scaffold, &messages).map_err(|error| {
            error.with_hint(
                "This model was not made for conversations: put the instructions into the prompt, \
                 without `--system`.",
            )
        })
    }

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
