//! Names of tensors in files: translates those of published Grok-1 checkpoints to the canonical
//! ones, and refuses a name that a file has twice.

use std::borrow::Cow;

use crate::base::json;

/// An error that names a tensor which the header of one file has twice.
pub(super) fn refuse_duplicates<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(format!("duplicate tensor `{}`", json::clipped(pair[0]))),
    }
}

/// The canonical name of what a file calls `found`. A name of no known scheme stays as it is.
///
/// Knows hpcai-tech/grok-1 (`attn`, `moe_block`, norms that end in `.scale`) and keyfan/grok-1-hf
/// (`transformer.decoder_layer`). `linear` is the gate, `linear_v` the up and `linear_1` the down
/// projection.
pub(crate) fn canonical(found: &str) -> Cow<'_, str> {
    match found {
        "model.norm.scale" | "transformer.rms_norm.weight" => "model.norm.weight".into(),
        "transformer.in_out_embed.weight" => "model.embed_tokens.weight".into(),
        _ => in_layer(found, "model.layers.", hpcai)
            .or_else(|| in_layer(found, "transformer.decoder_layer.", keyfan))
            .map_or(found.into(), Cow::Owned),
    }
}

/// The name that hpcai-tech/grok-1 has for a canonical name.
pub(crate) fn to_hpcai(canonical: &str) -> String {
    if canonical.ends_with("norm.weight") {
        return canonical.replace("norm.weight", "norm.scale");
    }
    canonical
        .replace(".self_attn.", ".attn.")
        .replace(".block_sparse_moe.", ".moe_block.")
        .replace(".w1.", ".linear.")
        .replace(".w3.", ".linear_v.")
        .replace(".w2.", ".linear_1.")
}

fn in_layer(
    found: &str,
    prefix: &str,
    translate: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let (layer, rest) = found.strip_prefix(prefix)?.split_once('.')?;
    let rest = translate(rest)?;
    Some(format!("model.layers.{layer}.{rest}.weight"))
}

fn hpcai(rest: &str) -> Option<String> {
    if let Some(norm) = rest.strip_suffix(".scale")
        && matches!(norm, "pre_attn_norm" | "post_attn_norm" | "pre_moe_norm" | "post_moe_norm")
    {
        return Some(norm.into());
    }
    let rest = rest.strip_suffix(".weight")?;
    if let Some(projection) = rest.strip_prefix("attn.") {
        return matches!(projection, "q_proj" | "k_proj" | "v_proj" | "o_proj")
            .then(|| format!("self_attn.{projection}"));
    }
    match rest.strip_prefix("moe_block.")? {
        "gate" => Some("block_sparse_moe.gate".into()),
        rest => expert(rest.strip_prefix("experts.")?),
    }
}

fn keyfan(rest: &str) -> Option<String> {
    let rest = rest.strip_suffix(".weight")?;
    let plain = match rest {
        "rms_norm" => "pre_attn_norm",
        "rms_norm_1" => "post_attn_norm",
        "rms_norm_2" => "pre_moe_norm",
        "rms_norm_3" => "post_moe_norm",
        "multi_head_attention.query" => "self_attn.q_proj",
        "multi_head_attention.key" => "self_attn.k_proj",
        "multi_head_attention.value" => "self_attn.v_proj",
        "multi_head_attention.linear" => "self_attn.o_proj",
        "router" => "block_sparse_moe.gate",
        _ => return expert(rest.strip_prefix("moe.")?),
    };
    Some(plain.into())
}

fn expert(rest: &str) -> Option<String> {
    let (number, projection) = rest.split_once('.')?;
    let projection = match projection {
        "linear" => "w1",
        "linear_v" => "w3",
        "linear_1" => "w2",
        _ => return None,
    };
    Some(format!("block_sparse_moe.experts.{number}.{projection}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_from_hpcai() {
        let config = crate::model::config::Config::preset("tiny-grok-1").expect("a preset");
        for wanted in super::super::schema::tensors(&config) {
            assert_eq!(canonical(&wanted.name), wanted.name);
            assert_eq!(canonical(&to_hpcai(&wanted.name)), wanted.name);
        }
    }

    #[test]
    fn published_names() {
        for (found, wanted) in [
            ("model.norm.scale", "model.norm.weight"),
            ("model.layers.3.pre_moe_norm.scale", "model.layers.3.pre_moe_norm.weight"),
            ("model.layers.3.attn.q_proj.weight", "model.layers.3.self_attn.q_proj.weight"),
            (
                "model.layers.63.moe_block.experts.7.linear_v.weight",
                "model.layers.63.block_sparse_moe.experts.7.w3.weight",
            ),
            ("transformer.in_out_embed.weight", "model.embed_tokens.weight"),
            ("transformer.rms_norm.weight", "model.norm.weight"),
            (
                "transformer.decoder_layer.10.rms_norm_2.weight",
                "model.layers.10.pre_moe_norm.weight",
            ),
            (
                "transformer.decoder_layer.10.multi_head_attention.linear.weight",
                "model.layers.10.self_attn.o_proj.weight",
            ),
            (
                "transformer.decoder_layer.10.moe.0.linear_1.weight",
                "model.layers.10.block_sparse_moe.experts.0.w2.weight",
            ),
            (
                "transformer.decoder_layer.10.router.weight",
                "model.layers.10.block_sparse_moe.gate.weight",
            ),
            ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight"),
            ("something.else", "something.else"),
        ] {
            assert_eq!(canonical(found), wanted);
        }
    }
}
