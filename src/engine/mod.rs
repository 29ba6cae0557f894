//! Prompt in, tokens out: the loop that makes text, and the state it needs.

pub mod generate;
pub mod resume;
pub mod session;
