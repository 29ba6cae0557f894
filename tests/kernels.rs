//! Every chosen row of the kernel table on the adapter under test, and some random rows, each as
//! its own test. `grok-wgpu selftest --profile full` runs many more random rows.
//!
//! `GROK_WGPU_EVERY=N` leaves all but each N-th row of a kernel, variant and element type, so that
//! every program still runs. Of `Q3` and `Q2`, two thirds are left out but with
//! `GROK_WGPU_FULL=true`.

mod common;
#[path = "common/devices.rs"]
mod devices;
#[path = "common/full.rs"]
mod full;

use std::{collections::HashMap, sync::Arc};

use devices::on_gpu;
use grok_wgpu::lab::{kernels, selftest, variants::Tuning};
use libtest_mimic::{Arguments, Failed, Trial};

/// Random rows of each kernel.
const RANDOM: u32 = 20;

fn main() {
    let args = Arguments::from_args();
    let every = std::env::var("GROK_WGPU_EVERY").map_or(1, |text| match text.parse::<usize>() {
        Ok(every) if every > 0 => every,
        _ => panic!("GROK_WGPU_EVERY is {text:?}, expected a whole number from 1 on"),
    });
    let full = full::is_full();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut trials = Vec::new();
    let on = on_gpu(|gpu| Ok(gpu.caps().capabilities())).expect("nothing that fails");
    let tunings = Tuning::all(&on);
    for case in kernels::cases().into_iter().chain(kernels::random_cases(RANDOM)) {
        let case = Arc::new(case);
        for (tuning_name, tuning) in selftest::ways(&case, &tunings).expect("rows are sound") {
            let element = case.name.split(' ').next().unwrap_or_default();
            let count = seen.entry(format!("{} {tuning_name} {element}", case.kernel)).or_default();
            // Types of few bits share all but their decoding with Q4.
            let every = if matches!(element, "Q3" | "Q2") && !full { 3 * every } else { every };
            let left_out = !count.is_multiple_of(every);
            *count += 1;
            if left_out {
                continue;
            }
            let case = case.clone();
            let name = format!("{} [{tuning_name}]", case.full_name());
            trials.push(Trial::test(name, move || {
                on_gpu(|gpu| {
                    let report = pollster::block_on(selftest::check(gpu, &case, &tuning))?;
                    report.failure.map_or(Ok(()), |failure| Err(Failed::from(failure)))
                })
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}
