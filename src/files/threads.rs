//! Work on other threads; in browsers there are none.

use std::sync::mpsc;

/// What `work` makes of each item, in order, on as many threads as there are cores.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn map_on_all_cores<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    use std::{
        panic::resume_unwind,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = thread::scope(|scope| {
        // A thread that the system refuses leaves its work to the others.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, run).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut done = run();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|&(at, _)| at);
    done.into_iter().map(|(_, made)| made).collect()
}

/// What `work` makes of each item, in order: a page has one thread, and its device others.
#[cfg(target_arch = "wasm32")]
pub(crate) fn map_on_all_cores<T, R>(items: &[T], work: impl Fn(&T) -> R) -> Vec<R> {
    items.iter().map(work).collect()
}

/// Work that other threads do while the caller goes on. Dropping it ends that after what they are at.
#[derive(Debug)]
pub(crate) struct Background<R> {
    /// What is done; nothing in browsers, which have no threads.
    done: Option<mpsc::Receiver<R>>,
    #[cfg(not(target_arch = "wasm32"))]
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl<R: Send + 'static> Background<R> {
    /// What `work` makes of each item, about in order, on all cores but one.
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
        // What a thread leaves undone, or the system refuses a thread for, is the caller's again.
        let spawn = |_| {
            let (shared, sender) = (shared.clone(), sender.clone());
            let run = move || {
                let (items, work) = &*shared;
                let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(item) = next() {
                    if sender.send(work(item)).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new().spawn(run).ok()
        };
        let threads = (0..threads).filter_map(spawn).collect();
        Self { done: Some(receiver), threads }
    }

    /// Nothing.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn map<T>(_items: Vec<T>, _work: impl Fn(T) -> R) -> Self {
        Self { done: None }
    }

    /// The next result: one that is there, or one to wait for. Nothing if none will come.
    pub(crate) fn next(&self, wait: bool) -> Option<R> {
        let done = self.done.as_ref()?;
        if wait { done.recv().ok() } else { done.try_recv().ok() }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<R> Drop for Background<R> {
    /// Waits for what is being done: drivers must not be unloaded under a thread.
    fn drop(&mut self) {
        self.done = None;
        for thread in self.threads.drain(..) {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}
