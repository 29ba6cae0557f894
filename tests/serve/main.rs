//! The server: its protocol against an engine that follows a script, and the program with the demo
//! model.

mod harness;
mod limits;
mod program;
mod protocol;
mod streams;
