//! What a model needs of a device, and what is fastest on one.

pub mod autotune;
pub mod capacity;
pub mod work;
