//! Survivors through the interpreter: it sees races, accesses out of bounds, and
//! reads of what nobody wrote, whether or not a result shows them.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use grok_wgpu::lab::{
    kernels,
    selftest::{self, CaseData},
    variants::Tuning,
};

use super::{
    Error,
    worker::{LAVAPIPE, SUBGROUP},
};
use crate::interpret::{self, Program, SMALL, Subgroups};

/// Subgroups as the device has them.
const IN_ORDER: Subgroups = Subgroups::InOrder(SUBGROUP as usize);

/// A row with its data and its linked text.
pub(crate) struct Row {
    name: String,
    bytes: usize,
    data: CaseData,
    source: String,
}

/// The small rows of these kernels, the smallest first. The values that are expected are not needed.
pub(crate) fn rows(wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    let tunings = Tuning::all(&LAVAPIPE);
    for case in kernels::cases().into_iter().filter(|case| wanted(case.kernel)) {
        for (tuning_name, tuning) in selftest::ways(&case, &tunings)? {
            let mut data = CaseData::of(&case, &tuning)?;
            let bytes = data.data.iter().map(|operand| operand.initial.len()).sum();
            if bytes <= SMALL {
                let name = format!("{} [{tuning_name}]", case.full_name());
                let source = data.dispatch.shader.source();
                data.data.iter_mut().for_each(|operand| operand.expected = None);
                rows.push(Row { name, bytes, data, source });
            }
        }
    }
    rows.sort_by_key(|row| row.bytes);
    Ok(rows)
}

/// Rows that a mutant runs through at the most. What breaks a rule mostly does at small shapes.
const MOST: usize = 300;

/// The first row, and its fault, that the interpreter finds with `replace` in place of `find`.
pub(crate) fn fault(rows: &[Row], find: &str, replace: &str) -> Option<(String, String)> {
    let linked = rows.iter().filter(|row| row.source.contains(find));
    let rows: Vec<&Row> = linked.take(MOST).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let source = row.source.replacen(find, replace, 1);
            // A mutant may do what the interpreter has no rule for; that is no verdict.
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                let program = Program::parse(&source, &row.data.dispatch.constants)?;
                interpret::run(&program, &row.data, IN_ORDER)
            }));
            let fault = match outcome {
                Ok(Ok(outcome)) => outcome.faults.into_iter().next(),
                // Drivers on a CPU leave a loop after so many rounds.
                Ok(Err(error)) => Some(error).filter(|error| error == "it does not end"),
                Err(_) => None,
            };
            if let Some(fault) = fault {
                done.store(true, Ordering::Relaxed);
                return Some((row.name.clone(), fault));
            }
        }
        None
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().find_map(|thread| thread.join().ok().flatten())
    })
}
