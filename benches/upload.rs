//! Rate of writing weights to an adapter: `GROK_WGPU_ADAPTER=NAME cargo bench --bench upload`. With
//! the folder of a model it loads that instead: `cargo bench --bench upload -- FOLDER`.
//!
//! Writes go through the ring of staging buffers, and in wgpu's own way, in turns, since a machine
//! that does other work would else favour one of them. Each prints its median and its extremes.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::{path::Path, time::Instant};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::folder::open_model,
    machine::{
        BufferRole, Machine,
        gpu::{AdapterChoice, Gpu, LimitProfile},
    },
    model::{Model, ahead::Ahead, config::Compat, weights::Stored},
};
use pollster::block_on;

/// Bytes that are written for a figure, to tensors of this size in turn.
const TOTAL: u64 = 1 << 30;
const TENSOR: u64 = 128 << 20;

/// Bytes after which it is waited for the device, as when a model is loaded.
const FLUSH: u64 = 64 << 20;

/// Bytes of a write: a window of a model's files, and smaller ones.
const WINDOWS: [u64; 4] = [8 << 20, 4 << 20, 2 << 20, 1 << 20];

const ROUNDS: usize = 7;

/// Has `run` return bytes, in turns with the ring and without it, and prints how many GiB/s each
/// were.
fn compare(gpu: &mut Gpu, what: &str, mut run: impl FnMut(&mut Gpu) -> Result<u64>) -> Result<()> {
    let ways = [("ring", true), ("write_buffer", false)];
    let mut rates = [Vec::new(), Vec::new()];
    // The first round makes the memory of tensors and of drivers, and is left out.
    for round in 0..=ROUNDS {
        for ((_, on), rates) in ways.iter().zip(&mut rates) {
            gpu.stage_uploads(*on);
            let start = Instant::now();
            let bytes = run(gpu)?;
            let rate = bytes as f64 / f64::from(1 << 30) / start.elapsed().as_secs_f64();
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    for ((name, _), rates) in ways.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let [least, median, most] = [0, ROUNDS / 2, ROUNDS - 1].map(|i| rates[i]);
        println!("{what}, {name}: {median:.2} GiB/s ({least:.2} to {most:.2})");
    }
    Ok(())
}

fn writes(gpu: &mut Gpu) -> Result<()> {
    let shape = [u32::try_from(TENSOR / 4).expect("small")];
    let tensor = gpu.alloc(BufferRole::Storage, DType::U32, shape.into())?;
    for window in WINDOWS {
        let bytes: Vec<u8> =
            (0..window).map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes()[1]).collect();
        compare(gpu, &format!("writes of {} MiB", window >> 20), |gpu| {
            for done in (0..TOTAL).step_by(bytes.len()) {
                gpu.write(tensor, done % TENSOR, &bytes)?;
                if (done + window) % FLUSH == 0 {
                    block_on(gpu.flush())?;
                }
            }
            Ok(TOTAL)
        })?;
    }
    Ok(())
}

fn loads(gpu: &mut Gpu, folder: &Path) -> Result<()> {
    let opened = block_on(open_model(folder, Compat::Reference))?;
    let model = Model::alloc(gpu, &opened.config, &opened.weights)?;
    compare(gpu, &format!("loads of {}", folder.display()), |gpu| {
        let mut bytes = 0;
        let mut progress = |done| {
            bytes = done;
            Ok(())
        };
        let weights = Ahead::new(Stored::new(&opened.weights));
        block_on(model.fill(gpu, &weights, &mut progress))?;
        Ok(bytes)
    })
}

fn main() -> Result<()> {
    let choice =
        std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
    let mut gpu = block_on(Gpu::open(&choice, LimitProfile::Full))?;
    println!("{}", gpu.caps().describe());
    // Cargo adds `--bench`.
    match std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        Some(folder) => loads(&mut gpu, Path::new(&folder)),
        None => writes(&mut gpu),
    }
}
