//! Types that all other modules use: errors, tensors, numbers. No files, no device.

pub mod activation;
pub mod error;
pub mod finite;
pub(crate) mod json;
pub mod num;
pub mod quant;
mod rounding;
pub mod tensor;
pub mod utf8;
