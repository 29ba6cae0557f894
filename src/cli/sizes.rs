//! How long contexts, chunks of prompts and splits of attention are, and how keys and values are
//! kept.

use clap::{Args, ValueEnum};
use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    engine::{HostCompute, SessionOptions},
    machine::{Machine as _, gpu::Gpu},
    measure::{chunks, splits},
    model::{config::Config, weights::Weights},
    variants::Kept,
};

use super::memory::{HostOption, MemoryOption};

/// Sizes of a session.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Sizes")]
pub(crate) struct SizeOptions {
    /// Positions of the key-value cache. The default is what the command needs
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<u32>,
    #[command(flatten)]
    pub(crate) prefill: PrefillOption,
    #[command(flatten)]
    pub(crate) cache: CacheOption,
    #[command(flatten)]
    pub(crate) memory: MemoryOption,
    #[command(flatten)]
    pub(crate) host: HostOption,
}

/// How long chunks of a prompt are.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct PrefillOption {
    /// Tokens of a prompt that go through the model at once. The default is what `tune` found best
    /// on this adapter for such a model; else 1024 on a discrete GPU, and 256 on any other adapter
    #[arg(long, value_name = "TOKENS")]
    prefill: Option<u32>,
}

/// How keys and values are kept.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CacheOption {
    /// Element type of the key-value cache
    #[arg(long, value_name = "TYPE", value_enum, default_value = "f32")]
    cache: CacheElement,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CacheElement {
    /// As computed
    F32,
    /// Half floats, in half the memory
    F16,
    /// Bytes with a scale for each 32, in little more than a quarter
    Q8,
}

impl CacheOption {
    pub(crate) fn dtype(self) -> DType {
        match self.cache {
            CacheElement::F32 => DType::F32,
            CacheElement::F16 => DType::F16,
            CacheElement::Q8 => DType::Q8,
        }
    }
}

impl SizeOptions {
    /// The sizes asked for; `enough` positions if no context was.
    pub(crate) fn sizes(self, config: &Config, enough: u64) -> Sizes {
        let most = config.max_position_embeddings;
        let enough = u32::try_from(enough).unwrap_or(most).min(most);
        Sizes::new(self.context.unwrap_or(enough), self.prefill, self.cache)
            .within(self.memory)
            .computing(self.host)
    }
}

/// Sizes of a session. Unless somebody asked for chunks of a length, the device decides it, as it
/// does how long splits of decode attention are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) context: u32,
    prefill: Option<u32>,
    /// Longest chunk, where the device decides, if the context is not shorter.
    most: u32,
    cache: DType,
    /// Texts of a step, and positions of the cache that they share.
    rows: u32,
    positions: Option<u32>,
    /// The memory that may be taken.
    pub(crate) memory: MemoryOption,
    /// Whether the CPU computes what is not on the device.
    pub(crate) host_compute: Option<HostCompute>,
    /// Bytes of weights that the CPU could keep.
    pub(crate) kept: u64,
    /// The memory to choose by, if measured rates say what the CPU computes.
    pub(crate) to_choose: Option<MemoryOption>,
}

/// The sizes for a device, and what says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decided {
    pub(crate) sizes: SessionOptions,
    /// Of how many tokens of a prompt go through the model at once.
    pub(crate) chunk: Rule,
    /// Of how many positions the shortest split of decode attention has.
    pub(crate) split: Rule,
}

/// What says how long something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Asked,
    Measured,
    Discrete,
    Usual,
}

impl Rule {
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Asked => "as asked",
            Self::Measured => "as `tune` measured",
            Self::Discrete => "the default of discrete GPUs",
            Self::Usual => "the default",
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Measured => "tune",
            Self::Discrete => "discrete_gpu",
            Self::Usual => "default",
        }
    }
}

impl From<SessionOptions> for Sizes {
    fn from(sizes: SessionOptions) -> Self {
        let SessionOptions { context, prefill, cache, rows, host_compute, .. } = sizes;
        let (prefill, memory) = (Some(prefill), MemoryOption::WHOLE);
        let kept = host_compute.map_or(0, |host| host.memory);
        Self {
            context,
            prefill,
            most: u32::MAX,
            cache,
            rows,
            positions: sizes.cache_positions,
            memory,
            host_compute,
            kept,
            to_choose: None,
        }
    }
}

impl Sizes {
    pub(crate) fn new(context: u32, prefill: PrefillOption, cache: CacheOption) -> Self {
        let (prefill, cache) = (prefill.prefill, cache.dtype());
        let memory = MemoryOption::WHOLE;
        let (most, rows, positions) = (u32::MAX, 1, None);
        let (host_compute, kept, to_choose) = (None, 0, None);
        Self {
            context,
            prefill,
            most,
            cache,
            rows,
            positions,
            memory,
            host_compute,
            kept,
            to_choose,
        }
    }

    /// The same for steps that generate a token of so many texts, which share a cache of `contexts`
    /// times the context.
    pub(crate) fn for_texts(self, rows: u32, contexts: u32) -> Self {
        // Prompts of the next texts have places of their own in a step.
        let places = rows + (rows / 4).max(1);
        let positions = self.context.saturating_mul(contexts);
        Self { rows: places, positions: Some(positions), ..self }
    }

    /// The same in so much memory.
    pub(crate) fn within(self, memory: MemoryOption) -> Self {
        Self { memory, ..self }
    }

    /// The same with the CPU computing what is not on the device, if that is wanted.
    pub(crate) fn computing(self, host: HostOption) -> Self {
        let (memory, to_choose) = (host.beside(self.memory), host.to_choose(self.memory));
        Self { host_compute: host.wanted(), memory, kept: host.kept(), to_choose, ..self }
    }

    /// The same with chunks of at most so many tokens, also where longer ones were asked for.
    pub(crate) fn with_chunks_to(self, most: u32) -> Self {
        Self { prefill: self.prefill.map(|prefill| prefill.min(most)), most, ..self }
    }

    /// The sizes for any device, before it is open.
    pub(crate) fn usual(self) -> SessionOptions {
        let usual = self.in_chunks_of(SessionOptions::PREFILL);
        let prefill = self.prefill.unwrap_or(usual.prefill);
        self.session(prefill)
    }

    fn session(self, prefill: u32) -> SessionOptions {
        let session = SessionOptions::new(self.context, prefill, self.cache).with_rows(self.rows);
        match self.positions {
            Some(positions) => session.with_cache_positions(positions),
            None => session,
        }
    }

    /// The sizes with chunks of a length that a device decided.
    fn in_chunks_of(self, length: u32) -> SessionOptions {
        self.session(1).in_chunks_of(length.min(self.most))
    }

    /// The sizes for a device with what was measured on it, or for an unknown device.
    pub(crate) fn on(
        self,
        device: Option<(&Gpu, &Kept)>,
        config: &Config,
        weights: &impl Weights,
    ) -> Result<Decided> {
        let usual = self.usual();
        let asked = self.prefill.map(|_| (usual, Rule::Asked));
        let Some((gpu, kept)) = device else {
            let (sizes, chunk) = asked.unwrap_or((usual, Rule::Usual));
            return Ok(Decided { sizes, chunk, split: Rule::Usual });
        };
        let (sizes, chunk) = match asked {
            Some(asked) => asked,
            None => match kept.chunks.get(&chunks::class(config, weights)?) {
                Some(&length) => (self.in_chunks_of(length), Rule::Measured),
                None if gpu.is_discrete() => {
                    (self.in_chunks_of(usual.on(gpu).prefill), Rule::Discrete)
                }
                None => (usual, Rule::Usual),
            },
        };
        Ok(match kept.splits.get(&splits::class(config, self.cache)) {
            Some(&split) => {
                Decided { sizes: sizes.with_split(split), chunk, split: Rule::Measured }
            }
            None => Decided { sizes, chunk, split: Rule::Usual },
        })
    }
}
