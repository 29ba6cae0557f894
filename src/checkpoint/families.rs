//! Tensor names and expert layouts: a table for each family of files.
//!
//! The canonical names are the released Grok-2's: see [`Part::pattern`]. Tensor-parallel slices
//! have the same names: file names and [`Part::tp_axis`] tell them apart.

use std::borrow::Cow;

use crate::model::{
    config::Config,
    schema::{self, Key, Part, Pattern, Wanted},
};

/// How the experts of a layer are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpertLayout {
    /// Each expert has its own tensors.
    Each,
    /// One tensor holds all of them, stacked along the first axis: `[experts, rows, cols]`.
    Stacked,
}

/// The naming scheme of one family of files.
#[derive(Debug)]
pub(crate) struct Family {
    /// The names of each part; where there are several, the usual one is first.
    names: &'static [(Part, &'static str)],
    /// Tensors that may hold several parts, concatenated along rows.
    joined: &'static [(&'static str, &'static [Part])],
    /// How experts are stored.
    experts: ExpertLayout,
}

/// hpcai-tech/grok-1: `linear` is the gate, `linear_v` the up and `linear_1` the down projection.
pub(crate) static HPCAI: Family = Family {
    names: &[
        (Part::Embedding, "model.embed_tokens.weight"),
        (Part::PreAttnNorm, "model.layers.{}.pre_attn_norm.scale"),
        (Part::Q, "model.layers.{}.attn.q_proj.weight"),
        (Part::K, "model.layers.{}.attn.k_proj.weight"),
        (Part::V, "model.layers.{}.attn.v_proj.weight"),
        (Part::O, "model.layers.{}.attn.o_proj.weight"),
        (Part::PostAttnNorm, "model.layers.{}.post_attn_norm.scale"),
        (Part::PreMoeNorm, "model.layers.{}.pre_moe_norm.scale"),
        (Part::Router, "model.layers.{}.moe_block.gate.weight"),
        (Part::ExpertGate, "model.layers.{}.moe_block.experts.{}.linear.weight"),
        (Part::ExpertUp, "model.layers.{}.moe_block.experts.{}.linear_v.weight"),
        (Part::ExpertDown, "model.layers.{}.moe_block.experts.{}.linear_1.weight"),
        (Part::PostMoeNorm, "model.layers.{}.post_moe_norm.scale"),
        (Part::FinalNorm, "model.norm.scale"),
        (Part::Head, "lm_head.weight"),
    ],
    joined: &[],
    experts: ExpertLayout::Each,
};

/// keyfan/grok-1-hf, whose head is tied.
static KEYFAN: Family = Family {
    names: &[
        (Part::Embedding, "transformer.in_out_embed.weight"),
        (Part::PreAttnNorm, "transformer.decoder_layer.{}.rms_norm.weight"),
        (Part::Q, "transformer.decoder_layer.{}.multi_head_attention.query.weight"),
        (Part::K, "transformer.decoder_layer.{}.multi_head_attention.key.weight"),
        (Part::V, "transformer.decoder_layer.{}.multi_head_attention.value.weight"),
        (Part::O, "transformer.decoder_layer.{}.multi_head_attention.linear.weight"),
        (Part::PostAttnNorm, "transformer.decoder_layer.{}.rms_norm_1.weight"),
        (Part::PreMoeNorm, "transformer.decoder_layer.{}.rms_norm_2.weight"),
        (Part::Router, "transformer.decoder_layer.{}.router.weight"),
        (Part::ExpertGate, "transformer.decoder_layer.{}.moe.{}.linear.weight"),
        (Part::ExpertUp, "transformer.decoder_layer.{}.moe.{}.linear_v.weight"),
        (Part::ExpertDown, "transformer.decoder_layer.{}.moe.{}.linear_1.weight"),
        (Part::PostMoeNorm, "transformer.decoder_layer.{}.rms_norm_3.weight"),
        (Part::FinalNorm, "transformer.rms_norm.weight"),
    ],
    joined: &[],
    experts: ExpertLayout::Each,
};

/// llama.cpp's names for architecture `grok`. The second name of `PostMoeNorm` is Grok-1's.
pub(crate) static LLAMA_CPP: Family = Family {
    names: &[
        (Part::Embedding, "token_embd.weight"),
        (Part::PreAttnNorm, "blk.{}.attn_norm.weight"),
        (Part::Q, "blk.{}.attn_q.weight"),
        (Part::K, "blk.{}.attn_k.weight"),
        (Part::V, "blk.{}.attn_v.weight"),
        (Part::O, "blk.{}.attn_output.weight"),
        (Part::PostAttnNorm, "blk.{}.attn_output_norm.weight"),
        (Part::PreMoeNorm, "blk.{}.ffn_norm.weight"),
        (Part::Router, "blk.{}.ffn_gate_inp.weight"),
        (Part::ExpertGate, "blk.{}.ffn_gate_exps.weight"),
        (Part::ExpertUp, "blk.{}.ffn_up_exps.weight"),
        (Part::ExpertDown, "blk.{}.ffn_down_exps.weight"),
        (Part::DenseGate, "blk.{}.ffn_gate.weight"),
        (Part::DenseUp, "blk.{}.ffn_up.weight"),
        (Part::DenseDown, "blk.{}.ffn_down.weight"),
        (Part::PostMoeNorm, "blk.{}.post_ffw_norm.weight"),
        (Part::PostMoeNorm, "blk.{}.layer_output_norm.weight"),
        (Part::FinalNorm, "output_norm.weight"),
        (Part::Head, "output.weight"),
    ],
    joined: &[("blk.{}.attn_qkv.weight", &[Part::Q, Part::K, Part::V])],
    experts: ExpertLayout::Stacked,
};

/// A tensor of a file that may contain the wanted one.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Its name.
    pub name: String,
    /// Its extents, outermost first.
    pub shape: Vec<u64>,
    /// First row of the wanted tensor in it.
    pub row0: u64,
}

impl Family {
    /// The usual name of a tensor, if the family has one for it.
    pub(crate) fn name(&self, key: Key) -> Option<String> {
        self.names_of(key.part).next().map(|pattern| pattern.name(key))
    }

    /// The tensors that may contain `want`, the usual one first.
    pub(crate) fn candidates(&self, want: &Wanted, config: &Config) -> Vec<Candidate> {
        let Key { part, layer, expert } = want.key;
        let rows = want.shape.first().copied().unwrap_or(1);
        let (row0, shape) = match self.experts {
            ExpertLayout::Stacked if part.kind() == schema::Kind::Expert => {
                let experts = u64::from(config.num_local_experts());
                let shape = [experts].into_iter().chain(want.shape.iter().copied());
                (u64::from(expert) * rows, shape.collect())
            }
            _ => (0, want.shape.clone()),
        };
        let alone = self.names_of(part).map(|pattern| Candidate {
            name: pattern.name(want.key),
            shape: shape.clone(),
            row0,
        });
        let joined = self.joined.iter().filter_map(|(name, parts)| {
            let place = parts.iter().position(|other| *other == part)?;
            let rows = |parts: &[Part]| -> u64 {
                parts.iter().map(|part| schema::shape(config, Key::new(layer, *part))[0]).sum()
            };
            let mut shape = want.shape.clone();
            shape[0] = rows(parts);
            let row0 = rows(&parts[..place]);
            Some(Candidate { name: Pattern(name).name(want.key), shape, row0 })
        });
        alone.chain(joined).collect()
    }

    fn names_of(&self, part: Part) -> impl Iterator<Item = Pattern> {
        self.names.iter().filter(move |(other, _)| *other == part).map(|(_, name)| Pattern(name))
    }

    /// The tensor with this name in such a file.
    fn key(&self, name: &str) -> Option<Key> {
        self.names.iter().find_map(|(part, pattern)| {
            let [layer, expert] = Pattern(pattern).numbers(name)?;
            Some(Key { part: *part, layer, expert })
        })
    }
}

/// The canonical name of the tensor `found` in a safetensors file. A name that no family has is
/// returned unchanged.
pub(crate) fn canonical(found: &str) -> Cow<'_, str> {
    [&HPCAI, &KEYFAN]
        .iter()
        .find_map(|family| family.key(found))
        .map_or(found.into(), |key| key.name().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(preset: &str) -> (Config, Vec<Wanted>) {
        let config = Config::preset(preset).expect("a preset");
        let tensors = schema::tensors(&config);
        (config, tensors)
    }

    #[test]
    fn every_name_of_grok_1_comes_back() {
        for wanted in tensors("tiny-grok-1").1 {
            assert_eq!(canonical(&wanted.name), wanted.name);
            for family in [&HPCAI, &KEYFAN] {
                let name = family.name(wanted.key).expect("a name for all of Grok-1");
                assert_eq!(canonical(&name), wanted.name);
            }
        }
        assert_eq!(HPCAI.name(Key::new(0, Part::DenseUp)), None);
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
            ("model.layers.x.attn.q_proj.weight", "model.layers.x.attn.q_proj.weight"),
            ("something.else", "something.else"),
        ] {
            assert_eq!(canonical(found), wanted);
        }
    }

    #[test]
    fn places_of_llama_cpp() {
        let (config, tensors) = tensors("grok-2");
        let places = |key: Key| -> Vec<(String, Vec<u64>, u64)> {
            let want = tensors.iter().find(|want| want.key == key).expect("a tensor of Grok-2");
            let found = LLAMA_CPP.candidates(want, &config).into_iter();
            found.map(|place| (place.name, place.shape, place.row0)).collect()
        };
        assert_eq!(
            places(Key::new(9, Part::V)),
            [
                ("blk.9.attn_v.weight".to_owned(), vec![1024, 8192], 0),
                ("blk.9.attn_qkv.weight".to_owned(), vec![8192 + 2048, 8192], 8192 + 1024),
            ]
        );
        assert_eq!(
            places(Key { expert: 3, ..Key::new(63, Part::ExpertDown) }),
            [("blk.63.ffn_down_exps.weight".to_owned(), vec![8, 8192, 16_384], 3 * 8192)]
        );
        let norms = places(Key::new(0, Part::PostMoeNorm));
        assert_eq!(
            norms.iter().map(|place| place.0.as_str()).collect::<Vec<_>>(),
            ["blk.0.post_ffw_norm.weight", "blk.0.layer_output_norm.weight"]
        );
    }
}
