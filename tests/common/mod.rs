//! What several tests need: the adapter under test.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use grok_wgpu::{
    Gpu,
    gpu::{AdapterChoice, Profile},
};

/// The adapter that `GROK_WGPU_ADAPTER` names, or the best there is.
pub fn choice() -> AdapterChoice {
    std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named)
}

/// A device on the adapter under test. Without one the test fails: that is the point of the test.
pub fn open(profile: Profile) -> Gpu {
    pollster::block_on(Gpu::open(&choice(), profile)).expect("tests need an adapter")
}

/// One device for all tests of a program, with WebGPU's default limits.
pub fn shared() -> MutexGuard<'static, Gpu> {
    static GPU: OnceLock<Mutex<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Mutex::new(open(Profile::Baseline)))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
