//! Finds every tensor that a model needs in the files of a GGUF, all problems at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    blocks::{Format, common},
    header::Info,
};
use crate::{
    base::{json, tensor::DType},
    checkpoint::layout::Tally,
    model::{
        config::Config,
        schema::{self, Kind, Wanted},
    },
};

/// A tensor in a file, with the place of the file in the list of sources.
pub(crate) type Found<'a> = HashMap<&'a str, (usize, &'a Info)>;

/// Where a tensor's rows are, and what is made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file's place in the list of sources.
    pub source: usize,
    /// How its elements are stored.
    pub format: Format,
    /// Its first byte, from the start of the file.
    pub offset: u64,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// The type in which it is given.
    pub dtype: DType,
}

/// A tensor of the file that could hold a wanted one.
struct Candidate {
    name: String,
    shape: Vec<u64>,
    /// Row of the file's tensor at which the wanted one begins.
    row0: u64,
}

/// Finds every wanted tensor.
///
/// # Errors
///
/// Every tensor that is missing, not wanted, or of a type or shape that does not fit.
pub(crate) fn resolve(
    found: &Found<'_>,
    config: &Config,
    wanted: &[Wanted],
) -> Result<BTreeMap<String, Place>, Vec<String>> {
    let mut missing = Tally::default();
    let mut shapes = Tally::default();
    let mut types = Tally::default();
    let mut unexpected = Tally::default();
    let mut used = BTreeSet::new();
    let mut told = BTreeSet::new();
    let mut places = BTreeMap::new();
    for want in wanted {
        let candidates = candidates(want, config);
        let Some((candidate, (source, info))) =
            candidates.iter().find_map(|c| found.get(c.name.as_str()).map(|&found| (c, found)))
        else {
            let name = &candidates[0].name;
            if told.insert(name.clone()) {
                missing.push(format!(
                    "`{name}` is missing (wanted {:?}{})",
                    candidates[0].shape,
                    hint(found, name)
                ));
            }
            continue;
        };
        used.insert(info.name.as_str());
        let fresh = told.insert(info.name.clone());
        let Some(format) = info.ty.format() else {
            if fresh {
                types.push(format!(
                    "`{}` is {}, wanted F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K",
                    info.name, info.ty
                ));
            }
            continue;
        };
        if info.shape != candidate.shape {
            if fresh {
                shapes.push(format!(
                    "`{}` has shape {:?}, wanted {:?}",
                    info.name, info.shape, candidate.shape
                ));
            }
            continue;
        }
        let cols = want.shape.iter().skip(1).product();
        let offset = info.offset + candidate.row0 * format.row_bytes(cols);
        // Norms and routers are small and decide much; and a row may be too short for blocks.
        let dtype = if want.may_be(format.dtype()) { format.dtype() } else { DType::F32 };
        let shape = want.shape.clone();
        places.insert(want.name.clone(), Place { source, format, offset, shape, dtype });
    }
    let mut rest: Vec<_> = found.values().filter(|(_, info)| !used.contains(&*info.name)).collect();
    rest.sort_by_key(|(source, info)| (source, info.offset));
    for (_, info) in rest {
        unexpected.push(format!(
            "`{}` is not expected ({} {:?})",
            json::clipped(&info.name),
            info.ty,
            info.shape
        ));
    }
    let mut problems = Vec::new();
    types.finish("tensors of unsupported types", &mut problems);
    shapes.finish("tensors of the wrong shape", &mut problems);
    missing.finish("missing tensors", &mut problems);
    unexpected.finish("unexpected tensors", &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    share_types(&mut places, config);
    Ok(places)
}

/// What a kernel reads together has one type.
fn share_types(places: &mut BTreeMap<String, Place>, config: &Config) {
    let mut groups: Vec<Vec<String>> = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        groups.push(["q_proj", "k_proj", "v_proj"].map(|n| at(&format!("self_attn.{n}"))).into());
        groups.push(["mlp.gate_proj", "mlp.up_proj"].map(at).into());
        let experts = 0..config.num_local_experts;
        let of = |e: u32, n: &str| at(&format!("block_sparse_moe.experts.{e}.{n}"));
        groups.push(experts.flat_map(|e| [of(e, "w1"), of(e, "w3")]).collect());
    }
    for group in groups {
        let formats: Vec<Format> =
            group.iter().filter_map(|name| Some(places.get(name)?.format)).collect();
        let dtype = common(&formats);
        for name in group {
            if let Some(place) = places.get_mut(&name)
                && place.dtype != DType::F32
            {
                place.dtype = dtype;
            }
        }
    }
}

/// The names that llama.cpp has for a canonical one, the usual first.
fn candidates(want: &Wanted, config: &Config) -> Vec<Candidate> {
    let whole = |name: String| Candidate { name, shape: want.shape.clone(), row0: 0 };
    match want.name.as_str() {
        schema::EMBEDDING => return vec![whole("token_embd.weight".into())],
        schema::HEAD => return vec![whole("output.weight".into())],
        schema::FINAL_NORM => return vec![whole("output_norm.weight".into())],
        _ => {}
    }
    let name = want.name.strip_suffix(".weight").unwrap_or(&want.name);
    let (layer, rest) = name
        .strip_prefix("model.layers.")
        .and_then(|name| name.split_once('.'))
        .unwrap_or(("", name));
    let at = |name: &str| format!("blk.{layer}.{name}.weight");
    let rows = want.shape.first().copied().unwrap_or(1);
    let cols = want.shape.last().copied().unwrap_or(1);
    if want.kind == Kind::Expert {
        let (expert, projection) = rest
            .strip_prefix("block_sparse_moe.experts.")
            .and_then(|rest| rest.split_once('.'))
            .unwrap_or(("0", rest));
        let name = match projection {
            "w1" => "ffn_gate_exps",
            "w3" => "ffn_up_exps",
            _ => "ffn_down_exps",
        };
        let row0 = expert.parse().unwrap_or(0) * rows;
        let shape = vec![config.num_local_experts.into(), rows, cols];
        return vec![Candidate { name: at(name), shape, row0 }];
    }
    let [queries, keys] = [config.num_attention_heads, config.num_key_value_heads]
        .map(|heads| u64::from(heads) * u64::from(config.head_dim));
    let fused =
        |row0| Candidate { name: at("attn_qkv"), shape: vec![queries + 2 * keys, cols], row0 };
    match rest {
        "pre_attn_norm" => vec![whole(at("attn_norm"))],
        "self_attn.q_proj" => vec![whole(at("attn_q")), fused(0)],
        "self_attn.k_proj" => vec![whole(at("attn_k")), fused(queries)],
        "self_attn.v_proj" => vec![whole(at("attn_v")), fused(queries + keys)],
        "self_attn.o_proj" => vec![whole(at("attn_output"))],
        "post_attn_norm" => vec![whole(at("attn_output_norm"))],
        "pre_moe_norm" => vec![whole(at("ffn_norm"))],
        "block_sparse_moe.gate" => vec![whole(at("ffn_gate_inp"))],
        "mlp.gate_proj" => vec![whole(at("ffn_gate"))],
        "mlp.up_proj" => vec![whole(at("ffn_up"))],
        "mlp.down_proj" => vec![whole(at("ffn_down"))],
        // The older name is Grok-1's.
        _ => vec![whole(at("post_ffw_norm")), whole(at("layer_output_norm"))],
    }
}

/// The first converter wrote a tensor for each expert, and turned q and k, which cannot be seen.
fn hint(found: &Found<'_>, missing: &str) -> &'static str {
    let old = missing
        .strip_suffix("_exps.weight")
        .is_some_and(|stem| found.contains_key(format!("{stem}.0.weight").as_str()));
    if old { "; one tensor for each expert is an old layout: convert the model anew" } else { "" }
}
