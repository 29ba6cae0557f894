//! Histograms, as Prometheus reads them.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper ends of the buckets of times, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Numbers, by how many are at most as large as the end of each bucket.
#[derive(Debug)]
pub(super) struct Histogram {
    ends: &'static [f64],
    counts: Vec<AtomicU64>,
    all: AtomicU64,
    /// The sum, in millionths.
    micros: AtomicU64,
}

/// One of times.
impl Default for Histogram {
    fn default() -> Self {
        Self::new(SECONDS)
    }
}

impl Histogram {
    /// One with buckets that end there.
    pub(super) fn new(ends: &'static [f64]) -> Self {
        let counts = ends.iter().map(|_| AtomicU64::new(0)).collect();
        Self { ends, counts, all: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    pub(super) fn time(&self, time: Duration) {
        self.record(time.as_secs_f64());
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sums of times and counts, which are not negative"
    )]
    pub(super) fn record(&self, number: f64) {
        for (count, end) in self.counts.iter().zip(self.ends) {
            count.fetch_add(u64::from(number <= *end), Ordering::Relaxed);
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((number * 1e6).round() as u64, Ordering::Relaxed);
    }

    /// Writes it, as one with a heading.
    pub(super) fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, "histogram", help);
        self.write_series(text, name, "");
    }

    /// Writes it without a heading, with labels such as `phase="decode",`.
    pub(super) fn write_series(&self, text: &mut String, name: &str, labels: &str) {
        for (count, end) in self.counts.iter().zip(self.ends) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "grok_wgpu_{name}_bucket{{{labels}le=\"{end}\"}} {count}");
        }
        let all = self.all.load(Ordering::Relaxed);
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "grok_wgpu_{name}_bucket{{{labels}le=\"+Inf\"}} {all}");
        let labels = labels.trim_end_matches(',');
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "grok_wgpu_{name}_sum{labels} {sum}");
        let _ = writeln!(text, "grok_wgpu_{name}_count{labels} {all}");
    }
}

/// The heading of a number.
pub(super) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP grok_wgpu_{name} {help}\n# TYPE grok_wgpu_{name} {kind}");
}
