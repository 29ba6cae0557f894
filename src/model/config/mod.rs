//! The model's configuration: the hyperparameters that the forward pass needs, whichever way a
//! publisher writes them.
//!
//! [`Config::from_json`] and the reader of GGUF fill it in. `model::families` maps each publisher's
//! `config.json` to it.

mod check;
mod presets;

pub use presets::PRESETS;

use crate::base::activation::Gelu;

/// The most layers that a model may have.
pub(crate) const MAX_LAYERS: u32 = 1024;

/// How rotary frequencies follow from the configuration. See [`crate::model::rope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeType {
    /// Plain rotary embedding with `rope_theta` as it is (the released Grok-2).
    Original,
    /// Position interpolation: positions divided by `scaling_factor`.
    Linear,
    /// `YaRN` with a linear blend of frequencies (`yarn` and `yarn_linear`).
    Yarn,
    /// `YaRN` with a logarithmic blend.
    YarnLog,
    /// A larger theta chosen so that the slowest frequency stretches by `scaling_factor`.
    ThetaScale,
}

impl RopeType {
    /// The name that files have.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Linear => "linear",
            Self::Yarn => "yarn",
            Self::YarnLog => "yarn_log",
            Self::ThetaScale => "theta_scale",
        }
    }
}

/// Whose arithmetic to follow where programs differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// `SGLang`'s for Grok-2, xai-org's own for Grok-1.
    #[default]
    Reference,
    /// llama.cpp's: see [`Config::as_llama_cpp`].
    LlamaCpp,
}

/// The hyperparameters of a model, grouped by the parts of a decoder layer. Names are Hugging
/// Face's where it has one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Tokens in the embedding table and the head.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Longest context the model was made for.
    pub max_position_embeddings: u32,
    /// The embedding and the output head.
    pub ends: Ends,
    /// Placement of the norms.
    pub norms: Norms,
    /// Scale, soft cap and temperature of the attention logits.
    pub attention: AttentionRule,
    /// Activation of the gated MLPs.
    pub hidden_act: Gelu,
    /// Experts and router; `None` for a dense model.
    pub experts: Option<Experts>,
    /// Rotary embeddings; each layer uses one.
    pub ropes: Vec<Rope>,
    /// One rule for each layer, in order.
    pub layers: Vec<LayerRule>,
}

/// The embedding and the output head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ends {
    /// Factor on the embedding: `embedding_multiplier_scale`.
    pub embed_scale: f64,
    /// Factor on the logits, before their soft cap: `output_multiplier_scale`.
    pub output_scale: f64,
    /// Soft cap of the logits, 0 for none: `final_logit_softcapping`.
    pub softcap: f64,
    /// Whether the head is the embedding table: `tie_word_embeddings`.
    pub tied: bool,
}

/// Where a layer has norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before each block, and after it before its output is added: four in a layer.
    Sandwich,
}

/// Scale, soft cap and temperature of the attention logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionRule {
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// Soft cap, 0 for none: `attn_logit_softcapping`.
    pub softcap: f64,
    /// Queries beyond this position have their logits scaled by
    /// `log2(pos) / log2(temperature_len)`, 0 for none: `attn_temperature_len`.
    pub temperature_len: u32,
}

impl AttentionRule {
    /// The usual factor: one over the root of the number of channels.
    pub fn usual_scale(head_dim: u32) -> f64 {
        1.0 / f64::from(head_dim).sqrt()
    }
}

/// The experts of a layer and their router: a softmax over all experts, of which some are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// How many there are: `num_local_experts`.
    pub count: u32,
    /// How many run for a token: `num_experts_per_tok`.
    pub chosen: u32,
    /// Width of each: `moe_intermediate_size`.
    pub width: u32,
    /// Soft cap of the router's logits, 0 for none: `router_logit_softcapping`.
    pub softcap: f64,
    /// Whether the probabilities of the chosen are scaled to a sum of 1: `norm_topk_prob`.
    pub renormalize: bool,
    /// Factor on the sum of the experts' output and that of the dense MLP beside them.
    pub joint_scale: f64,
}

/// A rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub rope_theta: f64,
    /// How the frequencies are scaled.
    pub rope_type: RopeType,
    /// Whether the file named `rope_type`; otherwise `scaling_factor` decided it.
    pub rope_type_named: bool,
    /// Factor of the scaling methods.
    pub scaling_factor: f64,
    /// Context before scaling.
    pub original_max_position_embeddings: u32,
    /// Weight of unscaled frequencies in `YaRN`.
    pub extrapolation_factor: f64,
    /// Read for completeness; `SGLang` never applies it.
    pub attn_factor: f64,
    /// Rotations above which a frequency is not scaled (`YaRN`).
    pub beta_fast: f64,
    /// Rotations below which a frequency is scaled fully (`YaRN`).
    pub beta_slow: f64,
    /// Factor on the cosines and sines (llama.cpp's `YaRN`): `rope_magnitude`.
    pub magnitude: f64,
}

/// What one layer consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRule {
    /// Index into [`Config::ropes`].
    pub rope: u8,
    /// Width of its dense MLP, if it has one: `intermediate_size`.
    pub dense: Option<u32>,
    /// Whether it has the experts. With a dense MLP too, both run in parallel and their outputs are
    /// added (Grok-2).
    pub routed: bool,
}

/// Parameter counts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// All of them. A tied head counts once.
    pub total: u64,
    /// Those used for one token: the chosen experts, everything else in the layers, the last norm
    /// and the head. The embedding table counts only where it is the head.
    pub active: u64,
}

impl Config {
    /// Layers.
    pub fn num_hidden_layers(&self) -> u32 {
        u32::try_from(self.layers.len()).unwrap_or(u32::MAX)
    }

    /// Experts of a layer, 0 for none.
    pub fn num_local_experts(&self) -> u32 {
        self.experts.map_or(0, |experts| experts.count)
    }

    /// Experts that run for a token, 0 for none.
    pub fn num_experts_per_tok(&self) -> u32 {
        self.experts.map_or(0, |experts| experts.chosen)
    }

    /// Width of each expert, 0 for none.
    pub fn moe_intermediate_size(&self) -> u32 {
        self.experts.map_or(0, |experts| experts.width)
    }

    /// Width of the dense MLPs, if layers have some. [`Config::problems`] requires the same width
    /// in all layers.
    pub fn dense_width(&self) -> Option<u32> {
        self.layers.iter().find_map(|layer| layer.dense)
    }

    /// The same with `count` layers, each like the first.
    #[must_use]
    pub fn with_layers(self, count: u32) -> Self {
        let layers = self.layers.first().map_or(Vec::new(), |first| vec![*first; count as usize]);
        Self { layers, ..self }
    }

    /// The same with another `head_dim`, and the attention scale that goes with it.
    #[must_use]
    pub fn with_head_dim(self, head_dim: u32) -> Self {
        let scale = AttentionRule::usual_scale(head_dim);
        Self { head_dim, attention: AttentionRule { scale, ..self.attention }, ..self }
    }

    /// The same with other widths of the dense MLPs and of the experts, where it has them.
    #[must_use]
    pub fn with_widths(mut self, dense: u32, expert: u32) -> Self {
        for layer in &mut self.layers {
            layer.dense = layer.dense.map(|_| dense);
        }
        self.experts = self.experts.map(|experts| Experts { width: expert, ..experts });
        self
    }

    /// The same model with llama.cpp's arithmetic, for comparisons: its converter takes a
    /// `rope_type` of "original" for `YaRN`, whose rotary tables it also stretches by
    /// `1 + ln(scaling_factor) / 10`; its router has no soft cap and scales the chosen
    /// probabilities to a sum of 1; it has no attention temperature; and its GELU is the tanh form.
    #[must_use]
    pub fn as_llama_cpp(&self) -> Self {
        let rope = |rope: &Rope| {
            let yarn = rope.rope_type_named
                && matches!(rope.rope_type, RopeType::Original | RopeType::Yarn);
            let stretched = yarn && rope.scaling_factor > 1.0 && rope.extrapolation_factor > 0.0;
            Rope {
                rope_type: if yarn { RopeType::Yarn } else { rope.rope_type },
                magnitude: if stretched { 1.0 + 0.1 * rope.scaling_factor.ln() } else { 1.0 },
                ..*rope
            }
        };
        let experts = |experts: Experts| Experts { softcap: 0.0, renormalize: true, ..experts };
        Self {
            attention: AttentionRule { temperature_len: 0, ..self.attention },
            hidden_act: Gelu::Tanh,
            experts: self.experts.map(experts),
            ropes: self.ropes.iter().map(rope).collect(),
            ..self.clone()
        }
    }

    /// Counts the parameters.
    pub fn parameters(&self) -> Parameters {
        let hidden = u64::from(self.hidden_size);
        let table = u64::from(self.vocab_size) * hidden;
        let tables = if self.ends.tied { table } else { 2 * table };
        let Norms::Sandwich = self.norms;
        let (mut active, mut idle) = (hidden, 0);
        for layer in &self.layers {
            active += self.active_weights(layer) + 4 * hidden;
            if let Some(experts) = self.experts.filter(|_| layer.routed) {
                let resting = experts.count.saturating_sub(experts.chosen);
                idle += u64::from(resting) * 3 * hidden * u64::from(experts.width);
            }
        }
        Parameters { total: active + idle + tables, active: active + table }
    }

    /// Parameters of a layer's matrices that one token uses.
    pub fn active_weights(&self, layer: &LayerRule) -> u64 {
        let [hidden, heads, kv_heads, head_dim, dense] = [
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            layer.dense.unwrap_or(0),
        ]
        .map(u64::from);
        let attention = 2 * hidden * head_dim * (heads + kv_heads);
        let routed = self.experts.filter(|_| layer.routed).map_or(0, |experts| {
            let [count, chosen, width] =
                [experts.count, experts.chosen, experts.width].map(u64::from);
            hidden * (count + 3 * chosen * width)
        });
        attention + 3 * hidden * dense + routed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let count = |name| Config::preset(name).map(|config| config.parameters());
        assert_eq!(
            count("grok-2"),
            Some(Parameters { total: 269_515_497_472, active: 113_822_932_992 })
        );
        assert_eq!(
            count("grok-1"),
            Some(Parameters { total: 315_684_820_992, active: 83_756_587_008 })
        );
    }
}
