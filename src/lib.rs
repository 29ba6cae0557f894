//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generate;
pub mod gpu;
pub mod host;
mod json;
pub mod kernel;
pub mod kernels;
pub mod machine;
pub mod model;
pub mod plan;
pub mod platform;
pub mod quant;
pub mod resume;
pub mod rope;
pub mod sampler;
pub mod selftest;
pub mod session;
pub mod stop;
pub mod tensor;
pub mod tokenizer;
pub mod tune;
pub mod tuning;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use chat::{Message, Role, encode_chat};
pub use checkpoint::{Checkpoint, Gguf, ModelFiles, Synthetic, Weights};
pub use config::{Compat, Config, Gelu, PRESETS, Parameters, RopeType};
pub use error::{Error, Result};
pub use gpu::Gpu;
pub use host::{Bounded, Fill, Host};
pub use kernel::{Binder, Dispatch, Executor, Kernel, Shader, ShaderFile};
pub use machine::Machine;
pub use model::Model;
pub use sampler::{Candidate, Needs, Sampler, Sampling, logprobs, top_logprobs};
pub use tensor::{DType, Shape, Tensor};
pub use tokenizer::{StreamDecoder, Tokenizer, synthetic_tok_json};
pub use tuning::{Matrices, Tuning, Vectors};
