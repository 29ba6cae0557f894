//! The activation buffers of a pass, with their shapes, allocated before the first token.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{
            DType::{self, F32, U32},
            Shape, Tensor,
        },
    },
    kernels::max_tiles,
    machine::{
        BufferRole, Machine,
        step::{self, PAGE, RECORDS, SPLITS, STEP_LEN},
    },
    model::config::Config,
    variants::Form,
};

/// Slots of the shortest segment of a cache, however little a binding may hold.
const SHORTEST_SEGMENT: u32 = 128;

/// Most rows of a tile of a prompt.
const PROMPT_TILE: u32 = 32;

/// Prefill or decode: which kernels a pass uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Many tokens, by GEMM kernels. The result of a token does not depend on how many there are.
    Prefill,
    /// Generated tokens, by GEMV kernels.
    Decode,
}

impl Phase {
    /// The form of its products.
    pub fn form(self) -> Form {
        match self {
            Self::Prefill => Form::Matrix,
            Self::Decode => Form::Vector,
        }
    }

    /// Positions of the shortest split of attention over such a cache, and most rows of a tile.
    /// Decode has splits of `split` positions, though none is longer than a segment. Prefill has
    /// enough rows to fill a device, so each segment is one split, whatever `split` is.
    fn attention(self, cache: &LayerCache, split: u32) -> (u32, u32) {
        match self {
            Self::Decode => (split.min(cache.segment), 1),
            Self::Prefill => (cache.segment, PROMPT_TILE),
        }
    }
}

/// The KV cache of a layer: slots for positions, in pages of [`PAGE`], cut into as many tensors as
/// the binding limit needs.
///
/// A text has its positions on pages of its own, which its page table lists. The positions of a
/// text are cut into segments of `segment` positions, and all pages of a segment must be in one
/// shard, since a dispatch of attention reads one.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// In the order of slots. All but the last have `segment` slots.
    pub shards: Vec<CacheShard>,
    /// Slots of a shard: a power of two, which follows from the binding limit alone.
    pub segment: u32,
    /// Most positions of a text, in whole pages.
    pub of_text: u32,
}

/// Keys and values in some slots.
#[derive(Clone, Copy, Debug)]
pub struct CacheShard {
    /// First slot.
    pub slot0: u32,
    /// Number of slots, whole pages.
    pub len: u32,
    /// `[len, num_key_value_heads head_dim]`
    pub k: Tensor,
    /// `[len, num_key_value_heads head_dim]`
    pub v: Tensor,
}

/// Which experts a layer chose.
#[derive(Clone, Copy, Debug)]
pub struct Routes {
    /// Ids of the experts, the most probable first: `[tokens, num_experts_per_tok]`
    pub ids: Tensor,
    /// Their probabilities: `[tokens, num_experts_per_tok]`
    pub probs: Tensor,
}

/// Candidates left by one level of the top-k search over logits.
#[derive(Clone, Copy, Debug)]
pub struct TopList {
    /// `[rows, chunks * count]`
    pub values: Tensor,
    /// `[rows, chunks * count]`
    pub ids: Tensor,
}

/// What the host brings to each pass of a model, since it is not on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The type of the embedding table, whose rows are fetched.
    pub embedded: Option<DType>,
    /// Whether there are layers whose experts are brought.
    pub experts: bool,
}

/// Buffers of a pass over `tokens` rows.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The phase it is allocated for.
    pub phase: Phase,
    /// Rows of the buffers; a step may fill fewer.
    pub tokens: u32,
    /// Positions of the shortest split of attention.
    pub least_split: u32,
    /// Most rows of a tile of attention.
    pub tile_rows: u32,
    /// Most texts that the rows are of.
    pub texts: u32,

    // Written by the host before each step.
    /// Row of each token in the embedding table, or in `embedded`: `[tokens]`
    pub ids: Tensor,
    /// The rows of the embedding table that the tokens have, where the table is not on the machine:
    /// `[tokens, hidden_size]`
    pub embedded: Option<Tensor>,
    /// Header of the step record: numbers of tiles and of rows that are not padding, and two words
    /// that are not used: `[4]`
    pub step: Tensor,
    /// Header of the step record of the rows whose logits are computed, for the head: `[4]`
    pub head_step: Tensor,
    /// Rows of the step, a [`step::RowRecord`] each: `[RECORDS, 4]`
    pub rows: Tensor,
    /// Tiles of the step, a [`step::TileRecord`] each: `[RECORDS, 4]`
    pub row_tiles: Tensor,
    /// Page table: the pages of each text, one after another: `[texts * pages of a text]`
    pub table: Tensor,
    /// Cosine and sine of each rotary angle, for each rope: `[tokens, head_dim]`
    pub cos_sin: Vec<Tensor>,
    /// Attention temperature: `[tokens]`
    pub temperature: Tensor,
    /// In prefill, the rows whose logits are wanted: `[texts]`
    pub last_row: Tensor,

    // Computed by the kernels of each step.
    /// Residual stream: `[tokens, hidden_size]`
    pub x: Tensor,
    /// Normalized input of a block: `[tokens, hidden_size]`
    pub h: Tensor,
    /// Output of a block: `[tokens, hidden_size]`
    pub block: Tensor,
    /// `[tokens, (num_attention_heads + 2 num_key_value_heads) head_dim]`
    pub qkv: Tensor,
    /// Rotated queries: `[tokens, num_attention_heads, head_dim]`
    pub q: Tensor,
    /// Unnormalized outputs of each split of attention:
    /// `[tokens, num_attention_heads, splits, head_dim]`
    pub split_acc: Tensor,
    /// Maximum and sum of the online softmax of each split:
    /// `[tokens, num_attention_heads, splits, 2]`
    pub split_stats: Tensor,
    /// Output of attention, before `o_proj`: `[tokens, num_attention_heads head_dim]`
    pub heads: Tensor,
    /// Gated activations of the dense MLP: `[tokens, intermediate_size]`
    pub dense_act: Tensor,
    /// Output of the dense MLP: `[tokens, hidden_size]`
    pub dense: Tensor,
    /// Zeros, read in place of `dense` in layers that have experts and no dense MLP:
    /// `[tokens, hidden_size]`
    pub no_dense: Tensor,
    /// The chosen experts of each layer that has experts, in order.
    pub routes: Vec<Routes>,
    /// Where the chosen experts are, in layers whose experts are brought:
    /// `[tokens, num_experts_per_tok]`
    pub at: Option<Tensor>,
    /// (token, choice) slots sorted by expert: `[tokens num_experts_per_tok]`
    pub order: Tensor,
    /// Tiles of slots: `[max_tiles, 4]`
    pub tiles: Tensor,
    /// Gated activations of the chosen experts:
    /// `[tokens, num_experts_per_tok, moe_intermediate_size]`
    pub expert_act: Tensor,
    /// Outputs of the chosen experts: `[tokens, num_experts_per_tok, hidden_size]`
    pub routed: Tensor,
    /// In prefill, the rows of `h` whose logits are wanted: `[texts, hidden_size]`
    pub last: Tensor,
    /// Logits of these rows, in decode of all rows: `[texts, vocab_size]`
    pub logits: Tensor,
}

impl Scratch {
    /// Allocates buffers for `tokens` rows of one text, of a model to whose passes the host brings
    /// `brought` ([`Model::brought`](super::Model::brought)), for attention over the positions of
    /// `cache`, in decode in splits of at least `split` positions: a power of two and a multiple of
    /// [`PAGE`]. At later positions splits are longer: see [`step::split_len`].
    ///
    /// # Errors
    ///
    /// Errors of the machine's allocation, such as
    /// [`Error::Limit`](crate::base::error::Error::Limit) for a buffer larger than a binding.
    pub fn alloc<M: Machine>(
        machine: &mut M,
        (c, brought): (&Config, Brought),
        phase: Phase,
        tokens: u32,
        cache: &LayerCache,
        split: u32,
    ) -> Result<Self> {
        let mut alloc = |role, dtype, shape| machine.alloc(role, dtype, shape);
        Self::made_of((c, brought), phase, [tokens, 1], cache, split, &mut alloc)
    }

    /// Allocates buffers for the largest of some numbers of rows, of up to `texts` texts. Returns
    /// for each number, in order, buffers that are the first rows of those: they share memory, so a
    /// pass may use any, one after another.
    ///
    /// # Errors
    ///
    /// Those of [`Scratch::alloc`].
    pub fn alloc_shared<M: Machine>(
        machine: &mut M,
        (c, brought): (&Config, Brought),
        phase: Phase,
        (numbers, texts): (&[u32], u32),
        cache: &LayerCache,
        split: u32,
    ) -> Result<Vec<Self>> {
        let largest = numbers.iter().copied().max().unwrap_or(1);
        let mut made = Vec::new();
        let mut alloc = |role, dtype, shape| {
            let tensor: Tensor = machine.alloc(role, dtype, shape)?;
            made.push(tensor.id);
            Ok(tensor)
        };
        let sizes = [largest, texts];
        Self::made_of((c, brought), phase, sizes, cache, split, &mut alloc)?;
        let of = |&tokens: &u32| {
            let mut ids = made.iter();
            let mut first_rows = |_, dtype, shape| {
                let none = || Error::Usage("some numbers of rows have more buffers".into());
                let &id = ids.next().ok_or_else(none)?;
                Ok(Tensor { id, shape, dtype })
            };
            let sizes = [tokens, texts];
            Self::made_of((c, brought), phase, sizes, cache, split, &mut first_rows)
        };
        numbers.iter().map(of).collect()
    }

    /// The tiles of slots, where there are `experts` of them in a layer's tensors.
    pub(super) fn tiles_of(&self, experts: u32) -> Tensor {
        let slots = self.order.shape.extents()[0];
        let tiles = max_tiles(slots, experts, self.phase.form().tile());
        Tensor { shape: [tiles, 4].into(), ..self.tiles }
    }

    /// Buffers for `tokens` rows of up to `texts` texts, each from `make`. Their rows are the
    /// outermost axis, and their order does not depend on the numbers.
    fn made_of(
        (c, brought): (&Config, Brought),
        phase: Phase,
        [tokens, texts]: [u32; 2],
        cache: &LayerCache,
        split: u32,
        make: &mut dyn FnMut(BufferRole, DType, Shape) -> Result<Tensor>,
    ) -> Result<Self> {
        let texts = texts.min(tokens);
        let (least_split, tile_rows) = phase.attention(cache, split);
        let splits = step::most_splits(cache.of_text, least_split);
        let (heads, head_dim) = (c.num_attention_heads, c.head_dim);
        // A model without experts, or without a dense MLP, still gets those buffers, which nothing
        // uses.
        let [chosen, experts, expert_width] =
            [c.num_experts_per_tok(), c.num_local_experts(), c.moe_intermediate_size()]
                .map(|count| count.max(1));
        let dense_width = c.dense_width().unwrap_or(expert_width);
        let tiles = max_tiles(tokens * chosen, experts, phase.form().tile());
        let with_experts = c.layers.iter().filter(|layer| layer.routed);
        let qkv = (heads + 2 * c.num_key_value_heads) * head_dim;
        let mut make = |role, dtype, shape: Shape| {
            make(role, dtype, shape).map_err(|error| {
                error.storing(|| match phase {
                    Phase::Prefill => format!("activations of {tokens} tokens of a prompt"),
                    Phase::Decode => "activations of a generated token".to_owned(),
                })
            })
        };
        let mut floats = |shape: Shape| make(BufferRole::Storage, F32, shape);
        let cos_sin = c
            .ropes
            .iter()
            .map(|_| floats([tokens, head_dim].into()))
            .collect::<Result<Vec<_>>>()?;
        let temperature = floats([tokens].into())?;
        let mut hidden = || floats([tokens, c.hidden_size].into());
        let (x, h, block) = (hidden()?, hidden()?, hidden()?);
        let qkv = floats([tokens, qkv].into())?;
        let q = floats([tokens, heads, head_dim].into())?;
        let split_acc = floats([tokens, heads, splits, head_dim].into())?;
        let split_stats = floats([tokens, heads, splits, 2].into())?;
        let heads = floats([tokens, heads * head_dim].into())?;
        let dense_act = floats([tokens, dense_width].into())?;
        let dense = floats([tokens, c.hidden_size].into())?;
        // If no layer has a dense MLP, `dense` is never written and serves as the zeros. If only
        // some layers have one, the others need zeros of their own.
        let no_dense = if c.dense_width().is_some()
            && with_experts.clone().any(|layer| layer.dense.is_none())
        {
            floats([tokens, c.hidden_size].into())?
        } else {
            dense
        };
        let expert_act = floats([tokens, chosen, expert_width].into())?;
        let routed = floats([tokens, chosen, c.hidden_size].into())?;
        let last = floats([texts, c.hidden_size].into())?;
        let logits = floats([texts, c.vocab_size].into())?;
        let probs =
            with_experts.map(|_| floats([tokens, chosen].into())).collect::<Result<Vec<_>>>()?;
        let mut ints = |shape: Shape| make(BufferRole::Storage, U32, shape);
        let routes = probs
            .into_iter()
            .map(|probs| Ok(Routes { ids: ints([tokens, chosen].into())?, probs }))
            .collect::<Result<_>>()?;
        let at = brought.experts.then(|| ints([tokens, chosen].into())).transpose()?;
        let ids = ints([tokens].into())?;
        let last_row = ints([texts].into())?;
        let order = ints([tokens * chosen].into())?;
        let tiles = ints([tiles, 4].into())?;
        let table = ints([texts * (cache.of_text / PAGE)].into())?;
        let embedded = brought
            .embedded
            .map(|dtype| make(BufferRole::Storage, dtype, [tokens, c.hidden_size].into()))
            .transpose()?;
        let [step, rows, row_tiles, head_step] = step_record(phase, &mut make)?;
        Ok(Self {
            phase,
            tokens,
            least_split,
            tile_rows,
            texts,
            ids,
            embedded,
            step,
            head_step,
            rows,
            row_tiles,
            table,
            cos_sin,
            temperature,
            last_row,
            x,
            h,
            block,
            qkv,
            q,
            split_acc,
            split_stats,
            heads,
            dense_act,
            dense,
            no_dense,
            routes,
            at,
            order,
            tiles,
            expert_act,
            routed,
            last,
            logits,
        })
    }
}

/// The uniforms of a step: its header, rows and tiles, and the header of the head's rows.
fn step_record(
    phase: Phase,
    make: &mut dyn FnMut(BufferRole, DType, Shape) -> Result<Tensor>,
) -> Result<[Tensor; 4]> {
    let mut uniform = |shape| make(BufferRole::Uniform, U32, shape);
    let step = uniform([STEP_LEN].into())?;
    let [rows, tiles] = [uniform([RECORDS, 4].into())?, uniform([RECORDS, 4].into())?];
    // Every row of decode is read.
    let head_step = match phase {
        Phase::Decode => step,
        Phase::Prefill => uniform([STEP_LEN].into())?,
    };
    Ok([step, rows, tiles, head_step])
}

/// Allocates the KV cache of one layer for a text of `context` positions, rounded up to whole
/// pages, of element type `dtype`.
///
/// # Errors
///
/// Those of [`alloc_pool`].
pub fn alloc_cache<M: Machine>(
    machine: &mut M,
    c: &Config,
    context: u32,
    dtype: DType,
) -> Result<LayerCache> {
    alloc_pool(machine, c, [context; 2], dtype)
}

/// Allocates the KV cache of one layer for `positions` of texts of up to `context` positions each,
/// both rounded up to whole pages, of element type `dtype`.
///
/// # Errors
///
/// [`Error::Limit`] if the binding limit would cut a text into more segments than a row has splits;
/// errors of the machine's allocation.
pub fn alloc_pool<M: Machine>(
    machine: &mut M,
    c: &Config,
    [context, positions]: [u32; 2],
    dtype: DType,
) -> Result<LayerCache> {
    let width = c.num_key_value_heads * c.head_dim;
    let what = |positions| {
        move || format!("the key-value cache of a layer for {positions} tokens in {dtype}")
    };
    // A power of two is a multiple of every split that is not longer. It depends neither on the
    // context nor on the splits of decode, so that the bits of a prompt, which has a split a
    // segment, do not either.
    let fit = machine.max_binding_bytes() / dtype.row_bytes(width.into());
    let fit = u32::try_from(fit).unwrap_or(u32::MAX).clamp(SHORTEST_SEGMENT, 1 << 30);
    let segment = 1 << fit.ilog2();
    let whole =
        |positions: u32| positions.checked_next_multiple_of(PAGE).unwrap_or(u32::MAX / PAGE * PAGE);
    let [of_text, slots] = [context, positions].map(whole);
    if of_text.div_ceil(segment) > SPLITS {
        return Err(Error::Limit {
            what: what(context)(),
            got: context.into(),
            limit: u64::from(SPLITS) * u64::from(segment),
        });
    }
    let shards = (0..slots)
        .step_by(segment as usize)
        .map(|slot0| {
            let len = segment.min(slots - slot0);
            let mut half = || {
                let alloc = machine.alloc(BufferRole::Storage, dtype, [len, width].into());
                alloc.map_err(|error| error.storing(what(positions)))
            };
            Ok(CacheShard { slot0, len, k: half()?, v: half()? })
        })
        .collect::<Result<_>>()?;
    Ok(LayerCache { shards, segment, of_text })
}
