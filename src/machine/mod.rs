//! What a kernel is, what can run one, and what an engine needs of a device: memory, recorded
//! plans, results.

pub mod binder;
pub mod counting;
#[cfg(feature = "host-compute")]
pub mod cpu;
pub mod gpu;
pub mod host;
pub mod kernel;
pub mod shader;
pub mod step;

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    machine::kernel::Executor,
};

/// What a tensor is bound as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferRole {
    /// A storage buffer.
    Storage,
    /// A small uniform buffer, written once per step.
    Uniform,
    /// A storage buffer in pinned memory of the host, which the device reads where it is. Only
    /// where [`Machine::pins`] says so.
    Host,
}

/// Bytes that are copied from one tensor to another, of which each is a multiple of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The tensor that is read, and how many bytes after its start.
    pub from: (Tensor, u64),
    /// The tensor that is written, and how many bytes after its start.
    pub to: (Tensor, u64),
    /// How many bytes. In quantized tensors they are whole rows, as in [`Machine::write`].
    pub bytes: u64,
}

/// Some bytes of a tensor. `offset`, from its start, and `bytes` are multiples of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The tensor.
    pub tensor: Tensor,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// A device, or the host in its place.
pub trait Machine {
    /// A recorded sequence of dispatches.
    type Plan;

    /// Allocates a zeroed tensor.
    ///
    /// # Errors
    ///
    /// If it exceeds a limit of the device, or its memory.
    fn alloc(&mut self, role: BufferRole, dtype: DType, shape: Shape) -> Result<Tensor>;

    /// Writes bytes to a tensor, `offset` bytes from its start. Both are multiples of four.
    ///
    /// # Errors
    ///
    /// If the bytes do not fit into the tensor.
    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Waits until a write of `bytes` can go to memory that is there for writes, where a write
    /// itself cannot wait, as in browsers. The default does nothing.
    ///
    /// # Errors
    ///
    /// If the device fails or is lost.
    fn await_room(&mut self, bytes: usize) -> impl Future<Output = Result<()>> {
        let _ = bytes;
        async { Ok(()) }
    }

    /// Whether it reads pinned memory of the host where it is: [`BufferRole::Host`].
    fn pins(&self) -> bool {
        false
    }

    /// Copies bytes on the machine, after all that was written and run before, and before all that
    /// comes later. The default is for machines that pin nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the bytes are not in the tensors, [`Error::Usage`] if the machine cannot
    /// copy.
    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        Err(Error::Usage("this machine does not copy from tensor to tensor".into()))
    }

    /// Records what `program` runs, without running it.
    ///
    /// # Errors
    ///
    /// Those of `program`, and if the device refuses a pipeline.
    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan>;

    /// Compiles what `program` runs, all at once, so that recording it takes no time. The default
    /// does nothing, for machines without a compiler.
    ///
    /// # Errors
    ///
    /// Those of `program`, and if the device refuses a pipeline.
    fn compile(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> impl Future<Output = Result<()>> {
        let _ = program;
        async { Ok(()) }
    }

    /// Compiles what `program` runs, one pipeline after another in the order of their first use.
    /// `progress` is called with the pipelines that exist and how many `program` needs, first and
    /// after each; an error from it ends the work. In browsers the event loop has a turn before
    /// each call. With `run`, each new program runs once, as in [`Machine::warm_up`]. The default
    /// does nothing, for machines without a compiler.
    ///
    /// # Errors
    ///
    /// Those of `program` and of `progress`, if the device refuses a pipeline, or if it is lost.
    fn compile_each(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> impl Future<Output = Result<()>> {
        let _ = (program, run, progress);
        async { Ok(()) }
    }

    /// Has every program of `plans` run once, with as little work as it can have, for drivers that
    /// compile a program when it first runs. What the plans write has no meaning afterwards.
    /// `progress` is called with the programs that have run and how many there are; an error from
    /// it ends the work. The default does nothing, for machines without a compiler.
    ///
    /// # Errors
    ///
    /// If the device fails or is lost; errors of `progress`.
    fn warm_up(
        &mut self,
        plans: &[&Self::Plan],
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> impl Future<Output = Result<()>> {
        let _ = (plans, progress);
        async { Ok(()) }
    }

    /// Runs a plan in one submission, then reads whole tensors back.
    ///
    /// # Errors
    ///
    /// If the device fails or is lost.
    fn run_plan(
        &mut self,
        plan: &Self::Plan,
        read: &[Tensor],
    ) -> impl Future<Output = Result<Vec<Vec<u8>>>>;

    /// Runs plans in one submission, one after another, then reads whole tensors back: for each
    /// plan those beside it, which no later plan may write. The default submits and reads plan by
    /// plan.
    ///
    /// # Errors
    ///
    /// Those of [`Machine::run_plan`].
    fn run_plans(
        &mut self,
        runs: &[(&Self::Plan, &[Tensor])],
    ) -> impl Future<Output = Result<Vec<Vec<Vec<u8>>>>> {
        async move {
            let mut all = Vec::with_capacity(runs.len());
            for (plan, read) in runs {
                all.push(self.run_plan(plan, read).await?);
            }
            Ok(all)
        }
    }

    /// Reads parts of tensors back, one after another, as they are when everything is done that was
    /// run and written so far.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`](crate::base::error::Error::Limit) if a tensor has fewer bytes; if the
    /// device fails or is lost.
    fn read(&mut self, spans: &[Span]) -> impl Future<Output = Result<Vec<u8>>>;

    /// Waits until everything written so far has left the host's memory.
    ///
    /// # Errors
    ///
    /// If the device fails or is lost.
    fn flush(&mut self) -> impl Future<Output = Result<()>>;

    /// How many tensors there are.
    fn tensor_count(&self) -> usize;

    /// Frees all tensors but the first `keep`, in the order of their allocation. Plans that use
    /// them must not run again.
    fn truncate(&mut self, keep: usize);

    /// Whether the device is known to be lost: nothing will run on it again.
    fn is_lost(&self) -> bool {
        false
    }

    /// Whether it is a GPU with memory of its own.
    fn is_discrete(&self) -> bool {
        false
    }

    /// Bytes of the largest storage binding.
    fn max_binding_bytes(&self) -> u64;
}

/// The methods of a [`Machine`] that those around another one, in the field `$of`, pass on to it:
/// of allocation, and of limits. What runs and what is written they look at, or change.
#[doc(hidden)]
#[macro_export]
macro_rules! forward_machine {
    ($of:ident) => {
        fn alloc(
            &mut self,
            role: $crate::lab::machine::BufferRole,
            dtype: $crate::lab::base::tensor::DType,
            shape: $crate::lab::base::tensor::Shape,
        ) -> $crate::Result<$crate::lab::base::tensor::Tensor> {
            self.$of.alloc(role, dtype, shape)
        }

        async fn flush(&mut self) -> $crate::Result<()> {
            self.$of.flush().await
        }

        fn tensor_count(&self) -> usize {
            self.$of.tensor_count()
        }

        fn truncate(&mut self, keep: usize) {
            self.$of.truncate(keep);
        }

        fn max_binding_bytes(&self) -> u64 {
            self.$of.max_binding_bytes()
        }
    };
}
#[doc(hidden)]
pub use forward_machine;

/// A borrowed machine: its tensors stay when the session that used it ends.
impl<M: Machine> Machine for &mut M {
    type Plan = M::Plan;

    fn alloc(&mut self, role: BufferRole, dtype: DType, shape: Shape) -> Result<Tensor> {
        (**self).alloc(role, dtype, shape)
    }

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        (**self).write(tensor, offset, bytes)
    }

    async fn await_room(&mut self, bytes: usize) -> Result<()> {
        (**self).await_room(bytes).await
    }

    fn pins(&self) -> bool {
        (**self).pins()
    }

    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        (**self).copy(copies)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        (**self).record(program)
    }

    async fn compile(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()> {
        (**self).compile(program).await
    }

    async fn compile_each(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        (**self).compile_each(program, run, progress).await
    }

    async fn warm_up(
        &mut self,
        plans: &[&Self::Plan],
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        (**self).warm_up(plans, progress).await
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        (**self).run_plan(plan, read).await
    }

    async fn run_plans(&mut self, runs: &[(&Self::Plan, &[Tensor])]) -> Result<Vec<Vec<Vec<u8>>>> {
        (**self).run_plans(runs).await
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        (**self).read(spans).await
    }

    async fn flush(&mut self) -> Result<()> {
        (**self).flush().await
    }

    fn tensor_count(&self) -> usize {
        (**self).tensor_count()
    }

    fn truncate(&mut self, keep: usize) {
        (**self).truncate(keep);
    }

    fn is_lost(&self) -> bool {
        (**self).is_lost()
    }

    fn is_discrete(&self) -> bool {
        (**self).is_discrete()
    }

    fn max_binding_bytes(&self) -> u64 {
        (**self).max_binding_bytes()
    }
}
