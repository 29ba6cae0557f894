//! Time of every kernel on an adapter: `GROK_WGPU_ADAPTER=NAME cargo bench --bench kernels`.
//!
//! A part of a name selects: `cargo bench --bench kernels -- matvec/Q4`. Each iteration submits a
//! plan that was recorded before and reads one small tensor back, so that it lasts until the device
//! has finished. Bytes are an upper bound on what the kernel reads and writes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grok_wgpu::lab::{
    base::{
        activation::Gelu,
        tensor::{DType, Tensor},
    },
    engine::SessionOptions,
    kernels::{
        Attention, AttentionMerge, CombineNorm, Embed, ExpertGatedMatMul, ExpertGroups,
        ExpertMatMul, GatedMatMul, Gather, MatMul, MultiplyAdds, NormRoute, RmsNorm, RmsNormAdd,
        RopeCache, TopK, TopKMerge, max_tiles,
    },
    machine::{
        BufferRole, Machine,
        gpu::{AdapterChoice, Gpu, LimitProfile},
        host::{Fill, Host},
        kernel::Kernel,
        step::{self, PAGE, STEP_LEN},
    },
    variants::Form,
};

const TYPES: [DType; 7] = DType::WEIGHTS;
const HIDDEN: u32 = 1024;
const WIDE: u32 = 2048;
const EXPERTS: u32 = 8;
const CHOSEN: u32 = 2;
const VOCAB: u32 = 32_768;
/// Logits in one chunk of `topk` and `topk_merge`.
const CHUNK: u32 = 1024;
/// Tokens of a prefill pass.
const TOKENS: u32 = 64;
/// Positions in the KV cache.
const POSITIONS: u32 = 1024;
const HEADS: [u32; 3] = [8, 2, 128];

/// A device, and the host whose tensors are copied to it.
struct Bench {
    gpu: Gpu,
    host: Host,
    /// A small tensor that is read back to wait for the device.
    small: Tensor,
}

impl Bench {
    fn open() -> Self {
        let choice =
            std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
        let mut gpu =
            pollster::block_on(Gpu::open(&choice, LimitProfile::Full)).expect("needs an adapter");
        eprintln!("{}", gpu.caps().describe());
        let small = gpu.alloc(BufferRole::Storage, DType::U32, [1].into()).expect("a word fits");
        Self { gpu, host: Host::with_seed(1), small }
    }

    /// A tensor with equal rows: speed does not depend on the values, and a random matrix takes
    /// long to make.
    fn floats<const N: usize>(&mut self, dtype: DType, shape: [u32; N]) -> Tensor {
        let there = self
            .gpu
            .alloc(BufferRole::Storage, dtype, shape.into())
            .expect("bench tensors fit any device");
        let cols = shape[N - 1];
        let row = self.host.filled(dtype, [1, cols], Fill::Normal);
        let row = self.host.bytes(row);
        let rows = usize::try_from(there.size_bytes()).expect("small") / row.len();
        self.gpu.write(there, 0, &row.repeat(rows)).expect("the tensor was just made");
        there
    }

    fn ints<const N: usize>(&mut self, shape: [u32; N], values: Vec<u32>) -> Tensor {
        let tensor = self.host.ints_from(shape, values);
        self.upload(BufferRole::Storage, tensor)
    }

    fn step(&mut self, pos: u32, rows: u32) -> Tensor {
        let tensor = self.host.step(pos, rows);
        assert_eq!(tensor.shape.extents(), [STEP_LEN]);
        self.upload(BufferRole::Uniform, tensor)
    }

    fn upload(&mut self, role: BufferRole, tensor: Tensor) -> Tensor {
        let there =
            self.gpu.alloc(role, tensor.dtype, tensor.shape).expect("bench tensors fit any device");
        self.gpu.write(there, 0, &self.host.bytes(tensor)).expect("the tensor was just made");
        there
    }

    fn run(&mut self, kernel: &dyn Kernel) {
        let plan = self.gpu.record(&mut |exec| exec.run(kernel)).expect("shapes agree");
        pollster::block_on(self.gpu.run_plan(&plan, &[self.small])).expect("the device lives");
    }

    fn time(&mut self, criterion: &mut Criterion, group: &str, name: &str, kernel: &dyn Kernel) {
        let plan = self.gpu.record(&mut |exec| exec.run(kernel)).expect("shapes agree");
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Bytes(plan.bytes_touched())).sample_size(10);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                pollster::block_on(self.gpu.run_plan(&plan, &[self.small]))
                    .expect("the device lives")
            });
        });
        group.finish();
    }

    /// The routes of a pass of `tokens` tokens: the tiles of slots that have the same expert.
    fn groups(&mut self, form: Form, tokens: u32) -> [Tensor; 2] {
        let (slots, height) = (tokens * CHOSEN, form.tile());
        let tiles = max_tiles(slots, EXPERTS, height);
        let ids = (0..slots).map(|slot| (slot / 2 * 3 + slot % 2) % EXPERTS).collect();
        let kernel = ExpertGroups {
            step: self.step(0, tokens),
            ids: self.ints([tokens, CHOSEN], ids),
            experts: EXPERTS,
            height,
            order: self.ints([slots], vec![0; slots as usize]),
            tiles: self.ints([tiles, 4], vec![0; 4 * tiles as usize]),
        };
        self.run(&kernel);
        [kernel.order, kernel.tiles]
    }

    /// Every product of `tokens` tokens, in all types.
    fn products(&mut self, criterion: &mut Criterion, form: Form, tokens: u32) {
        let x = self.floats(DType::F32, [tokens, HIDDEN]);
        let out = self.floats(DType::F32, [tokens, WIDE]);
        let inner = self.floats(DType::F32, [tokens, CHOSEN, WIDE]);
        let routed = self.floats(DType::F32, [tokens, CHOSEN, HIDDEN]);
        let step = self.step(0, tokens);
        let [order, tiles] = self.groups(form, tokens);
        let (row0, scale, cap, gelu) = (0, 1.0, 0.0, Gelu::Erf);
        let names = match form {
            Form::Vector => ["matvec", "gated_matvec", "expert_gated_matvec", "expert_matvec"],
            Form::Matrix => ["matmul", "gated_matmul", "expert_gated_matmul", "expert_matmul"],
        };
        for dtype in TYPES {
            let gate = self.floats(dtype, [WIDE, HIDDEN]);
            let up = self.floats(dtype, [WIDE, HIDDEN]);
            let one = MatMul { form, step, x, weight: gate, row0, scale, cap, out };
            let gated = GatedMatMul { form, step, x, gate, up, row0, gelu, out };
            let gate = self.floats(dtype, [EXPERTS, WIDE, HIDDEN]);
            let up = self.floats(dtype, [EXPERTS, WIDE, HIDDEN]);
            let experts_gated =
                ExpertGatedMatMul { form, x, order, tiles, gate, up, row0, gelu, out: inner };
            let weight = self.floats(dtype, [EXPERTS, HIDDEN, WIDE]);
            let experts = ExpertMatMul { form, x: inner, order, tiles, weight, row0, out: routed };
            let kernels: [&dyn Kernel; 4] = [&one, &gated, &experts_gated, &experts];
            for (group, kernel) in names.into_iter().zip(kernels) {
                self.time(criterion, group, dtype.name(), kernel);
            }
        }
    }
}

/// GEMV kernels.
fn vectors(criterion: &mut Criterion) {
    Bench::open().products(criterion, Form::Vector, 1);
}

/// GEMM kernels.
fn tiles(criterion: &mut Criterion) {
    Bench::open().products(criterion, Form::Matrix, TOKENS);
}

/// Rotation and attention, for one token after many positions and for a prompt.
fn attention(criterion: &mut Criterion) {
    let mut bench = Bench::open();
    let [n_heads, n_kv, dim] = HEADS;
    let cache = [0, 1].map(|_| bench.floats(DType::F32, [POSITIONS, n_kv * dim]));
    let [k, v] = cache;
    let table = bench.ints([POSITIONS / PAGE], (0..POSITIONS / PAGE).rev().collect());
    for (name, tokens, tile, least) in
        [("token", 1, 1, SessionOptions::SPLIT), ("prompt", TOKENS, 32, POSITIONS)]
    {
        let records: Vec<_> = step::rows_of(0, 0, POSITIONS - tokens..POSITIONS).collect();
        let [rows, tiles] =
            [bench.host.records(&records), bench.host.records(&step::tiles_of(&records, tile))]
                .map(|list| bench.upload(BufferRole::Uniform, list));
        let step = bench.step(tokens.div_ceil(tile), tokens);
        let splits = step::most_splits(POSITIONS, least);
        let q = bench.floats(DType::F32, [tokens, n_heads, dim]);
        let kernel = RopeCache {
            step,
            rows,
            table,
            qkv: bench.floats(DType::F32, [tokens, (n_heads + 2 * n_kv) * dim]),
            cos_sin: bench.floats(DType::F32, [tokens, dim]),
            q,
            k,
            v,
            slot0: 0,
        };
        bench.time(criterion, "rope_cache", name, &kernel);
        let acc = bench.floats(DType::F32, [tokens, n_heads, splits, dim]);
        let stats = bench.floats(DType::F32, [tokens, n_heads, splits, 2]);
        let kernel = Attention {
            form: if tile == 1 { Form::Vector } else { Form::Matrix },
            step,
            tiles,
            table,
            q,
            k,
            v,
            temperature: bench.floats(DType::F32, [tokens]),
            tile,
            texts: 1,
            positions: POSITIONS,
            slot0: 0,
            least,
            scale: 0.1,
            cap: 30.0,
            acc,
            stats,
        };
        bench.time(criterion, "attention", name, &kernel);
        let out = bench.floats(DType::F32, [tokens, n_heads * dim]);
        let kernel = AttentionMerge { step, rows, acc, stats, least, out };
        bench.time(criterion, "attention_merge", name, &kernel);
    }
}

/// Kernels on rows of activations: norms, routing, gather, embedding.
fn rows(criterion: &mut Criterion) {
    let mut bench = Bench::open();
    let eps = 1e-5;
    let weight = bench.floats(DType::F32, [HIDDEN]);
    let next_weight = bench.floats(DType::F32, [HIDDEN]);
    let router = bench.floats(DType::F32, [EXPERTS, HIDDEN]);
    for (name, tokens) in [("token", 1), ("prompt", TOKENS)] {
        let [x, h, out] = [0, 1, 2].map(|_| bench.floats(DType::F32, [tokens, HIDDEN]));
        bench.time(criterion, "rms_norm", name, &RmsNorm { x, weight, eps, out });
        let kernel = RmsNormAdd { h, weight, next_weight, eps, sum: x, out };
        bench.time(criterion, "rms_norm_add", name, &kernel);
        let ids = bench.ints([tokens, CHOSEN], vec![0; (tokens * CHOSEN) as usize]);
        let probs = bench.floats(DType::F32, [tokens, CHOSEN]);
        let (cap, renormalize, sum) = (30.0, false, x);
        let kernel = NormRoute {
            h,
            weight,
            next_weight,
            eps,
            router,
            cap,
            renormalize,
            sum,
            out,
            ids,
            probs,
        };
        bench.time(criterion, "norm_route", name, &kernel);
        let step = bench.step(0, tokens);
        let routed = bench.floats(DType::F32, [tokens, CHOSEN, HIDDEN]);
        let (dense, scale) = (h, 1.0);
        let kernel =
            CombineNorm { step, dense, routed, probs, scale, weight, next_weight, eps, sum, out };
        bench.time(criterion, "combine_norm", name, &kernel);
        let picked = bench.ints([1], vec![tokens - 1]);
        let last = bench.floats(DType::F32, [1, HIDDEN]);
        bench.time(criterion, "gather", name, &Gather { x, rows: picked, out: last });
    }
    let [x, out] = [0, 1].map(|_| bench.floats(DType::F32, [WIDE * HIDDEN]));
    let kernel = MultiplyAdds { x, rounds: 64, factor: 0.5, addend: 1.0, out };
    bench.time(criterion, "multiply_adds", "256 of an element", &kernel);
    for dtype in TYPES {
        let table = bench.floats(dtype, [WIDE, HIDDEN]);
        let ids = bench.ints([TOKENS], (0..TOKENS).map(|i| i * 31 % WIDE).collect());
        let out = bench.floats(DType::F32, [TOKENS, HIDDEN]);
        let kernel = Embed { ids, table, row0: 0, scale: 32.0, out };
        bench.time(criterion, "embed", dtype.name(), &kernel);
    }
}

/// The top-k search over all logits.
fn top(criterion: &mut Criterion) {
    let mut bench = Bench::open();
    let logits = bench.floats(DType::F32, [1, VOCAB]);
    for count in [1, 40] {
        let name = format!("{count} of {VOCAB}");
        let len = VOCAB / CHUNK * count;
        let (values, ids) =
            (bench.floats(DType::F32, [1, len]), bench.ints([1, len], (0..len).collect()));
        bench.time(criterion, "topk", &name, &TopK { logits, count, values, ids });
        let fewer = len.div_ceil(CHUNK) * count;
        let kernel = TopKMerge {
            values,
            ids,
            count,
            out_values: bench.floats(DType::F32, [1, fewer]),
            out_ids: bench.ints([1, fewer], (0..fewer).collect()),
        };
        bench.time(criterion, "topk_merge", &name, &kernel);
    }
}

criterion_group!(kernels, vectors, tiles, attention, rows, top);
criterion_main!(kernels);
