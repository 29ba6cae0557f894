//! Runs of plans. While the device works on one, the host encodes the next one of the same plan.
//!
//! A plan's dispatches do not depend on a step's inputs, which are written before it is submitted,
//! so commands may be encoded before the inputs are known. Commands can be submitted once, so each
//! run needs new ones.

use std::{ops::Range, sync::Arc};

use super::{
    Gpu, Region,
    plan::{RecordedPass, Step},
    wait,
};
use crate::base::error::Result;

/// All that the commands of a run depend on.
#[derive(Clone, Debug)]
struct Run {
    /// The dispatches.
    steps: Arc<[Step]>,
    /// Those of each submission.
    ranges: Vec<Range<usize>>,
    /// What is copied for the host after them.
    copies: Vec<Region>,
    /// Where to, if anything is.
    staging: Option<wgpu::Buffer>,
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.steps, &other.steps)
            && (&self.ranges, &self.copies, &self.staging)
                == (&other.ranges, &other.copies, &other.staging)
    }
}

/// What was encoded for a run that may follow.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Whether anything is.
    on: bool,
    /// The last run, if its results were waited for.
    last: Option<Run>,
    /// Commands for another run like it, one for each submission, or none.
    commands: Vec<wgpu::CommandBuffer>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { on: true, last: None, commands: Vec::new() }
    }
}

impl Ahead {
    /// Drops the commands: they use buffers that are freed, or will not be wanted.
    pub(super) fn forget(&mut self) {
        (self.last, self.commands) = (None, Vec::new());
    }

    /// The commands for `run`, if there are some, and whether the last run was like it. Commands
    /// for other runs are dropped.
    fn take(&mut self, run: &Run) -> (Vec<wgpu::CommandBuffer>, bool) {
        let again = self.last.as_ref() == Some(run);
        let commands = std::mem::take(&mut self.commands);
        if again {
            return (commands, true);
        }
        self.last = None;
        (Vec::new(), false)
    }
}

impl Gpu {
    /// Whether the next run of a plan is encoded while the results of one are waited for, as it is
    /// unless this says otherwise.
    pub fn encode_ahead(&mut self, on: bool) {
        self.ahead = Ahead { on, ..Ahead::default() };
    }

    /// Seconds from the last submission of each run to its results, so far. The host encodes ahead
    /// in them.
    pub fn waited(&self) -> f64 {
        self.waited
    }

    /// Runs a plan, then reads `copies` back.
    ///
    /// The second run in a row with the same readback is followed by a third, as a rule: those are
    /// generated tokens. So from then on the next one is encoded ahead. Nothing is where no results
    /// are waited for, as between the chunks of a prompt: there the host is ahead anyway.
    pub(super) async fn run(
        &mut self,
        plan: &RecordedPass,
        copies: Vec<Region>,
    ) -> Result<Vec<Vec<u8>>> {
        let total: u64 = copies.iter().map(|region| region.size).sum();
        let staging = if total > 0 { Some(self.staging(total)?) } else { None };
        let ranges = self.pace.divide(plan.costs());
        let run = Run { steps: plan.steps.clone(), ranges, copies, staging };
        let (ready, again) = self.ahead.take(&run);
        self.counters.encoded_ahead += ready.len() as u64;
        let mut ready = ready.into_iter();
        for part in 0..run.ranges.len() {
            let commands = ready.next().unwrap_or_else(|| self.commands(&run, part));
            let now = wait::now();
            for step in &run.steps[run.ranges[part].clone()] {
                self.pace.submitted(step.cost, now);
            }
            self.queue.submit([commands]);
        }
        self.counters.submissions += run.ranges.len() as u64;
        self.counters.dispatches += plan.dispatches();
        self.counters.bytes_bound += plan.bytes_bound();
        self.counters.bytes_touched += plan.bytes_touched();
        let Some(staging) = run.staging.clone() else {
            return self.check().map(|()| vec![Vec::new(); run.copies.len()]);
        };
        self.counters.read_backs += 1;
        self.counters.read_back_bytes += total;
        let submitted = wait::now();
        let mapped = wait::map(&staging, wgpu::MapMode::Read, total);
        if again && self.ahead.on {
            let parts = 0..run.ranges.len();
            self.ahead.commands = parts.map(|part| self.commands(&run, part)).collect();
        }
        let copies = run.copies.clone();
        self.ahead.last = Some(run);
        let bytes = self.read_mapped(&staging, mapped, &copies).await;
        if bytes.is_err() {
            self.ahead.forget();
        }
        let now = wait::now();
        self.waited += now - submitted;
        let bytes = bytes?;
        self.pace.done(now);
        Ok(bytes)
    }

    /// Encodes a submission of a run, the last with the copies.
    fn commands(&self, run: &Run, part: usize) -> wgpu::CommandBuffer {
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        super::plan::encode(&mut encoder, &run.steps[run.ranges[part].clone()]);
        if let Some(staging) = run.staging.as_ref().filter(|_| part + 1 == run.ranges.len()) {
            self.copy_out(&mut encoder, &run.copies, staging);
        }
        encoder.finish()
    }
}
