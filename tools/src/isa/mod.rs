//! What a real compiler for GPUs makes of the shaders, without a GPU.
//!
//! Mesa's driver for AMD GPUs compiles for a GPU that is not there, and shows statistics and
//! machine code. The program `isa` prints figures of every program that a GPU may be given; the
//! test of this name compares them with a table in `tools/isa/` and with bounds. `CONTRIBUTING.md`
//! says how to read and renew the tables.

pub mod bounds;
pub mod cards;
pub mod command;
pub mod compare;
pub mod count;
pub mod driver;
pub mod figures;
pub mod flow;
pub mod listing;
pub mod programs;
#[cfg(all(unix, not(target_vendor = "apple")))]
pub mod radv;
pub mod report;
pub mod roofline;
pub mod spirv;
pub mod table;
pub mod tasks;

pub use command::main;
