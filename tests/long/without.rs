//! A device that leaves out attention where a test asks for it.

use grok_wgpu::lab::{
    base::{error::Result, tensor::Tensor},
    machine::{
        Machine, Span,
        gpu::Gpu,
        kernel::{Executor, Kernel, Need},
    },
    variants::Tuning,
};

/// A device. What is recorded while it `skips` has no attention: keys and values are computed and
/// stored, and nobody looks at them.
pub(crate) struct Without {
    pub(crate) gpu: Gpu,
    pub(crate) skips: bool,
}

impl Without {
    /// A device that leaves nothing out.
    pub(crate) fn nothing(gpu: Gpu) -> Self {
        Self { gpu, skips: false }
    }

    /// Frees all tensors.
    pub(crate) fn clear(&mut self) {
        self.gpu.truncate(0);
    }
}

struct Rest<'a>(&'a mut dyn Executor);

impl Executor for Rest<'_> {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        let name = kernel.shader(&Tuning::default()).own.kernel;
        if name.starts_with("attention") { Ok(()) } else { self.0.run(kernel) }
    }

    fn need(&mut self, need: Need) -> Result<()> {
        self.0.need(need)
    }

    fn used(&mut self, need: Need) -> Result<()> {
        self.0.used(need)
    }
}

impl Machine for Without {
    type Plan = <Gpu as Machine>::Plan;

    grok_wgpu::lab::machine::forward_machine!(gpu);

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.gpu.write(tensor, offset, bytes)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        if self.skips {
            self.gpu.record(&mut |exec| program(&mut Rest(exec)))
        } else {
            self.gpu.record(program)
        }
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        self.gpu.run_plan(plan, read).await
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.gpu.read(spans).await
    }
}
