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
    /// The WGSL that implements it where work is divided like this.
    fn shader(&self, tuning: &Tuning) -> Shader;

    /// Checks the operands and says what to dispatch.
    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch>;

    /// Computes the same thing on the host, slowly and plainly, with a bound on what a correct
    /// device may add as error.
    fn oracle(&self, host: &mut Host);

    /// The same kernel in a box, for executors that keep what they record.
    fn boxed(&self) -> Box<dyn Kernel>;
}

impl dyn Kernel + '_ {
    /// What to dispatch where work is divided like this.
    pub fn record(&self, tuning: &Tuning) -> Result<Dispatch> {
        self.dispatch(Binder::new(self.shader(tuning), tuning))
    }
}

/// Something that can run kernels: a device, the host oracle, or a wrapper around either.
///
/// A pass also says, by marks between its kernels, where something may have to happen that is no
/// kernel. They do nothing where a whole model is on one device.
pub trait Executor {
    /// Runs one kernel after all the kernels run before it.
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()>;

    /// From here to [`Executor::used`], these weights must be in place.
    fn need(&mut self, need: Need) -> Result<()> {
        let _ = need;
        Ok(())
    }

    /// These weights are not used any more in this pass. Between this and the need of experts
    /// nothing is written that is read there before, so that part of a pass may run several times.
    fn used(&mut self, need: Need) -> Result<()> {
        let _ = need;
        Ok(())
    }

    /// Each rank has a part of `part`: from here on it is their sum.
    fn sum_over_ranks(&mut self, part: Tensor) -> Result<()> {
        let _ = part;
        Ok(())
    }

    /// Whether the pass begins here, and not with what the stage before has left in `handed`.
    fn begins(&mut self, handed: &[Tensor]) -> bool {
        let _ = handed;
        true
    }

    /// Whether the pass ends here, and not in the stage that gets `handed`.
    fn ends(&mut self, handed: &[Tensor]) -> bool {
        let _ = handed;
        true
    }
}

/// Weights of a model that may have to be brought before kernels use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All of this layer but its experts.
    Layer(usize),
    /// The experts of this layer that are named here: `[tokens, num_experts_per_tok]`.
    Experts(usize, Tensor),
}
