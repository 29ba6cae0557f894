//! Copies whose errors count by the inputs of a text: the sums of these inputs, the rounding, and
//! what is written.

use std::collections::BTreeMap;

use grok_wgpu::lab::{
    base::{
        error::Result,
        quant::{self, BLOCK},
        tensor::{DType, Tensor},
    },
    checkpoint::{
        Synthetic,
        importance::Importance,
        quantize::{Outcome, Quantize},
        requantize::Choices,
        write::Layout,
    },
    engine::{SessionOptions, segments::Segmented, session::Session, step::Readback},
    machine::{
        Machine, Span,
        binder::Operand,
        gpu::LimitProfile,
        host::{self, Host},
        kernel::{Executor, Kernel},
    },
    measure::calibrate::{Taps, calibrate},
    model::{
        Placement, Slots,
        config::Config,
        schema::{self, Key, Kind, Part},
        weights::Weights,
    },
};
use pollster::block_on;

use super::{files, open, original, rows, scratch, tiny};
use crate::common;

/// Chunks of several lengths, in windows of 40 tokens.
const SIZES: SessionOptions = SessionOptions::new(40, 36, DType::F32);

fn text() -> Vec<u32> {
    (0..70_u32).map(|i| i.wrapping_mul(7919) % 251).collect()
}

/// Experts beside a dense MLP, experts alone, and a layer that is a dense MLP and no more.
fn configs() -> [Config; 3] {
    let [beside, alone] = ["tiny", "tiny-grok-1"].map(|name| tiny(name).with_layers(3));
    let mut mixed = beside.clone();
    mixed.layers[0].routed = false;
    [beside, alone, mixed]
}

fn sums_of<M: Machine>(
    machine: M,
    config: &Config,
    weights: &Synthetic,
    placement: Placement,
) -> Result<Importance> {
    let machine = Segmented::new(machine, Taps::default());
    let mut progress = |_| Ok(());
    let load = Session::load_placed(machine, config, weights, SIZES, placement, &mut progress);
    let mut session = block_on(load)?;
    block_on(calibrate(&mut session, &[7], &text(), &mut |_| Ok(())))
}

/// A host that runs kernel by kernel, and adds up the inputs of products by the weights that they
/// are bound with. It knows neither marks nor buffers.
#[derive(Default)]
struct Watched {
    host: Host,
    names: BTreeMap<usize, String>,
    /// Tokens of the next pass.
    rows: usize,
    /// By the canonical name of the first matrix: sums, and how many inputs.
    sums: BTreeMap<String, (Vec<f64>, u64)>,
}

impl Watched {
    fn add(&mut self, name: String, input: &[f64]) {
        let (sums, count) = self.sums.entry(name).or_insert_with(|| (vec![0.0; input.len()], 0));
        sums.iter_mut().zip(input).for_each(|(sum, x)| *sum += x * x);
        *count += 1;
    }

    fn see(&mut self, kernel: &dyn Kernel) -> Result<()> {
        let dispatch = kernel.record(&self.host.tuning)?;
        let find = |name: &str| -> Option<Tensor> {
            let is = |operand: &&Operand| operand.name == name;
            dispatch.operands.iter().find(is).map(|operand| operand.tensor)
        };
        let Some((x, weight)) = find("x").zip(find("weight").or_else(|| find("gate"))) else {
            return Ok(());
        };
        // A norm has a weight that is a vector.
        let Some(name) = self.names.get(&weight.id).filter(|_| weight.shape.extents().len() > 1)
        else {
            return Ok(());
        };
        let name = name.clone();
        let columns = *weight.shape.extents().last().expect("a matrix") as usize;
        let values = self.host.floats(x).to_vec();
        let Some((order, tiles)) = find("order").zip(find("tiles")) else {
            for row in values.chunks_exact(columns).take(self.rows) {
                self.add(name.clone(), row);
            }
            return Ok(());
        };
        let (order, tiles) = (self.host.ints(order).to_vec(), self.host.ints(tiles).to_vec());
        // What comes from the hidden state has a row for each token, else for each slot.
        let each = order.len() / (values.len() / columns);
        for tile in tiles.chunks_exact(4) {
            for slot in &order[tile[1] as usize..][..tile[2] as usize] {
                let row = &values[*slot as usize / each * columns..][..columns];
                self.add(name.replace("experts.0.", &format!("experts.{}.", tile[0])), row);
            }
        }
        Ok(())
    }
}

/// Records kernels.
struct Steps(Vec<Box<dyn Kernel>>);

impl Executor for Steps {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        self.0.push(kernel.boxed());
        Ok(())
    }
}

impl Machine for Watched {
    type Plan = Steps;

    grok_wgpu::lab::machine::forward_machine!(host);

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        Machine::write(&mut self.host, tensor, offset, bytes)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Steps> {
        let mut steps = Steps(Vec::new());
        program(&mut steps)?;
        Ok(steps)
    }

    async fn run_plan(&mut self, plan: &Steps, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        for kernel in &plan.0 {
            self.see(kernel.as_ref())?;
            Executor::run(&mut self.host, kernel.as_ref())?;
        }
        Ok(read.iter().map(|&tensor| self.host.bytes(tensor)).collect())
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.host.read(spans).await
    }
}

/// What the kernels themselves say, in f64, with the same windows and chunks.
fn watched(config: &Config, weights: &Synthetic) -> BTreeMap<String, (Vec<f64>, u64)> {
    let mut progress = |_| Ok(());
    let load = Session::load(Watched::default(), config, weights, SIZES, &mut progress);
    let mut session = block_on(load).expect("loads");
    let names = session.model().named_tensors().map(|(name, tensor)| (tensor.id, name));
    session.machine_mut().names = names.collect();
    for part in text().chunks(39) {
        session.rewind(0);
        for chunk in [&[7], part].concat().chunks(16) {
            session.machine_mut().rows = chunk.len();
            // With all logits, the head has every token too.
            block_on(session.prefill(chunk, Readback::AllLogits)).expect("runs");
        }
    }
    std::mem::take(&mut session.machine_mut().sums)
}

#[test]
fn sums_are_those_of_the_inputs_of_every_product() {
    for config in configs() {
        let weights = Synthetic::new(&config, DType::F32, 5).expect("weights");
        let wanted = watched(&config, &weights);
        let sums = sums_of(Host::default(), &config, &weights, Placement::WHOLE).expect("runs");
        let mut matrices = 0;
        for want in schema::tensors(&config) {
            let Some(got) = sums.sums(want.key) else {
                let known = matches!(want.kind(), Kind::Norm | Kind::Router | Kind::Embedding);
                assert!(known, "`{}` has no sums", want.name);
                continue;
            };
            let first = match want.key.part {
                Part::K | Part::V => Part::Q,
                Part::ExpertUp => Part::ExpertGate,
                Part::DenseUp => Part::DenseGate,
                part => part,
            };
            let name = Key { part: first, ..want.key }.name();
            let nothing = (vec![0.0; got.squares.len()], 0);
            let (squares, count) = wanted.get(&name).unwrap_or(&nothing);
            assert_eq!((got.rows, got.squares.len()), (*count, squares.len()), "{name}");
            for (got, want) in got.squares.iter().zip(squares) {
                // Inputs are read as f32.
                assert!((got - want).abs() <= 1e-6 * want, "{name}: {got}, {want}");
            }
            matrices += usize::from(*count > 0);
        }
        assert!(matrices > 20, "{matrices} matrices had inputs");
        assert_eq!(sums.tokens(), 72);
    }
}

#[test]
fn sums_do_not_depend_on_where_weights_are() {
    let mut gpu = common::open(LimitProfile::Baseline);
    for config in configs() {
        let weights = Synthetic::new(&config, DType::BF16, 5).expect("weights");
        let whole = sums_of(&mut gpu, &config, &weights, Placement::WHOLE).expect("runs");
        gpu.truncate(0);
        let again = sums_of(&mut gpu, &config, &weights, Placement::WHOLE).expect("runs");
        gpu.truncate(0);
        assert!(whole == again, "two runs differ");
        let exact = sums_of(Host::default(), &config, &weights, Placement::WHOLE).expect("runs");
        for want in schema::tensors(&config) {
            let of = |sums: &Importance| sums.sums(want.key).cloned().unwrap_or_default();
            let (ours, exact) = (of(&whole), of(&exact));
            assert_eq!(ours.rows, exact.rows, "{}: other experts", want.name);
            for (ours, exact) in ours.squares.iter().zip(&exact.squares) {
                assert!((ours - exact).abs() <= 1e-3 * exact, "{}", want.name);
            }
        }
        // In rounds, some in slots of their own, and all in files.
        let mut places = vec![Placement::least(Slots::Shared(2)), Placement::least(Slots::Each(3))];
        places.push(Placement { attention: 3, dense: 1, experts: 1, ..places[0] });
        for placement in places {
            let some = sums_of(&mut gpu, &config, &weights, placement).expect("runs");
            gpu.truncate(0);
            for want in schema::tensors(&config) {
                let [some, whole] = [&some, &whole].map(|sums| sums.sums(want.key));
                assert!(some == whole, "{placement:?}: other inputs of `{}`", want.name);
            }
        }
    }
}

/// A number from -1 to 1, much the same as random.
fn noise(i: usize) -> f64 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 29)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// In every block the weighted error is at most that of the plain rounding.
#[test]
fn weighted_rounding_is_never_worse_where_it_counts() {
    const COLS: usize = 32 * 400;
    let single = |value: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "rounded on purpose")]
        let value = value as f32;
        value
    };
    let values: Vec<f32> = (0..COLS)
        .map(|i| {
            let sum: f64 = (0..6).map(|k| noise(6 * i + k)).sum();
            // Some blocks have an outlier, some are of one sign, some are tiny.
            let size = [0.02, 1.0, 1e-4, 3.0][i / BLOCK % 4];
            let value = if i.is_multiple_of(97) { 6.0 * sum } else { sum };
            single(size * if (i / BLOCK).is_multiple_of(5) { value.abs() } else { value })
        })
        .collect();
    for spread in [1.0, 4.0, 14.0] {
        let weights: Vec<f32> =
            (0..COLS).map(|i| single((spread * noise(i + (1 << 20))).exp())).collect();
        for dtype in [DType::Q4, DType::Q3, DType::Q2] {
            let errors = |weights_used: Option<&[f32]>| -> Vec<f64> {
                let mut bytes = Vec::new();
                quant::encode_weighted(dtype, &values, weights_used, &mut bytes);
                let back = host::decode_rows(dtype, COLS, &bytes);
                let each = values.iter().zip(back).zip(&weights);
                let each = each
                    .map(|((v, back), w)| f64::from(*w) * (f64::from(*v) - back).powi(2))
                    .collect::<Vec<_>>();
                each.chunks(BLOCK).map(|block| block.iter().sum()).collect()
            };
            let (weighted, plain) = (errors(Some(&weights)), errors(None));
            let mut better = 0;
            for (block, (ours, plain)) in weighted.iter().zip(&plain).enumerate() {
                // The search adds up in f32.
                assert!(*ours <= plain * (1.0 + 1e-5), "{dtype} block {block}: {ours}, {plain}");
                better += usize::from(*ours < 0.99 * plain);
            }
            assert!(better > 40, "{dtype}: {better} of {} blocks gain", plain.len());
        }
    }
}

/// A copy with these sums, stopped after some calls.
fn copy(
    from: &std::path::Path,
    to: &std::path::Path,
    dtype: DType,
    importance: Option<&Importance>,
    calls: usize,
) -> Result<Outcome> {
    let (config, checkpoint) = open(from);
    let mut left = calls;
    let (choices, layout) = (Choices::of(dtype), Layout::Single);
    Quantize { from, to, choices, layout, importance }.run(&config, &checkpoint, &mut |_| {
        left = left.checked_sub(1).ok_or(grok_wgpu::lab::base::error::Error::Interrupted)?;
        Ok(())
    })
}

#[test]
fn a_copy_has_the_weighted_rounding_of_each_matrix() {
    let dir = scratch();
    let config = tiny("tiny");
    let from = original(dir.path(), &config, DType::F32);
    let weights = Synthetic::new(&config, DType::F32, 3).expect("weights");
    let sums = sums_of(Host::default(), &config, &weights, Placement::WHOLE).expect("runs");
    for dtype in [DType::Q4, DType::Q3, DType::Q2] {
        let at = |name: &str| dir.path().join(format!("{dtype} {name}"));
        copy(&from, &at("plain"), dtype, None, usize::MAX).expect("written");
        copy(&from, &at("weighted"), dtype, Some(&sums), usize::MAX).expect("written");
        let ((_, before), (_, after)) = (open(&from), open(&at("weighted")));
        let (_, plain) = open(&at("plain"));
        for want in schema::tensors(&config) {
            let [before, plain, after] =
                [&before, &plain, &after].map(|of| rows(of, &want.name, &want.shape));
            let of = after.len();
            // Attention has more bits than the rest with 3 and 2.
            let of_kind = Choices::of(dtype).get(want.kind());
            if matches!(want.kind(), Kind::Embedding | Kind::Head) || of_kind != Some(dtype) {
                assert!(plain == after, "{}", want.name);
                continue;
            }
            let columns = sums.columns(want.key).expect("it has inputs");
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&before);
            let mut bytes = Vec::new();
            for row in values.chunks(columns.len()) {
                quant::encode_weighted(dtype, row, Some(&columns), &mut bytes);
            }
            assert!(bytes == after && plain != after && of == plain.len(), "{}", want.name);
        }
        let config_json = std::fs::read_to_string(at("weighted").join("config.json"));
        assert!(config_json.expect("a config").contains("\"calibration_tokens\": 72"));
    }
}

#[test]
fn a_stopped_copy_goes_on_with_the_same_sums_only() {
    let dir = scratch();
    let config = tiny("tiny");
    let from = original(dir.path(), &config, DType::BF16);
    let mut sums = Importance::new(&config);
    for key in [Key::new(0, Part::O), Key::new(1, Part::DenseDown)] {
        let columns = sums.sums(key).expect("a matrix").squares.len();
        let row: Vec<f32> = (0..columns).map(|i| 1.0 + (i % 7) as f32).collect();
        sums.add(key, &row).expect("finite");
    }
    let straight = dir.path().join("straight");
    copy(&from, &straight, DType::Q2, Some(&sums), usize::MAX).expect("written");
    let to = dir.path().join("to");
    copy(&from, &to, DType::Q2, Some(&sums), 12).expect_err("stopped");
    let mut others = sums.clone();
    let columns = others.sums(Key::new(0, Part::O)).expect("a matrix").squares.len();
    others.add(Key::new(0, Part::O), &vec![0.5; columns]).expect("finite");
    for other in [None, Some(&others)] {
        let error = copy(&from, &to, DType::Q2, other, usize::MAX).expect_err("others");
        assert!(error.to_string().contains("other options"), "{error}");
    }
    let again = copy(&from, &to, DType::Q2, Some(&sums), usize::MAX).expect("goes on");
    assert!(again.resumed > 5);
    assert!(files(&to) == files(&straight));
}

/// Weights so large that the inputs of a matrix overflow.
#[derive(Clone)]
struct Large(Synthetic, &'static str);

impl Weights for Large {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.0.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.0.read_rows(name, row0, rows, into).await?;
        if name == self.1 {
            for value in into.as_chunks_mut::<4>().0 {
                *value = f32::MAX.to_le_bytes();
            }
        }
        Ok(())
    }
}

#[test]
fn inputs_that_overflow_are_refused_with_their_layer() {
    let config = tiny("tiny");
    for (large, named) in [
        ("model.layers.1.self_attn.v_proj.weight", "layers.1.self_attn.o_proj"),
        ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.down_proj"),
    ] {
        let weights = Large(Synthetic::new(&config, DType::F32, 3).expect("weights"), large);
        let machine = Segmented::new(common::open(LimitProfile::Baseline), Taps::default());
        let mut progress = |_| Ok(());
        let load = Session::load(machine, &config, &weights, SIZES, &mut progress);
        let mut session = block_on(load).expect("loads");
        let error = block_on(calibrate(&mut session, &[], &text(), &mut |_| Ok(())));
        let error = error.expect_err("not finite");
        assert_eq!(error.code(), "non_finite");
        assert!(error.to_string().contains(named), "{error}");
    }
    let machine = Segmented::new(Host::default(), Taps::default());
    let weights = Synthetic::new(&config, DType::F32, 3).expect("weights");
    let mut progress = |_| Ok(());
    let load = Session::load(machine, &config, &weights, SIZES, &mut progress);
    let mut session = block_on(load).expect("loads");
    let nothing = block_on(calibrate(&mut session, &[], &[], &mut |_| Ok(())));
    assert_eq!(nothing.expect_err("no text").code(), "usage");
    let stop = || Err(grok_wgpu::lab::base::error::Error::Interrupted);
    let stopped = block_on(calibrate(&mut session, &[], &text(), &mut |_| stop()));
    assert_eq!(stopped.expect_err("stopped").code(), "interrupted");
}
