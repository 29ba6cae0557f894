//! The model: weights and buffers on a machine, and the forward pass over them.

pub mod ahead;
pub mod config;
pub(crate) mod families;
mod forward;
mod matrices;
mod pinned;
mod placement;
pub mod rope;
pub mod schema;
mod scratch;
mod upload;
pub mod weights;

pub(crate) use forward::attend;
pub use forward::{Output, Pass, Reach, forward};
pub use matrices::{Matrix, Shard};
pub use placement::{Pinned, Placement, Slots};
pub use scratch::{
    Brought, CacheShard, LayerCache, Phase, Routes, Scratch, TopList, alloc_cache, alloc_pool,
};
pub use upload::{Piece, upload};

use crate::{
    base::tensor::{DType, Tensor},
    model::config::{Config, Experts},
};

/// All weights of a model, as handles: the bytes are on the machine, or are brought there.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration that the weights belong to.
    pub config: Config,
    /// What of it is where.
    pub placement: Placement,
    /// Why less is pinned than was asked for, if that is so: the machine's error.
    pub refused: Option<String>,
    /// Where the embedding table is: `[vocab_size, hidden_size]`
    pub embedding: Embedding,
    /// The decoder layers, in order.
    pub layers: Vec<Layer>,
    /// `[hidden_size]`
    pub norm: Tensor,
    /// `[vocab_size, hidden_size]`; the embedding table where the two are tied.
    pub lm_head: Matrix,
}

/// Where the embedding table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embedding {
    /// It is [`Model::lm_head`].
    Tied,
    /// Not on the machine. A step needs a row for each token, so the host writes these, which are
    /// of this type, into [`Scratch::embedded`].
    Fetched(DType),
}

/// Weights of a layer, in forward order.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[hidden_size]`
    pub pre_attn_norm: Tensor,
    /// Query, key and value projections, concatenated along rows:
    /// `[(num_attention_heads + 2 num_key_value_heads) head_dim, hidden_size]`
    pub qkv_proj: Matrix,
    /// `[hidden_size, num_attention_heads head_dim]`
    pub o_proj: Matrix,
    /// `[hidden_size]`
    pub post_attn_norm: Tensor,
    /// `[hidden_size]`
    pub pre_moe_norm: Tensor,
    /// The dense MLP, the experts, or both.
    pub feed_forward: FeedForward,
    /// `[hidden_size]`
    pub post_moe_norm: Tensor,
}

/// The feed-forward half of a layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// One MLP that every token goes through.
    Dense(Box<Mlp>),
    /// Mixture of experts, with or without a dense MLP beside it.
    Routed(Box<Routed>),
}

/// Experts and their router.
#[derive(Clone, Debug)]
pub struct Routed {
    /// How the router chooses.
    pub rule: Experts,
    /// `[num_local_experts, hidden_size]`
    pub router: Tensor,
    /// The experts; each matrix holds all of them:
    /// `[num_local_experts, moe_intermediate_size, hidden_size]`, and for `down_proj` with the last
    /// two axes swapped.
    pub experts: Mlp,
    /// Room for so many of them in place of all, if they are brought: each matrix has as many.
    pub slots: Option<u32>,
    /// The dense MLP that runs beside them (`residual_moe`), if there is one.
    pub dense: Option<Mlp>,
}

impl FeedForward {
    /// The experts and their router, if there are some.
    pub fn routed(&self) -> Option<&Routed> {
        match self {
            Self::Dense(_) => None,
            Self::Routed(routed) => Some(routed),
        }
    }

    /// The dense MLP, if there is one.
    pub fn dense(&self) -> Option<&Mlp> {
        match self {
            Self::Dense(mlp) => Some(mlp),
            Self::Routed(routed) => routed.dense.as_ref(),
        }
    }

    /// The MLPs of the layer: the dense one, then the experts, where it has them.
    pub fn mlps(&self) -> impl Iterator<Item = &Mlp> {
        self.dense().into_iter().chain(self.routed().map(|routed| &routed.experts))
    }
}

/// A gated MLP: `down(gelu(gate x) * up x)`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[intermediate_size, hidden_size]`; an expert's `w1`.
    pub gate_proj: Matrix,
    /// `[intermediate_size, hidden_size]`; an expert's `w3`.
    pub up_proj: Matrix,
    /// `[hidden_size, intermediate_size]`; an expert's `w2`.
    pub down_proj: Matrix,
}

impl Mlp {
    /// Its matrices, in the order of their use.
    pub fn matrices(&self) -> [&Matrix; 3] {
        [&self.gate_proj, &self.up_proj, &self.down_proj]
    }
}
