//! How long work takes on a device, and how a pass is divided into submissions that are not too
//! long for the watchdogs of systems and browsers.

use std::ops::Range;

/// Seconds of the longest submission that is aimed at where nothing else is asked for. Windows
/// resets a device after two seconds; an estimate may be wrong by half.
pub(super) const BUDGET: f64 = 0.5;

/// What a device is expected to read or write in a second before anything was measured. Few are
/// slower.
const BYTES_PER_SECOND: f64 = 5e9;

/// The same for floating-point operations.
const OPERATIONS_PER_SECOND: f64 = 20e9;

/// How much slower than that a device is taken to be until it was measured: its first pass may be
/// a long one, and more submissions cost little.
const DOUBT: f64 = 16.0;

/// A time below which nothing is learnt but that: delays of the system would be taken for work.
const SHORT: f64 = 0.01;

/// Least share of a kind of work in a measurement from which its speed is learnt.
const SHARE: f64 = 0.1;

/// Seconds that work takes at the expected speed: of that which memory bounds, and of that which
/// arithmetic bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost([f64; 2]);

impl Cost {
    /// The cost of a dispatch that touches so many bytes and has so many operations.
    pub(super) fn of(bytes: u64, operations: u64) -> Self {
        let memory = bytes as f64 / BYTES_PER_SECOND;
        let arithmetic = operations as f64 / OPERATIONS_PER_SECOND;
        if memory >= arithmetic { Self([memory, 0.0]) } else { Self([0.0, arithmetic]) }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

/// The speed of a device as it was measured last. It has no clock: callers say what time it is, in
/// seconds.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Seconds of the longest submission; `None` does not divide.
    budget: Option<f64>,
    /// Measured seconds for each expected one, by kind of work.
    factors: [f64; 2],
    /// What was submitted and not waited for.
    pending: Cost,
    /// When the first of it was submitted.
    since: Option<f64>,
}

impl Pace {
    pub(super) fn new(budget: Option<f64>) -> Self {
        Self { budget, factors: [DOUBT; 2], pending: Cost::default(), since: None }
    }

    /// Changes the seconds of the longest submission; `None` does not divide.
    pub(super) fn limit(&mut self, budget: Option<f64>) {
        self.budget = budget;
    }

    /// Seconds that work is expected to take.
    fn seconds(&self, cost: Cost) -> f64 {
        cost.0.iter().zip(self.factors).map(|(cost, factor)| cost * factor).sum()
    }

    /// Divides dispatches in order into submissions within the budget. A dispatch that is longer
    /// than that is alone. There is one submission at the least, which may be empty.
    pub(super) fn divide(&self, costs: impl Iterator<Item = Cost>) -> Vec<Range<usize>> {
        let (mut ranges, mut begin, mut end, mut sum) = (Vec::new(), 0, 0, 0.0);
        for cost in costs {
            let seconds = self.seconds(cost);
            if end > begin && self.budget.is_some_and(|budget| sum + seconds > budget) {
                ranges.push(begin..end);
                (begin, sum) = (end, 0.0);
            }
            end += 1;
            sum += seconds;
        }
        ranges.push(begin..end);
        ranges
    }

    /// Notes that work was submitted.
    pub(super) fn submitted(&mut self, cost: Cost, now: f64) {
        self.since.get_or_insert(now);
        self.pending += cost;
    }

    /// Notes that all submitted work is done, and learns from the time that it took.
    pub(super) fn done(&mut self, now: f64) {
        let (pending, since) = (std::mem::take(&mut self.pending), self.since.take());
        let total: f64 = pending.0.iter().sum();
        let Some(since) = since.filter(|_| total > 0.0) else { return };
        let elapsed = now - since;
        for (factor, cost) in self.factors.iter_mut().zip(pending.0) {
            if cost < SHARE * total {
                continue;
            }
            *factor = if elapsed < SHORT { factor.min(SHORT / total) } else { elapsed / total };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 5_000_000_000;

    /// Of a device that is as fast as expected.
    fn pace(seconds: f64) -> Pace {
        Pace { factors: [1.0; 2], ..Pace::new(Some(seconds)) }
    }

    fn count(pace: &Pace, dispatches: &[Cost]) -> usize {
        let ranges = pace.divide(dispatches.iter().copied());
        let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
        assert_eq!(all, (0..dispatches.len()).collect::<Vec<_>>(), "each once, in order");
        ranges.len()
    }

    #[test]
    fn what_is_short_is_one_submission() {
        let tiny = [Cost::of(1000, 1000); 100];
        assert_eq!(count(&pace(1.0), &tiny), 1);
        assert_eq!(count(&pace(0.0), &tiny), 100, "no time: each dispatch by itself");
        assert_eq!(count(&Pace::new(None), &[Cost::of(100 * SECOND, 0); 9]), 1, "no limit");
        assert_eq!(pace(1.0).divide(std::iter::empty()), vec![0..0]);
    }

    #[test]
    fn long_passes_are_divided_as_the_budget_allows() {
        // A tenth of a second each, whether memory or arithmetic bounds it.
        for each in [Cost::of(SECOND / 10, 1), Cost::of(1, 2_000_000_000)] {
            assert_eq!(count(&pace(1.05), &[each; 64]), 7);
            assert_eq!(count(&pace(0.01), &[each; 64]), 64, "none fits, so each is alone");
        }
    }

    #[test]
    fn a_device_is_taken_to_be_slow_until_it_was_measured() {
        let mut pace = Pace::new(Some(1.05));
        let pass = [Cost::of(SECOND / 100, 1); 64];
        assert_eq!(count(&pace, &pass), 11, "6 dispatches of 0.16 s each");
        for &cost in &pass {
            pace.submitted(cost, 1.0);
        }
        pace.done(1.64);
        assert_eq!(count(&pace, &pass), 1, "0.64 s");
    }

    #[test]
    fn submissions_follow_the_time_that_the_last_ones_took() {
        let mut pace = pace(1.05);
        let token = [Cost::of(SECOND / 10, 1); 64];
        let run = |pace: &mut Pace, start: f64, took: f64| {
            for cost in token {
                pace.submitted(cost, start);
            }
            pace.done(start + took);
        };
        assert_eq!(count(&pace, &token), 7, "as expected of a slow device");
        run(&mut pace, 100.0, 0.064);
        assert_eq!(count(&pace, &token), 1, "it is a hundred times faster");
        run(&mut pace, 200.0, 12.8);
        assert_eq!(count(&pace, &token), 13, "it is busy, and takes twice what was expected");
        // Prompts are bound by arithmetic, of which nothing was learnt.
        assert_eq!(count(&pace, &[Cost::of(1, 2_000_000_000); 64]), 7);
    }

    #[test]
    fn delays_are_not_taken_for_work() {
        let mut pace = pace(1.0);
        // Nothing to do, and a moment to do it.
        pace.submitted(Cost::default(), 0.0);
        pace.done(5.0);
        pace.submitted(Cost::of(1000, 0), 10.0);
        pace.done(10.005);
        pace.done(99.0);
        assert_eq!(count(&pace, &[Cost::of(SECOND / 2, 0); 4]), 2);
    }

    #[test]
    fn a_clock_that_jumps_changes_only_how_work_is_divided() {
        let mut pace = pace(1.05);
        let token = [Cost::of(SECOND / 10, 1); 64];
        for (from, to) in [(1e9, 0.0), (0.0, 1e12), (5.0, 5.0), (0.0, f64::MAX), (f64::MAX, 0.0)] {
            pace.submitted(token[0], from);
            pace.done(to);
            // Each dispatch once, in order.
            assert!((1..=64).contains(&count(&pace, &token)), "from {from} to {to}");
        }
        // The next measurement mends it.
        pace.submitted(token[0], 0.0);
        pace.done(0.1);
        assert_eq!(count(&pace, &token), 7);
    }
}
