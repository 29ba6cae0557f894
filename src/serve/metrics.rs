//! Counters of the server, as Prometheus reads them, and a line of the log for each request.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    engine::{Usage, Why},
    histogram::{Histogram, head},
    http::App,
    load::{Load, Phase, Snapshot},
};
use crate::engine::schedule;

/// What the server counts.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    cancelled: [AtomicU64; Why::ALL.len()],
    prompt: AtomicU64,
    cached: AtomicU64,
    generated: AtomicU64,
    queue: Histogram,
    first: Histogram,
    between: Histogram,
    request: Histogram,
}

impl Metrics {
    /// All of it, in Prometheus' text format.
    pub(super) fn text(&self, load: &Load) -> String {
        let mut text = String::new();
        head(&mut text, "requests_total", "counter", "Requests, by endpoint and status.");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((endpoint, code), count) in &*requests {
            let labels = format!("{{endpoint=\"{endpoint}\",code=\"{code}\"}}");
            let _ = writeln!(text, "grok_wgpu_requests_total{labels} {count}");
        }
        drop(requests);
        head(&mut text, "cancelled_total", "counter", "Texts that nobody waited for, by reason.");
        for why in Why::ALL {
            let count = self.cancelled[why as usize - 1].load(Ordering::Relaxed);
            let reason = why.name();
            let _ = writeln!(text, "grok_wgpu_cancelled_total{{reason=\"{reason}\"}} {count}");
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let waiting = load.waiting() as u64;
        let Snapshot { texts, pages, preemptions, losses } = load.snapshot();
        let paused = texts.iter().filter(|text| text.phase == schedule::Phase::Paused).count();
        head(&mut text, "pages", "gauge", "Pages of the cache, of 32 positions, by state.");
        for (state, count) in [("free", pages.free), ("idle", pages.idle), ("used", pages.used)] {
            let _ = writeln!(text, "grok_wgpu_pages{{state=\"{state}\"}} {count}");
        }
        for (name, kind, value, help) in [
            ("requests_running", "gauge", load.running() as u64, "Texts that are being made."),
            ("requests_waiting", "gauge", waiting, "Texts in the queue."),
            (
                "requests_paused",
                "gauge",
                paused as u64,
                "Texts that wait for their clients to read.",
            ),
            (
                "preemptions_total",
                "counter",
                preemptions,
                "How often a text has lost its pages to others.",
            ),
            ("device_losses_total", "counter", losses, "Devices that were lost."),
            ("prompt_tokens_total", "counter", of(&self.prompt), "Tokens of prompts."),
            (
                "prompt_tokens_cached_total",
                "counter",
                of(&self.cached),
                "Tokens of prompts that were in the cache.",
            ),
            ("generated_tokens_total", "counter", of(&self.generated), "Tokens generated."),
            ("steps_total", "counter", load.steps(), "Steps of the engine."),
        ] {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "grok_wgpu_{name} {value}");
        }
        self.queue.write(&mut text, "queue_seconds", "Time in the queue.");
        let what = "Time from a request to its first text.";
        self.first.write(&mut text, "time_to_first_token_seconds", what);
        let what = "Time between two tokens of a text, as the server sends them.";
        self.between.write(&mut text, "inter_token_seconds", what);
        self.request.write(&mut text, "request_seconds", "Time from a request to its end.");
        load.rows.write(&mut text, "rows_per_step", "Texts that a step generates a token of.");
        head(&mut text, "step_seconds", "histogram", "Time of a step, by what it has.");
        for phase in Phase::ALL {
            let label = format!("phase=\"{}\",", phase.name());
            load.times[phase as usize].write_series(&mut text, "step_seconds", &label);
        }
        text
    }

    pub(super) fn queued(&self, time: Duration) {
        self.queue.time(time);
    }

    pub(super) fn between(&self, time: Duration) {
        self.between.time(time);
    }
}

/// A request as it is counted and logged, when it ends. It has numbers and names of the server's
/// own, and nothing of what was asked or answered.
pub(super) struct Entry {
    app: Arc<App>,
    pub(super) id: String,
    pub(super) endpoint: &'static str,
    pub(super) begun: Instant,
    pub(super) status: Option<u16>,
    pub(super) usage: Usage,
    /// When the first text came.
    first: Option<Duration>,
    /// Tokens that came, also of texts that did not end.
    made: usize,
    /// How it ended, if not by an answer.
    pub(super) outcome: Option<&'static str>,
}

impl Entry {
    pub(super) fn new(app: Arc<App>, id: String) -> Self {
        Self {
            app,
            id,
            endpoint: "other",
            begun: Instant::now(),
            status: None,
            usage: Usage::default(),
            first: None,
            made: 0,
            outcome: None,
        }
    }

    /// Text has come, of a token unless it was held back.
    pub(super) fn came(&mut self, id: Option<u32>) {
        self.made += usize::from(id.is_some());
        self.first.get_or_insert_with(|| self.begun.elapsed());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Nobody was there to answer.
        let status = self.status.unwrap_or(499);
        if status == 499 {
            self.outcome.get_or_insert(Why::Left.name());
        }
        let metrics = &self.app.metrics;
        let time = self.begun.elapsed();
        {
            let mut all = metrics.requests.lock().unwrap_or_else(PoisonError::into_inner);
            *all.entry((self.endpoint, status)).or_default() += 1;
        }
        if let Some(why) = Why::ALL.into_iter().find(|why| self.outcome == Some(why.name())) {
            metrics.cancelled[why as usize - 1].fetch_add(1, Ordering::Relaxed);
        }
        let Usage { prompt, cached, completion } = self.usage;
        let completion = completion.max(self.made);
        let add = |to: &AtomicU64, count: usize| to.fetch_add(count as u64, Ordering::Relaxed);
        add(&metrics.prompt, prompt);
        add(&metrics.cached, cached);
        add(&metrics.generated, completion);
        metrics.request.time(time);
        if let Some(first) = self.first {
            metrics.first.time(first);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let mut line = json!({
            "time": (now.as_secs_f64() * 1e3).round() / 1e3,
            "request": self.id,
            "endpoint": self.endpoint,
            "status": status,
            "ms": millis(time),
        });
        if prompt > 0 {
            line["prompt_tokens"] = prompt.into();
            line["cached_tokens"] = cached.into();
        }
        if prompt + completion > 0 {
            line["completion_tokens"] = completion.into();
        }
        if let Some(first) = self.first {
            line["first_ms"] = millis(first).into();
        }
        if let Some(outcome) = self.outcome {
            line["outcome"] = Value::from(outcome);
        }
        (self.app.settings.log)(&line);
    }
}
