//! The model: weights and buffers on a machine, and the forward pass over them.

pub mod config;
pub(crate) mod families;
mod forward;
mod matrices;
pub mod rope;
pub mod schema;
mod scratch;
pub mod weights;

pub(crate) use forward::attend;
pub use forward::{Output, Pass, forward};
pub use matrices::{Matrix, Shard};
pub use scratch::{CacheShard, LayerCache, Phase, Routes, Scratch, TEXTS, TopList, alloc_cache};

use crate::{
    base::tensor::Tensor,
    model::config::{Config, Experts},
};

/// All weights of a model, as handles: the bytes are on the machine.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration that the weights belong to.
    pub config: Config,
    /// `[vocab_size, hidden_size]`
    pub embed_tokens: Matrix,
    /// The decoder layers, in order.
    pub layers: Vec<Layer>,
    /// `[hidden_size]`
    pub norm: Tensor,
    /// `[vocab_size, hidden_size]`; the embedding table where the two are tied.
    pub lm_head: Matrix,
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
    Dense(Mlp),
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

    /// The MLPs of the layer: the dense one, then the experts, where it has them.
    pub fn mlps(&self) -> impl Iterator<Item = &Mlp> {
        let (dense, experts) = match self {
            Self::Dense(mlp) => (Some(mlp), None),
            Self::Routed(routed) => (routed.dense.as_ref(), Some(&routed.experts)),
        };
        dense.into_iter().chain(experts)
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
