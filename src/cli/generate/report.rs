//! What `generate` prints: text, one JSON object, or an object for each piece of text.

use grok_wgpu::lab::{
    base::error::Result,
    engine::options::{Event, Generated, Token},
    text::{chat::Trim, tokenizer::Tokenizer},
};
use serde_json::{Value, json};

use super::super::{
    clock::Clock,
    terminal::{out, out_json},
};

/// How the text is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it comes.
    Text,
    /// An object at the end.
    Json,
    /// An object for each piece of text, and one at the end.
    Lines,
}

/// Prints a text while it is made.
pub(super) struct Printer<'a> {
    form: Form,
    tokenizer: &'a Tokenizer,
    /// The prompt and the tokens after it.
    ids: Vec<u32>,
    prompt: usize,
    seed: u64,
    /// Of an answer in a conversation: its first blank belongs to the chat template.
    trim: Option<Trim>,
}

impl<'a> Printer<'a> {
    /// `answers` says that the text is an answer in a conversation.
    pub(super) fn new(
        form: Form,
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        seed: u64,
        answers: bool,
    ) -> Self {
        let trim = answers.then(Trim::default);
        Self { form, tokenizer, ids: prompt.to_vec(), prompt: prompt.len(), seed, trim }
    }

    /// Prints what is new with an event.
    pub(super) fn event(&mut self, event: Event<'_>) -> Result<()> {
        let text = match &mut self.trim {
            Some(trim) => trim.next(event.text()),
            None => event.text(),
        };
        match (self.form, event) {
            (Form::Text, _) => out(text),
            (Form::Lines, Event::Token(token)) => {
                let mut line = json!({ "type": "token", "id": token.id, "text": text });
                if let Some(Value::Object(found)) = self.logprobs(token) {
                    line["logprob"] = found["logprob"].clone();
                    line["top"] = found["top"].clone();
                }
                self.ids.push(token.id);
                out_json(&line)
            }
            (Form::Lines, Event::Rest(_)) => out_json(&json!({ "type": "rest", "text": text })),
            _ => Ok(()),
        }
    }

    /// Prints what is left to say of a text that has ended.
    pub(super) fn end(mut self, made: &Generated, clock: &Clock) -> Result<()> {
        let finish = made.finish.name();
        match self.form {
            Form::Text => out("\n"),
            Form::Lines => {
                let [prompt, made] = [self.prompt, made.tokens.len()];
                out_json(&json!({
                    "type": "end",
                    "finish_reason": finish,
                    "usage": {
                        "prompt_tokens": prompt,
                        "completion_tokens": made,
                        "total_tokens": prompt + made,
                    },
                    "seed": self.seed,
                    "timings": timings(clock, prompt, made),
                }))
            }
            Form::Json => {
                let text = match &mut self.trim {
                    Some(_) => Trim::default().next(&made.text),
                    None => &made.text,
                };
                let mut report = json!({
                    "text": text,
                    "ids": made.tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
                    "finish_reason": finish,
                    "prompt_tokens": self.prompt,
                    "seed": self.seed,
                    "timings": timings(clock, self.prompt, made.tokens.len()),
                });
                let mut logprobs = Vec::new();
                for token in &made.tokens {
                    logprobs.extend(self.logprobs(token));
                    self.ids.push(token.id);
                }
                if !logprobs.is_empty() {
                    report["logprobs"] = logprobs.into();
                }
                out_json(&report)
            }
        }
    }

    /// The log-probabilities of the token after [`Printer::ids`], if they were asked for.
    fn logprobs(&self, token: &Token) -> Option<Value> {
        let found = token.logprobs.as_ref()?;
        let text = |id| self.tokenizer.token_text(&self.ids, id).unwrap_or_default();
        let top: Vec<Value> = found
            .top
            .iter()
            .map(|&(id, logprob)| json!({"id": id, "text": text(id), "logprob": logprob}))
            .collect();
        let (id, logprob) = (token.id, found.chosen);
        Some(json!({"id": id, "text": text(id), "logprob": logprob, "top": top}))
    }
}

/// Times of a text, since its shaders were compiled.
fn timings(clock: &Clock, prompt: usize, made: usize) -> Value {
    json!({
        "prompt_seconds": clock.prompt.as_secs_f64(),
        "prompt_tokens_per_second": clock.prompt_rate(prompt),
        "first_token_seconds": clock.first.map(|first| first.as_secs_f64()),
        "tokens_per_second": clock.rate(made),
        "total_seconds": clock.start.elapsed().as_secs_f64(),
    })
}
