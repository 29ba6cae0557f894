//! Devices with WebGPU's default limits for tests that run side by side. Opening one is slow on
//! some adapters, and so is compiling pipelines, so a device is used again.

use std::sync::{Mutex, PoisonError};

use grok_wgpu::lab::machine::gpu::{Gpu, LimitProfile};
use libtest_mimic::Failed;

/// Runs a test on a device that no other test uses meanwhile. A test that fails drops the device,
/// which may be lost.
pub(crate) fn on_gpu<T>(run: impl FnOnce(&mut Gpu) -> Result<T, Failed>) -> Result<T, Failed> {
    static IDLE: Mutex<Vec<Gpu>> = Mutex::new(Vec::new());
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = idle().pop();
    let mut gpu = kept.unwrap_or_else(|| crate::common::open(LimitProfile::Baseline));
    let result = run(&mut gpu)?;
    idle().push(gpu);
    Ok(result)
}
