//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.

pub mod checkpoint;
mod config;
mod error;
mod json;
pub mod platform;
pub mod rope;
mod tensor;

pub use checkpoint::{Checkpoint, Synthetic, Weights};
pub use config::{Config, Gelu, PRESETS, Parameters, RopeType};
pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor};
