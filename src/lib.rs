//! A portable WebGPU engine for Grok-2-class mixture-of-experts transformers.

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod gpu;
pub mod host;
mod json;
pub mod kernel;
pub mod kernels;
pub mod machine;
pub mod platform;
pub mod rope;
pub mod selftest;
pub mod tensor;
pub mod tuning;

pub use checkpoint::{Checkpoint, Synthetic, Weights};
pub use config::{Config, Gelu, PRESETS, Parameters, RopeType};
pub use error::{Error, Result};
pub use gpu::Gpu;
pub use host::{Bounded, Fill, Host};
pub use kernel::{Binder, Dispatch, Executor, Kernel, Shader};
pub use machine::Machine;
pub use tensor::{DType, Shape, Tensor};
