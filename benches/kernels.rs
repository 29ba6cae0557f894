//! Time of the matrix kernels on an adapter: `GROK_WGPU_ADAPTER=NAME cargo bench --bench kernels`.
//!
//! Each iteration records nothing and reads one small tensor back, so that it lasts until the
//! device is done. Bytes are those of the weights that a kernel has to read.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grok_wgpu::{
    DType, Fill, Gelu, Gpu, Host, Kernel, Machine, Tensor,
    gpu::{AdapterChoice, Profile},
    kernels::{DenseExpertMatVec, ExpertGatedMatVec, ExpertMatVec, GatedMatVec, MatMul, MatVec},
    machine::Role,
};

const HIDDEN: u32 = 1024;
const WIDE: u32 = 2048;
const EXPERTS: u32 = 8;

/// A device and the host whose tensors are copied to it.
struct Bench {
    gpu: Gpu,
    host: Host,
}

impl Bench {
    fn open() -> Self {
        let choice =
            std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
        let gpu = pollster::block_on(Gpu::open(&choice, Profile::Full)).expect("needs an adapter");
        eprintln!("{}", gpu.caps().describe());
        Self { gpu, host: Host::with_seed(1) }
    }

    fn floats<const N: usize>(&mut self, dtype: DType, shape: [u32; N]) -> Tensor {
        let tensor = self.host.filled(dtype, shape, Fill::Normal);
        self.upload(tensor)
    }

    fn ints<const N: usize>(&mut self, shape: [u32; N], values: Vec<u32>) -> Tensor {
        let tensor = self.host.ints_from(shape, values);
        self.upload(tensor)
    }

    fn upload(&mut self, tensor: Tensor) -> Tensor {
        self.upload_as(Role::Storage, tensor)
    }

    fn upload_as(&mut self, role: Role, tensor: Tensor) -> Tensor {
        let there =
            self.gpu.alloc(role, tensor.dtype, tensor.shape).expect("bench tensors fit any device");
        self.gpu.write(there, 0, &self.host.bytes(tensor)).expect("the tensor was just made");
        there
    }

    fn time(&mut self, criterion: &mut Criterion, name: &str, bytes: u64, kernel: &dyn Kernel) {
        let plan = self.gpu.record(&mut |exec| exec.run(kernel)).expect("shapes agree");
        let small = self.ints([1], vec![0]);
        let mut group = criterion.benchmark_group("kernels");
        group.throughput(Throughput::Bytes(bytes)).sample_size(10);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                pollster::block_on(self.gpu.run_plan(&plan, &[small])).expect("the device lives")
            });
        });
        group.finish();
    }
}

fn vectors(criterion: &mut Criterion) {
    let mut bench = Bench::open();
    let x = bench.floats(DType::F32, [1, HIDDEN]);
    let out = bench.floats(DType::F32, [1, WIDE]);
    for dtype in [DType::F32, DType::BF16] {
        let weight = bench.floats(dtype, [WIDE, HIDDEN]);
        let kernel = MatVec { x, weight, row0: 0, scale: 1.0, cap: 0.0, out };
        bench.time(criterion, &format!("matvec {dtype}"), weight.size_bytes(), &kernel);
    }
    let gate = bench.floats(DType::BF16, [WIDE, HIDDEN]);
    let up = bench.floats(DType::BF16, [WIDE, HIDDEN]);
    let kernel = GatedMatVec { x, gate, up, row0: 0, gelu: Gelu::Erf, out };
    bench.time(criterion, "gated_matvec BF16", 2 * gate.size_bytes(), &kernel);
}

fn experts(criterion: &mut Criterion) {
    let mut bench = Bench::open();
    let x = bench.floats(DType::F32, [1, HIDDEN]);
    let ids = bench.ints([1, 2], vec![5, 2]);
    let probs = bench.floats(DType::F32, [1, 2]);
    let gate = bench.floats(DType::BF16, [EXPERTS, WIDE, HIDDEN]);
    let up = bench.floats(DType::BF16, [EXPERTS, WIDE, HIDDEN]);
    let down = bench.floats(DType::BF16, [EXPERTS, HIDDEN, WIDE]);
    let inner = bench.floats(DType::F32, [1, 2, WIDE]);
    let dense = bench.floats(DType::F32, [1, HIDDEN]);
    let out = bench.floats(DType::F32, [1, HIDDEN]);
    // Two experts of eight are read.
    let read = gate.size_bytes() / u64::from(EXPERTS) * 2;
    let kernel = ExpertGatedMatVec { x, ids, gate, up, row0: 0, gelu: Gelu::Erf, out: inner };
    bench.time(criterion, "expert_gated_matvec BF16", 2 * read, &kernel);
    let kernel =
        ExpertMatVec { x: inner, ids, probs, weight: down, dense, row0: 0, scale: 1.0, out };
    bench.time(criterion, "expert_matvec BF16", read, &kernel);
    let dense = bench.floats(DType::F32, [1, 2 * WIDE]);
    let dense_weight = bench.floats(DType::BF16, [HIDDEN, 2 * WIDE]);
    let (x, weight, row0, scale) = (inner, down, 0, 1.0);
    let kernel = DenseExpertMatVec { dense, dense_weight, x, ids, probs, weight, row0, scale, out };
    let read = read + dense_weight.size_bytes();
    bench.time(criterion, "dense_expert_matvec BF16", read, &kernel);
}

fn tiles(criterion: &mut Criterion) {
    let mut bench = Bench::open();
    let x = bench.floats(DType::F32, [64, HIDDEN]);
    let weight = bench.floats(DType::BF16, [WIDE, HIDDEN]);
    let out = bench.floats(DType::F32, [64, WIDE]);
    let step = bench.host.step(0, 64);
    let step = bench.upload_as(Role::Uniform, step);
    let kernel = MatMul { step, x, weight, row0: 0, scale: 1.0, cap: 0.0, out };
    bench.time(criterion, "matmul BF16, 64 tokens", weight.size_bytes(), &kernel);
}

criterion_group!(kernels, vectors, experts, tiles);
criterion_main!(kernels);
