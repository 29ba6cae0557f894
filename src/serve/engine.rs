//! The interface between the server and its engine: texts to make, and what becomes of them.
//!
//! Whoever has the [`Submit`] asks for texts; whoever has the [`Jobs`] makes them. A [`Job`]
//! carries the channel to the one who asked.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc as bounded;

use super::load::{Load, Place};
use crate::{
    engine::options::{FinishReason, Logprobs, Options},
    text::sampler::Sampling,
};

/// Events of a text that may wait to be sent to its client.
pub const EVENTS: usize = 64;

/// What becomes of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It is no longer in the queue.
    Started,
    /// The log-probabilities of the prompt's tokens but the first, if they were requested.
    Scored(Vec<Logprobs>),
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
    /// Whose it is: keys have equal shares of the work.
    pub key: u64,
}

/// A text to make.
#[derive(Debug)]
pub struct Job {
    /// What it is to be.
    pub wanted: Wanted,
    cancel: Arc<Cancel>,
    events: bounded::Sender<Event>,
    /// Events for which the channel has had no room.
    backlog: VecDeque<Event>,
    /// Since when there are some.
    behind: Option<Instant>,
    place: Place,
    /// How long its client may read nothing.
    patience: Duration,
}

impl Job {
    /// It has left the queue.
    pub fn start(&mut self) {
        if self.place.start() {
            self.send(Event::Started);
        }
    }

    /// Why it must end now, if it must. To be asked before each step.
    pub fn must_end(&self) -> Option<Failure> {
        if self.place.must_end() {
            return Some(Failure::Stopping);
        }
        if self.events.is_closed() {
            self.cancel.set(Why::Left);
        }
        if self.behind.is_some_and(|since| since.elapsed() > self.patience) {
            self.cancel.set(Why::Slow);
        }
        self.cancel.why().map(Failure::Cancelled)
    }

    /// Sends an event to the client, once it has read what was sent before.
    pub fn send(&mut self, event: Event) {
        self.backlog.push_back(event);
        self.flush();
    }

    /// Sends what could not be sent before, as far as the client has read. Returns whether nothing
    /// is left: otherwise the text is not to go on.
    pub fn flush(&mut self) -> bool {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => self.behind = None,
                Err(bounded::error::TrySendError::Closed(_)) => {
                    self.backlog.clear();
                    self.cancel.set(Why::Left);
                }
                Err(bounded::error::TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    self.behind.get_or_insert_with(Instant::now);
                    return false;
                }
            }
        }
        self.behind = None;
        true
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
    /// What came while it was waited for.
    came: Option<Command>,
    load: Arc<Load>,
    /// Whether the loop ends.
    over: bool,
}

/// Both ends, for at most `queue` texts that wait. A text whose client reads nothing for `patience`
/// is cancelled.
pub fn channel(queue: usize, patience: Duration) -> (Submit, Jobs) {
    let (sender, receiver) = mpsc::channel();
    let load = Arc::new(Load::new(queue));
    let submit = Submit { commands: sender, load: Arc::clone(&load), patience };
    (submit, Jobs { commands: receiver, came: None, load, over: false })
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
        if self.load.is_stopping() {
            return Err(Refused::Stopping);
        }
        let places = Load::enter(&self.load, wanted.len()).ok_or(Refused::Full)?;
        let (jobs, receivers): (Vec<Job>, Vec<_>) = wanted
            .into_iter()
            .zip(places)
            .map(|(wanted, place)| {
                let (events, receiver) = bounded::channel(EVENTS);
                let (cancel, patience) = (Arc::clone(cancel), self.patience);
                let (backlog, behind) = (VecDeque::new(), None);
                (Job { wanted, cancel, events, backlog, behind, place, patience }, receiver)
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
        self.load.stop();
    }

    /// Texts that run end with an error.
    pub fn end(&self) {
        self.load.end();
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
    /// The texts of the next request that has come, if one has.
    pub fn take(&mut self) -> Option<Vec<Job>> {
        match self.came.take().or_else(|| self.commands.try_recv().ok())? {
            Command::Submit(jobs) => Some(jobs),
            Command::Shutdown => {
                self.over = true;
                None
            }
        }
    }

    /// Waits until there is something to take, for `limit` at the most.
    pub fn wait(&mut self, limit: Option<Duration>) {
        if self.came.is_some() || self.over {
            return;
        }
        let came = match limit {
            Some(limit) => match self.commands.recv_timeout(limit) {
                Err(mpsc::RecvTimeoutError::Timeout) => return,
                came => came.ok(),
            },
            None => self.commands.recv().ok(),
        };
        // Without anybody who could ask, it is over as well.
        self.came = Some(came.unwrap_or(Command::Shutdown));
    }

    /// Whether the engine's loop ends.
    pub fn is_over(&self) -> bool {
        self.over
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
            key: 0,
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
        let mut request = jobs.take().expect("a request");
        assert_eq!(request.len(), 2);
        assert_eq!((load.waiting(), load.running()), (3, 0));
        request[0].start();
        request[0].start();
        assert_eq!((load.waiting(), load.running()), (2, 1));
        drop(request);
        assert_eq!((load.waiting(), load.running()), (1, 0));
        drop(jobs);
        assert_eq!(load.waiting(), 0, "nobody is left behind");
        assert_eq!(submit.submit(vec![wanted()], &cancel).err(), Some(Refused::Stopping));
        assert_eq!(load.waiting(), 0);
    }

    #[test]
    fn the_first_reason_counts() {
        let (submit, mut jobs, cancel) = ends(8);
        let mut events = submit.submit(vec![wanted()], &cancel).expect("room");
        let mut job = jobs.take().expect("a request").remove(0);
        job.start();
        assert_eq!(events[0].try_recv().ok(), Some(Event::Started));
        assert_eq!(job.must_end(), None);
        cancel.set(Why::Late);
        drop(events);
        assert_eq!(job.must_end(), Some(Failure::Cancelled(Why::Late)));
    }

    #[test]
    fn texts_wait_for_their_readers_and_not_for_ever() {
        let (submit, mut jobs, cancel) = ends(8);
        let mut events = submit.submit(vec![wanted()], &cancel).expect("room");
        let mut job = jobs.take().expect("a request").remove(0);
        let text = |i: usize| Event::Text { id: None, text: i.to_string(), logprobs: None };
        for i in 0..EVENTS + 2 {
            job.send(text(i));
            assert_eq!(job.flush(), i < EVENTS);
        }
        assert_eq!(job.must_end(), None);
        for i in 0..EVENTS + 2 {
            assert_eq!(events[0].try_recv().ok(), Some(text(i)), "in order");
            job.flush();
        }
        for i in 0..=EVENTS {
            job.send(text(i));
        }
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(job.must_end(), Some(Failure::Cancelled(Why::Slow)));
    }

    #[test]
    fn the_end_reaches_all() {
        let (submit, mut jobs, cancel) = ends(8);
        let _events = submit.submit(vec![wanted(); 2], &cancel).expect("room");
        let mut request = jobs.take().expect("a request");
        request[0].start();
        submit.stop();
        assert_eq!(submit.submit(vec![wanted()], &cancel).err(), Some(Refused::Stopping));
        assert_eq!(request[0].must_end(), None, "what runs has its time");
        assert_eq!(request[1].must_end(), Some(Failure::Stopping));
        submit.shutdown();
        assert_eq!(request[0].must_end(), Some(Failure::Stopping));
        jobs.wait(None);
        assert!(jobs.take().is_none() && jobs.is_over());
    }

    #[test]
    fn nobody_waits_for_those_who_are_gone() {
        let (submit, mut jobs, _) = ends(8);
        jobs.wait(Some(Duration::from_millis(1)));
        assert!(jobs.take().is_none() && !jobs.is_over());
        drop(submit);
        jobs.wait(None);
        assert!(jobs.take().is_none() && jobs.is_over());
    }
}
