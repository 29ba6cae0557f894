//! An interpreter of naga's IR that detects races, divergent barriers and shuffles, accesses out of
//! bounds, and reads of unwritten memory. Needs no device.

mod evaluate;
mod machine;
mod mask;
mod math;
mod matrices;
mod memory;
mod program;
mod subgroups;

pub use machine::{Outcome, dispatch, run};
pub use memory::Memory;
pub use program::Program;
pub use subgroups::Subgroups;

use grok_wgpu::lab::{machine::binder::Access, selftest::CaseData};

/// Rows with at most so many bytes of storage operands are interpreted in every run of the tests.
pub const SMALL: usize = 48 << 10;

/// Bytes of a row's operands but uniforms, whose size is no measure of the work.
pub fn storage_bytes(row: &CaseData) -> usize {
    let storage = row.data.iter().filter(|data| data.operand.access != Access::Uniform);
    storage.map(|data| data.initial.len()).sum()
}
