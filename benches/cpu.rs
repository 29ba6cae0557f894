//! How fast the CPU multiplies stored weights: `cargo bench --bench cpu`. One thread and all; a
//! part of a name selects: `cargo bench --bench cpu -- "Q4, 1 thread"`.
//!
//! The matrices are as large as an expert's of Grok-2, and lie in memory once.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grok_wgpu::lab::{
    base::tensor::DType,
    machine::cpu::{Cpu, Rows},
};

const ROWS: usize = 16_384;
const COLS: usize = 8192;

/// Bytes that are the numbers of some matrix: the exponents of floats and scales stay small.
fn matrix(dtype: DType) -> Vec<u8> {
    let row = usize::try_from(dtype.row_bytes(COLS as u64)).expect("a row fits into memory");
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3f
    };
    (0..ROWS * row).map(|_| next()).collect()
}

fn products(criterion: &mut Criterion) {
    let x: Vec<f32> = (0_u8..=255).cycle().take(4 * COLS).map(|i| f32::from(i) / 256.0).collect();
    let all = Cpu::new(0).expect("this CPU can");
    let one = Cpu::new(1).expect("this CPU can");
    let mut group = criterion.benchmark_group(format!("cpu, {}", one.instructions()));
    group.sample_size(10);
    for dtype in [DType::Q4, DType::Q8, DType::BF16, DType::F32] {
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

criterion_group!(cpu, products);
criterion_main!(cpu);
