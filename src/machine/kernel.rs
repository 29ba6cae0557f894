//! What a kernel is: WGSL source, a dispatch, and a scalar reference.

use crate::{
    base::error::Result,
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
pub trait Executor {
    /// Runs one kernel after all the kernels run before it.
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()>;
}
