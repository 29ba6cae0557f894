//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.

mod config;
mod error;
mod tensor;

pub use config::{Config, Gelu, RopeType};
pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor};
