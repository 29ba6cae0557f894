//! What several tests need: the adapter under test.

use grok_wgpu::lab::machine::gpu::{AdapterChoice, Gpu, LimitProfile};

/// The adapter that `GROK_WGPU_ADAPTER` names, or the best there is.
pub(crate) fn choice() -> AdapterChoice {
    std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named)
}

/// A device on the adapter under test. Without one the test fails: that is the point of the test.
pub(crate) fn open(profile: LimitProfile) -> Gpu {
    pollster::block_on(Gpu::open(&choice(), profile)).expect("tests need an adapter")
}
