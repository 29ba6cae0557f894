//! Finds every tensor that a model needs in the files of a GGUF, and collects all problems.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    blocks::{Format, common},
    header::Info,
};
use crate::{
    base::{json, tensor::DType},
    checkpoint::{families::Family, layout::Tally, row_elements},
    model::{
        config::Config,
        schema::{Key, Part, Wanted},
    },
};

/// Tensor infos by name, each with the index of its file in the list of sources.
pub(crate) type Found<'a> = HashMap<&'a str, (usize, &'a Info)>;

/// Where a tensor's rows are, and the element type they are converted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the file in the list of sources.
    pub source: usize,
    /// How its elements are stored.
    pub format: Format,
    /// Its first byte, from the start of the file.
    pub offset: u64,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// The element type that readers get.
    pub dtype: DType,
}

/// Finds every wanted tensor.
///
/// # Errors
///
/// Every tensor that is missing, unexpected, or of a type or shape that does not fit.
pub(crate) fn resolve(
    found: &Found<'_>,
    names: &Family,
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
        let candidates = names.candidates(want, config);
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
        let cols = row_elements(&want.shape);
        let offset = info.offset + candidate.row0 * format.row_bytes(cols);
        // Norms and routers are never quantized, and a row may be too short for whole blocks.
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

/// Gives tensors that one kernel reads together the same element type.
fn share_types(places: &mut BTreeMap<String, Place>, config: &Config) {
    let mut groups: Vec<Vec<Key>> = Vec::new();
    for layer in 0..config.num_hidden_layers() {
        let at = |part| Key::new(layer, part);
        groups.push([Part::Q, Part::K, Part::V].map(at).into());
        groups.push([Part::DenseGate, Part::DenseUp].map(at).into());
        let gated = [Part::ExpertGate, Part::ExpertUp].map(at);
        let experts = 0..config.num_local_experts();
        groups.push(experts.flat_map(|expert| gated.map(|key| Key { expert, ..key })).collect());
    }
    for group in groups {
        let group: Vec<String> = group.into_iter().map(Key::name).collect();
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

/// Files of llama.cpp's first converter have a tensor for each expert, and permuted q and k, which
/// cannot be detected.
fn hint(found: &Found<'_>, missing: &str) -> &'static str {
    let old = missing
        .strip_suffix("_exps.weight")
        .is_some_and(|stem| found.contains_key(format!("{stem}.0.weight").as_str()));
    if old { "; one tensor for each expert is an old layout: convert the model anew" } else { "" }
}
