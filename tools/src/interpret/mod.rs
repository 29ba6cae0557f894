//! An interpreter of naga's IR that detects races, divergent barriers and shuffles, accesses out of
//! bounds, and reads of unwritten memory. Needs no device.

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

/// Rows with at most so many bytes of operands are interpreted in every run of the tests.
pub const SMALL: usize = 48 << 10;
