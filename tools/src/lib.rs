//! Tools that check the shaders of grok-wgpu. They are no part of what is published.
//!
//! - [`interpret`] runs a row of a kernel without a device, and sees what devices hide.
//! - [`mutate`] makes small wrong changes to the shaders, and wants a row to fail for each.
//! - [`edited`] is a kernel with one such change, which tests use as well.
//! - [`programs`] lists every program that is ever dispatched.
//!
//! The binaries are `mutate`, and `export_shaders` and `export_cases`, which write programs and rows
//! to files for Tint and Dawn.

pub mod edited;
pub mod interpret;
pub mod mutate;
pub mod programs;
