//! Recorded plans: pipelines, bind groups and workgroups, made once and encoded each step.

use std::ops::Range;

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
    steps: Vec<Step>,
    bytes_bound: u64,
}

#[derive(Clone, Debug)]
struct Step {
    label: String,
    class: Option<Class>,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
    bytes_touched: u64,
    cost: Cost,
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
        for step in &self.steps {
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

    /// Encodes some of the dispatches.
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder, some: Range<usize>) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let mut before = None;
        for step in &self.steps[some] {
            step.encode(&mut pass, before);
            before = Some(&step.pipeline);
        }
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
        RecordedPass { steps, bytes_bound }
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
        let steps = || plans.iter().flat_map(|plan| &plan.steps);
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
    ///
    /// # Panics
    ///
    /// Never: what it expects of sizes holds by construction.
    pub async fn time_plan(&mut self, plan: &RecordedPass) -> Result<Vec<StepTime>> {
        // A query set holds at most 4096 queries, two for a dispatch.
        const MOST: usize = 2048;
        if !self.caps.timestamps {
            return Err(Error::Usage("this device has no timestamps".into()));
        }
        let period = f64::from(self.queue.get_timestamp_period());
        let mut times = Vec::with_capacity(plan.steps.len());
        for steps in plan.steps.chunks(MOST) {
            let count = 2 * u32::try_from(steps.len()).expect("at most MOST");
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
            let mut encoder =
                self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (i, step) in (0u32..).zip(steps) {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(2 * i),
                        end_of_pass_write_index: Some(2 * i + 1),
                    }),
                });
                step.encode(&mut pass, None);
            }
            encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size);
            self.queue.submit([encoder.finish()]);
            let bytes = wait::read_staging(&self.device, &staging, size, self.patience).await;
            if bytes.is_err() {
                self.staging = None;
            }
            self.check()?;
            let bytes = bytes?;
            let stamps: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|b| u64::from_le_bytes(b.try_into().expect("chunks of eight")))
                .collect();
            times.extend(steps.iter().zip(stamps.chunks_exact(2)).map(|(step, stamp)| StepTime {
                label: step.label.clone(),
                class: step.class.clone(),
                nanoseconds: stamp[1].saturating_sub(stamp[0]) as f64 * period,
                bytes_touched: step.bytes_touched,
            }));
        }
        Ok(times)
    }
}
