//! Every chosen row of the kernel table on the adapter under test, and some random rows, each as
//! its own test. `grok-wgpu selftest --profile full` runs many more random rows.

mod common;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use grok_wgpu::lab::{
    kernels,
    machine::gpu::{Gpu, LimitProfile},
    selftest,
    variants::Tuning,
};
use libtest_mimic::{Arguments, Failed, Trial};

/// Random rows of each kernel.
const RANDOM: u32 = 20;

fn main() {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    let tunings = Tuning::all(&shared().caps().capabilities());
    for case in kernels::cases().into_iter().chain(kernels::random_cases(RANDOM)) {
        let case = Arc::new(case);
        for (tuning_name, tuning) in selftest::ways(&case, &tunings).expect("rows are sound") {
            let case = case.clone();
            let name = format!("{} [{tuning_name}]", case.full_name());
            trials.push(Trial::test(name, move || {
                let mut gpu = shared();
                let report = pollster::block_on(selftest::check(&mut gpu, &case, &tuning))?;
                report.failure.map_or(Ok(()), |failure| Err(Failed::from(failure)))
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

/// One device for all rows, with WebGPU's default limits.
fn shared() -> MutexGuard<'static, Gpu> {
    static GPU: OnceLock<Mutex<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Mutex::new(common::open(LimitProfile::Baseline)))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
