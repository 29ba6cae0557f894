//! What a model needs of a device, and which variants are fastest on one.

pub mod autotune;
pub mod capacity;
pub mod perplexity;
pub mod work;
