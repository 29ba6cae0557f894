//! Models of which the CPU computes what is not on the device, for generated tokens: logits beside
//! those of the whole model, and the same bits every time.

mod common;
#[path = "common/products.rs"]
mod products;

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use grok_wgpu::lab::{
    base::{
        activation::Gelu,
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    checkpoint::Synthetic,
    engine::{
        HostCompute, SessionOptions,
        options::{Event, Options},
        sequence::Sequence,
        session::Session,
        step::Readback,
    },
    machine::{
        Machine, Span,
        cpu::{MlpRows, Rows},
        gpu::{Gpu, LimitProfile, RecordedPass},
        kernel::Executor,
    },
    model::{
        Placement, Slots,
        config::Config,
        schema::{self, Key, Part},
        weights::{Lasting, Weights},
    },
    text::{
        sampler::{Candidate, Sampler, Sampling},
        tokenizer::{Tokenizer, synthetic_tok_json},
    },
};
use pollster::block_on;
use products::{Bounded, dots, gated};

const SIZES: SessionOptions = SessionOptions::new(64, 16, DType::F32);
const LAYERS: u32 = 3;
const PROMPT: [u32; 9] = [5, 17, 200, 3, 99, 42, 7, 7, 30];
const TOKENS: [u32; 6] = [3, 77, 201, 3, 130, 9];

/// Experts beside a dense MLP, and experts alone.
fn configs() -> [Config; 2] {
    ["tiny", "tiny-grok-1"].map(|name| Config::preset(name).expect("a preset").with_layers(LAYERS))
}

/// Places in which experts, dense MLPs, both, or all that can be is not on the device.
fn placements() -> [Placement; 5] {
    let slots = Slots::Shared(2);
    let all =
        Placement { attention: LAYERS, dense: LAYERS, experts: LAYERS, ..Placement::least(slots) };
    [
        Placement { experts: 0, ..all },
        Placement { experts: 1, dense: 2, ..all },
        Placement { dense: 0, ..all },
        Placement { dense: 0, experts: 0, ..all },
        Placement::least(slots),
    ]
}

fn session<M: Machine>(
    machine: M,
    config: &Config,
    weights: &impl Lasting,
    placement: Placement,
    host: Option<HostCompute>,
) -> Session<M> {
    let sizes = SIZES.with_host_compute(host);
    let mut progress = |_| Ok(());
    let load = Session::load_placed(machine, config, weights, sizes, placement, &mut progress);
    block_on(load).expect("loads")
}

/// Logits after the prompt, and after each token.
fn logits<M: Machine>(session: &mut Session<M>) -> Result<Vec<Vec<f32>>> {
    session.rewind(0);
    let mut outputs = vec![block_on(session.prefill(&PROMPT, Readback::Logits))?];
    for id in TOKENS {
        outputs.push(block_on(session.decode(id, Readback::Logits))?);
    }
    let of = |candidates: &[_]| candidates.iter().copied().map(logit).collect();
    Ok(outputs.iter().map(|output| of(&output.candidates)).collect())
}

fn logit(candidate: Candidate) -> f32 {
    candidate.logit
}

fn bits(logits: &[Vec<f32>]) -> Vec<u32> {
    logits.concat().iter().map(|logit| logit.to_bits()).collect()
}

const HOST: HostCompute = HostCompute::new(2, u64::MAX);

/// A matrix as it is stored.
struct Stored {
    dtype: DType,
    cols: usize,
    bytes: Vec<u8>,
}

impl Stored {
    fn rows(&self) -> Rows<'_> {
        Rows { dtype: self.dtype, cols: self.cols, bytes: &self.bytes }
    }
}

/// A device of a model whose MLPs the CPU computes in part. What is written there in place of one
/// is compared with its sums in f64, of the normed input that was read back and of the weights as
/// they are stored.
struct Watched<'a> {
    gpu: &'a mut Gpu,
    config: &'a Config,
    weights: &'a Synthetic,
    /// The layers whose dense MLP (`false`) or experts (`true`) the CPU has, in a pass's order.
    away: Vec<(u32, bool)>,
    /// The next of them.
    next: usize,
    /// What will be written: outputs of the MLPs of a layer, each with a name.
    wanted: VecDeque<Vec<(String, Vec<Bounded>)>>,
    /// MLPs that were compared.
    compared: u64,
}

impl<'a> Watched<'a> {
    fn new(
        gpu: &'a mut Gpu,
        config: &'a Config,
        weights: &'a Synthetic,
        placement: Placement,
    ) -> Self {
        let of = |layer: u32| {
            let dense = config.dense_width().is_some() && layer >= placement.dense;
            let dense = dense.then_some((layer, false));
            dense.into_iter().chain((layer >= placement.experts).then_some((layer, true)))
        };
        let away = (0..LAYERS).flat_map(of).collect();
        Self { gpu, config, weights, away, next: 0, wanted: VecDeque::new(), compared: 0 }
    }

    /// A matrix with so many columns.
    fn stored(&self, key: Key, cols: usize) -> Stored {
        let (name, mut bytes) = (key.name(), Vec::new());
        let dtype = self.weights.dtype(&name).expect("it has a type");
        let all = schema::tensors(self.config).into_iter().find(|of| of.key == key);
        let rows = all.expect("the model has it").shape[0];
        block_on(self.weights.read_rows(&name, 0, rows, &mut bytes)).expect("made up");
        Stored { dtype, cols, bytes }
    }

    /// An MLP's outputs for `x`.
    fn mlp(&self, layer: u32, expert: Option<u32>, x: &[f32]) -> (String, Vec<Bounded>) {
        use Part::{DenseDown, DenseGate, DenseUp, ExpertDown, ExpertGate, ExpertUp};
        let (parts, width) = match expert {
            Some(_) => ([ExpertGate, ExpertUp, ExpertDown], self.config.moe_intermediate_size()),
            None => ([DenseGate, DenseUp, DenseDown], self.config.dense_width().expect("dense")),
        };
        let cols = [x.len(), x.len(), width as usize];
        let [gate, up, down] = [0, 1, 2].map(|at| {
            let key = Key { part: parts[at], layer, expert: expert.unwrap_or(0) };
            self.stored(key, cols[at])
        });
        let mlp = MlpRows { gate: gate.rows(), up: up.rows(), down: down.rows() };
        (format!("layer {layer}, {expert:?}"), in_f64(mlp, self.config.hidden_act, x))
    }

    /// Notes what the CPU will compute of what was read back for it.
    fn expect(&mut self, read: &[Vec<u8>]) {
        let x: Vec<f32> = bytemuck::pod_collect_to_vec(&read[0]);
        assert!(self.wanted.is_empty(), "the CPU did not write what it computed before");
        loop {
            let (layer, routed) = self.away[self.next];
            self.next = (self.next + 1) % self.away.len();
            let units: Vec<Option<u32>> = match (routed, read.get(1)) {
                (true, Some(ids)) => {
                    bytemuck::pod_collect_to_vec::<_, u32>(ids).into_iter().map(Some).collect()
                }
                (true, None) => panic!("nobody read which experts layer {layer} chose"),
                (false, _) => vec![None],
            };
            let units = units.into_iter().map(|expert| self.mlp(layer, expert, &x)).collect();
            self.wanted.push_back(units);
            if routed || read.len() == 1 {
                return;
            }
        }
    }

    /// Compares what is written with what is wanted.
    fn compare(&mut self, bytes: &[u8]) {
        let Some(wanted) = self.wanted.pop_front() else { return };
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
        let all: usize = wanted.iter().map(|(_, outputs)| outputs.len()).sum();
        assert_eq!(got.len(), all, "outputs of {:?}", wanted[0].0);
        let mut rest = &got[..];
        for (name, outputs) in &wanted {
            let (these, others) = rest.split_at(outputs.len());
            for (at, (&got, &Bounded(value, bound))) in these.iter().zip(outputs).enumerate() {
                let error = (f64::from(got) - value).abs();
                // NaN is not within it.
                assert!(error <= bound, "{name} at {at}: {got}, expected {value} +- {bound}");
            }
            rest = others;
            self.compared += 1;
        }
    }
}

/// `down (gelu(gate x) * up x)`
fn in_f64(mlp: MlpRows<'_>, gelu: Gelu, x: &[f32]) -> Vec<Bounded> {
    let x: Vec<_> = x.iter().map(|&x| Bounded(x.into(), 0.0)).collect();
    let both = dots(mlp.gate, &x).into_iter().zip(dots(mlp.up, &x));
    let inner: Vec<_> = both.map(|(gate, up)| gated(gate, up, gelu)).collect();
    dots(mlp.down, &inner)
}

impl Machine for Watched<'_> {
    type Plan = RecordedPass;

    grok_wgpu::lab::machine::forward_machine!(gpu);

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.compare(bytes);
        self.gpu.write(tensor, offset, bytes)
    }

    async fn await_room(&mut self, bytes: usize) -> Result<()> {
        self.gpu.await_room(bytes).await
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        self.gpu.record(program)
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        let back = self.gpu.run_plan(plan, read).await?;
        // Only for the CPU a normed hidden state is read back.
        let hidden = Shape::from([1, self.config.hidden_size]);
        if read.first().is_some_and(|first| first.dtype == DType::F32 && first.shape == hidden) {
            self.expect(&back);
        }
        Ok(back)
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.gpu.read(spans).await
    }
}

/// Each output of each MLP that the CPU computes is within the bound that follows from the depth of
/// its sums.
#[test]
fn what_the_cpu_computes_is_within_its_bounds() -> Result<()> {
    let mut gpu = common::open(LimitProfile::Baseline);
    for config in configs() {
        for dtype in [DType::BF16, DType::Q8, DType::Q4, DType::Q3, DType::Q2] {
            let weights = Synthetic::new(&config, dtype, 11)?;
            for placement in placements() {
                let watched = Watched::new(&mut gpu, &config, &weights, placement);
                let nothing = watched.away.is_empty();
                let mut on_host = session(watched, &config, &weights, placement, Some(HOST));
                logits(&mut on_host)?;
                let (computed, watched) = (on_host.moved().computed, on_host.machine());
                assert_eq!(watched.compared, computed, "{dtype} {placement:?}");
                assert!(watched.wanted.is_empty() && (computed == 0) == nothing);
            }
        }
    }
    Ok(())
}

/// What two orders of sums of the same model may differ by, as an estimate: a wrong weight or a
/// wrong place changes far more. What bounds the sums themselves is above. The sums of a layer have
/// together so many roundings, each of at most half a unit in the last place; they are independent,
/// so their errors add up like the steps of a random walk, and layers hand them on about as they
/// are, since each normalizes. Eight times that is allowed.
fn allowed(config: &Config, logits: &[f32]) -> f32 {
    let sums = config.hidden_size + config.dense_width().unwrap_or(0);
    let roundings = (sums + config.moe_intermediate_size()) as f32 * LAYERS as f32;
    let largest = logits.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
    roundings.sqrt() * f32::EPSILON * largest.max(1.0) * 8.0
}

#[test]
fn logits_are_the_whole_models_and_bits_are_the_same_every_time() -> Result<()> {
    let mut gpu = common::open(LimitProfile::Baseline);
    for config in configs() {
        for dtype in [DType::BF16, DType::Q8, DType::Q4] {
            let weights = Synthetic::new(&config, dtype, 11)?;
            let want = logits(&mut session(&mut gpu, &config, &weights, Placement::WHOLE, None))?;
            for placement in placements() {
                let what = format!("{dtype} {placement:?}");
                let mut on_host = session(&mut gpu, &config, &weights, placement, Some(HOST));
                let got = logits(&mut on_host)?;
                let computed = on_host.moved().computed;
                let layers_of = |count: u32| u64::from(LAYERS - count.min(LAYERS));
                let dense = config.dense_width().map_or(0, |_| layers_of(placement.dense));
                let chosen = u64::from(config.num_experts_per_tok());
                let each = dense + chosen * layers_of(placement.experts);
                assert_eq!(computed, each * TOKENS.len() as u64, "{what}");
                assert!(computed == 0 || on_host.streams());
                // Prompts go through the device, so their bits are those of the whole model.
                assert_eq!(bits(&got[..1]), bits(&want[..1]), "{what}");
                for (got, want) in got.iter().zip(&want) {
                    let most = allowed(&config, want);
                    for (got, want) in got.iter().zip(want) {
                        assert!((got - want).abs() <= most, "{what}: {got} {want} {most}");
                    }
                }
                // Weights are in memory now.
                let read = on_host.moved().bytes;
                assert_eq!(bits(&logits(&mut on_host)?), bits(&got), "{what}, again");
                let again = on_host.moved().bytes - read;
                assert!(again < read || computed == 0 && again <= read, "{what}: {again} {read}");
                drop(on_host);
                for (threads, memory) in [(1, 0), (3, 40_000)] {
                    let other = Some(HostCompute::new(threads, memory));
                    let mut other = session(&mut gpu, &config, &weights, placement, other);
                    let other = logits(&mut other)?;
                    assert_eq!(bits(&other), bits(&got), "{what}, {threads} threads, {memory}");
                }
            }
        }
    }
    Ok(())
}

/// Where all is on the device, the CPU has nothing to do.
#[test]
fn a_whole_model_has_its_own_bits() -> Result<()> {
    let mut gpu = common::open(LimitProfile::Baseline);
    let [config, _] = configs();
    let weights = Synthetic::new(&config, DType::Q4, 11)?;
    let want = logits(&mut session(&mut gpu, &config, &weights, Placement::WHOLE, None))?;
    let mut whole = session(&mut gpu, &config, &weights, Placement::WHOLE, Some(HOST));
    assert_eq!(bits(&logits(&mut whole)?), bits(&want));
    assert!(!whole.streams());
    Ok(())
}

/// Weights that cannot be read for a while.
#[derive(Clone)]
struct Failing {
    weights: Synthetic,
    fails: Arc<AtomicBool>,
}

impl Weights for Failing {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        if self.fails.load(Ordering::SeqCst) && name.contains("experts") {
            return Err(Error::Usage("the disk is away".into()));
        }
        self.weights.read_rows(name, row0, rows, into).await
    }
}

#[test]
fn an_error_of_reading_leaves_the_text_as_it_was() -> Result<()> {
    let [config, _] = configs();
    let fails = Arc::new(AtomicBool::new(false));
    let weights = Failing { weights: Synthetic::new(&config, DType::Q8, 3)?, fails: fails.clone() };
    let gpu = common::open(LimitProfile::Baseline);
    let nothing_stays = Some(HostCompute::new(1, 0));
    let mut session = session(gpu, &config, &weights, placements()[0], nothing_stays);
    let want = logits(&mut session)?;
    session.rewind(PROMPT.len());
    fails.store(true, Ordering::SeqCst);
    let error = block_on(session.decode(TOKENS[0], Readback::Logits)).expect_err("cannot be read");
    assert!(error.to_string().contains("the disk is away"), "{error}");
    assert_eq!(session.tokens(), PROMPT);
    fails.store(false, Ordering::SeqCst);
    let output = block_on(session.decode(TOKENS[0], Readback::Logits))?;
    let got = output.candidates.iter().copied().map(logit).collect::<Vec<_>>();
    assert_eq!(bits(&[got]), bits(&want[1..2]));
    Ok(())
}

/// Ctrl-C while weights are read ends the step.
#[test]
fn whoever_heeds_may_end_it() -> Result<()> {
    let [config, _] = configs();
    let weights = Synthetic::new(&config, DType::Q8, 3)?;
    let gpu = common::open(LimitProfile::Baseline);
    let nothing_stays = Some(HostCompute::new(1, 0));
    let mut session = session(gpu, &config, &weights, placements()[0], nothing_stays);
    block_on(session.prefill(&PROMPT, Readback::Nothing))?;
    session.engine().while_bringing(Some(Box::new(|_| Err(Error::Interrupted))));
    let error = block_on(session.decode(TOKENS[0], Readback::Logits)).expect_err("is ended");
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(session.tokens(), PROMPT);
    Ok(())
}

#[test]
fn a_text_is_the_same_every_time() -> Result<()> {
    let config = Config::preset("small").expect("a preset").with_layers(2);
    let weights = Synthetic::new(&config, DType::Q4, 5)?;
    let tokenizer =
        Tokenizer::from_tok_json("synthetic", synthetic_tok_json(config.vocab_size)?.as_bytes())?;
    let text = |threads| -> Result<Vec<u32>> {
        let gpu: Gpu = common::open(LimitProfile::Baseline);
        let host = Some(HostCompute::new(threads, u64::MAX));
        let session = session(gpu, &config, &weights, Placement::least(Slots::Shared(2)), host);
        let mut engine = session.into_engine();
        let mut sequence = Sequence::new();
        let mut sampler = Sampler::new(Sampling::default())?;
        let mut options = Options::default();
        options.max_tokens = 12;
        let go_on = |_: Event<'_>| ControlFlow::Continue(());
        let made =
            engine.generate(&mut sequence, &tokenizer, &mut sampler, &PROMPT, &options, go_on);
        block_on(made)?;
        assert!(engine.moved().computed > 0);
        Ok(sequence.tokens().to_vec())
    };
    let first = text(1)?;
    assert!(first.len() > PROMPT.len() + 5, "{first:?}");
    assert_eq!(text(3)?, first);
    Ok(())
}
