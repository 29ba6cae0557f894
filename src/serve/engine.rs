//! The interface between the server and its engine: texts to make, and what becomes of them.
//!
//! Whoever has the [`Submit`] asks for texts; whoever has the [`Jobs`] makes them, one after
//! another or many at once. A [`Job`] carries the channel to the one who asked.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc as bounded;

use crate::{
    engine::options::{FinishReason, Logprobs, Options},
    text::sampler::Sampling,
};

/// Events of a text that may wait to be sent to its client.
pub const EVENTS: usize = 256;

/// How often a full channel is tried again.
const PAUSE: Duration = Duration::from_millis(2);

/// What becomes of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It is no longer in the queue.
    Started,
    /// New text.
    Text {
        /// The token that completed it; none for text that was held back until the end.
        id: Option<u32>,
        /// The text: may be empty, inside a character or what may become a stop text.
        text: String,
        /// Present if they were requested.
        logprobs: Option<Logprobs>,
    },
    /// It is complete.
    End {
        /// Why.
        finish: FinishReason,
        /// How long its parts are.
        usage: Usage,
    },
    /// It cannot be completed.
    Failed(Failure),
}

/// Tokens of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: usize,
    /// Of the prompt, those that were in the cache.
    pub cached: usize,
    /// Generated.
    pub completion: usize,
}

/// Why a text cannot be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server ends.
    Stopping,
    /// The device was lost, and could not be replaced.
    DeviceLost(String),
    /// The model computed something that is no number.
    NonFinite(String),
    /// Something else went wrong, which has this code.
    Other(&'static str, String),
    /// Nobody waits for it any more.
    Cancelled(Why),
}

/// Why nobody waits for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client closed its connection.
    Left = 1,
    /// The client did not read what was sent.
    Slow = 2,
    /// It took too long.
    Late = 3,
}

impl Why {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Left, Self::Slow, Self::Late];

    /// Its name, for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "client_left",
            Self::Slow => "slow_reader",
            Self::Late => "timeout",
        }
    }
}

/// Whether a request's texts are still wanted. Shared by all of them.
#[derive(Debug, Default)]
pub struct Cancel(AtomicU8);

impl Cancel {
    /// They are not wanted any more; the first reason counts.
    pub fn set(&self, why: Why) {
        let _ = self.0.compare_exchange(0, why as u8, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Why they are not wanted, if they are not.
    pub fn why(&self) -> Option<Why> {
        let set = self.0.load(Ordering::SeqCst);
        Why::ALL.into_iter().find(|why| *why as u8 == set)
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
    begun: Instant,
    /// When the step that runs began, in milliseconds after `begun`; 0 if none runs.
    step: AtomicU64,
    steps: AtomicU64,
}

impl Load {
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

    /// Called by the engine around each step.
    pub fn stepping(&self, begins: bool) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.step.store(if begins { now } else { 0 }, Ordering::SeqCst);
        self.steps.fetch_add(u64::from(!begins), Ordering::Relaxed);
    }
}

/// Counts a text where it is: in the queue, then among those that run.
#[derive(Debug)]
struct Place {
    load: Arc<Load>,
    running: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let count = if self.running { &self.load.running } else { &self.load.waiting };
        count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a text is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Which of the seed's streams of random numbers it has.
    pub stream: u64,
    /// When it ends, and what is reported.
    pub options: Options,
    /// Whether what is in the cache may be used.
    pub reuse: bool,
}

/// A text to make.
#[derive(Debug)]
pub struct Job {
    /// What it is to be.
    pub wanted: Wanted,
    cancel: Arc<Cancel>,
    events: bounded::Sender<Event>,
    place: Place,
    /// How long the engine may still wait for the client to read.
    patience: Duration,
}

impl Job {
    /// It has left the queue.
    fn start(&mut self) {
        self.place.load.running.fetch_add(1, Ordering::SeqCst);
        self.place.load.waiting.fetch_sub(1, Ordering::SeqCst);
        self.place.running = true;
        self.emit(Event::Started);
    }

    /// Why it must end now, if it must. To be asked before each step.
    pub fn must_end(&self) -> Option<Failure> {
        if self.place.load.ended.load(Ordering::SeqCst) {
            return Some(Failure::Stopping);
        }
        if self.events.is_closed() {
            self.cancel.set(Why::Left);
        }
        self.cancel.why().map(Failure::Cancelled)
    }

    /// Sends an event. Waits while the client does not read, for [`Job`]'s patience in all; then
    /// the text is cancelled.
    pub fn emit(&mut self, event: Event) {
        let mut event = event;
        while self.must_end().is_none() || matches!(event, Event::Failed(_)) {
            match self.events.try_send(event) {
                Ok(()) => return,
                Err(bounded::error::TrySendError::Closed(_)) => return self.cancel.set(Why::Left),
                Err(bounded::error::TrySendError::Full(back)) => event = back,
            }
            if matches!(event, Event::Failed(_)) {
                // The channel closes without an end, which says as much.
                return;
            }
            match self.patience.checked_sub(PAUSE) {
                Some(left) => self.patience = left,
                None => return self.cancel.set(Why::Slow),
            }
            thread::sleep(PAUSE);
        }
    }
}

/// What goes to the engine.
#[derive(Debug)]
enum Command {
    Submit(Vec<Job>),
    Shutdown,
}

/// The server's end.
#[derive(Clone, Debug)]
pub struct Submit {
    commands: mpsc::Sender<Command>,
    load: Arc<Load>,
    patience: Duration,
}

/// The engine's end.
#[derive(Debug)]
pub struct Jobs {
    commands: mpsc::Receiver<Command>,
    waiting: VecDeque<Job>,
    load: Arc<Load>,
    /// Whether the loop ends.
    over: bool,
}

/// Both ends, for at most `queue` texts that wait. The engine waits for a text's client to read for
/// at most `patience` in all.
pub fn channel(queue: usize, patience: Duration) -> (Submit, Jobs) {
    let (sender, receiver) = mpsc::channel();
    let load = Arc::new(Load {
        waiting: AtomicUsize::new(0),
        running: AtomicUsize::new(0),
        queue,
        stopping: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        begun: Instant::now(),
        step: AtomicU64::new(0),
        steps: AtomicU64::new(0),
    });
    let submit = Submit { commands: sender, load: Arc::clone(&load), patience };
    (submit, Jobs { commands: receiver, waiting: VecDeque::new(), load, over: false })
}

/// Why a text was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full.
    Full,
    /// The server ends.
    Stopping,
}

impl Submit {
    /// Asks for some texts, all or none of them. Returns a channel for each.
    ///
    /// # Errors
    ///
    /// [`Refused`] if there is no room for all of them, or the engine takes none any more.
    pub fn submit(
        &self,
        wanted: Vec<Wanted>,
        cancel: &Arc<Cancel>,
    ) -> Result<Vec<bounded::Receiver<Event>>, Refused> {
        let load = &self.load;
        if load.stopping.load(Ordering::SeqCst) {
            return Err(Refused::Stopping);
        }
        let count = wanted.len();
        let room = |waiting: usize| waiting.checked_add(count).filter(|all| *all <= load.queue);
        load.waiting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
            .map_err(|_| Refused::Full)?;
        let (jobs, receivers): (Vec<Job>, Vec<_>) = wanted
            .into_iter()
            .map(|wanted| {
                let (events, receiver) = bounded::channel(EVENTS);
                let place = Place { load: Arc::clone(load), running: false };
                let (cancel, patience) = (Arc::clone(cancel), self.patience);
                (Job { wanted, cancel, events, place, patience }, receiver)
            })
            .unzip();
        self.commands.send(Command::Submit(jobs)).map_err(|_| Refused::Stopping)?;
        Ok(receivers)
    }

    /// How much there is to do.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// From now on no text is begun; those in the queue fail.
    pub fn stop(&self) {
        self.load.stopping.store(true, Ordering::SeqCst);
    }

    /// Texts that run end with an error.
    pub fn end(&self) {
        self.load.ended.store(true, Ordering::SeqCst);
    }

    /// The engine's loop ends.
    pub fn shutdown(&self) {
        self.stop();
        self.end();
        // If the engine is gone, it has ended.
        let _ = self.commands.send(Command::Shutdown);
    }
}

impl Jobs {
    /// The next text, in the order in which they came. Waits for one; `None` at the end.
    pub fn take(&mut self) -> Option<Job> {
        loop {
            self.look();
            if let Some(mut job) = self.waiting.pop_front() {
                job.start();
                return Some(job);
            }
            if self.over {
                return None;
            }
            match self.commands.recv() {
                Ok(Command::Submit(jobs)) => self.waiting.extend(jobs),
                Ok(Command::Shutdown) | Err(_) => self.over = true,
            }
        }
    }

    /// Takes in what came meanwhile, and drops what nobody waits for. To be called before each
    /// step, so that the queue has room again at once.
    pub fn look(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Submit(jobs) => self.waiting.extend(jobs),
                Command::Shutdown => self.over = true,
            }
        }
        let stopping = self.load.stopping.load(Ordering::SeqCst);
        self.waiting.retain_mut(|job| {
            let failed = if stopping { Some(Failure::Stopping) } else { job.must_end() };
            let kept = failed.is_none();
            if let Some(failure) = failed {
                job.emit(Event::Failed(failure));
            }
            kept
        });
    }

    /// Fails all texts in the queue.
    pub fn fail_all(&mut self, failure: &Failure) {
        self.look();
        for mut job in self.waiting.drain(..) {
            job.emit(Event::Failed(failure.clone()));
        }
    }

    /// How much there is to do.
    pub fn load(&self) -> &Load {
        &self.load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            prompt: vec![1],
            sampling: Sampling::GREEDY,
            stream: 0,
            options: Options::default(),
            reuse: true,
        }
    }

    fn ends(queue: usize) -> (Submit, Jobs, Arc<Cancel>) {
        let (submit, jobs) = channel(queue, Duration::from_millis(20));
        (submit, jobs, Arc::default())
    }

    #[test]
    fn the_queue_takes_all_or_none() {
        let (submit, mut jobs, cancel) = ends(3);
        let _two = submit.submit(vec![wanted(); 2], &cancel).expect("there is room");
        assert_eq!(submit.submit(vec![wanted(); 2], &cancel).err(), Some(Refused::Full));
        let _one = submit.submit(vec![wanted()], &cancel).expect("there is room");
        let load = submit.load();
        assert_eq!((load.waiting(), load.running()), (3, 0));
        let job = jobs.take().expect("a job");
        assert_eq!((load.waiting(), load.running()), (2, 1));
        drop(job);
        assert_eq!((load.waiting(), load.running()), (2, 0));
        drop(jobs);
        assert_eq!(load.waiting(), 0, "nobody is left behind");
        assert_eq!(submit.submit(vec![wanted()], &cancel).err(), Some(Refused::Stopping));
        assert_eq!(load.waiting(), 0);
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let (submit, mut jobs, cancel) = ends(8);
        let mut kept = submit.submit(vec![wanted()], &Arc::default()).expect("room");
        let gone = submit.submit(vec![wanted()], &Arc::default()).expect("room");
        let mut late = submit.submit(vec![wanted()], &cancel).expect("room");
        drop(gone);
        cancel.set(Why::Late);
        cancel.set(Why::Left);
        jobs.look();
        assert_eq!(submit.load().waiting(), 1);
        let failed = Event::Failed(Failure::Cancelled(Why::Late));
        assert_eq!(late[0].try_recv().ok(), Some(failed), "the first reason counts");
        let job = jobs.take().expect("a job");
        assert_eq!(kept[0].try_recv().ok(), Some(Event::Started));
        assert_eq!(job.must_end(), None);
        drop(kept);
        assert_eq!(job.must_end(), Some(Failure::Cancelled(Why::Left)));
    }

    #[test]
    fn a_client_that_does_not_read_loses_its_text() {
        let (submit, mut jobs, cancel) = ends(8);
        let events = submit.submit(vec![wanted()], &cancel).expect("room");
        let mut job = jobs.take().expect("a job");
        for _ in 0..EVENTS * 2 {
            job.emit(Event::Text { id: None, text: String::new(), logprobs: None });
        }
        assert_eq!(job.must_end(), Some(Failure::Cancelled(Why::Slow)));
        drop(events);
    }

    #[test]
    fn the_end_reaches_all() {
        let (submit, mut jobs, cancel) = ends(8);
        let mut events = submit.submit(vec![wanted(); 2], &cancel).expect("room");
        let job = jobs.take().expect("a job");
        submit.stop();
        assert_eq!(submit.submit(vec![wanted()], &cancel).err(), Some(Refused::Stopping));
        jobs.look();
        let stopping = Event::Failed(Failure::Stopping);
        assert_eq!(events[1].try_recv().ok(), Some(stopping));
        assert_eq!(job.must_end(), None, "what runs has its time");
        submit.shutdown();
        assert_eq!(job.must_end(), Some(Failure::Stopping));
        jobs.look();
        assert!(jobs.take().is_none());
    }
}
