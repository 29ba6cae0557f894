//! Recorded plans: pipelines, bind groups and workgroups, made once and encoded each step.

use std::sync::Arc;

use super::{Gpu, Slot, pace::Cost, pipelines};
use crate::{
    base::error::{Error, Result},
    machine::{
        binder::Dispatch,
        gpu::wait,
        kernel::{Executor, Kernel},
    },
    variants::{Class, Tuning},
};

/// What has been sent to a device and read from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Command buffers submitted with work of a plan.
    pub submissions: u64,
    /// Those of them that were encoded ahead, while an earlier one ran.
    pub encoded_ahead: u64,
    /// Dispatches in them.
    pub dispatches: u64,
    /// Times that results were read back.
    pub read_backs: u64,
    /// Bytes read back.
    pub read_back_bytes: u64,
    /// Bytes of all tensors bound, each as often as it was bound.
    pub bytes_bound: u64,
    /// Upper bound on the bytes of them that dispatches read or wrote.
    pub bytes_touched: u64,
}

impl std::ops::Sub for Counters {
    type Output = Self;

    /// What was added since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            submissions: self.submissions - earlier.submissions,
            encoded_ahead: self.encoded_ahead - earlier.encoded_ahead,
            dispatches: self.dispatches - earlier.dispatches,
            read_backs: self.read_backs - earlier.read_backs,
            read_back_bytes: self.read_back_bytes - earlier.read_back_bytes,
            bytes_bound: self.bytes_bound - earlier.bytes_bound,
            bytes_touched: self.bytes_touched - earlier.bytes_touched,
        }
    }
}

/// A recorded sequence of dispatches, which can be encoded any number of times. Clones share the
/// objects on the device.
#[derive(Clone, Debug)]
pub struct RecordedPass {
    pub(super) steps: Arc<[Step]>,
    bytes_bound: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    label: String,
    class: Option<Class>,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
    bytes_touched: u64,
    pub(super) cost: Cost,
}

/// Time on the device of one dispatch.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// Kernel and weight type.
    pub label: String,
    /// The class of the product, if it is one.
    pub class: Option<Class>,
    /// Nanoseconds.
    pub nanoseconds: f64,
    /// Upper bound on the bytes that it reads or writes.
    pub bytes_touched: u64,
}

/// How long all of a plan takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WholeTime {
    /// Seconds of the host, to encode and submit.
    pub host_seconds: f64,
    /// Seconds of the device, from its first dispatch to the end of its last.
    pub device_seconds: f64,
}

impl RecordedPass {
    /// Dispatches of one run.
    pub fn dispatches(&self) -> u64 {
        self.steps.len() as u64
    }

    /// Bytes of all tensors bound, each as often as it is bound.
    pub fn bytes_bound(&self) -> u64 {
        self.bytes_bound
    }

    /// Upper bound on the bytes of them that dispatches read or write.
    pub fn bytes_touched(&self) -> u64 {
        self.steps.iter().map(|step| step.bytes_touched).sum()
    }

    /// How often each kernel runs, in order of first use.
    pub fn kernels(&self) -> Vec<(String, u64)> {
        let mut counts: Vec<(String, u64)> = Vec::new();
        for step in self.steps.iter() {
            match counts.iter_mut().find(|(label, _)| *label == step.label) {
                Some((_, count)) => *count += 1,
                None => counts.push((step.label.clone(), 1)),
            }
        }
        counts
    }

    /// What each dispatch costs.
    pub(super) fn costs(&self) -> impl Iterator<Item = Cost> {
        self.steps.iter().map(|step| step.cost)
    }
}

/// Encodes dispatches as one pass.
pub(super) fn encode<'a>(
    encoder: &mut wgpu::CommandEncoder,
    steps: impl IntoIterator<Item = &'a Step>,
) {
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    encode_all(&mut pass, steps);
}

/// Adds dispatches to a pass that has none yet.
fn encode_all<'a>(pass: &mut wgpu::ComputePass<'_>, steps: impl IntoIterator<Item = &'a Step>) {
    let mut before = None;
    for step in steps {
        step.encode(pass, before);
        before = Some(&step.pipeline);
    }
}

impl Step {
    /// Adds the dispatch to a pass whose last one used the pipeline `before`.
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, before: Option<&wgpu::ComputePipeline>) {
        self.encode_grid(pass, before, self.workgroups);
    }

    /// The same with another number of workgroups.
    fn encode_grid(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        before: Option<&wgpu::ComputePipeline>,
        [x, y, z]: [u32; 3],
    ) {
        if before != Some(&self.pipeline) {
            pass.set_pipeline(&self.pipeline);
        }
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// The executor that collects dispatches instead of running them.
#[derive(Debug)]
pub(super) struct Recorder {
    tuning: Tuning,
    dispatches: Vec<Dispatch>,
}

/// Uniforms of a plan.
pub(super) struct Params {
    pub(super) bytes: Vec<u8>,
    /// Where that of each dispatch begins.
    pub(super) offsets: Vec<u64>,
}

impl Recorder {
    pub(super) fn new(tuning: Tuning) -> Self {
        Self { tuning, dispatches: Vec::new() }
    }

    /// The recorded dispatches, in order.
    pub(super) fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// The uniforms of all dispatches, in one buffer, each at an offset that every device allows.
    pub(super) fn params(&self) -> Params {
        const ALIGN: usize = 256;
        let mut bytes = Vec::new();
        let offsets = self
            .dispatches
            .iter()
            .map(|dispatch| {
                let offset = bytes.len();
                bytes.extend_from_slice(&dispatch.params);
                bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
                offset as u64
            })
            .collect();
        bytes.resize(bytes.len().max(ALIGN), 0);
        Params { bytes, offsets }
    }

    /// Makes a plan of the recorded dispatches, whose uniforms are in `uniforms` from these offsets
    /// on. `pipelines` must have been prepared for them.
    pub(super) fn finish(
        self,
        device: &wgpu::Device,
        uniforms: &wgpu::Buffer,
        offsets: Vec<u64>,
        pipelines: &pipelines::Cache,
        slots: &[Slot],
    ) -> RecordedPass {
        let mut bytes_bound = 0;
        let mut steps = Vec::with_capacity(self.dispatches.len());
        for (dispatch, offset) in self.dispatches.iter().zip(offsets) {
            bytes_bound += dispatch.bytes_bound();
            let built = pipelines.get(dispatch).expect("prepared for all dispatches");
            let params = wgpu::BufferBinding {
                buffer: uniforms,
                offset,
                size: wgpu::BufferSize::new(dispatch.params.len().next_multiple_of(16) as u64),
            };
            let tensors = dispatch.operands.iter().map(|operand| {
                let slot = &slots[operand.tensor.id];
                wgpu::BufferBinding {
                    buffer: &slot.buffer,
                    offset: slot.offset,
                    size: wgpu::BufferSize::new(slot.size),
                }
            });
            let entries: Vec<_> = (0..)
                .zip(std::iter::once(params).chain(tensors))
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: wgpu::BindingResource::Buffer(buffer),
                })
                .collect();
            steps.push(Step {
                label: dispatch.shader.label(),
                class: dispatch.class.clone(),
                bind_group: device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(dispatch.shader.own.kernel),
                    layout: &built.layout,
                    entries: &entries,
                }),
                pipeline: built.pipeline.clone(),
                workgroups: dispatch.workgroups,
                bytes_touched: dispatch.bytes_touched(),
                cost: Cost::of(dispatch.bytes_touched(), dispatch.operations),
            });
        }
        RecordedPass { steps: steps.into(), bytes_bound }
    }
}

impl Executor for Recorder {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        self.dispatches.push(kernel.record(&self.tuning)?);
        Ok(())
    }
}

impl Gpu {
    /// Makes a plan of what was recorded. Its pipelines must have been prepared.
    pub(super) fn plan(&mut self, recorder: Recorder) -> Result<RecordedPass> {
        // Loading is over. Who uploads between passes as well has new ones after this.
        self.uploads.free();
        let Params { bytes, offsets } = recorder.params();
        let size = bytes.len() as u64;
        let uniforms = self.make.buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check_made(|| "the parameters of a pass".to_owned(), size)?;
        self.queue.write_buffer(&uniforms, 0, &bytes);
        let plan = recorder.finish(&self.device, &uniforms, offsets, &self.pipelines, &self.slots);
        self.check()?;
        Ok(plan)
    }

    /// Runs one workgroup of a dispatch, whose pipeline must have been prepared.
    pub(super) async fn run_once(&mut self, dispatch: &Dispatch) -> Result<()> {
        let mut recorder = Recorder::new(self.tuning.clone());
        recorder.dispatches.push(dispatch.clone());
        let plan = self.plan(recorder)?;
        self.run_each_once(&[&plan], &mut |_, _| Ok(())).await
    }

    /// Runs one workgroup of every dispatch of `plans`. So drivers that compile when a program
    /// first runs have done that, and all buffers were touched, in hardly more time than that
    /// takes. The first use of a pipeline ends a submission, so that `progress` can tell of it.
    /// Counters stay as they are.
    pub(super) async fn run_each_once(
        &mut self,
        plans: &[&RecordedPass],
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let steps = || plans.iter().flat_map(|plan| plan.steps.iter());
        // There are some dozens.
        let mut pipelines: Vec<&wgpu::ComputePipeline> = Vec::new();
        for step in steps() {
            if !pipelines.contains(&&step.pipeline) {
                pipelines.push(&step.pipeline);
            }
        }
        let mut done = 0;
        let mut waiting: Vec<&Step> = Vec::new();
        let last = steps().count().saturating_sub(1);
        for (i, step) in steps().enumerate() {
            waiting.push(step);
            // They are in the order of their first use.
            let new = pipelines.get(done) == Some(&&step.pipeline);
            if !new && i < last {
                continue;
            }
            done += usize::from(new);
            let mut encoder =
                self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                for step in waiting.drain(..) {
                    step.encode_grid(&mut pass, None, [1; 3]);
                }
            }
            self.queue.submit([encoder.finish()]);
            let waited = wait::wait(&self.device, &self.queue, self.patience).await;
            self.check()?;
            waited?;
            if new {
                progress(done, pipelines.len())?;
            }
        }
        Ok(())
    }

    /// Runs a plan with every dispatch in a compute pass of its own, and times each on the device.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the device has no timestamps, or what the device reports, such as
    /// [`Error::Lost`].
    pub async fn time_plan(&mut self, plan: &RecordedPass) -> Result<Vec<StepTime>> {
        // A query set holds at most 4096 queries, two for a dispatch.
        const MOST: usize = 2048;
        let mut times = Vec::with_capacity(plan.steps.len());
        for steps in plan.steps.chunks(MOST) {
            let passes: Vec<Passed<'_>> =
                (0..).step_by(2).zip(steps).map(|(i, step)| Passed::timed(step, i)).collect();
            let Stamps { nanoseconds, .. } = self.stamped(&passes).await?;
            times.extend(steps.iter().zip(nanoseconds.chunks_exact(2)).map(|(step, stamp)| {
                StepTime {
                    label: step.label.clone(),
                    class: step.class.clone(),
                    nanoseconds: (stamp[1] - stamp[0]).max(0.0),
                    bytes_touched: step.bytes_touched,
                }
            }));
        }
        Ok(times)
    }

    /// Runs a plan in one submission, and times all of it. The dispatches are in one compute pass,
    /// or `apart`, each in its own.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the device has no timestamps or the plan is empty, or what the device
    /// reports, such as [`Error::Lost`].
    pub async fn time_whole(&mut self, plan: &RecordedPass, apart: bool) -> Result<WholeTime> {
        let of_pass = if apart { 1 } else { plan.steps.len().max(1) };
        let mut passes: Vec<Passed<'_>> = plan
            .steps
            .chunks(of_pass)
            .map(|steps| Passed { steps, begin: None, end: None })
            .collect();
        let none = || Error::Usage("a plan without dispatches takes no time".into());
        passes.first_mut().ok_or_else(none)?.begin = Some(0);
        passes.last_mut().ok_or_else(none)?.end = Some(1);
        let Stamps { nanoseconds, host_seconds } = self.stamped(&passes).await?;
        let device_seconds = 1e-9 * (nanoseconds[1] - nanoseconds[0]).max(0.0);
        Ok(WholeTime { host_seconds, device_seconds })
    }

    /// Submits compute passes, and waits for their timestamps.
    async fn stamped(&mut self, passes: &[Passed<'_>]) -> Result<Stamps> {
        if !self.caps.timestamps {
            return Err(Error::Usage("this device has no timestamps".into()));
        }
        let count = passes.iter().filter_map(|pass| pass.begin.max(pass.end)).max();
        let count = count.map_or(0, |last| last + 1);
        let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let size = u64::from(count) * 8;
        let resolved = self.make.buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let staging = self.staging(size)?;
        let start = wait::now();
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for &Passed { steps, begin, end } in passes {
            let writes = wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: begin,
                end_of_pass_write_index: end,
            };
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: begin.or(end).is_some().then_some(writes),
            });
            encode_all(&mut pass, steps);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        let host_seconds = wait::now() - start;
        let mapped = wait::map(&staging, wgpu::MapMode::Read, size);
        let bytes = self.mapped(&staging, mapped, size).await?;
        let stamps: Vec<u64> =
            bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        // Differences are small, whatever the clock began with.
        let first = stamps.iter().copied().min().unwrap_or_default();
        let period = f64::from(self.queue.get_timestamp_period());
        let nanoseconds = stamps.iter().map(|stamp| (stamp - first) as f64 * period).collect();
        Ok(Stamps { nanoseconds, host_seconds })
    }
}

/// Dispatches of one compute pass, and the timestamps that it writes.
#[derive(Clone, Copy)]
struct Passed<'a> {
    steps: &'a [Step],
    begin: Option<u32>,
    end: Option<u32>,
}

impl<'a> Passed<'a> {
    /// One dispatch between the timestamps `at` and the next.
    fn timed(step: &'a Step, at: u32) -> Self {
        Self { steps: std::slice::from_ref(step), begin: Some(at), end: Some(at + 1) }
    }
}

/// What passes with timestamps gave.
struct Stamps {
    /// The timestamps, in nanoseconds since the first.
    nanoseconds: Vec<f64>,
    /// Time to encode and submit.
    host_seconds: f64,
}
