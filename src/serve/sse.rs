//! Bodies of answers: whole ones, and streams of server-sent events.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    answer::{Form, Piece, Texts, Told, data, failed},
    connection::Turn,
    engine::{Event, Usage},
    metrics::Entry,
    wire::Refusal,
};

/// What tells a client, and what stands between, that the connection is alive.
const PING: &str = ": ping\n\n";

/// The body of an answer.
pub(super) struct AnswerBody {
    content: Content,
    /// The connection is busy until it is dropped.
    pub(super) turn: Option<Turn>,
}

enum Content {
    Whole(Option<Bytes>),
    Stream(Box<Stream>),
}

impl AnswerBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Whole(Some(bytes.into())), turn: None }
    }

    pub(super) fn stream(stream: Stream) -> Self {
        Self { content: Content::Stream(Box::new(stream)), turn: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Stream(stream) => {
                stream.poll(cx).map(|text| text.map(|text| Ok(Frame::data(text.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer that is sent as it comes.
pub(super) struct Stream {
    form: Form,
    texts: Texts,
    told: Vec<Told>,
    entry: Entry,
    /// Whether the usage is sent at the end.
    usage: bool,
    sum: Usage,
    /// What is to be sent before anything else.
    due: VecDeque<String>,
    ping: Pin<Box<Sleep>>,
    every: Duration,
    done: bool,
}

impl Stream {
    /// A stream of `count` texts, of which an event may have come.
    pub(super) fn new(
        (form, texts, entry): (Form, Texts, Entry),
        count: usize,
        usage: bool,
        first: Option<(usize, Event)>,
    ) -> Self {
        let every = form.app.settings.times.ping;
        let mut stream = Self {
            told: (0..count).map(|_| Told::default()).collect(),
            usage,
            sum: Usage::default(),
            due: VecDeque::new(),
            ping: Box::pin(sleep(every)),
            every,
            done: false,
            form,
            texts,
            entry,
        };
        if stream.form.chat {
            for index in 0..count {
                stream.due.push_back(data(&stream.form.begin(index, usage)));
            }
        }
        for index in 0..count {
            let piece = stream.form.opening(&mut stream.told[index], index);
            stream.send(index, piece);
        }
        if let Some((index, event)) = first {
            stream.take(index, event);
        }
        stream
    }

    /// The next text to send; `None` at the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        loop {
            if let Some(text) = self.due.pop_front() {
                self.ping.as_mut().reset(Instant::now() + self.every);
                return Poll::Ready(Some(text));
            }
            if self.done {
                return Poll::Ready(None);
            }
            match self.texts.poll_next(&self.form.app, cx) {
                Poll::Ready(Some((index, event))) => self.take(index, event),
                Poll::Ready(None) => self.end(),
                Poll::Pending => {
                    if self.ping.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.due.push_back(PING.to_owned());
                }
            }
        }
    }

    /// Puts what an event gives to what is due.
    fn take(&mut self, index: usize, event: Event) {
        match event {
            Event::Started => {}
            Event::Scored(scores) => {
                let piece = self.form.echoed(&mut self.told[index], index, &scores);
                self.send(index, piece);
            }
            Event::Text { id, text, logprobs } => {
                self.entry.came(id);
                let told = &mut self.told[index];
                let piece = self.form.piece(told, id, &text, logprobs.as_ref());
                self.send(index, piece);
            }
            Event::End { finish, usage } => {
                self.form.count(index, usage, &mut self.sum);
                let (rest, finish) = self.form.end(&mut self.told[index], finish);
                if !rest.is_empty() {
                    self.due.push_back(data(&self.form.next(index, rest, None, self.usage)));
                }
                let chunk = self.form.next(index, Piece::default(), Some(finish), self.usage);
                self.due.push_back(data(&chunk));
            }
            Event::Failed(failure) => {
                let refusal = failed(&mut self.entry, failure);
                self.fail(&refusal);
            }
        }
        self.entry.usage = self.sum;
    }

    /// Puts what is new of a text to what is due, unless a client would see nothing of it.
    fn send(&mut self, index: usize, piece: Result<Piece, Refusal>) {
        match piece {
            Ok(piece) if piece.is_empty() => {}
            Ok(piece) => {
                let chunk = self.form.next(index, piece, None, self.usage);
                self.due.push_back(data(&chunk));
            }
            Err(refusal) => self.fail(&refusal),
        }
    }

    /// An error in the middle: clients see it, and that the end is missing.
    fn fail(&mut self, refusal: &Refusal) {
        self.entry.outcome.get_or_insert(refusal.code);
        self.due.push_back(data(&refusal.body()));
        self.done = true;
    }

    fn end(&mut self) {
        if self.usage {
            self.due.push_back(data(&self.form.last(self.sum)));
        }
        self.due.push_back("data: [DONE]\n\n".to_owned());
        self.done = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.done || !self.due.is_empty() {
            self.entry.outcome.get_or_insert("client_left");
        }
    }
}
