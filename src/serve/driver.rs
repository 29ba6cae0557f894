//! The engine's loop: makes all texts at once, as far as there is room.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    engine::{Event, Failure, Job, Jobs, Usage},
    load::{Load, Snapshot},
};
use crate::{
    base::error::{Error, Result},
    engine::{
        options,
        pages::Namespace,
        resume::{Change, Rebuild},
        schedule::Id,
        texts::{Claim, News, NotTaken, Ran, Texts},
    },
    machine::Machine,
    text::sampler::Sampler,
};

/// How long the engine waits if all texts wait for their clients.
const PAUSE: Duration = Duration::from_millis(2);

/// Makes texts until the server ends. `share` says whether those of all keys share pages of their
/// prompts.
///
/// No bit of a text depends on the others: those of one prompt share pages that were computed as a
/// prompt, so that they are those that a text has with an empty cache.
///
/// # Errors
///
/// [`Error::Lost`] if the device was lost and could not be replaced: all texts have failed then.
/// Other errors of a step fail all texts that there are, and those of a text that text alone.
pub async fn run<R: Rebuild>(
    texts: Texts<'_, R::Machine>,
    rebuild: &mut R,
    jobs: &mut Jobs,
    share: bool,
) -> Result<()> {
    let mut driver = Driver { texts, jobs: BTreeMap::new(), ended: Vec::new(), share };
    let begun = Instant::now();
    let mut clock = || u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    loop {
        if driver.is_idle() {
            jobs.wait(None);
        }
        while let Some(request) = jobs.take() {
            driver.submit(request);
        }
        driver.tend();
        if jobs.is_over() {
            driver.fail_all(&Failure::Stopping);
            return Ok(());
        }
        let ran = driver.step(rebuild, jobs.load(), &mut clock).await;
        driver.tell(jobs.load());
        match ran {
            // All wait for their clients, or there was nothing but texts to end.
            Ok(ran) if ran.is_empty() && !driver.is_idle() => jobs.wait(Some(PAUSE)),
            Ok(_) => {}
            Err(error) => {
                let failure = failure(&error);
                driver.fail_all(&failure);
                driver.tell(jobs.load());
                if matches!(failure, Failure::DeviceLost(_)) {
                    while let Some(request) = jobs.take() {
                        for job in request {
                            fail(job, failure.clone());
                        }
                    }
                    return Err(error);
                }
            }
        }
    }
}

struct Driver<'t, M: Machine> {
    texts: Texts<'t, M>,
    jobs: BTreeMap<Id, Job>,
    /// Texts that are complete, whose clients have not read all of them.
    ended: Vec<Job>,
    share: bool,
}

impl<M: Machine> Driver<'_, M> {
    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.ended.is_empty()
    }

    /// Puts the texts of a request into the scheduler's queue.
    fn submit(&mut self, mut request: Vec<Job>) {
        while !request.is_empty() {
            // Texts of one prompt have it run once.
            let prompt = &request[0].wanted.prompt;
            let same = request.iter().take_while(|job| job.wanted.prompt == *prompt).count();
            let rest = request.split_off(same);
            self.submit_some(std::mem::replace(&mut request, rest));
        }
    }

    /// The same for texts of one prompt.
    fn submit_some(&mut self, jobs: Vec<Job>) {
        let wanted = &jobs[0].wanted;
        let key = if self.share { 0 } else { wanted.key };
        let namespace = wanted.reuse.then_some(Namespace::Key(key));
        let claim = Claim { key: wanted.key, namespace, deadline: None };
        let sampler = |job: &Job| Sampler::of_stream(job.wanted.sampling, job.wanted.stream);
        let samplers = jobs.iter().map(sampler).collect::<Result<Vec<_>>>();
        let ids = samplers.map_err(NotTaken::from).and_then(|samplers| {
            self.texts.submit(&wanted.prompt, samplers, &wanted.options, claim)
        });
        match ids {
            Ok(ids) => self.jobs.extend(ids.into_iter().zip(jobs)),
            Err(not) => {
                let failure = match not {
                    NotTaken::Wrong(error) => failure(&error),
                    NotTaken::Refused(refusal) => Failure::Other("usage", refusal.to_string()),
                };
                for job in jobs {
                    fail(job, failure.clone());
                }
            }
        }
    }

    /// Ends what nobody waits for, and has texts wait whose clients do not read.
    fn tend(&mut self) {
        self.ended.retain_mut(|job| !job.flush() && job.must_end().is_none());
        let mut over = Vec::new();
        for (&id, job) in &mut self.jobs {
            let read = job.flush();
            match job.must_end() {
                Some(failure) => over.push((id, failure)),
                None => self.texts.pause(id, !read),
            }
        }
        for (id, failure) in over {
            self.texts.cancel(id);
            if let Some(job) = self.jobs.remove(&id) {
                fail(job, failure);
            }
        }
    }

    /// Runs a step, and sends what came of it.
    async fn step<R: Rebuild<Machine = M>>(
        &mut self,
        rebuild: &mut R,
        load: &Load,
        clock: &mut dyn FnMut() -> u64,
    ) -> Result<Ran> {
        let jobs = &mut self.jobs;
        let mut on_event = |id: Id, news: News<'_>| {
            if let Some(job) = jobs.get_mut(&id) {
                tell(job, news);
            }
            ControlFlow::Continue(())
        };
        let begun = Instant::now();
        load.step_begins();
        let ran = self.texts.step_on(&mut Noted { rebuild, load }, clock, &mut on_event).await;
        load.step_ends(*ran.as_ref().unwrap_or(&Ran::default()), begun.elapsed());
        for (id, made) in self.texts.ended() {
            let Some(mut job) = self.jobs.remove(&id) else { continue };
            match made {
                Ok(made) => {
                    let (prompt, completion) = (job.wanted.prompt.len(), made.tokens.len());
                    let usage = Usage { prompt, cached: made.reused, completion };
                    job.send(Event::End { finish: made.finish, usage });
                }
                Err(error) => job.send(Event::Failed(failure(&error))),
            }
            if !job.flush() {
                self.ended.push(job);
            }
        }
        ran
    }

    /// Fails all texts.
    fn fail_all(&mut self, failure: &Failure) {
        for (id, job) in std::mem::take(&mut self.jobs) {
            self.texts.cancel(id);
            fail(job, failure.clone());
        }
    }

    /// Tells how much there is to do.
    fn tell(&self, load: &Load) {
        let scheduler = self.texts.scheduler();
        load.tell(Snapshot {
            texts: scheduler.progress().collect(),
            pages: scheduler.usage(),
            preemptions: self.texts.preemptions(),
            losses: self.texts.losses(),
        });
    }
}

/// Sends news of a text to its client.
fn tell(job: &mut Job, news: News<'_>) {
    match news {
        News::Begun => job.start(),
        News::Event(options::Event::Prompt { .. }) => {}
        News::Event(options::Event::Scored(scores)) => job.send(Event::Scored(scores.to_vec())),
        News::Event(options::Event::Token(token)) => job.send(Event::Text {
            id: Some(token.id),
            text: token.text.clone(),
            logprobs: token.logprobs.clone(),
        }),
        News::Event(options::Event::Rest(text)) => {
            job.send(Event::Text { id: None, text: text.to_owned(), logprobs: None });
        }
    }
}

/// Ends a text that cannot be completed. If its client does not read, the channel closes without an
/// end, which says as much.
fn fail(mut job: Job, failure: Failure) {
    job.send(Event::Failed(failure));
}

/// What a client learns of an error.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Hinted { error, .. } => failure(error),
        Error::Lost(why) => Failure::DeviceLost(why.clone()),
        Error::NonFinite { .. } => Failure::NonFinite(error.to_string()),
        Error::Interrupted => Failure::Stopping,
        other => Failure::Other(other.code(), other.to_string()),
    }
}

/// Notes while a device is being replaced.
struct Noted<'a, R> {
    rebuild: &'a mut R,
    load: &'a Load,
}

impl<R: Rebuild> Rebuild for Noted<'_, R> {
    type Machine = R::Machine;

    async fn build(&mut self) -> Result<crate::engine::Engine<R::Machine>> {
        self.rebuild.build().await
    }

    fn on_change(&mut self, change: Change<'_>) {
        self.load.set_lost(matches!(change, Change::Lost(_)));
        self.rebuild.on_change(change);
    }
}
