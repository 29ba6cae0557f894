//! A machine that counts what it is asked for, and runs nothing.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    machine::{
        BufferRole, Machine, Span, Transfer,
        gpu::Caps,
        kernel::{Executor, Kernel},
    },
    variants::Tuning,
};

/// The limits of a device that decide how memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Bytes of the largest storage binding.
    pub binding: u64,
    /// Bytes of the largest buffer.
    pub buffer: u64,
}

impl DeviceLimits {
    /// WebGPU's default limits, which every device has (`WebGPU`, section 3.6.2, limits).
    pub const BASELINE: Self = Self { binding: 128 << 20, buffer: 256 << 20 };

    /// The limits that a device was opened with.
    pub fn of(caps: &Caps) -> Self {
        Self { binding: caps.max_binding_bytes(), buffer: caps.max_buffer_bytes() }
    }
}

/// A machine that has limits and no memory: it counts what it is asked for and runs nothing.
#[derive(Clone, Debug)]
pub struct Counting {
    limits: DeviceLimits,
    /// Bytes of each tensor, and whether they are the host's.
    sizes: Vec<(u64, bool)>,
}

/// What a recorded plan would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Dispatches.
    pub dispatches: u64,
    /// How often each kernel runs, in order of first use.
    pub kernels: Vec<(String, u64)>,
    /// Bytes of all tensors bound, each as often as it is bound.
    pub bytes_bound: u64,
    /// Upper bound on the bytes of them that dispatches read or write.
    pub bytes_touched: u64,
}

impl Counting {
    /// A machine with nothing on it.
    pub fn new(limits: DeviceLimits) -> Self {
        Self { limits, sizes: Vec::new() }
    }

    /// Bytes of all tensors on the device, as it allocates them.
    pub fn bytes(&self) -> u64 {
        self.bytes_of(false)
    }

    /// Bytes of all tensors in pinned memory of the host.
    pub fn pinned_bytes(&self) -> u64 {
        self.bytes_of(true)
    }

    fn bytes_of(&self, hosts: bool) -> u64 {
        let those = self.sizes.iter().filter(|(_, host)| *host == hosts);
        those.map(|(bytes, _)| bytes).sum()
    }

    /// The limits.
    pub fn limits(&self) -> DeviceLimits {
        self.limits
    }
}

impl Executor for Counted {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        let dispatch = kernel.record(&Tuning::default())?;
        let label = dispatch.shader.label();
        self.dispatches += 1;
        self.bytes_bound += dispatch.bytes_bound();
        self.bytes_touched += dispatch.bytes_touched();
        match self.kernels.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count += 1,
            None => self.kernels.push((label, 1)),
        }
        Ok(())
    }
}

impl Machine for Counting {
    type Plan = Counted;

    fn alloc(&mut self, role: BufferRole, dtype: DType, shape: Shape) -> Result<Tensor> {
        // As on a device: whole 32-byte units, and no empty buffer.
        let bytes = shape.size_bytes(dtype).max(dtype.row_bytes(1)).next_multiple_of(32);
        let limit = self.limits.binding.min(self.limits.buffer);
        if bytes > limit {
            return Err(Error::Limit {
                what: format!("a tensor of {dtype}{shape}"),
                got: bytes,
                limit,
            });
        }
        self.sizes.push((bytes, role == BufferRole::Host));
        Ok(Tensor { id: self.sizes.len() - 1, shape, dtype })
    }

    fn write(&mut self, _tensor: Tensor, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn pins(&self) -> bool {
        true
    }

    fn copy(&mut self, _copies: &[Transfer]) -> Result<()> {
        Ok(())
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        let mut counted = Counted::default();
        program(&mut counted)?;
        Ok(counted)
    }

    async fn run_plan(&mut self, _plan: &Self::Plan, _read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        Err(Error::Usage("a machine that only counts cannot run a model".into()))
    }

    async fn read(&mut self, _spans: &[Span]) -> Result<Vec<u8>> {
        Err(Error::Usage("a machine that only counts holds nothing".into()))
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn tensor_count(&self) -> usize {
        self.sizes.len()
    }

    fn truncate(&mut self, keep: usize) {
        self.sizes.truncate(keep);
    }

    fn max_binding_bytes(&self) -> u64 {
        // The same rule as on a device.
        self.limits.binding.min(self.limits.buffer).min(u64::from(u32::MAX)) / 32 * 32
    }
}

/// A machine that has limits and no memory, and calls `see` with each kernel that is recorded.
#[derive(Debug)]
pub struct Watching<F> {
    /// What has the limits.
    pub counting: Counting,
    /// What is done with a kernel.
    pub see: F,
}

/// The executor of a [`Watching`].
struct Seen<'a, F>(&'a mut F);

impl<F: FnMut(&dyn Kernel) -> Result<()>> Executor for Seen<'_, F> {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        (self.0)(kernel)
    }
}

impl<F: FnMut(&dyn Kernel) -> Result<()>> Machine for Watching<F> {
    type Plan = ();

    fn alloc(&mut self, role: BufferRole, dtype: DType, shape: Shape) -> Result<Tensor> {
        self.counting.alloc(role, dtype, shape)
    }

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.counting.write(tensor, offset, bytes)
    }

    fn pins(&self) -> bool {
        self.counting.pins()
    }

    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        self.counting.copy(copies)
    }

    fn record(&mut self, program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>) -> Result<()> {
        program(&mut Seen(&mut self.see))
    }

    async fn run_plan(&mut self, (): &(), read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        self.counting.run_plan(&Counted::default(), read).await
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.counting.read(spans).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.counting.flush().await
    }

    fn tensor_count(&self) -> usize {
        self.counting.tensor_count()
    }

    fn truncate(&mut self, keep: usize) {
        self.counting.truncate(keep);
    }

    fn max_binding_bytes(&self) -> u64 {
        self.counting.max_binding_bytes()
    }
}
