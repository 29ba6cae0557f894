//! How much the engine has to do, as connections see it, and whether it may go on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::histogram::Histogram;
use crate::engine::{pages, schedule::Progress, texts::Ran};

/// Upper ends of the buckets of texts in a step.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// What the engine told of itself after its last step.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its texts.
    pub texts: Vec<Progress>,
    /// Pages of its cache.
    pub pages: pages::Usage,
    /// How often a text has lost its pages to others.
    pub preemptions: u64,
    /// How many devices were lost.
    pub losses: u64,
}

/// What a step had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Decode,
    Prompt,
    Mixed,
}

impl Phase {
    pub(super) const ALL: [Self; 3] = [Self::Decode, Self::Prompt, Self::Mixed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Prompt => "prompt",
            Self::Mixed => "mixed",
        }
    }
}

/// How much the engine has to do, and whether it may go on.
#[derive(Debug)]
pub struct Load {
    waiting: AtomicUsize,
    running: AtomicUsize,
    queue: usize,
    /// No text is begun any more.
    stopping: AtomicBool,
    /// Running texts end as well.
    ended: AtomicBool,
    /// The device was lost, and is being replaced.
    lost: AtomicBool,
    begun: Instant,
    /// When the step that runs began, in milliseconds after `begun`; 0 if none runs.
    step: AtomicU64,
    steps: AtomicU64,
    /// Texts that steps generated a token of.
    pub(super) rows: Histogram,
    /// Times of steps, by [`Phase`].
    pub(super) times: [Histogram; 3],
    snapshot: Mutex<Snapshot>,
}

impl Load {
    pub(super) fn new(queue: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            queue,
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            begun: Instant::now(),
            step: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            rows: Histogram::new(ROWS),
            times: Default::default(),
            snapshot: Mutex::default(),
        }
    }

    /// Texts in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Texts that are being made.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Texts that may wait at once.
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Steps of the engine so far.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// How long the step that runs has been running.
    pub fn step_time(&self) -> Option<Duration> {
        let step = self.step.load(Ordering::SeqCst);
        let since = self.begun.checked_add(Duration::from_millis(step))?;
        (step > 0).then(|| since.elapsed())
    }

    /// Called by the engine before each step.
    pub fn step_begins(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.step.store(now, Ordering::SeqCst);
    }

    /// Called by the engine after each step, with what went through the model and how long it took.
    pub fn step_ends(&self, ran: Ran, time: Duration) {
        self.step.store(0, Ordering::SeqCst);
        let phase = match ran {
            Ran { rows: 0, prompt: 0 } => return,
            Ran { rows: 0, .. } => Phase::Prompt,
            Ran { prompt: 0, .. } => Phase::Decode,
            Ran { .. } => Phase::Mixed,
        };
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.times[phase as usize].time(time);
        if ran.rows > 0 {
            self.rows.record(ran.rows as f64);
        }
    }

    /// Whether the device was lost and is being replaced.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Notes whether the device is lost.
    pub fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::SeqCst);
    }

    /// What the engine told of itself last.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the engine tells of itself.
    pub fn tell(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// No text is begun any more.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Running texts end.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Places in the queue, if there are so many.
    pub(super) fn enter(load: &Arc<Self>, count: usize) -> Option<Vec<Place>> {
        let room = |waiting: usize| waiting.checked_add(count).filter(|all| *all <= load.queue);
        load.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).ok()?;
        let place = |_| Place { load: Arc::clone(load), running: false };
        Some((0..count).map(place).collect())
    }
}

/// Counts a text where it is: in the queue, then among those that run.
#[derive(Debug)]
pub(super) struct Place {
    load: Arc<Load>,
    running: bool,
}

impl Place {
    /// The text leaves the queue. Returns whether it was there.
    pub(super) fn start(&mut self) -> bool {
        if self.running {
            return false;
        }
        self.load.running.fetch_add(1, Ordering::SeqCst);
        self.load.waiting.fetch_sub(1, Ordering::SeqCst);
        self.running = true;
        true
    }

    /// Whether the text ends since the server does.
    pub(super) fn must_end(&self) -> bool {
        let Self { load, running } = self;
        load.ended.load(Ordering::SeqCst) || !running && load.is_stopping()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let count = if self.running { &self.load.running } else { &self.load.waiting };
        count.fetch_sub(1, Ordering::SeqCst);
    }
}
