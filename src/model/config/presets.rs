//! Configurations with a name: the released models, and small ones to test and measure with.

use super::{Config, RopeType};
use crate::base::activation::Gelu;

/// The names that [`Config::preset`] knows.
pub const PRESETS: &[&str] = &["grok-2", "grok-1", "bench", "small", "tiny", "tiny-grok-1"];

impl Config {
    /// A configuration by name, or `None` for a name that is not in [`PRESETS`].
    ///
    /// `grok-2` and `grok-1` are the released models. `bench` is Grok-2 at a size that a small
    /// device holds; `small` is the least with tokens enough for a tokenizer; `tiny` and `tiny-grok-1` are small enough for a scalar oracle.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "grok-2" => Some(grok_2()),
            "grok-1" => Some(grok_1()),
            "bench" => Some(Self {
                vocab_size: 32_768,
                hidden_size: 1024,
                intermediate_size: 4096,
                moe_intermediate_size: 2048,
                num_hidden_layers: 8,
                num_attention_heads: 8,
                num_key_value_heads: 2,
                embedding_multiplier_scale: 32.0,
                ..grok_2()
            }),
            "small" => Some(Self { vocab_size: 512, ..Self::preset("tiny")? }),
            "tiny" => Some(Self {
                vocab_size: 256,
                hidden_size: 64,
                intermediate_size: 128,
                moe_intermediate_size: 64,
                num_hidden_layers: 3,
                num_attention_heads: 8,
                num_key_value_heads: 2,
                head_dim: 16,
                embedding_multiplier_scale: 8.0,
                attn_temperature_len: 16,
                max_position_embeddings: 4096,
                rope_theta: 10_000.0,
                scaling_factor: 1.0,
                original_max_position_embeddings: 4096,
                ..grok_2()
            }),
            "tiny-grok-1" => Some(Self {
                vocab_size: 256,
                hidden_size: 96,
                intermediate_size: 64,
                moe_intermediate_size: 64,
                num_hidden_layers: 2,
                num_attention_heads: 6,
                num_key_value_heads: 2,
                head_dim: 16,
                embedding_multiplier_scale: 96_f64.sqrt(),
                max_position_embeddings: 4096,
                original_max_position_embeddings: 4096,
                ..grok_1()
            }),
            _ => None,
        }
    }
}

fn grok_2() -> Config {
    Config {
        vocab_size: 131_072,
        hidden_size: 8192,
        intermediate_size: 32_768,
        moe_intermediate_size: 16_384,
        num_hidden_layers: 64,
        num_attention_heads: 64,
        num_key_value_heads: 8,
        head_dim: 128,
        num_local_experts: 8,
        num_experts_per_tok: 2,
        norm_topk_prob: false,
        residual_moe: true,
        rms_norm_eps: 1e-5,
        embedding_multiplier_scale: 90.509_667_991_878_09,
        output_multiplier_scale: 0.5,
        attn_logit_softcapping: 30.0,
        router_logit_softcapping: 30.0,
        final_logit_softcapping: 50.0,
        attn_temperature_len: 1024,
        max_position_embeddings: 131_072,
        rope_theta: 208_533_496.0,
        rope_type: RopeType::Original,
        rope_type_named: true,
        scaling_factor: 16.0,
        original_max_position_embeddings: 8192,
        extrapolation_factor: 1.0,
        attn_factor: 1.0,
        beta_fast: 8.0,
        beta_slow: 1.0,
        rope_magnitude: 1.0,
        tie_word_embeddings: false,
        hidden_act: Gelu::Erf,
    }
}

fn grok_1() -> Config {
    Config {
        vocab_size: 131_072,
        hidden_size: 6144,
        intermediate_size: 32_768,
        moe_intermediate_size: 32_768,
        num_hidden_layers: 64,
        num_attention_heads: 48,
        num_key_value_heads: 8,
        head_dim: 128,
        num_local_experts: 8,
        num_experts_per_tok: 2,
        norm_topk_prob: false,
        residual_moe: false,
        rms_norm_eps: 1e-5,
        embedding_multiplier_scale: 78.383_671_769_061_69,
        output_multiplier_scale: 0.577_350_269_189_625_7,
        attn_logit_softcapping: 30.0,
        router_logit_softcapping: 0.0,
        final_logit_softcapping: 0.0,
        attn_temperature_len: 0,
        max_position_embeddings: 8192,
        rope_theta: 10_000.0,
        rope_type: RopeType::Original,
        rope_type_named: false,
        scaling_factor: 1.0,
        original_max_position_embeddings: 8192,
        extrapolation_factor: 1.0,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        rope_magnitude: 1.0,
        tie_word_embeddings: true,
        hidden_act: Gelu::Tanh,
    }
}
