//! The model's configuration: `config.json` with Hugging Face's field names.

mod check;
mod json;
mod presets;

pub(crate) use json::rope_name;
pub use presets::PRESETS;

use crate::base::activation::Gelu;

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

/// Whose arithmetic to follow where programs differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// `SGLang`'s for Grok-2, xai-org's own for Grok-1.
    #[default]
    Reference,
    /// llama.cpp's: see [`Config::as_llama_cpp`].
    LlamaCpp,
}

/// Everything the engine needs to know about a model. Names are Hugging Face's.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the file has as many flags")]
pub struct Config {
    /// Tokens in the embedding table and the head.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width of the dense MLP beside the experts. Unused where `residual_moe` is false.
    pub intermediate_size: u32,
    /// Width of each expert.
    pub moe_intermediate_size: u32,
    /// Layers.
    pub num_hidden_layers: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// Experts of a layer.
    pub num_local_experts: u32,
    /// Experts that run for a token.
    pub num_experts_per_tok: u32,
    /// Whether the probabilities of the chosen experts are scaled to a sum of 1 (llama.cpp).
    pub norm_topk_prob: bool,
    /// Whether a dense MLP runs beside the experts (Grok-2).
    pub residual_moe: bool,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Factor on the embedding.
    pub embedding_multiplier_scale: f64,
    /// Factor on the logits, before the final soft cap.
    pub output_multiplier_scale: f64,
    /// Soft cap of attention logits; 0 is off.
    pub attn_logit_softcapping: f64,
    /// Soft cap of router logits; 0 is off.
    pub router_logit_softcapping: f64,
    /// Soft cap of the final logits; 0 is off.
    pub final_logit_softcapping: f64,
    /// Queries beyond this position have their attention logits scaled by
    /// `log2(pos) / log2(attn_temperature_len)`; 0 is off.
    pub attn_temperature_len: u32,
    /// Longest context the model was made for.
    pub max_position_embeddings: u32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the frequencies are scaled.
    pub rope_type: RopeType,
    /// Whether `rope_type` was named in the file or chosen by a rule.
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
    /// Factor on the rotary cosines and sines (llama.cpp's `YaRN`).
    pub rope_magnitude: f64,
    /// Whether the head is the embedding table (Grok-1).
    pub tie_word_embeddings: bool,
    /// Activation of the gated MLPs.
    pub hidden_act: Gelu,
}

/// Numbers in a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// All of them. A tied head counts once.
    pub total: u64,
    /// Those multiplied for one token: the experts that run, everything else in the layers, the
    /// last norm and the head. The embedding table counts only where it is the head.
    pub active: u64,
}

impl Config {
    /// The same model with llama.cpp's arithmetic, for comparisons: its converter takes a
    /// `rope_type` of "original" for `YaRN`, whose rotary tables it also stretches by
    /// `1 + ln(scaling_factor) / 10`; its router has no soft cap and scales the chosen
    /// probabilities to a sum of 1; it has no attention temperature; and its GELU is the tanh form.
    #[must_use]
    pub fn as_llama_cpp(&self) -> Self {
        let yarn =
            self.rope_type_named && matches!(self.rope_type, RopeType::Original | RopeType::Yarn);
        let stretched = yarn && self.scaling_factor > 1.0 && self.extrapolation_factor > 0.0;
        Self {
            rope_type: if yarn { RopeType::Yarn } else { self.rope_type },
            rope_magnitude: if stretched { 1.0 + 0.1 * self.scaling_factor.ln() } else { 1.0 },
            router_logit_softcapping: 0.0,
            norm_topk_prob: true,
            attn_temperature_len: 0,
            hidden_act: Gelu::Tanh,
            ..self.clone()
        }
    }

    /// Counts the numbers in the weights.
    pub fn parameters(&self) -> Parameters {
        let [vocab, hidden, layers, heads, kv_heads, head_dim] = [
            self.vocab_size,
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        ]
        .map(u64::from);
        let table = vocab * hidden;
        let attention = 2 * hidden * head_dim * (heads + kv_heads);
        let dense =
            if self.residual_moe { 3 * hidden * u64::from(self.intermediate_size) } else { 0 };
        let expert = 3 * hidden * u64::from(self.moe_intermediate_size);
        let router = hidden * u64::from(self.num_local_experts);
        let always = layers * (attention + dense + router + 4 * hidden) + hidden;
        let tables = if self.tie_word_embeddings { table } else { 2 * table };
        Parameters {
            total: always + layers * u64::from(self.num_local_experts) * expert + tables,
            active: always + layers * u64::from(self.num_experts_per_tok) * expert + table,
        }
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
