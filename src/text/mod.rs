//! Tokenizers, the chat format, stop texts, and sampling from logits. No device.

pub mod chat;
pub mod sampler;
pub mod shaping;
pub mod stop;
pub mod talk;
mod template;
pub mod tokenizer;
