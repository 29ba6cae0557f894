//! Times of a generation: when the prompt was processed, and when tokens came.

use std::time::{Duration, Instant};

use grok_wgpu::lab::engine::options::{Event, Generated};

use super::{terminal::Terminal, waiting};

/// Times since the start of a generation.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) start: Instant,
    pub(super) prompt: Duration,
    pub(super) first: Option<Duration>,
    last: Duration,
}

impl Clock {
    /// A text begins. What is told while it waits for the disk is told on this terminal.
    pub(super) fn start(terminal: Terminal) -> Self {
        waiting::begin(terminal);
        let zero = Duration::ZERO;
        Self { start: Instant::now(), prompt: zero, first: None, last: zero }
    }

    pub(super) fn on_event(&mut self, event: Event<'_>) {
        waiting::over();
        let now = self.start.elapsed();
        match event {
            // A prompt that takes the place of the first one counts as time between tokens.
            Event::Prompt { .. } if self.first.is_none() => self.prompt = now,
            Event::Token(_) => {
                self.first.get_or_insert(now);
                self.last = now;
            }
            _ => {}
        }
    }

    /// Tokens of the prompt for each second.
    pub(super) fn prompt_rate(&self, tokens: usize) -> f64 {
        rate(tokens, self.prompt)
    }

    /// Tokens after the first for each second.
    pub(super) fn rate(&self, made: usize) -> f64 {
        rate(made.saturating_sub(1), self.last.saturating_sub(self.first.unwrap_or_default()))
    }

    /// One line about a text that was made.
    pub(super) fn summary(&self, made: &Generated, prompt: usize) -> String {
        let new = prompt - made.reused;
        let mut parts = vec![format!("prompt: {new} tokens, {:.1}/s", self.prompt_rate(new))];
        if made.reused > 0 {
            parts.push(format!("{} more in the cache", made.reused));
        }
        if let Some(first) = self.first {
            parts.push(format!("first token after {:.3} s", first.as_secs_f64()));
        }
        let count = made.tokens.len();
        parts.push(match count {
            0 | 1 => format!("tokens made: {count}"),
            _ => format!("tokens made: {count}, {:.1}/s", self.rate(count)),
        });
        let waited = waiting::so_far();
        // Less than a tenth is not what a text waits for.
        if waited.time * 10 > self.start.elapsed() {
            let (time, rate) = (waited.time.as_secs_f64(), waited.rate());
            parts.push(format!("{time:.1} s of waiting for the disk, {rate}"));
        }
        parts.join("; ")
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        waiting::end();
    }
}

fn rate(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}
