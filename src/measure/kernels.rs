//! Times every kernel of a pass by itself, with the bytes and operations that it cannot avoid.

use super::stage_last;
use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    engine::top_lists,
    machine::{
        BufferRole, Machine as _,
        binder::{Dispatch, Operand},
        gpu::{Gpu, RecordedPass},
        host::{Fill, Host},
        kernel::{Executor, Kernel},
    },
    model::{CacheShard, Model, Output, Pass, Phase, Scratch, alloc_cache, forward},
    variants::Tuning,
};

/// The pass whose kernels are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Whether its tokens are of a prompt or generated.
    pub phase: Phase,
    /// How many tokens go through the model at once.
    pub tokens: u32,
    /// Positions that attention covers. The tokens are at the last of them.
    pub positions: u32,
    /// Element type of the key-value cache.
    pub cache: DType,
    /// Positions of the shortest split of decode attention.
    pub split: u32,
}

/// A kernel of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// Kernel, variant and type of weights.
    pub label: String,
    /// The matrix that it multiplies by, or else the largest of what it reads and writes.
    pub shape: Shape,
    /// How often it runs in the pass.
    pub runs: u32,
    /// Seconds of one run, the median.
    pub seconds: f64,
    /// Upper bound on the bytes that one run reads or writes, each counted once.
    pub bytes: u64,
    /// Floating-point operations of one run, two for each multiply-add: those of products, of
    /// attention and of the router. Others do not count.
    pub operations: u64,
}

/// The kernels of a pass, in the order of their first run.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedPass {
    /// The kernels.
    pub kernels: Vec<Timed>,
    /// Dispatches.
    pub dispatches: u64,
    /// Seconds of the device for all of them in one compute pass, the least.
    pub seconds: f64,
}

/// Times the kernels of a pass over a model: `rounds` rounds, after one that does not count. Keys
/// and values of earlier positions are made up. The device's tensors are those from before. Needs
/// timestamp queries.
///
/// # Errors
///
/// [`Error::Usage`] if the device has no timestamps or the model has not so many positions; errors
/// of the device.
pub async fn time_kernels(
    gpu: &mut Gpu,
    model: &Model,
    load: Load,
    rounds: u32,
) -> Result<TimedPass> {
    let most = model.config.max_position_embeddings;
    if load.tokens == 0 || load.tokens > load.positions || load.positions > most {
        return Err(Error::Usage(format!(
            "{} tokens at {} positions, expected 1 or more of at most {most}",
            load.tokens, load.positions
        )));
    }
    let keep = gpu.tensor_count();
    let timed = timed(gpu, model, load, rounds).await;
    gpu.truncate(keep);
    timed
}

async fn timed(gpu: &mut Gpu, model: &Model, load: Load, rounds: u32) -> Result<TimedPass> {
    let (plan, works) = recorded(gpu, model, load)?;
    gpu.flush().await?;
    let mut all: Vec<(Timed, Vec<f64>)> = Vec::new();
    let mut seconds = f64::INFINITY;
    for round in 0..=rounds {
        let times = gpu.time_plan(&plan).await?;
        let whole = gpu.time_whole(&plan, false).await?.device_seconds;
        if round == 0 {
            continue;
        }
        seconds = seconds.min(whole);
        for (step, &Work { shape, bytes, operations }) in times.into_iter().zip(&works) {
            let same =
                |(timed, _): &&mut (Timed, _)| (&timed.label, timed.shape) == (&step.label, shape);
            let time = 1e-9 * step.nanoseconds;
            if let Some((timed, times)) = all.iter_mut().find(same) {
                timed.runs += u32::from(round == 1);
                times.push(time);
            } else {
                let (label, runs, seconds) = (step.label, 1, 0.0);
                all.push((Timed { label, shape, runs, seconds, bytes, operations }, vec![time]));
            }
        }
    }
    let kernels = all.into_iter().map(|(timed, mut times)| {
        times.sort_by(f64::total_cmp);
        Timed { seconds: times[times.len() / 2], ..timed }
    });
    Ok(TimedPass { kernels: kernels.collect(), dispatches: plan.dispatches(), seconds })
}

/// A plan of the pass, with its inputs written, and what each dispatch does.
fn recorded(gpu: &mut Gpu, model: &Model, load: Load) -> Result<(RecordedPass, Vec<Work>)> {
    let Load { phase, tokens, positions, cache, split } = load;
    let c = &model.config;
    let caches = (0..c.num_hidden_layers())
        .map(|_| alloc_cache(gpu, c, positions, cache))
        .collect::<Result<Vec<_>>>()?;
    for &CacheShard { k, v, .. } in caches.iter().flat_map(|cache| &cache.shards) {
        [k, v].into_iter().try_for_each(|tensor| fill(gpu, tensor))?;
    }
    let s = Scratch::alloc(gpu, (c, model.brought()), phase, tokens, &caches[0], split)?;
    // A prompt has the logits of its last token; generated tokens have one row each.
    let all = phase == Phase::Decode && tokens > 1;
    let lists = if all { Vec::new() } else { top_lists(gpu, c.vocab_size, 1, 1)? };
    let output = if all {
        let shape = [tokens, c.vocab_size].into();
        Output::All(gpu.alloc(BufferRole::Storage, DType::F32, shape)?)
    } else {
        Output::Top(&lists)
    };
    let before = positions - tokens;
    // Spread over the vocabulary, so that experts are chosen as differently as they can be.
    let id = |i: u32| i.wrapping_mul(0x9E37_79B9).rotate_left(15) % c.vocab_size;
    stage_last(gpu, c, &s, &(0..tokens).map(id).collect::<Vec<_>>(), positions)?;
    let tuning = gpu.tuning().clone();
    let mut works = Vec::new();
    let pass = Pass::of_one(output, positions);
    let plan = gpu.record(&mut |exec| {
        // A device may refuse a program, and have the pass recorded once more.
        works.clear();
        let mut noting = Noting { exec, tuning: &tuning, before, works: &mut works };
        forward(&mut noting, model, &s, &caches, pass)
    })?;
    Ok((plan, works))
}

/// What a dispatch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// As in [`Timed`].
    pub shape: Shape,
    /// As in [`Timed`].
    pub bytes: u64,
    /// As in [`Timed`].
    pub operations: u64,
}

/// Notes the work of what it passes on.
struct Noting<'a> {
    exec: &'a mut dyn Executor,
    tuning: &'a Tuning,
    /// Positions before those of the pass's tokens.
    before: u32,
    works: &'a mut Vec<Work>,
}

impl Executor for Noting<'_> {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        self.works.push(Work::of(&kernel.record(self.tuning)?, self.before));
        self.exec.run(kernel)
    }
}

impl Work {
    /// Of a dispatch in a pass whose tokens have `before` positions before them.
    pub fn of(dispatch: &Dispatch, before: u32) -> Self {
        let named = |name: &str| dispatch.operands.iter().find(|operand| operand.name == name);
        let matrix = named("gate").or(named("weight")).filter(|_| dispatch.class.is_some());
        let largest = || dispatch.operands.iter().max_by_key(|o| o.tensor.size_bytes());
        let shape = matrix.or_else(largest).map_or([1].into(), |operand| operand.tensor.shape);
        let operations = match dispatch.shader.own.kernel {
            "attention" => attention(dispatch, before),
            "norm_route" => {
                let rows = named("h").map_or(0, outer);
                2 * rows * named("router").map_or(0, |router| router.tensor.shape.len())
            }
            _ => matrix.map_or(0, |matrix| {
                // A token has a slot for each expert that it chose.
                let slots = named("order").or(named("x")).map_or(0, outer);
                2 * slots * of_one(matrix) * if named("up").is_some() { 2 } else { 1 }
            }),
        };
        Self { shape, bytes: dispatch.bytes_touched(), operations }
    }
}

/// The first extent of an operand.
fn outer(operand: &Operand) -> u64 {
    operand.tensor.shape.extents().first().copied().unwrap_or(0).into()
}

/// Elements of a matrix, or of one expert's.
fn of_one(matrix: &Operand) -> u64 {
    matrix.tensor.shape.extents().iter().rev().take(2).map(|&n| u64::from(n)).product()
}

/// Operations of attention, where each token sees the positions up to its own: a multiply-add for
/// the score and one for the sum, for each channel of each position that this shard of the cache
/// has.
fn attention(dispatch: &Dispatch, before: u32) -> u64 {
    let extents = |name: &str| {
        let operand = dispatch.operands.iter().find(|operand| operand.name == name);
        operand.map_or(&[] as &[u32], |operand| operand.tensor.shape.extents())
    };
    let (&[tokens, heads, head_dim], &[len, _]) = (extents("q"), extents("k")) else { return 0 };
    // The text lies on the first pages of the cache, in order.
    let slot0 = param(dispatch, "slot0").unwrap_or(0);
    let seen = |i: u32| u64::from((before + i + 1).saturating_sub(slot0).min(len));
    4 * u64::from(heads) * u64::from(head_dim) * (0..tokens).map(seen).sum::<u64>()
}

/// A word of a dispatch's parameters.
fn param(dispatch: &Dispatch, name: &str) -> Option<u32> {
    let &(_, _, at) = dispatch.fields.iter().find(|(field, ..)| *field == name)?;
    let word = dispatch.params.get(at..at + 4)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

/// Fills keys or values with random rows that are all equal.
fn fill(gpu: &mut Gpu, tensor: Tensor) -> Result<()> {
    let [_, cols] = tensor.dims()?;
    let mut host = Host::with_seed(1);
    let row = host.filled(tensor.dtype, [1, cols], Fill::Normal);
    let row = host.bytes(row);
    let rows = tensor.size_bytes() / row.len() as u64;
    gpu.write(tensor, 0, &row.repeat(usize::try_from(rows).expect("a shard of the cache")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Synthetic,
        engine::SessionOptions,
        machine::counting::{Counting, DeviceLimits},
        measure::work::flops,
        model::config::Config,
    };

    /// Collects works.
    struct Nothing;

    impl Executor for Nothing {
        fn run(&mut self, _: &dyn Kernel) -> Result<()> {
            Ok(())
        }
    }

    /// The works of a pass over `tokens` tokens at the end of `positions`.
    fn works(phase: Phase, tokens: u32, positions: u32, binding: u64) -> (Config, Vec<Work>) {
        let config = Config::preset("tiny").expect("a preset");
        let weights = Synthetic::new(&config, DType::Q4, 0).expect("weights");
        let limits = DeviceLimits { binding, ..DeviceLimits::BASELINE };
        let mut machine = Counting::new(limits);
        let model = Model::alloc(&mut machine, &config, &weights).expect("fits");
        let cache = alloc_cache(&mut machine, &config, positions, DType::F32).expect("fits");
        let split = SessionOptions::SPLIT;
        let s =
            Scratch::alloc(&mut machine, (&config, model.brought()), phase, tokens, &cache, split)
                .expect("fits");
        let caches = vec![cache; model.layers.len()];
        let mut works = Vec::new();
        let (tuning, before) = (Tuning::default(), positions - tokens);
        let mut noting = Noting { exec: &mut Nothing, tuning: &tuning, before, works: &mut works };
        let pass = Pass::of_one(Output::Last, positions);
        forward(&mut noting, &model, &s, &caches, pass).expect("shapes agree");
        (config, works)
    }

    #[test]
    fn operations_are_those_of_the_model() {
        for (phase, tokens) in [(Phase::Decode, 1), (Phase::Prefill, 37)] {
            // The cache is whole, and in shards.
            for (binding, shards) in [(DeviceLimits::BASELINE.binding, 1), (64 << 10, 3)] {
                let (c, works) = works(phase, tokens, 1200, binding);
                let limits = DeviceLimits { binding, ..DeviceLimits::BASELINE };
                let cache = alloc_cache(&mut Counting::new(limits), &c, 1200, DType::F32);
                assert_eq!(cache.expect("fits").shards.len(), shards);
                // The router is a matrix that `flops` counts, as it is here.
                let sum: u64 = works.iter().map(|work| work.operations).sum();
                assert_eq!(sum, flops(&c, tokens, 1200 - tokens), "{phase:?} {binding}");
            }
        }
    }

    #[test]
    fn a_product_is_known_by_its_matrix() {
        let (c, works) = works(Phase::Decode, 1, 300, DeviceLimits::BASELINE.binding);
        let experts = [c.num_local_experts(), c.moe_intermediate_size(), c.hidden_size];
        assert!(works.iter().any(|work| work.shape == experts.into()));
        // The head is multiplied by; the rows of the embedding table come from elsewhere.
        let table = [c.vocab_size, c.hidden_size].into();
        let tables = works.iter().filter(|work| work.shape == table);
        let head = 2 * u64::from(c.vocab_size) * u64::from(c.hidden_size);
        assert_eq!(tables.map(|work| work.operations).collect::<Vec<_>>(), [head]);
    }
}
