//! Runs survivors in the interpreter, which detects races, accesses out of bounds, and reads of
//! unwritten memory, whether or not they change a result.

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
use crate::interpret::{self, Program, SMALL, Subgroups, storage_bytes};

/// Subgroups as lavapipe forms them.
const IN_ORDER: Subgroups = Subgroups::InOrder(SUBGROUP as usize);

/// A row with its data and linked source.
pub(crate) struct Row {
    name: String,
    bytes: usize,
    data: CaseData,
    source: String,
}

/// The small rows of these kernels, the smallest first, without expected values.
pub(crate) fn rows(wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    let tunings = Tuning::all(&LAVAPIPE);
    for case in kernels::cases().into_iter().filter(|case| wanted(case.kernel)) {
        for (tuning_name, tuning) in selftest::ways(&case, &tunings)? {
            let mut data = CaseData::of(&case, &tuning)?;
            let bytes = storage_bytes(&data);
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

/// The most rows to run on a mutant. Faults mostly show at small shapes.
const MOST: usize = 300;

/// Finds a row with a fault when `find` is replaced by `replace`; returns its name and the fault.
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
            // A mutant may use something that the interpreter does not support; that proves
            // nothing.
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                let program = Program::parse(&source, &row.data.dispatch.constants)?;
                interpret::run(&program, &row.data, IN_ORDER)
            }));
            let fault = match outcome {
                Ok(Ok(outcome)) => outcome.faults.into_iter().next(),
                // Drivers on a CPU end a loop after a number of rounds, so devices do not show
                // this.
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
