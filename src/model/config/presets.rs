//! Configurations with a name: the released models, and small ones to test and measure with.

use std::f64::consts::FRAC_1_SQRT_2;

use super::{AttentionRule, Config, Ends, Experts, LayerRule, Norms, Rope, RopeType};
use crate::base::activation::Gelu;

/// The names that [`Config::preset`] knows.
pub const PRESETS: &[&str] = &["grok-2", "grok-1", "bench", "small", "tiny", "tiny-grok-1"];

impl Config {
    /// A configuration by name, or `None` for a name that is not in [`PRESETS`].
    ///
    /// `grok-2` and `grok-1` are the released models. `bench` is Grok-2 at a size that a small
    /// device holds; `small` is `tiny` with a vocabulary that is large enough for a tokenizer;
    /// `tiny` and `tiny-grok-1` are small enough for a scalar oracle.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "grok-2" => Some(grok_2()),
            "grok-1" => Some(Self::grok_1()),
            "bench" => Some(bench()),
            "small" => Some(Self { vocab_size: 512, ..tiny() }),
            "tiny" => Some(tiny()),
            "tiny-grok-1" => Some(tiny_grok_1()),
            _ => None,
        }
    }

    /// Grok-1 as released, whose first release has no `config.json`.
    pub(crate) fn grok_1() -> Self {
        grok_1()
    }
}

fn grok_2() -> Config {
    Config {
        vocab_size: 131_072,
        hidden_size: 8192,
        num_attention_heads: 64,
        num_key_value_heads: 8,
        head_dim: 128,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 131_072,
        ends: Ends {
            embed_scale: 90.509_667_991_878_09,
            output_scale: 0.5,
            softcap: 50.0,
            tied: false,
        },
        norms: Norms::Sandwich,
        attention: AttentionRule {
            scale: AttentionRule::usual_scale(128),
            softcap: 30.0,
            temperature_len: 1024,
        },
        hidden_act: Gelu::Erf,
        experts: Some(Experts {
            count: 8,
            chosen: 2,
            width: 16_384,
            softcap: 30.0,
            renormalize: false,
            joint_scale: FRAC_1_SQRT_2,
        }),
        ropes: vec![Rope {
            rope_theta: 208_533_496.0,
            rope_type: RopeType::Original,
            rope_type_named: true,
            scaling_factor: 16.0,
            original_max_position_embeddings: 8192,
            extrapolation_factor: 1.0,
            attn_factor: 1.0,
            beta_fast: 8.0,
            beta_slow: 1.0,
            magnitude: 1.0,
        }],
        layers: vec![LayerRule { rope: 0, dense: Some(32_768), routed: true }; 64],
    }
}

fn grok_1() -> Config {
    Config {
        vocab_size: 131_072,
        hidden_size: 6144,
        num_attention_heads: 48,
        num_key_value_heads: 8,
        head_dim: 128,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 8192,
        ends: Ends {
            embed_scale: 78.383_671_769_061_69,
            output_scale: 0.577_350_269_189_625_7,
            softcap: 0.0,
            tied: true,
        },
        norms: Norms::Sandwich,
        attention: AttentionRule {
            scale: AttentionRule::usual_scale(128),
            softcap: 30.0,
            temperature_len: 0,
        },
        hidden_act: Gelu::Tanh,
        experts: Some(Experts {
            count: 8,
            chosen: 2,
            width: 32_768,
            softcap: 0.0,
            renormalize: false,
            joint_scale: 1.0,
        }),
        ropes: vec![Rope {
            rope_theta: 10_000.0,
            rope_type: RopeType::Original,
            rope_type_named: false,
            scaling_factor: 1.0,
            original_max_position_embeddings: 8192,
            extrapolation_factor: 1.0,
            attn_factor: 1.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            magnitude: 1.0,
        }],
        layers: vec![LayerRule { rope: 0, dense: None, routed: true }; 64],
    }
}

fn bench() -> Config {
    let mut config = Config {
        vocab_size: 32_768,
        hidden_size: 1024,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        ..grok_2().with_layers(8).with_widths(4096, 2048)
    };
    config.ends.embed_scale = 32.0;
    config
}

fn tiny() -> Config {
    let mut config = Config {
        vocab_size: 256,
        hidden_size: 64,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        max_position_embeddings: 4096,
        ..grok_2().with_layers(3).with_head_dim(16).with_widths(128, 64)
    };
    config.ends.embed_scale = 8.0;
    config.attention.temperature_len = 16;
    for rope in &mut config.ropes {
        rope.rope_theta = 10_000.0;
        rope.scaling_factor = 1.0;
        rope.original_max_position_embeddings = 4096;
    }
    config
}

fn tiny_grok_1() -> Config {
    let mut config = Config {
        vocab_size: 256,
        hidden_size: 96,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        max_position_embeddings: 4096,
        ..grok_1().with_layers(2).with_head_dim(16).with_widths(64, 64)
    };
    config.ends.embed_scale = 96_f64.sqrt();
    for rope in &mut config.ropes {
        rope.original_max_position_embeddings = 4096;
    }
    config
}
