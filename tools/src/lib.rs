//! Tools that check the shaders of grok-wgpu. Not published.
//!
//! - [`interpret`] runs a row without a device and detects faults that devices hide.
//! - [`mutate`] makes small wrong changes to the shaders; a row must fail for each.
//! - [`edited`] is a kernel with such a change; tests use it too.
//! - [`programs`] lists every program that is ever dispatched.
//!
//! The binaries are `mutate`, and `export_shaders` and `export_cases`, which write programs and
//! rows to files for Tint and Dawn.

pub mod edited;
pub mod interpret;
pub mod isa;
pub mod mutate;
pub mod programs;
