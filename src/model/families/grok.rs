//! xAI's models: Grok-2 as it was released, and Grok-1 in two conversions to Hugging Face's format.

use std::f64::consts::FRAC_1_SQRT_2;

use super::{
    Family,
    reader::{Reader, shown, unnamed_rope},
};
use crate::{
    base::activation::Gelu,
    model::config::{AttentionRule, Config, Ends, Experts, LayerRule, Norms},
};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        "Grok1ForCausalLM",
        "Grok1ModelForCausalLM",
        "Grok1AForCausalLM",
        "Grok2ForCausalLM",
        "GrokForCausalLM",
    ],
    model_types: &["git", "grok", "grok1", "grok-1", "grok_1", "grok2", "grok-2", "grok_2"],
    // Options of another loader, and a field that `GitConfig` adds to a Grok-2 file whose
    // `model_type` is "git" by accident.
    ignored: &[
        "load_presharded_attn",
        "load_presharded_embedding",
        "load_presharded_mlp",
        "load_presharded_moe",
        "replicate_embedding",
        "replicate_lm_head",
        "vision_config",
    ],
    // The released Grok-2 also names the architecture `Grok1ForCausalLM`, so only its fields tell
    // it from Grok-1.
    read: |r| {
        let beside = r.peek("residual_moe").is_some_and(|value| value == true);
        if beside || r.peek("moe_intermediate_size").is_some() { grok_2(r) } else { grok_1(r) }
    },
};

/// Values of fields that the files of the two models leave out.
struct Defaults {
    head_dim: u32,
    router_softcap: f64,
    tied: bool,
    hidden_act: Gelu,
}

/// Experts, with a dense MLP beside them where `residual_moe` says so. Defaults are `SGLang`'s.
fn grok_2(r: &mut Reader) -> Config {
    refuse_unsupported(r);
    let residual_moe = r.flag("residual_moe").unwrap_or(false);
    let intermediate = r.int("intermediate_size");
    let moe_intermediate = r.int("moe_intermediate_size");
    if intermediate.is_none() && (residual_moe || moe_intermediate.is_none()) {
        r.missing("intermediate_size");
    }
    let expert = moe_intermediate.or(intermediate).unwrap_or(8);
    let dense = residual_moe.then_some(intermediate.unwrap_or(expert));
    let defaults =
        Defaults { head_dim: 128, router_softcap: 30.0, tied: false, hidden_act: Gelu::Erf };
    block(r, dense, expert, &defaults)
}

/// Experts alone. Defaults are those of xai-org's own program.
fn grok_1(r: &mut Reader) -> Config {
    refuse_unsupported(r);
    r.flag("residual_moe");
    let expert = r.required("intermediate_size").unwrap_or(8);
    let [hidden, heads] =
        ["hidden_size", "num_attention_heads"].map(|field| r.peek_int(field).unwrap_or(0));
    let head_dim = hidden.checked_div(heads).filter(|&dim| dim > 0);
    let defaults = Defaults {
        head_dim: head_dim.unwrap_or(128),
        router_softcap: 0.0,
        tied: true,
        hidden_act: Gelu::Tanh,
    };
    block(r, None, expert, &defaults)
}

/// The fields that both models have. A missing one is replaced by a placeholder that causes no
/// second problem.
fn block(r: &mut Reader, dense: Option<u32>, expert: u32, defaults: &Defaults) -> Config {
    let heads = r.required("num_attention_heads");
    let kv_heads = r.required("num_key_value_heads");
    let experts = r.either(["num_local_experts", "num_experts"], Reader::int);
    if experts.is_none() {
        r.missing("num_local_experts");
    }
    let head_dim = r.int("head_dim").unwrap_or(defaults.head_dim);
    refuse_other_scale(r, head_dim);
    let context = match r.int("context_len") {
        Some(context) => {
            r.take("max_position_embeddings");
            context
        }
        None => r.required("max_position_embeddings").unwrap_or(1),
    };
    Config {
        vocab_size: r.required("vocab_size").unwrap_or(1),
        hidden_size: r.required("hidden_size").unwrap_or(8),
        num_attention_heads: heads.or(kv_heads).unwrap_or(8),
        num_key_value_heads: kv_heads.or(heads).unwrap_or(8),
        head_dim,
        layers: r.layers(LayerRule { rope: 0, dense, routed: true }),
        experts: Some(Experts {
            count: experts.unwrap_or(64),
            chosen: r.required("num_experts_per_tok").unwrap_or(1),
            width: expert,
            softcap: r.number("router_logit_softcapping").unwrap_or(defaults.router_softcap),
            renormalize: r.flag("norm_topk_prob").unwrap_or(false),
            joint_scale: if dense.is_some() { FRAC_1_SQRT_2 } else { 1.0 },
        }),
        rms_norm_eps: r.required_number("rms_norm_eps").unwrap_or(1e-5),
        max_position_embeddings: context,
        norms: Norms::Sandwich,
        ends: Ends {
            embed_scale: r.required_number("embedding_multiplier_scale").unwrap_or(1.0),
            output_scale: r.required_number("output_multiplier_scale").unwrap_or(1.0),
            softcap: r.number("final_logit_softcapping").unwrap_or(0.0).max(0.0),
            tied: r.flag("tie_word_embeddings").unwrap_or(defaults.tied),
        },
        attention: AttentionRule {
            scale: AttentionRule::usual_scale(head_dim),
            // Grok-1's name is the second. A negative cap is no cap.
            softcap: r
                .either(["attn_logit_softcapping", "max_attn_value"], Reader::number)
                .unwrap_or(30.0)
                .max(0.0),
            temperature_len: temperature_len(r),
        },
        ropes: vec![r.rope(context)],
        hidden_act: r.activation().unwrap_or(defaults.hidden_act),
    }
}

/// Fields whose presence changes the model in ways that the engine does not compute.
fn refuse_unsupported(r: &mut Reader) {
    r.quantization();
    for (field, wanted) in [("sliding_window_size", -1), ("global_attn_every_n", 1)] {
        if let Some(got) = r.integer(field)
            && got != wanted
        {
            r.problem(format!(
                "{field} is {got}, wanted {wanted}: every layer attends to the whole context"
            ));
        }
    }
    if r.flag("rope_rotate_half_dims") == Some(true) {
        r.problem(
            "rope_rotate_half_dims is true, wanted false: all channels of a head are rotated"
                .into(),
        );
    }
    if let Some(method) = r.text("attn_logit_softcapping_method")
        && method != "tanh"
    {
        r.problem(format!("attn_logit_softcapping_method is {method:?}, wanted \"tanh\""));
    }
    if let Some(value) = r.take("rope_scaling") {
        r.problem(format!(
            "rope_scaling is {}, wanted rope_type, scaling_factor and their like at the top level",
            shown(&value)
        ));
    }
}

/// The reference always scales attention by `head_dim^-0.5`.
fn refuse_other_scale(r: &mut Reader, head_dim: u32) {
    let wanted = AttentionRule::usual_scale(head_dim);
    if let Some(got) = r.number("attn_output_multiplier")
        && (got / wanted - 1.0).abs() > 1e-6
    {
        r.problem(format!(
            "attn_output_multiplier is {got}, wanted head_dim^-0.5, which is {wanted}"
        ));
    }
}

fn temperature_len(r: &mut Reader) -> u32 {
    let Some(got) = r.integer("attn_temperature_len") else { return 0 };
    u32::try_from(got.max(0)).unwrap_or_else(|_| {
        r.problem(format!("attn_temperature_len is {got}, wanted at most {}", u32::MAX));
        0
    })
}

/// Writes a `config.json`: see [`Config::to_json`].
pub(super) fn write(config: &Config) -> String {
    let Config { ends, attention, .. } = config;
    let expert = config.moe_intermediate_size();
    let dense = config.dense_width();
    let mut value = serde_json::json!({
        "architectures": ["Grok1ForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": dense.unwrap_or(expert),
        "moe_intermediate_size": expert,
        "num_hidden_layers": config.num_hidden_layers(),
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "num_local_experts": config.num_local_experts(),
        "num_experts_per_tok": config.num_experts_per_tok(),
        "residual_moe": dense.is_some(),
        "rms_norm_eps": config.rms_norm_eps,
        "embedding_multiplier_scale": ends.embed_scale,
        "output_multiplier_scale": ends.output_scale,
        "attn_logit_softcapping": attention.softcap,
        "router_logit_softcapping": config.experts.map_or(0.0, |experts| experts.softcap),
        "final_logit_softcapping": ends.softcap,
        "attn_temperature_len": match attention.temperature_len { 0 => -1, n => i64::from(n) },
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": ends.tied,
        "hidden_act": match config.hidden_act {
            Gelu::Erf => "gelu",
            Gelu::Tanh => "gelu_pytorch_tanh",
        },
    });
    let Some(fields) = value.as_object_mut() else { return String::new() };
    // Normalizing the probabilities is llama.cpp's behaviour; the field is written only if it is
    // on.
    if config.experts.is_some_and(|experts| experts.renormalize) {
        fields.insert("norm_topk_prob".into(), true.into());
    }
    for rope in config.ropes.iter().take(1) {
        let mut insert = |name: &str, value: serde_json::Value| {
            fields.insert(name.into(), value);
        };
        insert("rope_theta", rope.rope_theta.into());
        insert("scaling_factor", rope.scaling_factor.into());
        insert("original_max_position_embeddings", rope.original_max_position_embeddings.into());
        insert("extrapolation_factor", rope.extrapolation_factor.into());
        insert("attn_factor", rope.attn_factor.into());
        insert("beta_fast", rope.beta_fast.into());
        insert("beta_slow", rope.beta_slow.into());
        if rope.rope_type_named || rope.rope_type != unnamed_rope(rope.scaling_factor) {
            insert("rope_type", rope.rope_type.name().into());
        }
        if (rope.magnitude - 1.0).abs() > 0.0 {
            insert("rope_magnitude", rope.magnitude.into());
        }
    }
    format!("{value:#}\n")
}
