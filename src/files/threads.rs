//! Work on several threads. In browsers there is only the caller's.

use std::sync::mpsc;

/// What threads may share. In browsers, which have none here, that is everything.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shareable: Send + Sync {}

#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> Shareable for T {}

/// What threads may share. In browsers, which have none here, that is everything.
#[cfg(target_arch = "wasm32")]
pub trait Shareable {}

#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> Shareable for T {}

/// Runs `work` on each item, on as many threads as there are cores. Results keep the items' order.
///
/// # Panics
///
/// As `work` does.
#[cfg(not(target_arch = "wasm32"))]
pub fn map_on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let mut made: Vec<(&T, Option<R>)> = items.iter().map(|item| (item, None)).collect();
    each_on_all_cores(&mut made, |(item, result)| *result = Some(work(item)));
    made.into_iter().map(|(_, result)| result.expect("every item was worked on")).collect()
}

/// Calls `work` on each item, on as many threads as there are cores. A panic of `work` is the
/// caller's.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn each_on_all_cores<T: Send>(items: &mut [T], work: impl Fn(&mut T) + Sync) {
    use std::{
        panic::resume_unwind,
        sync::{Mutex, PoisonError},
        thread,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let queue = Mutex::new(items.iter_mut());
    let run = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { break };
            work(item);
        }
    };
    thread::scope(|scope| {
        // If the system refuses a thread, the others do its work.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, run).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        run();
        for other in others {
            other.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}

/// Runs `work` on each item, in order, on the caller's thread.
#[cfg(target_arch = "wasm32")]
pub fn map_on_all_cores<T, R>(items: &[T], work: impl Fn(&T) -> R) -> Vec<R> {
    items.iter().map(work).collect()
}

/// Threads that are waited for when this is dropped: a driver, for one, must not be unloaded while
/// a thread is in it. What ends their work is dropped before, as a field that is declared before.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
struct Joined(Vec<std::thread::JoinHandle<()>>);

#[cfg(not(target_arch = "wasm32"))]
impl Joined {
    /// Starts as many of these threads as the system gives.
    fn start(count: usize, run: impl Fn() + Clone + Send + 'static) -> Self {
        let spawn = |_| std::thread::Builder::new().spawn(run.clone()).ok();
        Self((0..count).filter_map(spawn).collect())
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Joined {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // A panic has already been printed.
            let _ = thread.join();
        }
    }
}

/// Work on other threads while the caller continues. Dropping it stops the threads after their
/// current item.
#[derive(Debug)]
pub(crate) struct Background<R> {
    /// Finished results; `None` in browsers, which have no threads.
    done: Option<mpsc::Receiver<R>>,
    #[cfg(not(target_arch = "wasm32"))]
    _threads: Joined,
}

impl<R: Send + 'static> Background<R> {
    /// Runs `work` on each item, on all cores but one. Results come roughly in the items' order.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn map<T: Send + 'static>(
        items: Vec<T>,
        work: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> Self {
        use std::{
            sync::{Arc, Mutex, PoisonError},
            thread,
        };
        let threads = thread::available_parallelism().map_or(1, |cores| cores.get().max(2) - 1);
        let threads = threads.min(items.len());
        let shared = Arc::new((Mutex::new(items.into_iter()), work));
        let (sender, receiver) = mpsc::channel();
        // If a thread panics or none can be started, items get no result: the caller does them.
        let run = move || {
            let (items, work) = &*shared;
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some(item) = next() {
                if sender.send(work(item)).is_err() {
                    break;
                }
            }
        };
        Self { done: Some(receiver), _threads: Joined::start(threads, run) }
    }

    /// Does nothing: browsers have no threads.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn map<T>(_items: Vec<T>, _work: impl Fn(T) -> R) -> Self {
        Self { done: None }
    }

    /// The next result. Without `wait`, only one that is ready. `None` if there is none, or none
    /// will come.
    pub(crate) fn next(&self, wait: bool) -> Option<R> {
        let done = self.done.as_ref()?;
        if wait { done.recv().ok() } else { done.try_recv().ok() }
    }
}

/// A job, and where its result goes.
#[cfg(not(target_arch = "wasm32"))]
type Job<J, R> = (J, mpsc::Sender<R>);

/// Threads that wait for jobs. Dropping it lets them finish what they do.
pub(crate) struct Workers<J, R> {
    #[cfg(not(target_arch = "wasm32"))]
    jobs: Option<mpsc::Sender<Job<J, R>>>,
    #[cfg(not(target_arch = "wasm32"))]
    _threads: Joined,
    #[cfg(target_arch = "wasm32")]
    none: std::marker::PhantomData<(J, R)>,
}

#[cfg(not(target_arch = "wasm32"))]
impl<J: Send + 'static, R: Send + 'static> Workers<J, R> {
    /// Starts up to so many threads.
    pub(crate) fn start(threads: usize, work: impl Fn(J) -> R + Send + Sync + 'static) -> Self {
        use std::sync::{Arc, Mutex, PoisonError};
        let (jobs, queue) = mpsc::channel::<Job<J, R>>();
        let shared = Arc::new((Mutex::new(queue), work));
        let run = move || {
            let (queue, work) = &*shared;
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok((job, result)) = next() {
                // Nobody may want it any more.
                let _ = result.send(work(job));
            }
        };
        let threads = Joined::start(threads, run);
        Self { jobs: (!threads.0.is_empty()).then_some(jobs), _threads: threads }
    }

    /// Has a thread do a job. `None` if there is no thread.
    pub(crate) fn give(&self, job: J) -> Option<mpsc::Receiver<R>> {
        let (result, receiver) = mpsc::channel();
        self.jobs.as_ref()?.send((job, result)).ok()?;
        Some(receiver)
    }
}

#[cfg(target_arch = "wasm32")]
impl<J, R> Workers<J, R> {
    /// Starts nothing: browsers have no threads.
    pub(crate) fn start(_threads: usize, _work: impl Fn(J) -> R) -> Self {
        Self { none: std::marker::PhantomData }
    }

    /// Does nothing.
    #[expect(clippy::unused_self, reason = "as where there are threads")]
    pub(crate) fn give(&self, _job: J) -> Option<mpsc::Receiver<R>> {
        None
    }
}
