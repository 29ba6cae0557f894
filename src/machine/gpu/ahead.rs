//! Runs of plans. While the device works on one, the host encodes the one that followed it before.
//!
//! A plan's dispatches do not depend on a step's inputs, which are written before it is submitted,
//! so commands may be encoded before the inputs are known. Commands can be submitted once, so each
//! run needs new ones.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    Gpu, Region,
    plan::{RecordedPass, Step},
    wait,
};
use crate::base::{error::Result, tensor::Tensor};

/// All that the commands of a run depend on.
#[derive(Clone, Debug)]
struct Run {
    /// The dispatches of each plan.
    plans: Vec<Arc<[Step]>>,
    /// Those of each submission, of the dispatches of all plans.
    ranges: Vec<Range<usize>>,
    /// What is copied for the host after them.
    copies: Vec<Region>,
    /// Where to, if anything is.
    staging: Option<wgpu::Buffer>,
}

impl Run {
    /// What tells its plans from others, as long as the run is kept.
    fn plans(&self) -> Vec<usize> {
        self.plans.iter().map(|plan| plan.as_ptr().addr()).collect()
    }

    /// The dispatches of a submission.
    fn steps(&self, part: usize) -> impl Iterator<Item = &Step> {
        let Range { start, end } = self.ranges[part];
        self.plans.iter().flat_map(|plan| plan.iter()).skip(start).take(end - start)
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.plans() == other.plans()
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
    /// The run that followed one of these plans, whose results were waited for, the last time; and
    /// that one. A generated token follows another, and a segment of it the one before.
    followers: HashMap<Vec<usize>, (Run, Run)>,
    /// Commands for the run that is expected next, one for each submission, or none.
    commands: Option<(Run, Vec<wgpu::CommandBuffer>)>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { on: true, last: None, followers: HashMap::new(), commands: None }
    }
}

impl Ahead {
    /// Drops the commands: they use buffers that are freed, or will not be wanted.
    pub(super) fn forget(&mut self) {
        *self = Self { on: self.on, ..Self::default() };
    }

    /// The commands for `run`, if there are some. Commands for other runs are dropped. Notes that
    /// this run followed the last one.
    fn take(&mut self, run: &Run) -> Vec<wgpu::CommandBuffer> {
        if let Some(last) = self.last.take() {
            let known = self.followers.get(&last.plans());
            if known.is_none_or(|(before, next)| (before, next) != (&last, run)) {
                self.followers.insert(last.plans(), (last, run.clone()));
            }
        }
        let commands = self.commands.take();
        commands.filter(|(expected, _)| expected == run).map(|(_, ready)| ready).unwrap_or_default()
    }

    /// The run that followed one like `run`.
    fn follower(&self, run: &Run) -> Option<Run> {
        let (before, next) = self.followers.get(&run.plans())?;
        (before == run).then(|| next.clone())
    }
}

impl Gpu {
    /// Whether the run that is expected next is encoded while the results of one are waited for, as
    /// it is unless this says otherwise.
    pub fn encode_ahead(&mut self, on: bool) {
        *self.ahead = Ahead { on, ..Ahead::default() };
    }

    /// Seconds from the last submission of each run to its results, so far. The host encodes ahead
    /// in them.
    pub fn waited(&self) -> f64 {
        self.waited
    }

    /// Runs plans, one after another, then reads whole tensors back.
    pub(super) async fn run_and_read(
        &mut self,
        plans: &[&RecordedPass],
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        let region = |tensor: &Tensor| {
            let (slot, size) = (tensor.id, tensor.size_bytes().next_multiple_of(4));
            Region { slot, offset: self.slots[slot].offset, size }
        };
        let regions = read.iter().map(region).collect();
        let mut bytes = self.run(plans, regions).await?;
        for (tensor, bytes) in read.iter().zip(&mut bytes) {
            bytes.truncate(usize::try_from(tensor.size_bytes()).expect("not larger than that"));
        }
        Ok(bytes)
    }

    /// Runs plans, one after another, then reads `copies` back.
    ///
    /// What followed a run follows it again, as a rule: the next generated token, or the next
    /// segment of one. So while results are waited for, that is encoded ahead. Nothing is where no
    /// results are waited for, as between the chunks of a prompt: there the host is ahead anyway.
    async fn run(&mut self, plans: &[&RecordedPass], copies: Vec<Region>) -> Result<Vec<Vec<u8>>> {
        let total: u64 = copies.iter().map(|region| region.size).sum();
        let staging = if total > 0 { Some(self.staging(total)?) } else { None };
        let ranges = self.pace.divide(plans.iter().flat_map(|plan| plan.costs()));
        let steps = plans.iter().map(|plan| plan.steps.clone()).collect();
        let run = Run { plans: steps, ranges, copies, staging };
        let ready = self.ahead.take(&run);
        self.counters.encoded_ahead += ready.len() as u64;
        let mut ready = ready.into_iter();
        for part in 0..run.ranges.len() {
            let commands = ready.next().unwrap_or_else(|| self.commands(&run, part));
            let now = wait::now();
            for step in run.steps(part) {
                self.pace.submitted(step.cost, now);
            }
            self.queue.submit([commands]);
        }
        self.counters.submissions += run.ranges.len() as u64;
        for plan in plans {
            self.counters.dispatches += plan.dispatches();
            self.counters.bytes_bound += plan.bytes_bound();
            self.counters.bytes_touched += plan.bytes_touched();
        }
        let Some(staging) = run.staging.clone() else {
            return self.check().map(|()| vec![Vec::new(); run.copies.len()]);
        };
        self.counters.read_backs += 1;
        self.counters.read_back_bytes += total;
        let submitted = wait::now();
        let mapped = wait::map(&staging, wgpu::MapMode::Read, total);
        if let Some(next) = self.ahead.follower(&run).filter(|_| self.ahead.on) {
            let parts = 0..next.ranges.len();
            let commands = parts.map(|part| self.commands(&next, part)).collect();
            self.ahead.commands = Some((next, commands));
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
        super::plan::encode(&mut encoder, run.steps(part));
        if let Some(staging) = run.staging.as_ref().filter(|_| part + 1 == run.ranges.len()) {
            self.copy_out(&mut encoder, &run.copies, staging);
        }
        encoder.finish()
    }
}
