//! Whole models against logits of an independent `PyTorch` program in f64 (`data/make_golden.py`).

mod common;
#[path = "common/devices.rs"]
mod devices;

use std::path::{Path, PathBuf};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    machine::{Machine as _, gpu::Gpu, host::Host},
    selftest::Golden,
};
use libtest_mimic::{Arguments, Failed, Trial};
use pollster::block_on;

fn read(name: &str) -> Golden {
    let at = |end: &str| {
        let paths = folders().map(|folder| folder.join(format!("{name}.{end}")));
        paths.into_iter().find(|path| path.exists()).expect("the golden file is there")
    };
    let config = std::fs::read_to_string(at("json")).expect("the config is text");
    let file = std::fs::read(at("safetensors")).expect("the golden file can be read");
    Golden::parse(name, &config, &file).expect("the golden file is good")
}

/// Golden files for tests only, and those that are built into the self-test.
fn folders() -> [PathBuf; 2] {
    ["tests/data/golden", "src/selftest/data"]
        .map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
}

fn names() -> Vec<String> {
    let entries =
        folders().map(|folder| std::fs::read_dir(folder).expect("golden files are there"));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".safetensors").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 18, "golden files are missing: {names:?}");
    names
}

/// Compares a model with its golden file and returns the largest difference.
type Run = Box<dyn Fn(&Golden) -> Result<f64, Failed> + Send + Sync>;

fn main() {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    let mut add = |name: String, run: Run| {
        let golden = name.split(' ').next().expect("a name has words").to_owned();
        trials.push(Trial::test(name.clone(), move || {
            let worst = run(&read(&golden))?;
            eprintln!("{name}: largest difference {worst:.1e}");
            Ok(())
        }));
    };
    for name in names() {
        let long = name.ends_with("1100");
        if !long {
            add(
                format!("{name} oracle"),
                Box::new(|g| Ok(block_on(g.by_chunks(Host::default(), DType::F32))?)),
            );
        }
        // Long prompts are slow on a software adapter, and add nothing about stored types.
        let dtypes = [DType::F32, DType::F16, DType::BF16];
        for &dtype in if long { &dtypes[..1] } else { &dtypes[..] } {
            add(
                format!("{name} prefill {dtype}"),
                Box::new(move |g| on_gpu(|gpu| block_on(g.by_chunks(gpu, dtype)))),
            );
        }
        add(
            format!("{name} one whole prefill"),
            Box::new(move |g| {
                on_gpu(|gpu| block_on(g.by_prefill_and_decode(gpu, 2048, g.ids.len())))
            }),
        );
        if !long {
            add(
                format!("{name} prefill by 7"),
                Box::new(move |g| {
                    on_gpu(|gpu| block_on(g.by_prefill_and_decode(gpu, 7, g.ids.len())))
                }),
            );
        }
        add(
            format!("{name} decode"),
            Box::new(move |g| {
                // Of long prompts, only the last tokens are decoded.
                let prompt = if long { g.ids.len() - 6 } else { 3 };
                on_gpu(|gpu| block_on(g.by_prefill_and_decode(gpu, 256, prompt)))
            }),
        );
    }
    libtest_mimic::run(&args, trials).exit();
}

/// Runs a test on a device that holds nothing of other tests afterwards.
fn on_gpu(run: impl FnOnce(&mut Gpu) -> Result<f64>) -> Result<f64, Failed> {
    devices::on_gpu(|gpu| {
        let worst = run(gpu)?;
        gpu.truncate(0);
        Ok(worst)
    })
}
