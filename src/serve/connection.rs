//! A connection: bytes between a socket and hyper, with limits of time.
//!
//! A client that says nothing, that sends its headers slowly, or that does not read what it is
//! sent, loses its connection. How long a body takes is the affair of who reads it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// Bytes that are read at once.
const PIECE: usize = 8192;

/// How often a request began or ended: odd while one is answered. Shared with who does it.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<AtomicU64>);

/// A request that is being answered, while it lives.
#[derive(Debug)]
pub(super) struct Turn(Turns);

impl Turns {
    pub(super) fn begin(&self) -> Turn {
        self.0.fetch_add(1, Ordering::SeqCst);
        Turn(self.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a connection is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the headers of a request, from their first byte.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// Without a byte that is taken from us.
    pub(super) write: Duration,
}

/// A socket with limits of time.
pub(super) struct Connection {
    stream: TcpStream,
    turns: Turns,
    /// What they were when it was read last.
    seen: u64,
    patience: Patience,
    reading: Timer,
    /// Whether a part of a request's headers has come.
    begun: bool,
    writing: Timer,
}

/// An alarm that may be set.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Sets it, unless it is set.
    fn set(&mut self, after: Duration) {
        self.0.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + after)));
    }

    fn clear(&mut self) {
        self.0 = None;
    }

    /// Pending, or the error of time that is over.
    fn poll<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let over = self.0.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if over { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, turns: Turns, patience: Patience) -> Self {
        let (reading, writing) = (Timer::default(), Timer::default());
        Self { stream, turns, seen: 0, patience, reading, begun: false, writing }
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; PIECE];
        let len = into.remaining().min(PIECE);
        let mut piece = ReadBuf::new(&mut bytes[..len]);
        let turns = self.turns.0.load(Ordering::SeqCst);
        if turns != self.seen {
            self.seen = turns;
            self.begun = false;
            self.reading.clear();
        }
        let busy = turns % 2 == 1;
        match Pin::new(&mut self.stream).poll_read(cx, &mut piece) {
            Poll::Ready(result) => {
                if !busy && !self.begun {
                    // From now on it is the headers' time that runs.
                    self.begun = true;
                    self.reading.clear();
                }
                into.put_slice(piece.filled());
                Poll::Ready(result)
            }
            Poll::Pending if busy => Poll::Pending,
            Poll::Pending => {
                let Patience { head, idle, .. } = self.patience;
                let limit = if self.begun { head } else { idle };
                self.reading.set(limit);
                self.reading.poll(cx)
            }
        }
    }
}

impl Write for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(result) => {
                self.writing.clear();
                Poll::Ready(result)
            }
            Poll::Pending => {
                let limit = self.patience.write;
                self.writing.set(limit);
                self.writing.poll(cx)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
