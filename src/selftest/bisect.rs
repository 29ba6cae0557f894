//! Finds the first kernel of a whole model whose result on a device is outside its oracle's bounds.

use std::collections::HashMap;

use super::compare::{Compared, compare};
use crate::{
    base::{error::Result, tensor::Tensor},
    machine::{
        Machine, Span, Transfer,
        binder::Access,
        gpu::Gpu,
        host::Host,
        kernel::{Executor, Kernel},
    },
    model::Model,
    variants::Tuning,
};

/// A machine that runs each kernel on a device and compares it with its oracle.
///
/// The oracle reads the operands from the device, so errors do not accumulate and every kernel must
/// stay within its own bound. Only the operands of one kernel are on the host at a time.
pub struct Bisect<'a> {
    gpu: &'a mut Gpu,
    swap: Swap,
    compared: usize,
    worst: Option<(f64, String)>,
    parted: Option<Parted>,
    weights: HashMap<usize, String>,
    near: String,
}

/// Replaces a kernel of the model by the one that runs on the device.
type Swap = Box<dyn Fn(&dyn Kernel) -> Box<dyn Kernel>>;

/// The first result of a device outside its oracle's bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Parted {
    /// Name of the kernel, which is the stem of its files.
    pub kernel: &'static str,
    /// Number of kernels before it, which agreed.
    pub after: usize,
    /// The weight that it reads, or the last one that a kernel before it read, which tells the
    /// layer.
    pub near: String,
    /// The operand, the first wrong element, what it is and what it should be.
    pub failure: String,
}

impl<'a> Bisect<'a> {
    /// Wraps `gpu`, which holds the model and runs its kernels.
    pub fn new(gpu: &'a mut Gpu) -> Self {
        Self::with_swap(gpu, Box::new(|kernel| kernel.boxed()))
    }

    /// The same, but the device runs `swap` of each kernel: for tests with a broken kernel.
    pub fn with_swap(gpu: &'a mut Gpu, swap: Swap) -> Self {
        Self {
            gpu,
            swap,
            compared: 0,
            worst: None,
            parted: None,
            weights: HashMap::new(),
            near: "the embedding".into(),
        }
    }

    /// Registers the names of the weights of `model`, which was loaded onto this machine.
    pub fn name_weights(&mut self, model: &Model) {
        self.weights = model.named_tensors().map(|(name, tensor)| (tensor.id, name)).collect();
    }

    /// Number of kernels that were compared.
    pub fn compared(&self) -> usize {
        self.compared
    }

    /// Largest error as a fraction of its bound, and the kernel that made it.
    pub fn worst(&self) -> Option<&(f64, String)> {
        self.worst.as_ref()
    }

    /// The first result outside its oracle's bounds, if there was one.
    pub fn parted(&self) -> Option<&Parted> {
        self.parted.as_ref()
    }

    async fn step(&mut self, kernel: &dyn Kernel) -> Result<()> {
        let tuning = self.gpu.tuning().clone();
        let dispatch = kernel.record(&tuning)?;
        let operands: Vec<Tensor> = dispatch.operands.iter().map(|o| o.tensor).collect();
        let named = operands.iter().find_map(|tensor| self.weights.get(&tensor.id));
        if let Some(name) = named {
            self.near.clone_from(name);
        }
        let nothing = self.gpu.record(&mut |_| Ok(()))?;
        let before = self.gpu.run_plan(&nothing, &operands).await?;
        let swapped = (self.swap)(kernel);
        let plan = self.gpu.record(&mut |exec| exec.run(swapped.as_ref()))?;
        let after = self.gpu.run_plan(&plan, &operands).await?;

        let mut host = Host::default();
        host.tuning = tuning;
        for (&tensor, bytes) in operands.iter().zip(&before) {
            host.place(tensor, bytes);
        }
        kernel.oracle(&mut host);
        let name = dispatch.shader.name();
        for (operand, bytes) in dispatch.operands.iter().zip(&after) {
            if operand.access != Access::Write {
                continue;
            }
            let Compared { worst, wrong, .. } =
                compare(&host, *operand, dispatch.workgroups, bytes, false, None);
            // The size of an error beyond its bound means nothing.
            let worst = if worst > 1.0 { f64::INFINITY } else { worst };
            if self.worst.as_ref().is_none_or(|(most, _)| worst > *most) {
                self.worst = Some((worst, format!("{name}, {}", self.near)));
            }
            if let Some(wrong) = wrong {
                self.parted.get_or_insert(Parted {
                    kernel: dispatch.shader.own.kernel,
                    after: self.compared,
                    near: self.near.clone(),
                    failure: format!("{wrong}; {}", wrong.extent()),
                });
            }
        }
        self.compared += 1;
        Ok(())
    }
}

impl Machine for Bisect<'_> {
    type Plan = Steps;

    crate::machine::forward_machine!(gpu);

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.gpu.write(tensor, offset, bytes)
    }

    fn pins(&self) -> bool {
        self.gpu.pins()
    }

    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        self.gpu.copy(copies)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        let mut steps = Steps { tuning: self.gpu.tuning().clone(), kernels: Vec::new() };
        program(&mut steps)?;
        Ok(steps)
    }

    /// Runs kernel by kernel until one is outside its bounds, and skips the rest.
    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        for kernel in &plan.kernels {
            if self.parted.is_some() {
                break;
            }
            self.step(kernel.as_ref()).await?;
        }
        let nothing = self.gpu.record(&mut |_| Ok(()))?;
        self.gpu.run_plan(&nothing, read).await
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.gpu.read(spans).await
    }

    fn is_lost(&self) -> bool {
        self.gpu.is_lost()
    }
}

/// The recorded kernels, in order.
pub struct Steps {
    tuning: Tuning,
    kernels: Vec<Box<dyn Kernel>>,
}

impl Executor for Steps {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        kernel.record(&self.tuning)?;
        self.kernels.push(kernel.boxed());
        Ok(())
    }
}
