//! What is told while a token waits for weights that come from the disk: a line at the cursor, on a
//! terminal, which the next text replaces; and how long all tokens waited, at the end.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use grok_wgpu::lab::engine::Heed;

use super::{
    signals::check_interrupt,
    terminal::{Terminal, is_dumb},
    units::{rate, short_size},
};

/// A token that waits for less is not told of.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two lines.
const PAUSE: Duration = Duration::from_millis(500);

static WAITING: Mutex<Waiting> = Mutex::new(Waiting::new());

/// How long, and for how many bytes, a text waits.
#[derive(Debug)]
struct Waiting {
    /// How the line is written, where it is.
    shown_on: Option<Terminal>,
    /// Of the token that comes.
    token: Wait,
    /// Of all before it.
    before: Wait,
    /// When what is read now was asked for, or came in part, and the bytes that came.
    last: Option<(Instant, u64)>,
    /// When the line was written, if it is there.
    written: Option<Instant>,
}

/// Bytes, and the time that was waited for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl Wait {
    const NONE: Self = Self { bytes: 0, time: Duration::ZERO };

    /// Bytes a second, with a unit.
    pub(super) fn rate(self) -> String {
        let of_second = (u128::from(self.bytes) * 1_000_000).checked_div(self.time.as_micros());
        of_second.map_or_else(|| "-".into(), |bytes| rate(u64::try_from(bytes).unwrap_or(u64::MAX)))
    }
}

impl Waiting {
    const fn new() -> Self {
        let (token, before) = (Wait::NONE, Wait::NONE);
        Self { shown_on: None, token, before, last: None, written: None }
    }

    /// Counts `done` bytes of a matrix or an expert; with 0 it is asked for. Returns the line to
    /// write, if it is time for one.
    fn heed(&mut self, done: u64, now: Instant) -> Option<String> {
        if let Some((then, had)) = self.last.filter(|_| done > 0) {
            self.token.bytes += done.saturating_sub(had);
            self.token.time += now.saturating_duration_since(then);
        }
        self.last = Some((now, done));
        let due = self.written.is_none_or(|then| now.saturating_duration_since(then) >= PAUSE);
        if done == 0 || self.shown_on.is_none() || self.token.time < PATIENCE || !due {
            return None;
        }
        self.written = Some(now);
        let Wait { bytes, time } = self.token;
        let (bytes, rate) = (short_size(bytes), self.token.rate());
        Some(format!(" waiting for the disk: {bytes} in {:.0} s, {rate}", time.as_secs_f64()))
    }

    /// The token is there. Returns whether a line has to go.
    fn over(&mut self) -> bool {
        self.before.bytes += self.token.bytes;
        self.before.time += self.token.time;
        self.token = Wait::NONE;
        self.written.take().is_some()
    }
}

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an engine calls while it brings weights.
pub(super) fn heed() -> Box<Heed> {
    Box::new(|done| {
        let mut waiting = waiting();
        if let Some(text) = waiting.heed(done, Instant::now())
            && let Some(terminal) = waiting.shown_on
        {
            // From the cursor to the end of the line, where the cursor stays.
            let text = terminal.paint("2", text);
            let _ = write!(io::stderr(), "\x1b7\x1b[?7l{text}\x1b[K\x1b[?7h\x1b8");
        }
        check_interrupt()
    })
}

/// A text begins: from now on a line is shown where a token waits, if there is a terminal.
pub(super) fn begin(terminal: Terminal) {
    let shows = !terminal.quiet && !is_dumb() && io::stderr().is_terminal();
    *waiting() = Waiting { shown_on: shows.then_some(terminal), ..Waiting::new() };
}

/// Something else will be written: the line goes.
pub(super) fn over() {
    if waiting().over() {
        let _ = write!(io::stderr(), "\x1b[K");
    }
}

/// What all tokens of the text waited for.
pub(super) fn so_far() -> Wait {
    waiting().before
}

/// The text has ended: no line is shown from now on.
pub(super) fn end() {
    over();
    waiting().shown_on = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn on_terminal() -> Waiting {
        let terminal = Terminal { quiet: false, color: false };
        Waiting { shown_on: Some(terminal), ..Waiting::new() }
    }

    #[test]
    fn a_token_that_waits_long_is_told_of_now_and_then() {
        let mut waiting = on_terminal();
        let start = Instant::now();
        let mut told = Vec::new();
        // Two matrices of 4 MB, a part of 1 MB each 300 ms; a second of other work between them.
        for (matrix, begin) in [(0, 0), (1, 2200)] {
            for part in 0..=4 {
                let now = start + MS * (begin + part * 300);
                if let Some(text) = waiting.heed(u64::from(part) * 1_000_000, now) {
                    told.push((matrix, part, text));
                }
            }
        }
        let text = |text: &str| text.to_owned();
        assert_eq!(told, [(1, 3, text(" waiting for the disk: 6.68 MiB in 2 s, 3.33 MB/s")),]);
        assert_eq!(waiting.token, Wait { bytes: 8_000_000, time: MS * 2400 });
        assert!(waiting.over(), "the line goes");
        assert!(!waiting.over(), "once");
        assert_eq!(waiting.before, Wait { bytes: 8_000_000, time: MS * 2400 });
        // The next token has the same patience.
        let later = start + MS * 100_000;
        assert_eq!(waiting.heed(0, later), None);
        assert_eq!(waiting.heed(1_000_000, later + MS * 1999), None);
        assert!(waiting.heed(2_000_000, later + MS * 2000).is_some());
    }

    #[test]
    fn without_a_terminal_it_is_counted_alone() {
        let mut waiting = Waiting::new();
        let start = Instant::now();
        assert_eq!(waiting.heed(0, start), None);
        assert_eq!(waiting.heed(5, start + PATIENCE * 5), None);
        assert_eq!(waiting.token, Wait { bytes: 5, time: PATIENCE * 5 });
        assert!(!waiting.over());
        assert_eq!(Wait::NONE.rate(), "-");
    }
}
