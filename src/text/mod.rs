//! Text to token ids and back, and what is chosen of logits. No device.

pub mod chat;
pub mod sampler;
pub mod stop;
pub mod tokenizer;
