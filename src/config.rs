//! The model's configuration: `config.json` with Hugging Face's field names.

/// Which polynomial stands for the Gaussian error linear unit in the gated MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `x/2 (1 + erf(x / sqrt 2))`: what SGLang computes, and the default.
    Erf,
    /// The tanh approximation: JAX's default, and llama.cpp's.
    Tanh,
}

/// How rotary frequencies follow from the configuration. See [`crate::rope`].
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

/// Everything the engine needs to know about a model. Names are Hugging Face's.
#[derive(Clone, Debug, PartialEq)]
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
    /// Read for completeness; the reference never applies it.
    pub attn_factor: f64,
    /// Rotations above which a frequency is not scaled (`YaRN`).
    pub beta_fast: f64,
    /// Rotations below which a frequency is scaled fully (`YaRN`).
    pub beta_slow: f64,
    /// Whether the head is the embedding table (Grok-1).
    pub tie_word_embeddings: bool,
    /// Activation of the gated MLPs.
    pub hidden_act: Gelu,
}
