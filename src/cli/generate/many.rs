//! `generate --out`: many texts at once, after the prompts of a file of JSON lines.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, time::Instant};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    engine::{
        options::{self, FinishReason, Generated},
        pages::Namespace,
        resume::Rebuild as _,
        schedule::{Id, Refusal},
        texts::{Claim, News, NotTaken, Sharing, Texts},
    },
    files::replace::{check_writable, replace_file},
    machine::gpu::Gpu,
    text::{
        sampler::{Sampler, Sampling},
        tokenizer::Tokenizer,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{
    model::Reload,
    signals::{interrupted, keep},
    terminal::Terminal,
};

/// Texts in a step, unless another number is asked for.
pub(super) const ROWS: u32 = 8;

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    /// Given back with the text.
    #[serde(default)]
    id: Value,
    max_tokens: Option<u32>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
}

/// A text that is asked for.
pub(super) struct Asked {
    line: Line,
    pub(super) ids: Vec<u32>,
    pub(super) most: u32,
    sampling: Sampling,
}

/// The prompts of a file. Texts without a seed have the one after that of the text before.
///
/// # Errors
///
/// [`Error::Format`] with the number of a line that is no object with a prompt.
pub(super) fn parse(
    path: &Path,
    text: &str,
    tokenizer: &Tokenizer,
    (most, sampling): (u32, Sampling),
) -> Result<Vec<Asked>> {
    let mut asked = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Error::format(path, format!("line {number}: {what}"));
        let line: Line = serde_json::from_str(line).map_err(|error| {
            wrong(format!("{error}; expected an object such as {{\"prompt\": \"Once\"}}"))
        })?;
        let ids = tokenizer.encode_prompt(&line.prompt)?;
        if ids.is_empty() {
            return Err(wrong("the prompt is empty".into()));
        }
        if line.max_tokens == Some(0) || line.stop.iter().any(String::is_empty) {
            return Err(wrong("max_tokens is 0, or a stop text is empty".into()));
        }
        let before = sampling.seed.wrapping_add(asked.len() as u64);
        let sampling = Sampling { seed: line.seed.unwrap_or(before), ..sampling };
        asked.push(Asked { ids, most: line.max_tokens.unwrap_or(most), sampling, line });
    }
    if asked.is_empty() {
        return Err(Error::format(path, "there are no prompts in it"));
    }
    Ok(asked)
}

/// Generates the texts, and writes a line for each to `out`, in the order of the prompts.
pub(super) async fn run(
    terminal: Terminal,
    mut reload: Reload<'_>,
    (tokenizer, settings): (&Tokenizer, &options::Options),
    keep_cache: Option<bool>,
    asked: Vec<Asked>,
    out: &Path,
) -> Result<()> {
    check_writable(out)?;
    let engine = reload.build().await?;
    let _kept = keep();
    let start = Instant::now();
    let mut texts = Texts::new(engine, tokenizer, Sharing::default().keeping(keep_cache))?;
    let bar = terminal.bar("texts", asked.len() as u64, false);
    let mut made: Vec<Option<Result<Generated>>> = asked.iter().map(|_| None).collect();
    let mut numbers: BTreeMap<Id, usize> = BTreeMap::new();
    let mut next = 0;
    let mut clock = || u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut on_event = |_: Id, _: News<'_>| {
        if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    while !interrupted() && (next < asked.len() || !numbers.is_empty()) {
        while let Some(text) = asked.get(next) {
            match submit(&mut texts, text, settings) {
                Ok(id) => _ = numbers.insert(id, next),
                Err(NotTaken::Refused(Refusal::Full { .. })) => break,
                Err(NotTaken::Refused(refusal)) => {
                    made[next] = Some(Err(Error::Usage(refusal.to_string())));
                }
                Err(NotTaken::Wrong(error)) => made[next] = Some(Err(error)),
            }
            next += 1;
        }
        match texts.step_on(&mut reload, &mut clock, &mut on_event).await {
            Ok(_) => {}
            Err(Error::Interrupted) => break,
            Err(error) => return Err(error),
        }
        for (id, text) in texts.ended() {
            if let Some(number) = numbers.remove(&id) {
                made[number] = Some(text);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    write(terminal, &texts, &asked, &made, out, start)
}

fn submit(
    texts: &mut Texts<'_, Gpu>,
    text: &Asked,
    settings: &options::Options,
) -> Result<Id, NotTaken> {
    let mut options = settings.clone();
    options.max_tokens = text.most as usize;
    options.stop_texts.extend(text.line.stop.iter().cloned());
    let claim = Claim { namespace: Some(Namespace::Key(0)), ..Claim::default() };
    let sampler = Sampler::new(text.sampling)?;
    let ids = texts.submit(&text.ids, vec![sampler], &options, claim)?;
    Ok(ids[0])
}

/// Writes what was made, and tells how fast.
fn write(
    terminal: Terminal,
    texts: &Texts<'_, Gpu>,
    asked: &[Asked],
    made: &[Option<Result<Generated>>],
    out: &Path,
    start: Instant,
) -> Result<()> {
    let mut lines = String::new();
    let (mut tokens, mut failed, mut there) = (0, 0, 0);
    for (text, made) in asked.iter().zip(made) {
        let made = match made {
            // It was stopped before its end.
            None => continue,
            Some(Ok(made)) if made.finish == FinishReason::Interrupted => continue,
            Some(made) => made,
        };
        there += 1;
        let line = match made {
            Ok(made) => {
                tokens += made.tokens.len();
                report(text, made)
            }
            Err(error) => {
                failed += 1;
                let (code, message) = (error.code(), error.to_string());
                json!({ "id": text.line.id, "error": { "code": code, "message": message } })
            }
        };
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    replace_file(out, lines.as_bytes())?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = tokens as f64 / seconds.max(1e-9);
    let lost = texts.preemptions();
    terminal.faint(format!(
        "{there} texts, {tokens} tokens in {seconds:.1} s, {rate:.1} tokens/s; {lost} times a text \
         lost its pages to others"
    ));
    if interrupted() {
        return Err(Error::Interrupted);
    }
    if failed > 0 {
        terminal.warn(format!("{failed} texts failed: their lines say why"));
    }
    Ok(())
}

fn report(text: &Asked, made: &Generated) -> Value {
    let (prompt, tokens) = (text.ids.len(), made.tokens.len());
    json!({
        "id": text.line.id,
        "text": made.text,
        "ids": made.tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
        "finish_reason": made.finish.name(),
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
            "cached_tokens": made.reused,
        },
        "seed": text.sampling.seed,
    })
}
