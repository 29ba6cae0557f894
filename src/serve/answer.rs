//! Answers: texts as they come from the engine, in the shapes that clients know.

use std::{
    fmt::Write as _,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc::Receiver,
    time::{Sleep, sleep},
};

use super::{
    calls::{Calls, Said},
    echo::Echo,
    engine::{Cancel, Event, Failure, Usage, Wanted, Why},
    http::App,
    metrics::Entry,
    wire::Refusal,
};
use crate::{
    engine::options::{FinishReason, Logprobs},
    text::chat::Trim,
};

/// What a log-probability of minus infinity is called.
const NEVER: f64 = -9999.0;

/// The texts of a request, while the engine makes them. Dropping it cancels them.
pub(super) struct Texts {
    /// None for those that have ended.
    receivers: Vec<Option<Receiver<Event>>>,
    cancel: Arc<Cancel>,
    deadline: Pin<Box<Sleep>>,
    /// When each had its last token.
    last: Vec<Option<Instant>>,
    asked: Instant,
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.cancel.set(Why::Left);
    }
}

impl Texts {
    /// Asks the engine for texts.
    ///
    /// # Errors
    ///
    /// Status 429 or 503 if it does not take them.
    pub(super) fn ask(app: &App, wanted: Vec<Wanted>) -> Result<Self, Refusal> {
        let cancel = Arc::new(Cancel::default());
        let receivers = app.submit.submit(wanted, &cancel)?;
        let deadline = Box::pin(sleep(app.settings.times.request));
        let last = vec![None; receivers.len()];
        let receivers = receivers.into_iter().map(Some).collect();
        Ok(Self { receivers, cancel, deadline, last, asked: Instant::now() })
    }

    /// The next event of any of them, with its index; `None` when all have ended.
    pub(super) fn poll_next(
        &mut self,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(usize, Event)>> {
        if self.receivers.iter().all(Option::is_none) {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            self.cancel.set(Why::Late);
            self.receivers.fill_with(|| None);
            return Poll::Ready(Some((0, Event::Failed(Failure::Cancelled(Why::Late)))));
        }
        for i in 0..self.receivers.len() {
            let Some(receiver) = &mut self.receivers[i] else { continue };
            let Poll::Ready(event) = receiver.poll_recv(cx) else { continue };
            let event = event.unwrap_or_else(|| Event::Failed(self.lost()));
            match &event {
                Event::Started => app.metrics.queued(self.asked.elapsed()),
                Event::Text { id: Some(_), .. } => {
                    let now = Instant::now();
                    if let Some(last) = self.last[i].replace(now) {
                        app.metrics.between(now - last);
                    }
                }
                Event::Text { .. } | Event::Scored(_) => {}
                Event::End { .. } | Event::Failed(_) => self.receivers[i] = None,
            }
            return Poll::Ready(Some((i, event)));
        }
        Poll::Pending
    }

    /// What a channel that closed without an end means.
    fn lost(&self) -> Failure {
        self.cancel.why().map_or(Failure::Stopping, Failure::Cancelled)
    }

    /// Waits for the first event that a client sees, for `limit` at the most.
    pub(super) async fn first(
        &mut self,
        app: &App,
        limit: Duration,
    ) -> Option<Option<(usize, Event)>> {
        let seen = async {
            loop {
                match poll_fn(|cx| self.poll_next(app, cx)).await {
                    Some((_, Event::Started)) => {}
                    event => return event,
                }
            }
        };
        tokio::time::timeout(limit, seen).await.ok()
    }
}

/// What stands around the texts of an answer.
#[expect(clippy::struct_excessive_bools, reason = "they are fields of requests")]
pub(super) struct Form {
    pub(super) app: Arc<App>,
    /// Whether it is the answer of a conversation.
    pub(super) chat: bool,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) seed: u64,
    pub(super) logprobs: bool,
    /// Whether the ids of tokens are reported.
    pub(super) ids: bool,
    /// Whether answers may be calls of functions, and whether they must be.
    pub(super) calls: bool,
    pub(super) forced: bool,
    /// Texts for each prompt.
    pub(super) count: usize,
    /// The prompts, if they are given back.
    pub(super) echo: Vec<Echo>,
}

/// One of the texts, as far as it has come.
#[derive(Default)]
pub(super) struct Told {
    trim: Trim,
    calls: Calls,
    /// Characters so far.
    pub(super) len: usize,
}

/// What is new of a text.
#[derive(Default)]
pub(super) struct Piece {
    pub(super) text: String,
    /// The function that is called, when it is known.
    name: Option<String>,
    /// JSON of its arguments.
    arguments: String,
    pub(super) logprobs: Vec<Value>,
    pub(super) ids: Vec<u32>,
}

impl Piece {
    /// Whether a client would see nothing of it.
    pub(super) fn is_empty(&self) -> bool {
        let called = self.name.is_some() || !self.arguments.is_empty();
        !called && self.text.is_empty() && self.logprobs.is_empty() && self.ids.is_empty()
    }

    fn add(&mut self, more: Self) {
        self.text += &more.text;
        self.name = self.name.take().or(more.name);
        self.arguments += &more.arguments;
        self.logprobs.extend(more.logprobs);
        self.ids.extend(more.ids);
    }
}

impl From<Said> for Piece {
    fn from(Said { text, name, arguments }: Said) -> Self {
        Self { text, name, arguments, ..Self::default() }
    }
}

impl Form {
    /// What is new with a token.
    ///
    /// # Errors
    ///
    /// Status 500 if an id has no token.
    pub(super) fn piece(
        &self,
        told: &mut Told,
        id: Option<u32>,
        text: &str,
        logprobs: Option<&Logprobs>,
    ) -> Result<Piece, Refusal> {
        let text = if self.chat { told.trim.next(text) } else { text };
        let mut piece = if self.calls {
            told.calls.push(text).into()
        } else {
            Piece { text: text.to_owned(), ..Piece::default() }
        };
        if let (true, Some(id), Some(logprobs)) = (self.logprobs, id, logprobs) {
            let entry = if self.chat {
                self.entry(id, logprobs)
            } else {
                self.old_entry(id, logprobs, told.len)
            };
            piece.logprobs.push(entry?);
        }
        if self.ids {
            piece.ids.extend(id);
        }
        told.len += text.chars().count();
        Ok(piece)
    }

    /// What of a text was held back until its end, and why it ended.
    pub(super) fn end(&self, told: &mut Told, finish: FinishReason) -> (Piece, &'static str) {
        if !self.calls {
            return (Piece::default(), finish.name());
        }
        let whole = finish == FinishReason::Stop;
        let rest = told.calls.finish(whole, self.forced).into();
        let called = told.calls.is_whole();
        (rest, if called { "tool_calls" } else { finish.name() })
    }

    /// A call, or what is new of it, as one of a list.
    fn call(&self, index: usize, name: Option<String>, arguments: &str) -> Value {
        let id = self.id.rsplit('-').next().unwrap_or_default();
        // Clients put ids and names together as they do arguments: they come once.
        match name {
            Some(name) => json!({
                "index": 0, "id": format!("call_{id}{index}"), "type": "function",
                "function": { "name": name, "arguments": arguments },
            }),
            None => {
                json!({ "index": 0, "type": "function", "function": { "arguments": arguments } })
            }
        }
    }

    /// A token as text and bytes, with its log-probability.
    fn token(&self, id: u32, logprob: f64) -> Result<Value, Refusal> {
        let bytes = self.app.model.tokenizer.token_bytes(id)?;
        let token = String::from_utf8_lossy(&bytes);
        Ok(json!({ "token": token, "logprob": finite(logprob), "bytes": bytes }))
    }

    /// A token's log-probabilities in an answer of a conversation.
    fn entry(&self, id: u32, logprobs: &Logprobs) -> Result<Value, Refusal> {
        let mut entry = self.token(id, logprobs.chosen)?;
        let top = logprobs.top.iter().map(|&(id, logprob)| self.token(id, logprob));
        entry["top_logprobs"] = top.collect::<Result<Vec<Value>, _>>()?.into();
        Ok(entry)
    }

    /// The same after a text that is continued: to be put into lists.
    pub(super) fn old_entry(
        &self,
        id: u32,
        logprobs: &Logprobs,
        offset: usize,
    ) -> Result<Value, Refusal> {
        let mut top = Map::new();
        for &(id, logprob) in &logprobs.top {
            // Several tokens may be parts of characters, and the same text then: the first is the
            // likeliest.
            top.entry(self.token_text(id)?).or_insert_with(|| finite(logprob).into());
        }
        Ok(json!([self.token_text(id)?, finite(logprobs.chosen), top, offset]))
    }

    /// A token's own text.
    pub(super) fn token_text(&self, id: u32) -> Result<String, Refusal> {
        let bytes = self.app.model.tokenizer.token_bytes(id)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Log-probabilities as a field of a choice.
    fn logprobs(&self, entries: &[Value]) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        if self.chat {
            return json!({ "content": entries, "refusal": null });
        }
        let list = |at: usize| entries.iter().map(|entry| entry[at].clone()).collect::<Vec<_>>();
        json!({
            "tokens": list(0),
            "token_logprobs": list(1),
            "top_logprobs": list(2),
            "text_offset": list(3),
        })
    }

    /// What every object of an answer has.
    fn object(&self, kind: &str, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.app.settings.alias,
            "system_fingerprint": self.app.fingerprint(),
            "choices": choices,
        })
    }

    /// A part of a stream; with `usage`, the field that says that it comes later.
    fn chunk(&self, choices: &[Value], usage: bool) -> Value {
        let kind = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.object(kind, choices);
        if usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The beginning of a streamed conversation's answer.
    pub(super) fn begin(&self, index: usize, usage: bool) -> Value {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        let choice =
            json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
        let mut chunk = self.chunk(&[choice], usage);
        chunk["grok_wgpu"] = json!({ "seed": self.seed });
        chunk
    }

    /// What is new of a streamed text; with `finish`, its end.
    pub(super) fn next(
        &self,
        index: usize,
        piece: Piece,
        finish: Option<&'static str>,
        usage: bool,
    ) -> Value {
        let logprobs = if finish.is_some() { Value::Null } else { self.logprobs(&piece.logprobs) };
        let mut choice = json!({ "index": index });
        if self.chat {
            let mut delta = json!({});
            let called = piece.name.is_some() || !piece.arguments.is_empty();
            if finish.is_none() && !(called && piece.text.is_empty()) {
                delta["content"] = piece.text.into();
            }
            if called {
                delta["tool_calls"] = json!([self.call(index, piece.name, &piece.arguments)]);
            }
            choice["delta"] = delta;
        } else {
            choice["text"] = piece.text.into();
        }
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = finish.into();
        if self.ids && finish.is_none() {
            choice["token_ids"] = piece.ids.into();
        }
        let mut chunk = self.chunk(&[choice], usage);
        if !self.chat && finish.is_some() {
            chunk["grok_wgpu"] = json!({ "seed": self.seed });
        }
        chunk
    }

    /// The last part of a stream, if it was asked for.
    pub(super) fn last(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk(&[], false);
        chunk["usage"] = counts(usage);
        chunk
    }

    /// Adds the lengths of a text to those of the answer. A prompt counts once.
    pub(super) fn count(&self, index: usize, of: Usage, all: &mut Usage) {
        if index.is_multiple_of(self.count) {
            all.prompt += of.prompt;
            all.cached += of.cached;
        }
        all.completion += of.completion;
    }

    /// The whole answer.
    ///
    /// # Errors
    ///
    /// What one of the texts failed with.
    pub(super) async fn whole(
        &self,
        mut texts: Texts,
        entry: &mut Entry,
    ) -> Result<Value, Refusal> {
        let count = texts.receivers.len();
        let mut told: Vec<Told> = (0..count).map(|_| Told::default()).collect();
        let openings = told.iter_mut().enumerate().map(|(i, told)| self.opening(told, i));
        let mut made = openings.collect::<Result<Vec<Piece>, _>>()?;
        let mut finished = vec![None; count];
        let app = &self.app;
        while let Some((i, event)) = poll_fn(|cx| texts.poll_next(app, cx)).await {
            match event {
                Event::Started => {}
                Event::Scored(scores) => made[i].add(self.echoed(&mut told[i], i, &scores)?),
                Event::Text { id, text, logprobs } => {
                    entry.came(id);
                    made[i].add(self.piece(&mut told[i], id, &text, logprobs.as_ref())?);
                }
                Event::End { finish, usage } => {
                    let (rest, finish) = self.end(&mut told[i], finish);
                    made[i].add(rest);
                    finished[i] = Some(finish);
                    self.count(i, usage, &mut entry.usage);
                }
                Event::Failed(failure) => return Err(failed(entry, failure)),
            }
        }
        let choices = made.into_iter().zip(finished).enumerate();
        let choices = choices.map(|(index, (piece, finish))| {
            let logprobs = self.logprobs(&piece.logprobs);
            let mut choice = json!({ "index": index });
            if self.chat {
                let mut message =
                    json!({ "role": "assistant", "content": piece.text, "refusal": null });
                if let Some(name) = piece.name {
                    if message["content"] == "" {
                        message["content"] = Value::Null;
                    }
                    let mut call = self.call(index, Some(name), &piece.arguments);
                    // Only in streams do calls come in parts that must be put together.
                    call.as_object_mut().map(|call| call.remove("index"));
                    message["tool_calls"] = json!([call]);
                }
                choice["message"] = message;
            } else {
                choice["text"] = piece.text.into();
            }
            choice["logprobs"] = logprobs;
            choice["finish_reason"] = finish.into();
            if self.ids {
                choice["token_ids"] = piece.ids.into();
            }
            choice
        });
        let kind = if self.chat { "chat.completion" } else { "text_completion" };
        let choices: Vec<Value> = choices.collect();
        let mut answer = self.object(kind, &choices);
        answer["usage"] = counts(entry.usage);
        answer["grok_wgpu"] = json!({ "seed": self.seed });
        Ok(answer)
    }
}

/// Notes that a text failed.
pub(super) fn failed(entry: &mut Entry, failure: Failure) -> Refusal {
    if let Failure::Cancelled(why) = failure {
        entry.outcome = Some(why.name());
    }
    let refusal = Refusal::from(failure);
    entry.outcome.get_or_insert(refusal.code);
    refusal
}

fn finite(logprob: f64) -> f64 {
    if logprob.is_finite() { logprob } else { NEVER }
}

fn counts(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": { "cached_tokens": usage.cached },
    })
}

/// An event of a stream.
pub(super) fn data(value: &Value) -> String {
    let mut text = String::new();
    let _ = write!(text, "data: {value}\n\n");
    text
}
