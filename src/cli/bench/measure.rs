//! Runs a model and collects times and counters.

use std::time::{Duration, Instant};

use grok_wgpu::lab::{
    base::error::Result,
    engine::{session::Session, step::Readback},
    machine::{
        Machine,
        gpu::{Counters, Gpu, StepTime},
    },
    measure::{
        capacity::layer_dispatches,
        traffic::Traffic,
        work::{flops, least_bytes},
    },
};

use super::{
    super::{expected::Speeds, signals::check_interrupt, terminal::Terminal},
    Options,
};

/// What every step reads back: the likeliest token.
const READ: Readback = Readback::Top(1);

/// What was measured.
pub(super) struct Measured {
    pub(super) load: Duration,
    pub(super) weights_bytes: u64,
    pub(super) allocated_bytes: u64,
    /// The prompt, in as many chunks as `--prefill` needs.
    pub(super) prefill: Phase,
    /// The generated tokens; counters are those of the first one.
    pub(super) decode: Phase,
}

/// Measurements of prefill or decode. Each figure is for one prompt or for one generated token.
pub(super) struct Phase {
    /// Tokens of the prompt; 1 for decode.
    pub(super) tokens: u32,
    /// Tokens in the KV cache before.
    pub(super) before: u32,
    /// Tokens that [`Phase::kernels`] was timed with: one chunk, which may be less than the prompt.
    pub(super) timed_tokens: u32,
    /// Seconds, by repeat; for decode, by token.
    pub(super) seconds: Vec<f64>,
    pub(super) counters: Counters,
    pub(super) layer_dispatches: Option<f64>,
    pub(super) least_bytes: u64,
    /// Bytes of weights that were brought to the device, on average; `None` if it has them all.
    pub(super) brought: Option<f64>,
    /// Tokens a second that were expected, if not all of the model is on the device or the rates
    /// were measured by which it is known.
    pub(super) expected: Option<f64>,
    pub(super) flops: u64,
    /// Seconds to stage, encode and submit.
    pub(super) host: Option<f64>,
    /// Device times by kernel, the longest first; `None` without timestamp queries.
    pub(super) kernels: Option<Vec<Kernel>>,
}

/// The runs of one kernel in a step.
pub(super) struct Kernel {
    pub(super) label: String,
    pub(super) runs: u64,
    pub(super) seconds: f64,
    pub(super) share: f64,
    pub(super) bytes_touched: u64,
}

impl Measured {
    /// Notes what was expected of the model as it is placed.
    pub(super) fn expect(&mut self, session: &Session<Gpu>, speeds: &Speeds) {
        let (model, options) = (session.model(), session.options());
        let dispatches = self.decode.counters.dispatches;
        let on_cpu = options.host_compute.is_some();
        let token = Traffic::of_token(model, dispatches, on_cpu);
        let chunk = options.prefill.min(self.prefill.tokens);
        let prompt = Traffic::of_prompt(model, dispatches, chunk);
        let is_whole = token.stored == 0 && token.link == 0;
        for (phase, traffic) in [(&mut self.prefill, prompt), (&mut self.decode, token)] {
            let expected = speeds.expected(&traffic, model.pinned_bytes());
            phase.expected = (expected.measured || !is_whole).then(|| expected.tokens_per_second());
        }
    }
}

impl Phase {
    pub(super) fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// The quantile `part`, from 0 to 1, of the seconds.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.seconds, part)
    }

    /// Tokens per second if the phase takes `seconds`.
    pub(super) fn rate(&self, seconds: f64) -> Option<f64> {
        (seconds > 0.0).then(|| f64::from(self.tokens) / seconds)
    }

    /// `count` per second at the median time, in units of 10^9.
    pub(super) fn giga(&self, count: f64) -> Option<f64> {
        let seconds = self.median();
        (seconds > 0.0).then(|| 1e-9 * count / seconds)
    }

    /// Seconds of all kernels on the device.
    pub(super) fn device_seconds(&self) -> Option<f64> {
        Some(self.kernels.as_ref()?.iter().map(|kernel| kernel.seconds).sum())
    }
}

/// Measures prompts and generated tokens on a session that was just loaded.
pub(super) async fn measure(
    terminal: Terminal,
    options: &Options,
    session: &mut Session<Gpu>,
    load: Duration,
) -> Result<Measured> {
    let vocab = session.config().vocab_size;
    let (prompt, made) = (ids(options.prompt, vocab), ids(options.tokens, vocab));
    let warm_up = options.warm_up.unwrap_or(options.prompt).min(options.prompt) as usize;
    let more = if options.rates { 0 } else { 2 };
    let bar = terminal.bar("measuring", u64::from(options.repeats) + 1 + more, false);
    let mut prefill = phase(session, options.prompt, 0);
    let mut decode = phase(session, 1, options.prompt);
    let mut brought = [0, 0];
    for repeat in 0..=options.repeats {
        session.rewind(0);
        let before = session.machine().counters();
        let mut moved = vec![session.moved().bytes];
        let start = Instant::now();
        let length = if repeat == 0 { warm_up } else { prompt.len() };
        session.prefill(&prompt[..length], READ).await?;
        let time = start.elapsed().as_secs_f64();
        prefill.counters = session.machine().counters() - before;
        moved.push(session.moved().bytes);
        let mut times = Vec::new();
        for &id in &made {
            check_interrupt()?;
            let before = session.machine().counters();
            let start = Instant::now();
            session.decode(id, READ).await?;
            times.push(start.elapsed().as_secs_f64());
            if times.len() == 1 {
                decode.counters = session.machine().counters() - before;
            }
        }
        moved.push(session.moved().bytes);
        if repeat > 0 {
            prefill.seconds.push(time);
            decode.seconds.extend(times);
            for (sum, of) in brought.iter_mut().zip(moved.windows(2)) {
                *sum += of[1] - of[0];
            }
        }
        bar.inc(1);
    }
    if !options.rates {
        host_times(session, &prompt, &made, [&mut prefill, &mut decode]).await?;
        bar.inc(1);
    }
    if session.streams() {
        for (phase, bytes) in [&mut prefill, &mut decode].into_iter().zip(brought) {
            phase.brought = Some(bytes as f64 / phase.seconds.len() as f64);
        }
        // Its passes are cut, and kernels are timed in whole ones.
        bar.finish_and_clear();
        return Ok(found(session, load, [prefill, decode]));
    }
    // Device timing repeats the last step that ran.
    let timed = !options.rates && session.machine().caps().timestamps;
    let chunk = session.options().prefill as usize;
    session.rewind(prompt.len());
    if timed {
        session.decode(made[0], READ).await?;
        session.rewind(prompt.len());
    }
    let plan = session.decode_plan(READ)?.clone();
    decode.layer_dispatches = Some(layer_dispatches(session.model(), &plan.kernels()));
    if timed {
        decode.kernels = Some(kernels(&session.machine_mut().time_plan(&plan).await?));
        session.rewind(0);
        session.prefill(&prompt[..chunk], READ).await?;
    }
    session.rewind(0);
    let plan = session.prefill_plan(READ)?.clone();
    prefill.layer_dispatches = Some(layer_dispatches(session.model(), &plan.kernels()));
    prefill.timed_tokens = session.options().prefill;
    if timed {
        prefill.kernels = Some(kernels(&session.machine_mut().time_plan(&plan).await?));
    }
    bar.finish_and_clear();
    Ok(found(session, load, [prefill, decode]))
}

fn found(session: &Session<Gpu>, load: Duration, [prefill, decode]: [Phase; 2]) -> Measured {
    Measured {
        load,
        weights_bytes: session.model().bytes(),
        allocated_bytes: session.machine().allocated_bytes(),
        prefill,
        decode,
    }
}

/// Measures the host's time: of a token all but the wait for its results; of a prompt all of it,
/// since without a readback a step returns as soon as it is submitted.
async fn host_times(
    session: &mut Session<Gpu>,
    prompt: &[u32],
    made: &[u32],
    [prefill, decode]: [&mut Phase; 2],
) -> Result<()> {
    let mut times = Vec::new();
    session.rewind(prompt.len());
    for &id in made {
        check_interrupt()?;
        let (start, waited) = (Instant::now(), session.machine().waited());
        session.decode(id, READ).await?;
        let waited = session.machine().waited() - waited;
        times.push(start.elapsed().as_secs_f64() - waited);
    }
    decode.host = Some(median(&times));
    // The timed prompts made the plans of all chunks but the last, which had a readback. Record
    // that one.
    session.rewind(0);
    session.prefill(prompt, Readback::Nothing).await?;
    session.rewind(0);
    session.machine_mut().flush().await?;
    let start = Instant::now();
    session.prefill(prompt, Readback::Nothing).await?;
    prefill.host = Some(start.elapsed().as_secs_f64());
    session.machine_mut().flush().await
}

/// A phase of which nothing is measured yet.
fn phase(session: &Session<Gpu>, tokens: u32, before: u32) -> Phase {
    Phase {
        tokens,
        before,
        timed_tokens: tokens,
        seconds: Vec::new(),
        counters: Counters::default(),
        layer_dispatches: None,
        least_bytes: least_bytes(session.model(), session.options().cache, tokens, before),
        brought: None,
        expected: None,
        flops: flops(session.config(), tokens, before),
        host: None,
        kernels: None,
    }
}

/// Deterministic ids, spread over the vocabulary.
fn ids(count: u32, vocab: u32) -> Vec<u32> {
    (0..count).map(|i| i.wrapping_mul(0x9E37_79B9).rotate_left(15) % vocab).collect()
}

fn sorted(times: &[f64]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(times: &[f64]) -> f64 {
    let sorted = sorted(times);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The quantile by nearest rank: the least time that `part` of all times do not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a length is an index or the length"
)]
fn quantile(times: &[f64], part: f64) -> f64 {
    let sorted = sorted(times);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Sums by kernel, the longest first.
fn kernels(times: &[StepTime]) -> Vec<Kernel> {
    let all: f64 = times.iter().map(|time| time.nanoseconds).sum();
    let mut kernels: Vec<Kernel> = Vec::new();
    for time in times {
        let at = kernels.iter().position(|kernel| kernel.label == time.label);
        let at = at.unwrap_or_else(|| {
            let label = time.label.clone();
            kernels.push(Kernel { label, runs: 0, seconds: 0.0, share: 0.0, bytes_touched: 0 });
            kernels.len() - 1
        });
        kernels[at].runs += 1;
        kernels[at].seconds += 1e-9 * time.nanoseconds;
        kernels[at].share += if all > 0.0 { time.nanoseconds / all } else { 0.0 };
        kernels[at].bytes_touched += time.bytes_touched;
    }
    kernels.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "halves are exact")]
    fn medians_and_tenths() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!([quantile(&twenty, 0.1), quantile(&twenty, 0.9)], [2.0, 18.0]);
        assert_eq!([quantile(&[5.0], 0.1), quantile(&[5.0], 0.9)], [5.0, 5.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn shares_add_up() {
        let step = |label: &str, nanoseconds| StepTime {
            label: label.into(),
            class: None,
            nanoseconds,
            bytes_touched: 5,
        };
        let found = kernels(&[step("a", 1.0), step("b", 6.0), step("a", 3.0)]);
        assert_eq!(found[0].label, "b");
        assert_eq!((found[1].runs, found[1].bytes_touched, found.len()), (2, 10, 2));
        assert!((found.iter().map(|kernel| kernel.share).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
