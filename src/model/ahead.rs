//! Reads rows of weights on other threads before they are asked for.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError, mpsc::Receiver},
};

use super::weights::{Read, Stored, Weights};
use crate::{
    base::{error::Result, tensor::DType},
    files::threads::Workers,
};

/// Threads that read, unless rows are to be read in order. One of them seldom gets what a disk can
/// give, and rows are also checked and converted there.
const THREADS: usize = 4;

/// Reads under way or done, and not asked for yet. With the windows of uploads they bound the
/// memory that this takes.
pub const MOST_READ: usize = 6;

/// What a thread has read.
type Rows = Result<Vec<u8>>;

/// [`Weights`] that are read before they are asked for, where somebody says beforehand in which
/// order that will be. In browsers, which have no threads, they are read when they are asked for.
pub struct Ahead {
    weights: Stored,
    workers: Workers<(Read, Vec<u8>), Rows>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// What is being read, in the order in which it is expected to be asked for.
    reading: VecDeque<(Read, Receiver<Rows>)>,
    /// What will be read after that.
    waiting: VecDeque<Read>,
    /// Memory to reuse.
    spare: Vec<Vec<u8>>,
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").finish_non_exhaustive()
    }
}

impl Ahead {
    /// Nothing is read until somebody says what will be asked for.
    pub fn new(weights: Stored) -> Self {
        let reads = weights.clone();
        let work = move |(read, mut into): (Read, Vec<u8>)| {
            let Read { name, row0, rows } = &read;
            pollster::block_on(reads.read_rows(name, *row0, *rows, &mut into))?;
            Ok(into)
        };
        let threads = if weights.in_order() { 1 } else { THREADS };
        Self { weights, workers: Workers::start(threads, work), queue: Mutex::default() }
    }

    /// The weights.
    pub fn weights(&self) -> &Stored {
        &self.weights
    }

    /// These rows will be asked for, in this order, after what was said before. Some may be left
    /// out, and others may be asked for in between.
    pub fn expect(&self, reads: impl IntoIterator<Item = Read>) {
        let mut queue = self.lock();
        queue.waiting.extend(reads);
        self.fill(&mut queue);
    }

    /// Nothing that was expected will be asked for.
    pub fn forget(&self) {
        let mut queue = self.lock();
        queue.reading.clear();
        queue.waiting.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has threads read as much as may be.
    fn fill(&self, queue: &mut Queue) {
        while queue.reading.len() < MOST_READ
            && let Some(read) = queue.waiting.pop_front()
        {
            let memory = queue.spare.pop().unwrap_or_default();
            let Some(rows) = self.workers.give((read.clone(), memory)) else {
                queue.waiting.clear();
                return;
            };
            queue.reading.push_back((read, rows));
        }
    }

    /// What was read of these rows, or is being read. What was expected before them is left out.
    fn take(&self, name: &str, row0: u64, rows: u64) -> Option<Receiver<Rows>> {
        let mut queue = self.lock();
        let is = |read: &Read| read.row0 == row0 && read.rows == rows && *read.name == *name;
        let receiver = if let Some(at) = queue.reading.iter().position(|(read, _)| is(read)) {
            queue.reading.drain(..at);
            queue.reading.pop_front().map(|(_, rows)| rows)
        } else if let Some(at) = queue.waiting.iter().position(is) {
            // It is read at once, by the caller.
            queue.reading.clear();
            queue.waiting.drain(..=at);
            None
        } else {
            None
        };
        self.fill(&mut queue);
        receiver
    }
}

impl Weights for Ahead {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        // A thread that panicked sends nothing.
        if let Some(read) = self.take(name, row0, rows).and_then(|rows| rows.recv().ok()) {
            let spare = std::mem::replace(into, read?);
            self.lock().spare.push(spare);
            return Ok(());
        }
        self.weights.read_rows(name, row0, rows, into).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use pollster::block_on;

    use super::*;
    use crate::{base::error::Error, files::threads::Shareable};

    /// Rows that tell where they are from.
    #[derive(Clone, Default)]
    struct Numbers {
        reads: Arc<AtomicU64>,
        in_order: bool,
        /// The first rows that were read.
        asked: Arc<Mutex<Vec<u64>>>,
        /// Reads at this time, and the most there were.
        now: Arc<AtomicU64>,
        most: Arc<AtomicU64>,
    }

    fn row(name: &str, row: u64) -> Vec<u8> {
        format!("{name} {row};").into_bytes()
    }

    impl Weights for Numbers {
        fn dtype(&self, _: &str) -> Result<DType> {
            Ok(DType::F32)
        }

        async fn read_rows(
            &self,
            name: &str,
            row0: u64,
            rows: u64,
            into: &mut Vec<u8>,
        ) -> Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.asked.lock().expect("no panic").push(row0);
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            if name == "slow" {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            self.now.fetch_sub(1, Ordering::SeqCst);
            if name == "bad" {
                return Err(Error::Usage("bad rows".into()));
            }
            into.clear();
            into.extend((row0..row0 + rows).flat_map(|at| row(name, at)));
            Ok(())
        }

        fn in_order(&self) -> bool {
            self.in_order
        }
    }

    fn is_shareable(_: &impl Shareable) {}

    fn read(name: &str, row0: u64) -> Read {
        Read { name: name.into(), row0, rows: 2 }
    }

    #[test]
    fn what_is_asked_for_comes_whatever_was_expected() {
        let numbers = Numbers::default();
        let ahead = Ahead::new(Stored::new(&numbers));
        is_shareable(&ahead);
        let ask = |name: &str, row0: u64| {
            let mut into = vec![9; 3];
            let result = block_on(ahead.read_rows(name, row0, 2, &mut into));
            if result.is_ok() {
                assert_eq!(into, [row(name, row0), row(name, row0 + 1)].concat());
            }
            result
        };
        // In order; with some left out; with others between; far ahead; errors; again.
        let name = |at: u64| match at % 3 {
            0 => "a",
            1 => "b",
            _ => "bad",
        };
        let mut state = 1_u64;
        for round in 0..200 {
            ahead.expect((0..30).map(|at| read(name(at), at)));
            let mut at = 0;
            while at < 30 {
                assert_eq!(ask(name(at), at).is_err(), name(at) == "bad", "{round} {at}");
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match state >> 61 {
                    0 => at += 2,
                    1 => assert!(ask("other", 1000 + at).is_ok()),
                    2 => at += 9,
                    3 if round % 10 == 0 => ahead.forget(),
                    _ => {}
                }
                at += 1;
            }
        }
        let queue = ahead.lock();
        assert!(queue.reading.len() <= MOST_READ && queue.spare.len() <= 2 * MOST_READ + 2);
    }

    #[test]
    fn what_keeps_rows_for_the_next_read_is_read_in_order() {
        for in_order in [true, false] {
            let numbers = Numbers { in_order, ..Numbers::default() };
            let ahead = Ahead::new(Stored::new(&numbers));
            ahead.expect((0..40).map(|at| read("slow", at)));
            for at in 0..40 {
                let mut into = Vec::new();
                block_on(ahead.read_rows("slow", at, 2, &mut into)).expect("reads");
            }
            let most = numbers.most.load(Ordering::SeqCst);
            assert_eq!(most > 1, !in_order, "{most} reads at once");
            if in_order {
                let asked = numbers.asked.lock().expect("no panic");
                assert!(asked.iter().copied().eq(0..40), "{asked:?}");
            }
        }
    }

    #[test]
    fn no_more_is_read_than_there_is_memory_for() {
        let numbers = Numbers::default();
        let ahead = Ahead::new(Stored::new(&numbers));
        ahead.expect((0..1000).map(|at| read("a", at)));
        for at in 0..50 {
            let mut into = Vec::new();
            block_on(ahead.read_rows("a", at, 2, &mut into)).expect("reads");
            let reads = numbers.reads.load(Ordering::Relaxed);
            assert!(reads <= at + 1 + MOST_READ as u64, "{reads} reads for {at}");
        }
        assert!(numbers.reads.load(Ordering::Relaxed) >= 50);
    }
}
