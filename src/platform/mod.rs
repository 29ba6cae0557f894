//! What differs between native machines and browsers.

mod gpu;

pub(crate) use gpu::{read_staging, wait};
