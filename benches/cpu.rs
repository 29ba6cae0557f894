//! How fast the CPU multiplies stored weights: `cargo bench --bench cpu`. One thread and all; a
//! part of a name selects: `cargo bench --bench cpu -- "Q4, 1 thread"`. What memory gives is
//! measured beside it.
//!
//! The matrices are as large as an expert's of Grok-2, and lie in memory once.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grok_wgpu::lab::{
    base::{quant, tensor::DType},
    machine::cpu::{Cpu, Rows},
};
use half::{bf16, f16};

const ROWS: usize = 16_384;
const COLS: usize = 8192;

const DTYPES: [DType; 7] =
    [DType::Q4, DType::Q8, DType::Q3, DType::Q2, DType::BF16, DType::F16, DType::F32];

/// Rows of a matrix that differ. Numbers of usual sizes: what is too small to be normal takes some
/// CPUs a hundred times as long.
const DIFFERENT: usize = 64;

/// A matrix as it is stored.
fn matrix(dtype: DType) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 16_777_216.0 - 0.5) / 16.0
    };
    let mut bytes = Vec::new();
    for _ in 0..DIFFERENT {
        let row: Vec<f32> = (0..COLS).map(|_| next()).collect();
        match dtype {
            DType::F32 => bytes.extend(row.iter().flat_map(|x| x.to_le_bytes())),
            DType::F16 => bytes.extend(row.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            DType::BF16 => bytes.extend(row.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
            _ => quant::encode_row(dtype, &row, &mut bytes),
        }
    }
    bytes.repeat(ROWS / DIFFERENT)
}

/// The sum of a slice of floats, as fast as memory is read.
fn sum(floats: &[f32]) -> f32 {
    let mut sums = [0.0; 64];
    for some in floats.as_chunks::<64>().0 {
        for (sum, x) in sums.iter_mut().zip(some) {
            *sum += x;
        }
    }
    sums.iter().sum()
}

/// What memory gives: a plain sum of 256 MiB, by one thread and by all.
fn memory(criterion: &mut Criterion) {
    let floats = vec![1.0_f32; 64 << 20];
    let mut group = criterion.benchmark_group("memory");
    group.sample_size(10).throughput(Throughput::Bytes(4 * floats.len() as u64));
    for threads in [1, std::thread::available_parallelism().map_or(1, usize::from)] {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter(|| {
                std::thread::scope(|scope| {
                    for part in floats.chunks(floats.len().div_ceil(threads)) {
                        scope.spawn(move || black_box(sum(part)));
                    }
                });
            });
        });
    }
    group.finish();
}

fn products(criterion: &mut Criterion) {
    let x: Vec<f32> = (0_u8..=255).cycle().take(4 * COLS).map(|i| f32::from(i) / 256.0).collect();
    let all = Cpu::new(0).expect("this CPU can");
    let one = Cpu::new(1).expect("this CPU can");
    let mut group = criterion.benchmark_group(format!("cpu, {}", one.instructions()));
    group.sample_size(10);
    for dtype in DTYPES {
        let bytes = matrix(dtype);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let weight = Rows { dtype, cols: COLS, bytes: &bytes };
        for (cpu, columns) in [(&one, 1), (&one, 4), (&all, 1)] {
            let threads = cpu.threads();
            let name = format!("{dtype}, {threads} threads, {columns} columns");
            let mut out = Vec::new();
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    cpu.product(weight, &x[..columns * COLS], &mut out).expect("multiplies");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(cpu, memory, products);
criterion_main!(cpu);
