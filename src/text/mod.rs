//! Tokenizers, the chat format, stop texts, and sampling from logits. No device.

pub mod chat;
pub mod constraint;
#[cfg(all(feature = "grammar", not(target_arch = "wasm32")))]
pub mod grammar;
pub mod sampler;
pub mod shaping;
pub mod stop;
pub mod talk;
mod template;
pub mod tokenizer;
