//! Every tensor that a model needs: its name, its shape, and how tensor parallelism cuts it.

use crate::{base::tensor::DType, model::config::Config};

/// What a tensor is for. It decides in which type the engine keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The embedding table.
    Embedding,
    /// The output projection.
    Head,
    /// The gain of a norm.
    Norm,
    /// The projection that scores experts.
    Router,
    /// A projection of the attention block.
    Attention,
    /// A projection of the dense MLP beside the experts.
    Dense,
    /// A projection of one expert.
    Expert,
}

impl Kind {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 7] = [
        Self::Embedding,
        Self::Norm,
        Self::Attention,
        Self::Router,
        Self::Expert,
        Self::Dense,
        Self::Head,
    ];

    /// The name that people use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Head => "head",
            Self::Norm => "norm",
            Self::Router => "router",
            Self::Attention => "attention",
            Self::Dense => "dense",
            Self::Expert => "expert",
        }
    }

    /// Whether such tensors may be quantized: norms and routers are small and decide much.
    pub const fn is_large(self) -> bool {
        !matches!(self, Self::Norm | Self::Router)
    }
}

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its canonical name: the released Grok-2's.
    pub name: String,
    /// Its extents, outermost first.
    pub shape: Vec<u64>,
    /// What it is for.
    pub kind: Kind,
    /// The axis that tensor parallelism cuts: 0 for outputs, 1 for inputs. `None` is never cut.
    pub tp_axis: Option<usize>,
}

impl Wanted {
    /// Whether the engine takes this tensor in elements of `dtype`: norms and routers are small and
    /// decide much, and quantized rows are made of whole blocks.
    pub fn may_be(&self, dtype: DType) -> bool {
        let cols = self.shape.last().copied().unwrap_or(0);
        let whole = cols % u64::from(dtype.block()) == 0;
        match dtype {
            DType::U32 => false,
            _ => !dtype.is_quantized() || (self.kind.is_large() && whole),
        }
    }

    /// Bytes of the whole tensor in elements of `dtype`.
    pub fn bytes(&self, dtype: DType) -> u64 {
        let cols = self.shape.last().copied().unwrap_or(1).max(1);
        self.shape.iter().product::<u64>() / cols * dtype.row_bytes(cols)
    }
}

/// Canonical name of the embedding table.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Canonical name of the output projection.
pub const HEAD: &str = "lm_head.weight";
/// Canonical name of the last norm's gain.
pub const FINAL_NORM: &str = "model.norm.weight";

/// Everything that a model of this configuration needs, in the order of the forward pass.
///
/// A model with a tied head has no [`HEAD`]. `config` is expected to have no
/// [problems](Config::problems), which also bounds the length of the list.
pub fn tensors(config: &Config) -> Vec<Wanted> {
    let [vocab, hidden, dense, expert] = [
        config.vocab_size,
        config.hidden_size,
        config.intermediate_size,
        config.moe_intermediate_size,
    ]
    .map(u64::from);
    let queries = u64::from(config.num_attention_heads) * u64::from(config.head_dim);
    let keys = u64::from(config.num_key_value_heads) * u64::from(config.head_dim);

    let mut list = Vec::new();
    let mut want = |name: String, shape: &[u64], kind, tp_axis| {
        list.push(Wanted { name, shape: shape.to_vec(), kind, tp_axis });
    };
    want(EMBEDDING.into(), &[vocab, hidden], Kind::Embedding, Some(0));
    for layer in 0..config.num_hidden_layers {
        let at = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        want(at("pre_attn_norm"), &[hidden], Kind::Norm, None);
        for (name, width) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
            let name = at(&format!("self_attn.{name}"));
            want(name, &[width, hidden], Kind::Attention, Some(0));
        }
        want(at("self_attn.o_proj"), &[hidden, queries], Kind::Attention, Some(1));
        want(at("post_attn_norm"), &[hidden], Kind::Norm, None);
        want(at("pre_moe_norm"), &[hidden], Kind::Norm, None);
        let experts = u64::from(config.num_local_experts);
        want(at("block_sparse_moe.gate"), &[experts, hidden], Kind::Router, None);
        for e in 0..experts {
            let at = |name: &str| at(&format!("block_sparse_moe.experts.{e}.{name}"));
            want(at("w1"), &[expert, hidden], Kind::Expert, Some(0));
            want(at("w3"), &[expert, hidden], Kind::Expert, Some(0));
            want(at("w2"), &[hidden, expert], Kind::Expert, Some(1));
        }
        if config.residual_moe {
            want(at("mlp.gate_proj"), &[dense, hidden], Kind::Dense, Some(0));
            want(at("mlp.up_proj"), &[dense, hidden], Kind::Dense, Some(0));
            want(at("mlp.down_proj"), &[hidden, dense], Kind::Dense, Some(1));
        }
        want(at("post_moe_norm"), &[hidden], Kind::Norm, None);
    }
    want(FINAL_NORM.into(), &[hidden], Kind::Norm, None);
    if !config.tie_word_embeddings {
        want(HEAD.into(), &[vocab, hidden], Kind::Head, Some(0));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_to_the_published_counts() {
        for name in crate::model::config::PRESETS {
            let config = Config::preset(name).expect("a preset");
            let total: u64 = tensors(&config).iter().map(|t| t.shape.iter().product::<u64>()).sum();
            assert_eq!(total, config.parameters().total, "{name}");
        }
    }

    #[test]
    fn shapes_of_grok_2_are_the_released_ones() {
        let list = tensors(&Config::preset("grok-2").expect("a preset"));
        let shape = |name: &str| {
            &list.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}")).shape[..]
        };
        assert_eq!(shape("model.embed_tokens.weight"), [131_072, 8192]);
        assert_eq!(shape("lm_head.weight"), [131_072, 8192]);
        assert_eq!(shape("model.norm.weight"), [8192]);
        assert_eq!(shape("model.layers.63.mlp.gate_proj.weight"), [32_768, 8192]);
        assert_eq!(shape("model.layers.0.mlp.down_proj.weight"), [8192, 32_768]);
        assert_eq!(shape("model.layers.9.block_sparse_moe.experts.7.w1.weight"), [16_384, 8192]);
        assert_eq!(shape("model.layers.9.block_sparse_moe.experts.7.w2.weight"), [8192, 16_384]);
        assert_eq!(shape("model.layers.9.self_attn.k_proj.weight"), [1024, 8192]);
        assert_eq!(shape("model.layers.9.block_sparse_moe.gate.weight"), [8, 8192]);
    }
}
