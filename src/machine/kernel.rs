//! What a kernel is: WGSL source, a dispatch, and a scalar reference.

use crate::{
    base::{error::Result, tensor::Tensor},
    machine::{
        binder::{Binder, Dispatch},
        host::Host,
        shader::Shader,
    },
    variants::Tuning,
};

/// One GPU operation, described by its operands. Building the value does nothing; an
/// [`Executor`] runs it.
pub trait Kernel {
    /// The WGSL program that implements it under this tuning.
    fn shader(&self, tuning: &Tuning) -> Shader;

    /// Checks the operands and describes the dispatch.
    ///
    /// # Errors
    ///
    /// If an operand has the wrong type or shape or is bound twice, or the work exceeds a limit.
    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch>;

    /// Computes the same thing on the host, slowly and plainly, with a bound on what a correct
    /// device may add as error.
    fn oracle(&self, host: &mut Host);

    /// The same kernel in a box, for executors that keep what they record.
    fn boxed(&self) -> Box<dyn Kernel>;
}

impl dyn Kernel + '_ {
    /// The dispatch under this tuning.
    ///
    /// # Errors
    ///
    /// Those of [`Kernel::dispatch`].
    pub fn record(&self, tuning: &Tuning) -> Result<Dispatch> {
        self.dispatch(Binder::new(self.shader(tuning), tuning))
    }
}

/// Something that can run kernels: a device, the host oracle, or a wrapper around either.
///
/// Between its kernels, a pass also sets marks, for work that is no kernel: loading weights, sums
/// over ranks, the hand-over between stages. They do nothing where a whole model is on one device.
pub trait Executor {
    /// Runs one kernel after all the kernels run before it.
    ///
    /// # Errors
    ///
    /// Those of [`Kernel::dispatch`], and of what runs the kernel.
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()>;

    /// From here to [`Executor::used`], these weights must be in place.
    ///
    /// # Errors
    ///
    /// If the executor cannot act at this mark.
    fn need(&mut self, need: Need) -> Result<()> {
        let _ = need;
        Ok(())
    }

    /// These weights are no longer used in this pass. The kernels between the need of experts and
    /// this overwrite nothing that they read before, so that part of a pass may run several times.
    ///
    /// # Errors
    ///
    /// If the executor cannot act at this mark.
    fn used(&mut self, need: Need) -> Result<()> {
        let _ = need;
        Ok(())
    }

    /// All-reduce: each rank has a partial sum in `part`. From here on it is the sum of all.
    ///
    /// # Errors
    ///
    /// If the executor cannot act at this mark.
    fn sum_over_ranks(&mut self, part: Tensor) -> Result<()> {
        let _ = part;
        Ok(())
    }

    /// Whether the pass begins here. If not, `handed` holds what the stage before it has computed.
    fn begins(&mut self, handed: &[Tensor]) -> bool {
        let _ = handed;
        true
    }

    /// Whether the pass ends here. If not, the next stage gets `handed`.
    fn ends(&mut self, handed: &[Tensor]) -> bool {
        let _ = handed;
        true
    }
}

/// Weights of a model that may have to be loaded before kernels use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All of this layer but its experts.
    Layer(usize),
    /// The dense MLP of a layer.
    Dense {
        /// The layer.
        layer: usize,
        /// Where its output goes: `[tokens, hidden_size]`.
        out: Tensor,
    },
    /// Experts of a layer.
    Experts {
        /// The layer.
        layer: usize,
        /// Which of its experts each token chose: `[tokens, num_experts_per_tok]`.
        ids: Tensor,
        /// Where each of these is in the tensors of experts, or a number beyond their end for one
        /// that is not there: `[tokens, num_experts_per_tok]`. It is `ids` if all of the layer's
        /// experts are there; else the runner writes it.
        at: Tensor,
    },
}
