//! An interpreter of naga's IR that sees races, divergent barriers and shuffles, accesses out of
//! bounds, and reads of what nobody wrote. Needs no device.

mod evaluate;
mod machine;
mod mask;
mod math;
mod memory;
mod program;
mod subgroups;

pub use machine::{Outcome, dispatch, run};
pub use memory::Memory;
pub use program::Program;
pub use subgroups::Subgroups;

/// Bytes of all operands of the largest rows that are interpreted each time.
pub const SMALL: usize = 48 << 10;
