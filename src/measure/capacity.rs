//! The memory that a model needs on a device, counted without one.

use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{Engine, SessionOptions, step::Readback},
    machine::{
        Machine as _,
        counting::{Counted, Counting, DeviceLimits},
    },
    model::{Embedding, Model, Placement, alloc_pool, config::Config, weights::Weights},
};

/// The memory that a model takes on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The sizes of the engine.
    pub sizes: SessionOptions,
    /// Bytes of the weights.
    pub weights: u64,
    /// Bytes of weights in pinned memory of the host.
    pub pinned: u64,
    /// Number of splits of matrices that the binding limit forced.
    pub cuts: usize,
    /// Bytes of keys and values for one position.
    pub cache_position: u64,
    /// Bytes of keys and values for the whole context.
    pub cache: u64,
    /// Shards of the KV cache of one layer.
    pub cache_shards: usize,
    /// Bytes of everything else.
    pub scratch: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// The dispatches of a decode step.
    pub decode: Counted,
}

impl MemoryPlan {
    /// Bytes of everything on the device.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.scratch
    }
}

/// What would have fit where a device ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedies {
    /// Bytes of the weights, if they alone did not fit.
    pub weights: Option<u64>,
    /// A shorter context, where all else is the same.
    pub context: Option<u32>,
    /// Whether a cache of type Q8 would have, where all else is the same.
    pub q8: bool,
    /// Fewer tokens of a prompt in a pass, where all else is the same.
    pub prefill: Option<u32>,
}

/// A model laid out under some device limits, which can be planned at several contexts.
#[derive(Clone, Debug)]
pub struct Planner {
    model: Model,
    machine: Counting,
}

impl Planner {
    /// Lays out the weights under `limits`.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if a single row of a matrix is larger than a binding.
    pub fn new(config: &Config, weights: &impl Weights, limits: DeviceLimits) -> Result<Self> {
        Self::placed(config, weights, limits, Placement::WHOLE)
    }

    /// Lays out those weights that `placement` has on the machine, and the room for the others.
    ///
    /// # Errors
    ///
    /// Those of [`Planner::new`]; [`Error::Usage`] if there is not room for the experts of a token.
    pub fn placed(
        config: &Config,
        weights: &impl Weights,
        limits: DeviceLimits,
        placement: Placement,
    ) -> Result<Self> {
        let mut machine = Counting::new(limits);
        let model = Model::placed(&mut machine, config, weights, placement)?;
        Ok(Self { model, machine })
    }

    /// The model as it is laid out.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The memory of an engine of these sizes, with buffers to sample from 40 candidates.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if a buffer is larger than a binding, [`Error::Usage`] if the sizes do not
    /// suit the model.
    pub fn plan(&self, sizes: SessionOptions) -> Result<MemoryPlan> {
        let c = &self.model.config;
        let weights = self.machine.bytes();
        let mut engine = Engine::with_model(self.machine.clone(), self.model.clone(), sizes)?;
        let candidates = c.vocab_size.min(40);
        let decode = engine.decode_plan(0, Readback::Top(candidates))?.clone();
        let mut cache = Counting::new(self.machine.limits());
        let mut cache_shards = 0;
        let of = [sizes.context, sizes.positions()];
        for _ in 0..c.num_hidden_layers() {
            cache_shards = alloc_pool(&mut cache, c, of, sizes.cache)?.shards.len();
        }
        let all = engine.machine();
        Ok(MemoryPlan {
            sizes,
            weights,
            pinned: self.machine.pinned_bytes(),
            cuts: self.model.cuts(),
            cache_position: cache_position_bytes(c, sizes.cache),
            cache: cache.bytes(),
            cache_shards,
            scratch: all.bytes() - weights - cache.bytes(),
            tensors: all.tensor_count(),
            decode,
        })
    }

    /// What would have fit in the `held` bytes that a device gave before it ran out of memory.
    pub fn remedies(&self, held: u64, sizes: SessionOptions) -> Remedies {
        const FEWER: [u32; 2] = [SessionOptions::PREFILL, 32];
        let fits = |sizes| self.plan(sizes).is_ok_and(|plan| plan.total() <= held);
        let weights = self.machine.bytes();
        let context = self.longest_context(held, sizes).unwrap_or_default();
        Remedies {
            weights: (weights > held).then_some(weights),
            context: Some(context).filter(|&context| context > 0 && context < sizes.context),
            q8: sizes.cache != DType::Q8 && fits(SessionOptions { cache: DType::Q8, ..sizes }),
            prefill: FEWER.into_iter().find(|&prefill| {
                sizes.prefill > prefill && fits(SessionOptions { prefill, ..sizes })
            }),
        }
    }

    /// The longest context that fits in `memory` bytes where all else is as in `sizes`, at most the
    /// model's own; 0 if none does.
    ///
    /// # Errors
    ///
    /// Those of [`Planner::plan`] other than for a context that is too long.
    pub fn longest_context(&self, memory: u64, sizes: SessionOptions) -> Result<u32> {
        let fits = |context| match self.plan(SessionOptions { context, ..sizes }) {
            Ok(plan) => Ok(plan.total() <= memory),
            Err(Error::Limit { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        most(self.model.config.max_position_embeddings, fits)
    }
}

/// The most of 0 to `high` that fits, where more never fits if less does not.
///
/// # Errors
///
/// Those of `fits`.
pub fn most(mut high: u32, fits: impl Fn(u32) -> Result<bool>) -> Result<u32> {
    let mut low = 0;
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// Bytes of keys and values for one position of all layers, as elements of `dtype`.
pub fn cache_position_bytes(c: &Config, dtype: DType) -> u64 {
    let [layers, heads, channels] =
        [c.num_hidden_layers(), c.num_key_value_heads, c.head_dim].map(u64::from);
    2 * layers * dtype.row_bytes(heads * channels)
}

/// Dispatches per layer, on average, in a step that runs `kernels`.
pub fn layer_dispatches(model: &Model, kernels: &[(String, u64)]) -> f64 {
    let all: u64 = kernels.iter().map(|(_, count)| count).sum();
    let last = |label: &str| label.starts_with("topk") || label == "gather";
    let searches: u64 =
        kernels.iter().filter(|(label, _)| last(label)).map(|(_, count)| count).sum();
    let head = model.lm_head.shards.len() as u64;
    let embedding = if model.embedding == Embedding::Tied { head } else { 1 };
    // One norm runs before the first layer.
    (all - searches - embedding - head - 1) as f64 / f64::from(model.config.num_hidden_layers())
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::{
        checkpoint::Synthetic,
        machine::{counting::Watching, kernel::Kernel},
        variants::{Capabilities, MAX_WORKGROUPS, Setting, Tuning, VARIANTS},
    };

    /// Records a kernel for each tuning, and compares it with the limits.
    fn keeps_to_the_limits(
        kernel: &dyn Kernel,
        tunings: &[(String, Tuning)],
        binding: u64,
    ) -> Result<()> {
        for (name, tuning) in tunings {
            let dispatch = kernel.record(tuning)?;
            let label = dispatch.shader.label();
            let groups = dispatch.workgroups;
            assert!(groups.iter().all(|n| *n <= MAX_WORKGROUPS), "{label} {name}: {groups:?}");
            for operand in &dispatch.operands {
                let bytes = operand.tensor.size_bytes();
                assert!(bytes <= binding, "{label} {name}: {bytes}");
            }
        }
        Ok(())
    }

    /// Long contexts, long chunks and millions of tokens: what is planned keeps to the limits, and
    /// what cannot is refused as that.
    #[test]
    fn nothing_beyond_a_limit_is_planned() {
        let tunings = Tuning::all(&Capabilities::default());
        assert!(tunings.len() > 1);
        let (mut planned, mut refused) = (0, 0);
        for (preset, vocab, context, prefill) in [
            ("tiny", 256, 64, 32),
            ("tiny", 1 << 24, 4096, 64),
            ("tiny", 256, 1 << 24, 8),
            ("tiny", 256, 4096, 4096),
            ("tiny", 256, 200_000, 4096),
            ("tiny-grok-1", 3_000_000, 1_000_000, 4096),
            ("grok-2", 131_072, 131_072, 512),
            ("grok-1", 131_072, 8192, 4096),
        ] {
            let mut config = Config::preset(preset).expect("a preset").with_layers(1);
            config.vocab_size = vocab;
            config.max_position_embeddings = config.max_position_embeddings.max(context);
            let weights = Synthetic::new(&config, DType::Q4, 0).expect("weights");
            let counting = Counting::new(DeviceLimits::BASELINE);
            let binding = counting.max_binding_bytes();
            let see = |kernel: &dyn Kernel| keeps_to_the_limits(kernel, &tunings, binding);
            let mut machine = Watching { counting, see };
            let model = Model::alloc(&mut machine, &config, &weights).expect("rows are short");
            let sizes = SessionOptions::new(context, prefill, DType::Q8);
            let rows = prefill as usize;
            let made = Engine::with_model(machine, model, sizes).and_then(|mut engine| {
                [0, context as usize - rows].into_iter().try_for_each(|before| {
                    block_on(engine.prepare(before, rows, Readback::Top(40)))
                })
            });
            match made {
                Ok(()) => planned += 1,
                Err(Error::Limit { .. }) => refused += 1,
                Err(other) => panic!("{preset} {vocab} {context} {prefill}: {other}"),
            }
        }
        assert!(planned >= 4 && refused >= 1, "{planned} planned, {refused} refused");
    }

    /// With large bindings the head of Grok-2 has more rows than some settings have workgroups.
    #[test]
    fn what_tune_measures_keeps_to_the_limits() {
        let on = Capabilities::default();
        let settings =
            VARIANTS.iter().filter(|variant| variant.needs(&on).is_ok()).flat_map(|&variant| {
                variant.settings(&on).into_iter().map(move |of| Setting::new(variant, of))
            });
        let tunings: Vec<_> =
            settings.map(|setting| (setting.to_string(), Tuning::by(&on, setting))).collect();
        assert!(tunings.iter().any(|(name, _)| name == "lanes 32 1"), "{tunings:?}");
        let config = Config::preset("grok-2").expect("a preset").with_layers(1);
        let weights = Synthetic::new(&config, DType::Q4, 0).expect("weights");
        let counting = Counting::new(DeviceLimits { binding: 1 << 31, buffer: 1 << 31 });
        let binding = counting.max_binding_bytes();
        let see = |kernel: &dyn Kernel| keeps_to_the_limits(kernel, &tunings, binding);
        let mut machine = Watching { counting, see };
        let model = Model::alloc(&mut machine, &config, &weights).expect("rows are short");
        assert_eq!(model.lm_head.shards.len(), 1, "its rows are not cut");
        let sizes = SessionOptions::new(1024, 256, DType::F32);
        let mut engine = Engine::with_model(machine, model, sizes).expect("it fits");
        for rows in [256, 1] {
            block_on(engine.prepare(0, rows, Readback::Top(40))).expect("all settings divide it");
        }
    }

    fn planner(name: &str, limits: DeviceLimits) -> Planner {
        let config = Config::preset(name).expect("a preset");
        let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
        Planner::new(&config, &weights, limits).expect("fits")
    }

    #[test]
    fn the_released_model_is_laid_out_without_a_device() {
        let planner = planner("grok-2", DeviceLimits::BASELINE);
        let plan = planner.plan(SessionOptions::new(4096, 256, DType::F32)).expect("fits");
        // BF16 as stored, and norms and routers twice as wide: 64 layers of 4 norms and 8 rows.
        let widened = 2 * 8192 * (64 * (4 + 8) + 1);
        // The embedding table stays where it is.
        let table = 131_072 * 8192 * 2;
        assert_eq!(plan.weights, 539_030_994_944 - table + widened);
        assert_eq!(plan.cache_position, 524_288);
        assert_eq!(plan.cache, 4096 * 524_288);
        // Q8 has a scale of two bytes for every 32 keys or values.
        for (cache, position) in [(DType::F16, 262_144), (DType::Q8, 131_072 + 131_072 / 16)] {
            let sizes = SessionOptions::new(4096, 256, cache);
            let smaller = planner.plan(sizes).expect("fits");
            assert_eq!((smaller.cache_position, smaller.cache), (position, 4096 * position));
            assert_eq!(smaller.scratch, plan.scratch, "{cache}");
        }
        // The head has 2 GiB, in bindings of 128 MiB.
        assert_eq!(planner.model().lm_head.shards.len(), 16);
        assert!(plan.cuts > 30 && plan.scratch > 0, "{plan:?}");
    }

    #[test]
    fn many_texts_take_buffers_and_cache() {
        let planner = planner("grok-2", DeviceLimits::BASELINE);
        let sizes = SessionOptions::new(4096, 256, DType::Q8);
        let of = |sizes| planner.plan(sizes).expect("fits");
        let (one, many) = (of(sizes), of(sizes.with_rows(16)));
        assert_eq!(many.cache, one.cache);
        // Logits of a row, and the largest of them, for prompts and for generated tokens.
        assert!(many.scratch - one.scratch > 2 * 15 * 4 * 131_072, "{many:?}");
        assert!(many.scratch < 2 * one.scratch, "{many:?} {one:?}");
        let shared = of(sizes.with_cache_positions(3 * 4096));
        assert_eq!((shared.cache, shared.scratch), (3 * one.cache, one.scratch));
        assert_eq!(one.decode, many.decode);
        for (wrong, what) in [
            (sizes.with_rows(0), "0 texts"),
            (sizes.with_rows(65), "expected 1 to 64"),
            (sizes.with_cache_positions(4095), "the cache has 4095 positions"),
        ] {
            let error = planner.plan(wrong).expect_err(what);
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn the_longest_context_is_the_last_that_fits() {
        let planner = planner("tiny", DeviceLimits::BASELINE);
        let sizes = SessionOptions::new(1, 64, DType::F32);
        let total =
            |context| planner.plan(SessionOptions { context, ..sizes }).expect("fits").total();
        let memory = total(1000) + 1;
        let longest = planner.longest_context(memory, sizes).expect("a plan");
        assert!(total(longest) <= memory && total(longest + 1) > memory, "{longest}");
        assert_eq!(planner.longest_context(1000, sizes).expect("a plan"), 0);
        assert_eq!(planner.longest_context(u64::MAX, sizes).expect("a plan"), 4096);
    }

    #[test]
    fn remedies_are_those_that_fit() {
        let planner = planner("tiny", DeviceLimits::BASELINE);
        let sizes = SessionOptions::new(4096, 256, DType::F32);
        let plan = planner.plan(sizes).expect("fits");
        let none = Remedies { weights: None, context: None, q8: false, prefill: None };
        // Whatever is held, what is proposed takes no more.
        for held in [plan.total() - 1, plan.total() - plan.cache / 2, plan.weights + 1] {
            let found = planner.remedies(held, sizes);
            assert_eq!(found.weights, None);
            let of = |sizes| planner.plan(sizes).expect("fits").total();
            if let Some(context) = found.context {
                assert!(of(SessionOptions { context, ..sizes }) <= held);
            }
            assert_eq!(found.q8, of(SessionOptions { cache: DType::Q8, ..sizes }) <= held);
            assert!(found != none || held == plan.weights + 1, "{held}: {found:?}");
        }
        let nearly = planner.remedies(plan.total() - 1, sizes);
        assert!(nearly.q8 && nearly.prefill == Some(32) && nearly.context > Some(4000));
        let long = SessionOptions { prefill: 1024, ..sizes };
        let total = planner.plan(long).expect("fits").total();
        assert_eq!(planner.remedies(total - 1, long).prefill, Some(256));
        let nothing = planner.remedies(plan.weights - 1, sizes);
        assert_eq!(nothing, Remedies { weights: Some(plan.weights), ..none });
    }

    #[test]
    fn a_layer_has_few_dispatches() {
        for (name, want) in [("tiny", 12.0), ("tiny-grok-1", 10.0)] {
            let planner = planner(name, DeviceLimits::BASELINE);
            let plan = planner.plan(SessionOptions::new(128, 64, DType::F32)).expect("fits");
            let each = layer_dispatches(planner.model(), &plan.decode.kernels);
            assert!((each - want).abs() < 1e-9, "{name}: {each}");
        }
    }

    #[test]
    fn too_small_a_binding_is_an_error() {
        let config = Config::preset("tiny").expect("a preset");
        let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
        let limits = DeviceLimits { binding: 128, buffer: 128 };
        let error = Planner::new(&config, &weights, limits).expect_err("too small");
        assert_eq!(error.code(), "limit");
    }
}
