//! The device: memory, pipelines and recorded plans. The only module that uses wgpu.

#![expect(clippy::disallowed_types, reason = "all of wgpu is here")]

mod ahead;
mod caps;
mod experimental;
mod failure;
mod fallback;
mod heaps;
#[cfg(not(target_arch = "wasm32"))]
pub mod kept;
mod make;
mod pace;
mod pipeline_cache;
mod pipelines;
mod plan;
mod trusted;
mod upload;
pub(crate) mod wait;

pub use caps::{AdapterChoice, Caps, Identity, LimitProfile, Listed, WGPU, adapters};
pub use make::Refusal;
pub use pipelines::Compiled;
pub use plan::{Counters, RecordedPass, StepTime, WholeTime};

use self::{
    ahead::Ahead, failure::Failure, make::Maker, pace::Pace, upload::Uploads, wait::Duration,
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    machine::{BufferRole, Machine, Span, Transfer, binder::Dispatch, kernel::Executor},
    variants::Tuning,
};

/// Where a tensor lives on the device.
#[derive(Debug)]
struct Slot {
    buffer: wgpu::Buffer,
    /// Start of the binding in the buffer.
    offset: u64,
    /// Bytes of the binding.
    size: u64,
    /// Whether it is in pinned memory of the host.
    pinned: bool,
}

/// A device with everything made on it.
#[derive(Debug)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Caps,
    tuning: Tuning,
    pipelines: pipelines::Cache,
    slots: Vec<Slot>,
    staging: Option<wgpu::Buffer>,
    uploads: Uploads,
    failure: Failure,
    make: Maker,
    notices: fallback::Notices,
    pace: Pace,
    ahead: Box<Ahead>,
    counters: Counters,
    /// Seconds that results were waited for.
    waited: f64,
    binding_limit: u64,
    /// The longest wait for the device.
    patience: Duration,
}

/// Bytes to read back: a part of a tensor's buffer, in multiples of four.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Region {
    slot: usize,
    offset: u64,
    size: u64,
}

impl Gpu {
    /// Opens the fastest kind of adapter there is, with all that it has.
    ///
    /// # Errors
    ///
    /// [`Error::Adapter`] if there is none, [`Error::Device`] if it cannot be opened.
    pub async fn open_best() -> Result<Self> {
        Self::open(&AdapterChoice::Best, LimitProfile::Full).await
    }

    /// Opens an adapter with the limits of `profile`.
    ///
    /// # Errors
    ///
    /// [`Error::Adapter`] if there is no such adapter, or it grants no device.
    pub async fn open(choice: &AdapterChoice, profile: LimitProfile) -> Result<Self> {
        Self::open_with(choice, profile, false).await
    }

    /// The same on an adapter that need not have memory of its own to pin memory of the host. Where
    /// all memory is one, nothing is gained by that.
    ///
    /// # Errors
    ///
    /// Those of [`Gpu::open`].
    pub async fn open_pinning(choice: &AdapterChoice, profile: LimitProfile) -> Result<Self> {
        Self::open_with(choice, profile, true).await
    }

    async fn open_with(choice: &AdapterChoice, profile: LimitProfile, pin: bool) -> Result<Self> {
        let adapter = caps::choose(choice).await?;
        let (device, queue, caps) = caps::open(&adapter, profile, pin).await?;
        let failure = Failure::of(&device);
        let tuning = caps.tuning();
        // No watchdog minds what runs on a CPU.
        let pace = Pace::new((!caps.is_cpu).then_some(pace::BUDGET));
        let make = Maker::new(device.clone(), failure.clone());
        Ok(Self {
            device,
            queue,
            caps,
            tuning,
            pipelines: pipelines::Cache::default(),
            slots: Vec::new(),
            staging: None,
            uploads: Uploads::default(),
            failure,
            make,
            notices: fallback::Notices::default(),
            pace,
            ahead: Box::default(),
            counters: Counters::default(),
            waited: 0.0,
            binding_limit: u64::MAX,
            patience: wait::PATIENCE,
        })
    }

    /// The adapter and what it grants.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// How work is divided.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Changes how work is divided from now on. If the tuning is strict, a variant that the device
    /// refuses is an error.
    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Lowers [`Machine::max_binding_bytes`] to `bytes`, as if the device allowed no more.
    pub fn limit_bindings(&mut self, bytes: u64) {
        self.binding_limit = bytes;
    }

    /// Gives the device `patience` to finish what it was asked for, instead of ten minutes.
    /// Browsers have a limit of their own.
    pub fn limit_waits(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Has the device refuse to create something, as if it could not. `None` ends that.
    pub fn refuse(&mut self, refusal: Option<Refusal>) {
        self.make.refuse(refusal);
    }

    /// Buffers, shader modules and pipelines that were created since [`Gpu::refuse`].
    pub fn made(&self) -> [u64; 3] {
        self.make.made()
    }

    /// Changes how many seconds a submission may be expected to take, `None` for no limit. A longer
    /// pass is divided between dispatches. It is one second unless this is called, and not limited
    /// on adapters that run on a CPU.
    pub fn limit_submissions(&mut self, seconds: Option<f64>) {
        self.pace.limit(seconds);
    }

    /// Pipelines that have been built.
    pub fn pipeline_count(&self) -> usize {
        self.pipelines.len()
    }

    /// Turns the pipeline cache on, filled with what [`Gpu::kept_pipelines`] returned in another
    /// run. Returns whether that was usable: damaged data, and that of another driver, is ignored.
    pub fn keep_pipelines(&mut self, sealed: Option<&[u8]>) -> bool {
        let opened = pipeline_cache::open(&self.device, &self.caps.info, sealed);
        let (cache, used) = opened.unzip();
        self.pipelines.kept = cache;
        used.unwrap_or(false)
    }

    /// The data of the pipeline cache, if it is on and the driver gives any.
    pub fn kept_pipelines(&self) -> Option<Vec<u8>> {
        pipeline_cache::data(self.pipelines.kept.as_ref()?, &self.caps.info)
    }

    /// Name of a file for the pipeline cache, a different one for each kind of device.
    pub fn pipelines_name(&self) -> Option<String> {
        wgpu::util::pipeline_cache_key(&self.caps.info)
    }

    /// What has been sent and read so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Resolves with the reason when the device is lost, even while it is idle. `None` if `self` is
    /// dropped before, or this is called again.
    pub fn loss(&self) -> impl Future<Output = Option<String>> + 'static {
        let told = self.failure.listen();
        async { told.await.ok() }
    }

    /// A function that destroys the device. Its memory is freed at once, and all pending and later
    /// work fails with [`Error::Lost`].
    pub fn destroyer(&self) -> impl Fn() + 'static {
        let device = self.device.clone();
        move || device.destroy()
    }

    /// Bytes of every buffer made for tensors on the device.
    pub fn allocated_bytes(&self) -> u64 {
        self.bytes_of(false)
    }

    /// Bytes of every buffer made for tensors in pinned memory of the host.
    pub fn pinned_bytes(&self) -> u64 {
        self.bytes_of(true)
    }

    fn bytes_of(&self, pinned: bool) -> u64 {
        let those = self.slots.iter().filter(|slot| slot.pinned == pinned);
        those.map(|slot| slot.buffer.size()).sum()
    }

    /// A tensor with guard bytes around it: `front` before the binding, `tail` inside it, after
    /// the elements. Tests look there for stray writes.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if it is larger than a binding or a buffer may be, or what the device
    /// reports, such as [`Error::OutOfMemory`].
    pub fn alloc_guarded(
        &mut self,
        role: BufferRole,
        dtype: DType,
        shape: Shape,
        front: u64,
        tail: u64,
    ) -> Result<Tensor> {
        let elements = shape.size_bytes(dtype).max(dtype.row_bytes(1));
        // Arrays of vec4 need whole units of 16 bytes, chunks of eight f32 of 32.
        let size = elements.next_multiple_of(32) + tail;
        let limits = &self.caps.limits;
        let what = || format!("a tensor of {dtype}{shape}");
        if size > limits.max_storage_buffer_binding_size {
            return Err(Error::Limit {
                what: what(),
                got: size,
                limit: limits.max_storage_buffer_binding_size,
            });
        }
        if front + size > limits.max_buffer_size {
            return Err(Error::Limit {
                what: what(),
                got: front + size,
                limit: limits.max_buffer_size,
            });
        }
        let pinned = role == BufferRole::Host;
        if pinned && !self.caps.pins() {
            let name = &self.caps.name;
            return Err(Error::Usage(format!("{name} was not opened to read memory of the host")));
        }
        let usage = match role {
            BufferRole::Storage => wgpu::BufferUsages::STORAGE,
            BufferRole::Uniform => wgpu::BufferUsages::UNIFORM,
            // It is never mapped: the usage is what asks for the host's memory. With `MAP_WRITE`
            // drivers would prefer memory of the device that the host can write.
            BufferRole::Host => wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::MAP_READ,
        };
        let buffer = self.make.buffer(&wgpu::BufferDescriptor {
            label: None,
            size: front + size,
            usage: usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        self.check_made(what, front + size)?;
        self.slots.push(Slot { buffer, offset: front, size, pinned });
        Ok(Tensor { id: self.slots.len() - 1, shape, dtype })
    }

    /// Overwrites the whole buffer behind `tensor`, guards included, with one word.
    ///
    /// # Panics
    ///
    /// If the buffer is larger than memory: guarded tensors are small.
    pub fn poison(&self, tensor: Tensor, word: u32) {
        let slot = &self.slots[tensor.id];
        let words = usize::try_from(slot.buffer.size() / 4).expect("guarded tensors are small");
        self.queue.write_buffer(&slot.buffer, 0, bytemuck::cast_slice(&vec![word; words]));
    }

    /// The whole buffers behind `tensors`, guards included, in one submission.
    ///
    /// # Panics
    ///
    /// If they are larger than memory: guarded tensors are small.
    ///
    /// # Errors
    ///
    /// What the device reports, such as [`Error::Lost`].
    pub async fn read_buffers(&mut self, tensors: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        let regions: Vec<Region> = tensors
            .iter()
            .map(|t| Region { slot: t.id, offset: 0, size: self.slots[t.id].buffer.size() })
            .collect();
        let total: u64 = regions.iter().map(|region| region.size).sum();
        if total == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.copied(&regions, total).await?;
        Ok(divided(&bytes, &regions))
    }

    /// The bytes of `regions`, `total` in all, one after another, in a submission of their own.
    async fn copied(&mut self, regions: &[Region], total: u64) -> Result<Vec<u8>> {
        let staging = self.staging(total)?;
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.copy_out(&mut encoder, regions, &staging);
        self.queue.submit([encoder.finish()]);
        let mapped = wait::map(&staging, wgpu::MapMode::Read, total);
        self.mapped(&staging, mapped, total).await
    }

    /// Copies `regions` to a staging buffer, one after another.
    fn copy_out(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        regions: &[Region],
        staging: &wgpu::Buffer,
    ) {
        let mut at = 0;
        for &Region { slot, offset, size } in regions {
            encoder.copy_buffer_to_buffer(&self.slots[slot].buffer, offset, staging, at, size);
            at += size;
        }
    }

    /// The bytes of `regions`, which are in a staging buffer that is being mapped.
    async fn read_mapped(
        &mut self,
        staging: &wgpu::Buffer,
        mapped: wait::Mapped,
        regions: &[Region],
    ) -> Result<Vec<Vec<u8>>> {
        let total: u64 = regions.iter().map(|region| region.size).sum();
        let bytes = self.mapped(staging, mapped, total).await?;
        Ok(divided(&bytes, regions))
    }

    /// The first `size` bytes of a staging buffer that is being mapped.
    async fn mapped(
        &mut self,
        staging: &wgpu::Buffer,
        mapped: wait::Mapped,
        size: u64,
    ) -> Result<Vec<u8>> {
        let bytes = wait::read(&self.device, staging, mapped, size, self.patience).await;
        if bytes.is_err() {
            self.staging = None;
        }
        // A lost device may still map the buffer; its content means nothing then.
        self.check()?;
        bytes
    }

    /// The first error since the last call.
    fn check(&self) -> Result<()> {
        self.failure.check(&self.device).map_err(|mut error| {
            if let Error::OutOfMemory { held, .. } = &mut error {
                *held = self.allocated_bytes();
            }
            error
        })
    }

    /// The same after `what`, of so many bytes, was created.
    fn check_made(&self, made: impl FnOnce() -> String, size: u64) -> Result<()> {
        self.check().map_err(|mut error| {
            if let Error::OutOfMemory { what, bytes, .. } = &mut error {
                (*what, *bytes) = (made(), Some(size));
            }
            error
        })
    }

    /// Calls `listener` after each pipeline that is compiled, with how many of those that are
    /// wanted at once are there, and how many they are. `None` ends that.
    pub fn on_compiled(&mut self, listener: Option<Box<Compiled>>) {
        self.pipelines.listener = listener.map(pipelines::Listener);
    }

    /// Starts to compile the pipelines of `dispatches`, in their order, on other threads. Does
    /// nothing in browsers.
    pub fn prepare_ahead(&mut self, dispatches: impl IntoIterator<Item = Dispatch>) {
        self.pipelines.prepare_ahead(&self.make, dispatches);
    }

    /// Compiles the pipelines of `dispatches`. If the device reports an error, none of them is
    /// kept, so that the next attempt reports it again.
    fn prepare(&mut self, dispatches: &[Dispatch]) -> Result<()> {
        self.pipelines.prepare(&self.make, dispatches);
        let refused = self.check();
        if refused.is_err() {
            self.pipelines.forget(dispatches);
        }
        refused
    }

    /// The staging buffer for results, of at least `size` bytes.
    fn staging(&mut self, size: u64) -> Result<wgpu::Buffer> {
        if let Some(staging) = &self.staging
            && staging.size() >= size
        {
            return Ok(staging.clone());
        }
        if let Some(small) = self.staging.take() {
            self.ahead.forget();
            small.destroy();
        }
        let size = size.next_multiple_of(256);
        let staging = self.make.buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check_made(|| "a buffer for results".to_owned(), size)?;
        self.staging = Some(staging.clone());
        Ok(staging)
    }
}

/// What was read, by region.
fn divided(bytes: &[u8], regions: &[Region]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let take = |region: &Region| {
        let (head, tail) = rest.split_at(usize::try_from(region.size).expect("it was read whole"));
        rest = tail;
        head.to_vec()
    };
    regions.iter().map(take).collect()
}

impl Machine for Gpu {
    type Plan = RecordedPass;

    fn alloc(&mut self, role: BufferRole, dtype: DType, shape: Shape) -> Result<Tensor> {
        self.alloc_guarded(role, dtype, shape, 0, 0)
    }

    #[cfg(target_arch = "wasm32")]
    async fn await_room(&mut self, bytes: usize) -> Result<()> {
        self.await_uploads(bytes).await
    }

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        let slot = &self.slots[tensor.id];
        if offset + bytes.len() as u64 > slot.size {
            return Err(tensor.beyond("written to", offset + bytes.len() as u64, slot.size));
        }
        if self.uploads.take(bytes) {
            let (buffer, at) = (slot.buffer.clone(), slot.offset + offset);
            return self.upload(&buffer, at, bytes);
        }
        self.queue.write_buffer(&slot.buffer, slot.offset + offset, bytes);
        Ok(())
    }

    fn pins(&self) -> bool {
        self.caps.pins()
    }

    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        self.transfer(copies)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        #[cfg(not(target_arch = "wasm32"))]
        let recorder = self.recorded(program)?;
        #[cfg(target_arch = "wasm32")]
        let recorder = self.recorder(program)?;
        #[cfg(target_arch = "wasm32")]
        self.prepare(recorder.dispatches())?;
        self.plan(recorder)
    }

    async fn compile(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        return self.recorded(program).map(|_| ());
        #[cfg(target_arch = "wasm32")]
        self.compiled_each(program, false, &mut |_, _| Ok(())).await
    }

    async fn compile_each(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        self.compiled_each(program, run, progress).await
    }

    async fn warm_up(
        &mut self,
        plans: &[&Self::Plan],
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        self.run_each_once(plans, progress).await
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        self.run_and_read(&[plan], read).await
    }

    async fn run_plans(&mut self, runs: &[(&Self::Plan, &[Tensor])]) -> Result<Vec<Vec<Vec<u8>>>> {
        let plans: Vec<&RecordedPass> = runs.iter().map(|(plan, _)| *plan).collect();
        let read: Vec<Tensor> = runs.iter().flat_map(|(_, read)| *read).copied().collect();
        let mut bytes = self.run_and_read(&plans, &read).await?.into_iter();
        Ok(runs.iter().map(|(_, read)| bytes.by_ref().take(read.len()).collect()).collect())
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        let mut regions = Vec::with_capacity(spans.len());
        for &Span { tensor, offset, bytes } in spans {
            let slot = &self.slots[tensor.id];
            let end = offset.saturating_add(bytes);
            if end > slot.size {
                return Err(tensor.beyond("read of", end, slot.size));
            }
            regions.push(Region { slot: tensor.id, offset: slot.offset + offset, size: bytes });
        }
        let total: u64 = regions.iter().map(|region| region.size).sum();
        if total == 0 {
            return self.check().map(|()| Vec::new());
        }
        let bytes = self.copied(&regions, total).await?;
        self.counters.submissions += 1;
        self.counters.read_backs += 1;
        self.counters.read_back_bytes += total;
        self.pace.done(wait::now());
        Ok(bytes)
    }

    async fn flush(&mut self) -> Result<()> {
        self.queue.submit([]);
        let waited = wait::wait(&self.device, &self.queue, self.patience).await;
        self.pace.done(wait::now());
        self.check()?;
        waited
    }

    fn tensor_count(&self) -> usize {
        self.slots.len()
    }

    fn truncate(&mut self, keep: usize) {
        if keep < self.slots.len() {
            self.ahead.forget();
        }
        // Without this, browsers would free the memory only when they next collect garbage.
        for slot in self.slots.drain(keep.min(self.slots.len())..) {
            slot.buffer.destroy();
        }
        if self.slots.is_empty() {
            self.uploads.free();
            if let Some(staging) = self.staging.take() {
                staging.destroy();
            }
        }
    }

    fn is_lost(&self) -> bool {
        self.failure.is_lost()
    }

    fn is_discrete(&self) -> bool {
        self.caps.is_discrete()
    }

    fn max_binding_bytes(&self) -> u64 {
        // Element indices in the shaders are 32-bit words, so a binding stays below 4 GiB; whole
        // 32-byte units keep every weight chunk inside.
        let limit = self.caps.limits.max_storage_buffer_binding_size;
        let limit = limit.min(self.caps.limits.max_buffer_size).min(self.binding_limit);
        limit.min(u64::from(u32::MAX)) / 32 * 32
    }
}
