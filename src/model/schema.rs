//! Every tensor that a model needs: its key, its name, its shape, and the axis that tensor
//! parallelism splits.

use crate::{
    base::tensor::DType,
    model::config::{Config, Norms},
};

/// The kind of a tensor. It decides in which element type the engine keeps it.
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
    /// All kinds, in the order of the forward pass.
    pub const ALL: [Self; 7] = [
        Self::Embedding,
        Self::Norm,
        Self::Attention,
        Self::Router,
        Self::Expert,
        Self::Dense,
        Self::Head,
    ];

    /// The name in options, reports and `quantization_config`.
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

    /// Whether such tensors may be quantized. Norms and routers may not: they are small, and the
    /// result is sensitive to them.
    pub const fn is_large(self) -> bool {
        !matches!(self, Self::Norm | Self::Router)
    }
}

/// The role of a tensor in a model, whatever a file calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The embedding table.
    Embedding,
    /// Gain of the norm before attention.
    PreAttnNorm,
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Output projection of attention.
    O,
    /// Gain of the norm after attention.
    PostAttnNorm,
    /// Gain of the norm before the experts and the dense MLP.
    PreMoeNorm,
    /// The router, which scores the experts.
    Router,
    /// Gate projection of an expert.
    ExpertGate,
    /// Up projection of an expert.
    ExpertUp,
    /// Down projection of an expert.
    ExpertDown,
    /// Gate projection of the dense MLP.
    DenseGate,
    /// Up projection of the dense MLP.
    DenseUp,
    /// Down projection of the dense MLP.
    DenseDown,
    /// Gain of the norm after the experts and the dense MLP.
    PostMoeNorm,
    /// Gain of the norm before the head.
    FinalNorm,
    /// The output projection.
    Head,
}

impl Part {
    /// The canonical name, which is the released Grok-2's, as a [`Pattern`].
    pub const fn pattern(self) -> Pattern {
        Pattern(match self {
            Self::Embedding => EMBEDDING,
            Self::PreAttnNorm => "model.layers.{}.pre_attn_norm.weight",
            Self::Q => "model.layers.{}.self_attn.q_proj.weight",
            Self::K => "model.layers.{}.self_attn.k_proj.weight",
            Self::V => "model.layers.{}.self_attn.v_proj.weight",
            Self::O => "model.layers.{}.self_attn.o_proj.weight",
            Self::PostAttnNorm => "model.layers.{}.post_attn_norm.weight",
            Self::PreMoeNorm => "model.layers.{}.pre_moe_norm.weight",
            Self::Router => "model.layers.{}.block_sparse_moe.gate.weight",
            Self::ExpertGate => "model.layers.{}.block_sparse_moe.experts.{}.w1.weight",
            Self::ExpertUp => "model.layers.{}.block_sparse_moe.experts.{}.w3.weight",
            Self::ExpertDown => "model.layers.{}.block_sparse_moe.experts.{}.w2.weight",
            Self::DenseGate => "model.layers.{}.mlp.gate_proj.weight",
            Self::DenseUp => "model.layers.{}.mlp.up_proj.weight",
            Self::DenseDown => "model.layers.{}.mlp.down_proj.weight",
            Self::PostMoeNorm => "model.layers.{}.post_moe_norm.weight",
            Self::FinalNorm => FINAL_NORM,
            Self::Head => HEAD,
        })
    }

    /// The kind of such tensors.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Embedding => Kind::Embedding,
            Self::Head => Kind::Head,
            Self::PreAttnNorm
            | Self::PostAttnNorm
            | Self::PreMoeNorm
            | Self::PostMoeNorm
            | Self::FinalNorm => Kind::Norm,
            Self::Router => Kind::Router,
            Self::Q | Self::K | Self::V | Self::O => Kind::Attention,
            Self::DenseGate | Self::DenseUp | Self::DenseDown => Kind::Dense,
            Self::ExpertGate | Self::ExpertUp | Self::ExpertDown => Kind::Expert,
        }
    }

    /// The axis that tensor parallelism splits: 0 for outputs, 1 for inputs, `None` for a tensor
    /// that every rank has whole.
    pub const fn tp_axis(self) -> Option<usize> {
        match self.kind() {
            Kind::Norm | Kind::Router => None,
            _ => Some(match self {
                Self::O | Self::DenseDown | Self::ExpertDown => 1,
                _ => 0,
            }),
        }
    }
}

/// A name with holes, written `{}`: the first stands for the layer, the second for the expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(pub &'static str);

impl Pattern {
    /// The name of the tensor `key`.
    pub fn name(self, key: Key) -> String {
        let mut numbers = [key.layer, key.expert].into_iter();
        let mut name = String::new();
        for (i, piece) in self.0.split("{}").enumerate() {
            if i > 0 {
                name += &numbers.next().unwrap_or(0).to_string();
            }
            name += piece;
        }
        name
    }

    /// Parses `name`: the layer and the expert in the holes of the pattern, 0 where it has no hole.
    /// `None` if the name does not match.
    pub fn numbers(self, name: &str) -> Option<[u32; 2]> {
        let mut pieces = self.0.split("{}");
        let mut rest = name.strip_prefix(pieces.next()?)?;
        let mut numbers = [0; 2];
        for (number, piece) in numbers.iter_mut().zip(pieces) {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            *number = digits.parse().ok()?;
            // A name has no leading zeros: `07` does not match.
            if digits.len() > 1 && digits.starts_with('0') {
                return None;
            }
            rest = after.strip_prefix(piece)?;
        }
        rest.is_empty().then_some(numbers)
    }
}

/// Identifies a tensor of a model, whatever a file calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its role.
    pub part: Part,
    /// Its layer; 0 for a tensor outside the layers.
    pub layer: u32,
    /// Its expert; 0 for a tensor outside the experts.
    pub expert: u32,
}

impl Key {
    /// The key of a tensor that is not an expert's.
    pub const fn new(layer: u32, part: Part) -> Self {
        Self { part, layer, expert: 0 }
    }

    /// The canonical name.
    pub fn name(self) -> String {
        self.part.pattern().name(self)
    }
}

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which one it is.
    pub key: Key,
    /// Its canonical name: the released Grok-2's.
    pub name: String,
    /// Its extents, outermost first.
    pub shape: Vec<u64>,
}

impl Wanted {
    fn new(config: &Config, key: Key) -> Self {
        Self { key, name: key.name(), shape: shape(config, key) }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        self.key.part.kind()
    }

    /// The axis that tensor parallelism splits: see [`Part::tp_axis`].
    pub const fn tp_axis(&self) -> Option<usize> {
        self.key.part.tp_axis()
    }

    /// Whether the engine takes this tensor with elements of `dtype`. Norms and routers are never
    /// quantized, and quantized rows must be whole blocks.
    pub fn may_be(&self, dtype: DType) -> bool {
        let cols = self.shape.last().copied().unwrap_or(0);
        let whole = cols % u64::from(dtype.block()) == 0;
        match dtype {
            DType::U32 => false,
            _ => !dtype.is_quantized() || (self.kind().is_large() && whole),
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

/// Extents of a tensor, outermost first.
pub fn shape(config: &Config, key: Key) -> Vec<u64> {
    let hidden = u64::from(config.hidden_size);
    let [queries, keys] = [config.num_attention_heads, config.num_key_value_heads]
        .map(|heads| u64::from(heads) * u64::from(config.head_dim));
    let dense = u64::from(config.dense_width().unwrap_or(0));
    let expert = u64::from(config.moe_intermediate_size());
    match key.part {
        Part::Embedding | Part::Head => vec![config.vocab_size.into(), hidden],
        Part::PreAttnNorm
        | Part::PostAttnNorm
        | Part::PreMoeNorm
        | Part::PostMoeNorm
        | Part::FinalNorm => vec![hidden],
        Part::Q => vec![queries, hidden],
        Part::K | Part::V => vec![keys, hidden],
        Part::O => vec![hidden, queries],
        Part::Router => vec![config.num_local_experts().into(), hidden],
        Part::ExpertGate | Part::ExpertUp => vec![expert, hidden],
        Part::ExpertDown => vec![hidden, expert],
        Part::DenseGate | Part::DenseUp => vec![dense, hidden],
        Part::DenseDown => vec![hidden, dense],
    }
}

/// All tensors that a model of this configuration needs, in the order of the forward pass.
///
/// A model with a tied head has no [`HEAD`]. `config` is expected to have no
/// [problems](Config::problems), which also bounds the length of the list.
pub fn tensors(config: &Config) -> Vec<Wanted> {
    let mut keys = vec![Key::new(0, Part::Embedding)];
    for (layer, rule) in (0..).zip(&config.layers) {
        use Part::{
            DenseDown, DenseGate, DenseUp, ExpertDown, ExpertGate, ExpertUp, K, O, PostAttnNorm,
            PostMoeNorm, PreAttnNorm, PreMoeNorm, Q, Router, V,
        };
        let Norms::Sandwich = config.norms;
        let at = |part| Key::new(layer, part);
        keys.extend([PreAttnNorm, Q, K, V, O, PostAttnNorm, PreMoeNorm].map(at));
        if rule.routed {
            keys.push(at(Router));
            for expert in 0..config.num_local_experts() {
                let of = |part| Key { expert, ..at(part) };
                keys.extend([ExpertGate, ExpertUp, ExpertDown].map(of));
            }
        }
        if rule.dense.is_some() {
            keys.extend([DenseGate, DenseUp, DenseDown].map(at));
        }
        keys.push(at(PostMoeNorm));
    }
    keys.push(Key::new(0, Part::FinalNorm));
    if !config.ends.tied {
        keys.push(Key::new(0, Part::Head));
    }
    keys.into_iter().map(|key| Wanted::new(config, key)).collect()
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
    fn keys_come_back_from_names() {
        for name in crate::model::config::PRESETS {
            for want in tensors(&Config::preset(name).expect("a preset")) {
                let Key { part, layer, expert } = want.key;
                assert_eq!(part.pattern().numbers(&want.name), Some([layer, expert]));
            }
        }
        let pattern = Part::ExpertUp.pattern();
        let name = |layer, expert| {
            format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight")
        };
        assert_eq!(pattern.numbers(&name("0", "10")), Some([0, 10]));
        for (layer, expert) in
            [("", "0"), ("01", "0"), ("0", "00"), ("+1", "0"), ("0", "4294967296"), ("x", "0")]
        {
            assert_eq!(pattern.numbers(&name(layer, expert)), None, "{layer} {expert}");
        }
        assert_eq!(pattern.numbers(&(name("1", "2") + "s")), None);
        assert_eq!(Part::Head.pattern().numbers(HEAD), Some([0, 0]));
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
