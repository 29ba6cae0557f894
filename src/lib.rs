//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.

mod chat;
mod config;
mod error;
mod sampler;
mod tensor;
mod tokenizer;

pub use chat::{Message, Role, encode_chat};
pub use config::{Config, Gelu, RopeType};
pub use error::{Error, Result};
pub use sampler::{Candidate, Needs, Sampler, Sampling, logprobs, top_logprobs};
pub use tensor::{DType, Shape, Tensor};
pub use tokenizer::{StreamDecoder, Tokenizer, synthetic_tok_json};
