//! The server: its protocol against an engine that follows a script, and the program with the demo
//! model.

mod choices;
#[path = "../common/mod.rs"]
mod common;
mod forms;
mod harness;
mod limits;
mod lost;
mod program;
mod protocol;
mod streams;
