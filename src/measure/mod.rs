//! What a model needs of a device, and which variants, chunks and splits are fastest on one.

pub mod attention;
pub mod autotune;
pub mod bandwidth;
pub mod capacity;
pub mod chunks;
pub mod device;
pub mod fit;
pub mod kernels;
pub mod lengths;
pub mod perplexity;
pub mod splits;
pub mod work;
