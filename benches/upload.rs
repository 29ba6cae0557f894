//! Time to write weights to an adapter: `GROK_WGPU_ADAPTER=NAME cargo bench --bench upload`.
//!
//! An iteration writes 256 MiB in windows, and waits after every 64 MiB, as a model is loaded: once
//! through the ring of staging buffers, once as wgpu writes without it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grok_wgpu::lab::{
    base::tensor::DType,
    machine::{
        BufferRole, Machine,
        gpu::{AdapterChoice, Gpu, LimitProfile},
    },
};
use pollster::block_on;

const TOTAL: u64 = 256 << 20;
const FLUSH: u64 = 64 << 20;
/// Bytes of the tensors that are written, one after another.
const TENSOR: u64 = 64 << 20;
/// Bytes of a window where weights are f32, and about those where they are q4.
const WINDOWS: [u64; 2] = [8 << 20, 1 << 20];

fn upload(criterion: &mut Criterion) {
    let choice =
        std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
    let mut gpu = block_on(Gpu::open(&choice, LimitProfile::Full)).expect("needs an adapter");
    eprintln!("{}", gpu.caps().describe());
    let shape = [u32::try_from(TENSOR / 4).expect("small")];
    let tensors: Vec<_> = (0..TOTAL / TENSOR)
        .map(|_| gpu.alloc(BufferRole::Storage, DType::U32, shape.into()).expect("it fits"))
        .collect();
    let mut group = criterion.benchmark_group("upload");
    group.sample_size(10).throughput(Throughput::Bytes(TOTAL));
    for window in WINDOWS {
        let bytes: Vec<u8> =
            (0..window).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 7) as u8).collect();
        for (on, way) in [(true, "ring"), (false, "write_buffer")] {
            gpu.stage_uploads(on);
            let id = BenchmarkId::new(way, format!("windows of {} MiB", window >> 20));
            group.bench_function(id, |bencher| {
                let all = || {
                    let mut waiting = 0;
                    for &tensor in &tensors {
                        for at in (0..TENSOR).step_by(bytes.len()) {
                            gpu.write(tensor, at, &bytes).expect("it fits");
                            waiting += window;
                            if waiting >= FLUSH {
                                block_on(gpu.flush()).expect("the device works");
                                waiting = 0;
                            }
                        }
                    }
                };
                bencher.iter(all);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, upload);
criterion_main!(benches);
