//! Sizes of an engine.

use super::step::Readback;
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    kernels::{CACHES, elements_of_chunk},
    machine::Machine,
    model::config::Config,
    variants::{SPLITS, is_split},
};

/// Sizes of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Most positions of a text.
    pub context: u32,
    /// Positions of the key-value cache, which texts share; as many as a text may have if it is not
    /// said. Texts take them in pages of 32 as they grow.
    pub cache_positions: Option<u32>,
    /// Most texts whose tokens go through the model in one step.
    pub rows: u32,
    /// Most tokens of a prompt in one prefill pass.
    pub prefill: u32,
    /// Element type of the key-value cache, one of [`CACHES`].
    pub cache: DType,
    /// Positions of the shortest split of decode attention: a power of two from 32 to 1024. Shorter
    /// splits are more workgroups with less work each. The last bits of results depend on it.
    pub split: u32,
    /// Whether the CPU computes, for generated tokens, the experts and dense MLPs that are not on
    /// the device.
    pub host_compute: Option<HostCompute>,
}

/// How the CPU computes experts and dense MLPs that are not on the device.
///
/// Results are within the same bounds as the device's, but their last bits differ, so a text's
/// bits depend on the placement: the same placement gives the same bits, on every CPU and for every
/// number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCompute {
    /// How many threads; as many as there are cores if it is 0.
    pub threads: u32,
    /// Bytes of weights that may stay in the host's memory once they have been read.
    pub memory: u64,
}

impl HostCompute {
    /// So many threads, and so many bytes.
    pub const fn new(threads: u32, memory: u64) -> Self {
        Self { threads, memory }
    }
}

impl Default for HostCompute {
    fn default() -> Self {
        Self { threads: 0, memory: u64::MAX }
    }
}

impl SessionOptions {
    /// Most tokens of a prompt in a pass, where nothing else is known.
    pub const PREFILL: u32 = 256;
    /// The same on a GPU with memory of its own: more tokens share a loaded weight, and more choose
    /// the same expert.
    pub const PREFILL_OF_DISCRETE: u32 = 1024;
    /// Positions of the shortest split of decode attention, where nothing else is known: enough
    /// work for a workgroup.
    pub const SPLIT: u32 = 128;
    /// Longest context by default: the KV cache takes memory for every position.
    const DEFAULT_CONTEXT: u32 = 4096;
    /// Most texts of a step.
    pub const MOST_ROWS: u32 = 64;
    /// Most tokens in a pass that returns the logits of every token, because of their size.
    pub(super) const ALL_LOGITS_ROWS: u32 = 32;

    /// These sizes, with splits of [`SessionOptions::SPLIT`] positions. All are checked when an
    /// engine is made.
    pub const fn new(context: u32, prefill: u32, cache: DType) -> Self {
        Self {
            context,
            cache_positions: None,
            rows: 1,
            prefill,
            cache,
            split: Self::SPLIT,
            host_compute: None,
        }
    }

    /// The model's own context up to 4096, prefill by [`SessionOptions::PREFILL`] tokens, an F32
    /// cache, and splits of [`SessionOptions::SPLIT`] positions.
    pub fn of(config: &Config) -> Self {
        let context = config.max_position_embeddings.min(Self::DEFAULT_CONTEXT);
        Self::new(context, Self::PREFILL, DType::F32)
    }

    /// The same with splits of decode attention of at least `split` positions: a power of two from
    /// 32 to 1024, which is checked when an engine is made. `tune` of the program measures which
    /// suits a device.
    #[must_use]
    pub const fn with_split(self, split: u32) -> Self {
        Self { split, ..self }
    }

    /// The same for steps of up to `rows` texts at once: at most [`SessionOptions::MOST_ROWS`],
    /// which is checked when an engine is made. No bit of a text depends on it.
    #[must_use]
    pub const fn with_rows(self, rows: u32) -> Self {
        Self { rows, ..self }
    }

    /// The same with a cache of so many positions, which texts share: at least those of the
    /// longest text, which is checked when an engine is made. No bit of a text depends on it.
    #[must_use]
    pub const fn with_cache_positions(self, positions: u32) -> Self {
        Self { cache_positions: Some(positions), ..self }
    }

    /// Positions of the key-value cache.
    pub fn positions(&self) -> u32 {
        self.cache_positions.unwrap_or(self.context)
    }

    /// The same with the CPU computing what is not on the device, if that is wanted. It does
    /// nothing where all weights are.
    #[must_use]
    pub const fn with_host_compute(self, host_compute: Option<HostCompute>) -> Self {
        Self { host_compute, ..self }
    }

    /// The same with prefill by `length` tokens, as far as the context is that long.
    #[must_use]
    pub fn in_chunks_of(self, length: u32) -> Self {
        Self { prefill: length.min(self.context).max(1), ..self }
    }

    /// The same with the prefill that suits `machine`, as far as the context is that long:
    /// [`SessionOptions::PREFILL_OF_DISCRETE`] tokens for a discrete GPU, else
    /// [`SessionOptions::PREFILL`].
    #[must_use]
    pub fn on<M: Machine>(self, machine: &M) -> Self {
        let usual = if machine.is_discrete() { Self::PREFILL_OF_DISCRETE } else { Self::PREFILL };
        self.in_chunks_of(usual)
    }

    /// Most tokens of a prompt in one step with this readback.
    pub fn chunk(&self, read: Readback) -> usize {
        let rows = match read {
            Readback::AllLogits => self.prefill.min(Self::ALL_LOGITS_ROWS),
            _ => self.prefill,
        };
        rows as usize
    }

    /// Checks the sizes against the model, as an engine does when it is made.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if they do not suit the model.
    pub fn check(&self, c: &Config) -> Result<()> {
        let most = c.max_position_embeddings;
        if self.context == 0 || self.context > most {
            return Err(Error::Usage(format!(
                "the context is {}, expected 1 to max_position_embeddings ({most})",
                self.context
            )));
        }
        if self.positions() < self.context {
            return Err(Error::Usage(format!(
                "the cache has {} positions, expected those of a text at least, which are {}",
                self.positions(),
                self.context
            )));
        }
        if self.rows == 0 || self.rows > Self::MOST_ROWS {
            return Err(Error::Usage(format!(
                "a step takes {} texts, expected 1 to {}",
                self.rows,
                Self::MOST_ROWS
            )));
        }
        if self.prefill == 0 || self.prefill > 4096 {
            return Err(Error::Usage(format!(
                "the prefill chunk is {}, expected 1 to 4096",
                self.prefill
            )));
        }
        if !is_split(self.split) {
            return Err(Error::Usage(format!(
                "the shortest split of decode attention has {} positions, expected a power of two \
                 from {} to {}",
                self.split,
                SPLITS.start(),
                SPLITS.end()
            )));
        }
        let dtype = self.cache;
        if !CACHES.contains(&dtype) {
            return Err(Error::Usage(format!(
                "the cache's element type is {dtype}, expected one of {CACHES:?}"
            )));
        }
        let width = c.num_key_value_heads * c.head_dim;
        let chunk = elements_of_chunk(dtype);
        if !width.is_multiple_of(dtype.block()) || !c.head_dim.is_multiple_of(chunk) {
            return Err(Error::Usage(format!(
                "a cache of {dtype} needs a head_dim that is a multiple of {chunk} and \
                 num_key_value_heads * head_dim a multiple of {}: they are {} and {width}",
                dtype.block(),
                c.head_dim
            )));
        }
        Ok(())
    }
}
