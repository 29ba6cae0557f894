//! Locates the bytes of every tensor: whole in one file, or in tensor-parallel slices.

use std::collections::{BTreeMap, BTreeSet};

use super::{families, row_elements, safetensors::Entry};
use crate::{
    base::{json, tensor::DType},
    model::schema::{self, Key, Part, Wanted},
};

/// Most problems of one kind that are listed; the rest are counted.
const MAX_LISTED: usize = 10;

/// The header of one file.
#[derive(Debug)]
pub(crate) struct Header {
    /// The file's name.
    pub name: String,
    /// Its index in the list of sources.
    pub source: usize,
    /// Its tensors.
    pub entries: Vec<Entry>,
}

/// Contiguous bytes of a tensor in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index of the file in the list of sources.
    pub source: usize,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Extent along the axis on which pieces are joined.
    pub extent: u64,
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Element type of every piece.
    pub dtype: DType,
    /// Extents of the whole tensor.
    pub shape: Vec<u64>,
    /// The axis on which pieces are joined.
    pub axis: usize,
    /// In order; together they make the whole tensor.
    pub pieces: Vec<Piece>,
    /// Further copies of the whole tensor, which must be equal to it.
    pub copies: Vec<Piece>,
}

impl Stored {
    /// Bytes of the whole tensor.
    pub(crate) fn bytes(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1) * self.row_bytes()
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.dtype.row_bytes(self.row_elements())
    }

    /// Elements of a row: the tensor without its first axis.
    pub(crate) fn row_elements(&self) -> u64 {
        row_elements(&self.shape)
    }
}

/// Everything that [`resolve`] found.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// The wanted tensors by canonical name.
    pub tensors: BTreeMap<String, Stored>,
    /// A copy of the head in the files of a tied model, which does not need it.
    pub spare_head: Option<Stored>,
    /// For each set of slice files, the pieces of one of its tensors, to check that no two files
    /// are the same.
    pub slices: Vec<Stored>,
    /// Largest number of tensor-parallel slices of a tensor.
    pub slice_count: usize,
    /// Tensors that follow from the configuration and are not read.
    pub derived: Vec<String>,
}

/// Whether a tensor of this name is computed from the configuration: buffers that older programs
/// stored beside the weights. The transformers library leaves them out as well.
fn is_derived(name: &str) -> bool {
    const DERIVED: [&str; 5] = [
        "rotary_emb.inv_freq",
        "rotary_emb.cos_cached",
        "rotary_emb.sin_cached",
        "masked_bias",
        "position_ids",
    ];
    let is = |end: &&str| {
        name.strip_suffix(*end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    DERIVED.iter().any(is)
}

/// Problems of one kind: the first few in full, and the number of the others.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    listed: Vec<String>,
    more: usize,
}

impl Tally {
    pub(crate) fn push(&mut self, problem: String) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Appends to `problems`. `kind` describes those that are only counted.
    pub(crate) fn finish(self, kind: &str, problems: &mut Vec<String>) {
        problems.extend(self.listed);
        if self.more > 0 {
            problems.push(format!("and {} more {kind}", self.more));
        }
    }
}

/// A tensor in one file.
#[derive(Clone)]
struct Found<'a> {
    header: &'a Header,
    entry: &'a Entry,
    /// The engine's type for its elements, if supported.
    dtype: Option<DType>,
    /// Its extents, in elements.
    shape: Vec<u64>,
    /// The tensor-parallel rank of the file, if its name has one.
    rank: Option<u64>,
}

impl<'a> Found<'a> {
    fn new(header: &'a Header, entry: &'a Entry) -> Self {
        Self {
            header,
            entry,
            dtype: entry.dtype.dtype(),
            shape: entry.shape.clone(),
            rank: rank(&header.name).map(|(_, rank)| rank),
        }
    }

    /// A quantized row is an array of bytes in the file; its length tells the type.
    fn meant_as(mut self, want: &Wanted) -> Self {
        if let (&[rows, bytes], &[_, cols]) = (&self.entry.shape[..], &want.shape[..])
            && let Some(dtype) = quantized(want, self.entry.dtype.name(), cols, bytes)
        {
            self.dtype = Some(dtype);
            self.shape = vec![rows, cols];
        }
        self
    }
}

/// The quantized type in which a row of `cols` elements has `bytes` bytes of this type, if `want`
/// may be quantized. Bytes of `Q3` are signed, since a short row has as many as one of `Q2`.
fn quantized(want: &Wanted, stored: &str, cols: u64, bytes: u64) -> Option<DType> {
    let types: &[DType] = match stored {
        "U8" => &[DType::Q8, DType::Q4, DType::Q2],
        "I8" => &[DType::Q3],
        _ => &[],
    };
    let mut types = types.iter().copied();
    types.find(|dtype| want.may_be(*dtype) && dtype.row_bytes(cols) == bytes)
}

/// Problems by kind.
#[derive(Default)]
struct Problems {
    missing: Tally,
    unexpected: Tally,
    duplicate: Tally,
    dtype: Tally,
    shape: Tally,
    slices: Tally,
    /// Missing slices: set of slice files, rank, number of slices in the set.
    absent: BTreeSet<(String, u64, u64)>,
}

/// Finds every wanted tensor in the files.
///
/// # Errors
///
/// Every tensor that is missing, unexpected, stored twice, or of a type or shape that does not fit,
/// and every slice that is missing.
pub(crate) fn resolve(
    headers: &[Header],
    wanted: &[Wanted],
    tied: bool,
) -> Result<Resolved, Vec<String>> {
    let mut found: BTreeMap<String, Vec<Found<'_>>> = BTreeMap::new();
    for header in headers {
        for entry in &header.entries {
            let name = families::canonical(&entry.name).into_owned();
            found.entry(name).or_default().push(Found::new(header, entry));
        }
    }

    let mut layout = Resolved::default();
    let mut problems = Problems::default();
    let mut seen = BTreeSet::new();
    for want in wanted {
        let Some(places) = found.remove(&want.name) else {
            let why =
                if want.key.part == Part::Head { ", as tie_word_embeddings is false" } else { "" };
            problems
                .missing
                .push(format!("`{}` is missing (wanted {:?}{why})", want.name, want.shape));
            continue;
        };
        let places: Vec<_> = places.into_iter().map(|place| place.meant_as(want)).collect();
        if let Some(stored) = problems.place(want, &places) {
            if stored.pieces.len() > 1 {
                layout.slice_count = layout.slice_count.max(stored.pieces.len());
                if let Some((set, _)) = rank(&places[0].header.name)
                    && seen.insert(set)
                {
                    layout.slices.push(stored.clone());
                }
            }
            layout.tensors.insert(want.name.clone(), stored);
        }
    }
    if tied
        && let Some(places) = found.remove(schema::HEAD)
        && let Some(table) = wanted.iter().find(|want| want.key.part == Part::Embedding)
    {
        let key = Key::new(0, Part::Head);
        let want = Wanted { key, name: key.name(), shape: table.shape.clone() };
        let places: Vec<_> = places.into_iter().map(|place| place.meant_as(&want)).collect();
        layout.spare_head = problems.place(&want, &places);
    }
    for (name, places) in found {
        if is_derived(&name) {
            layout.derived.push(name);
            continue;
        }
        problems.unexpected.push(format!(
            "`{}` in {} is not expected ({} {:?})",
            json::clipped(&name),
            places[0].header.name,
            places[0].entry.dtype.name(),
            places[0].entry.shape
        ));
    }
    let problems = problems.finish();
    if problems.is_empty() { Ok(layout) } else { Err(problems) }
}

impl Problems {
    fn finish(self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut absent = Tally::default();
        for (set, rank, count) in self.absent {
            absent.push(format!(
                "tensor-parallel slice {rank} of {count} is missing \
                 ({set}-TP-{rank:03}.safetensors)"
            ));
        }
        absent.finish("missing slices", &mut problems);
        self.slices.finish("slices that do not fit", &mut problems);
        self.dtype.finish("tensors of unsupported types", &mut problems);
        self.shape.finish("tensors of the wrong shape", &mut problems);
        self.duplicate.finish("tensors that are stored twice", &mut problems);
        self.missing.finish("missing tensors", &mut problems);
        self.unexpected.finish("unexpected tensors", &mut problems);
        problems
    }

    /// Where `want` is stored, or `None` after recording the problem.
    fn place(&mut self, want: &Wanted, places: &[Found<'_>]) -> Option<Stored> {
        let first = places.first()?;
        let Some(dtype) = first.dtype else {
            let cols = want.shape.last().copied().unwrap_or(1);
            let rows = match first.entry.dtype.name() {
                "U8" | "I8" if want.may_be(DType::Q8) => format!(
                    ", or U8 in rows of {} bytes (Q8), {} (Q4) or {} (Q2), or I8 in rows of {} \
                     (Q3), whole and not in columns",
                    DType::Q8.row_bytes(cols),
                    DType::Q4.row_bytes(cols),
                    DType::Q2.row_bytes(cols),
                    DType::Q3.row_bytes(cols)
                ),
                _ => String::new(),
            };
            let shape = match first.entry.dtype.name() {
                "U8" | "I8" => format!(" {:?}", first.entry.shape),
                _ => String::new(),
            };
            self.dtype.push(format!(
                "unsupported dtype {}{shape} for `{}` in {}, wanted F32, F16 or BF16{rows}",
                first.entry.dtype.name(),
                want.name,
                first.header.name
            ));
            return None;
        };
        if let Some(other) = places.iter().find(|place| place.dtype != first.dtype) {
            self.slices.push(format!(
                "`{}` is {} in {}, but {} in {}",
                want.name,
                first.entry.dtype.name(),
                first.header.name,
                other.entry.dtype.name(),
                other.header.name
            ));
            return None;
        }
        let shape = want.shape.clone();
        let stored = |axis, pieces, copies| Stored { dtype, shape, axis, pieces, copies };

        let mut ranked: Vec<(u64, Found<'_>)> =
            places.iter().filter_map(|place| Some((place.rank?, place.clone()))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let mut unranked = places.iter().filter(|place| place.rank.is_none());
        let twice = match (unranked.next(), unranked.next(), ranked.first()) {
            (Some(a), Some(b), _) | (Some(a), None, Some((_, b))) => Some([a.clone(), b.clone()]),
            _ => ranked
                .windows(2)
                .find(|pair| pair[0].0 == pair[1].0)
                .map(|p| [p[0].1.clone(), p[1].1.clone()]),
        };
        if let Some([a, b]) = twice {
            self.duplicate.push(format!(
                "`{}` is stored twice: in {} and in {}",
                want.name, a.header.name, b.header.name
            ));
            return None;
        }

        let full = |place: &Found<'_>| place.shape == want.shape;
        let whole = |place: &Found<'_>| Piece {
            source: place.header.source,
            offset: place.entry.offset,
            extent: want.shape.first().copied().unwrap_or(1),
        };
        match (ranked.is_empty(), want.tp_axis()) {
            // Tensors that tensor parallelism does not split may be repeated for every rank.
            (_, None) | (true, _) => {
                if let Some(other) = places.iter().find(|place| !full(place)) {
                    self.wrong_shape(want, other);
                    return None;
                }
                let mut copies: Vec<Piece> = places.iter().map(whole).collect();
                let piece = copies.remove(0);
                Some(stored(0, vec![piece], copies))
            }
            (false, Some(_)) if ranked.len() == 1 && full(first) => {
                Some(stored(0, vec![whole(first)], Vec::new()))
            }
            (false, Some(axis)) => {
                let pieces = self.join(want, axis, &ranked)?;
                Some(stored(axis, pieces, Vec::new()))
            }
        }
    }

    /// The slices of `want` along `axis`, in order.
    fn join(
        &mut self,
        want: &Wanted,
        axis: usize,
        ranked: &[(u64, Found<'_>)],
    ) -> Option<Vec<Piece>> {
        let (first_rank, first) = ranked.first()?;
        let extent = first.shape.get(axis).copied().unwrap_or(0);
        let whole = want.shape.get(axis).copied().unwrap_or(0);
        let mut cut = want.shape.clone();
        cut[axis] = extent;
        if first.shape != cut || extent == 0 || !whole.is_multiple_of(extent) {
            self.slices.push(format!(
                "slice {first_rank} of `{}` in {} has shape {:?}, wanted equal parts of {:?} \
                 along axis {axis}",
                want.name, first.header.name, first.shape, want.shape
            ));
            return None;
        }
        let odd = ranked.iter().find(|(_, place)| place.shape != cut);
        if let Some((rank, place)) = odd {
            self.slices.push(format!(
                "slice {rank} of `{}` in {} has shape {:?}, but slice {first_rank} has {cut:?}",
                want.name, place.header.name, place.shape
            ));
            return None;
        }
        let count = whole / extent;
        if let Some((rank, place)) = ranked.iter().find(|(rank, _)| *rank >= count) {
            self.slices.push(format!(
                "slice {rank} of `{}` in {} is one too many: {count} slices of {cut:?} make \
                 {:?}",
                want.name, place.header.name, want.shape
            ));
            return None;
        }
        if (ranked.len() as u64) < count {
            let set = rank(&first.header.name).map_or("", |(set, _)| set);
            for rank in 0..count {
                if !ranked.iter().any(|(present, _)| *present == rank) {
                    self.absent.insert((set.to_owned(), rank, count));
                }
            }
            return None;
        }
        let piece = |(_, place): &(u64, Found<'_>)| Piece {
            source: place.header.source,
            offset: place.entry.offset,
            extent,
        };
        Some(ranked.iter().map(piece).collect())
    }

    fn wrong_shape(&mut self, want: &Wanted, found: &Found<'_>) {
        let mut turned = want.shape.clone();
        turned.reverse();
        let hint =
            if turned.len() == 2 && turned == found.shape { " (it is transposed)" } else { "" };
        self.shape.push(format!(
            "`{}` in {} has shape {:?}, wanted {:?}{hint}",
            want.name, found.header.name, found.shape, want.shape
        ));
    }
}

/// Parses the name of a slice file: `pytorch_model-00006-TP-003.safetensors` is rank 3 of the set
/// `pytorch_model-00006`. `None` for files of whole tensors.
fn rank(name: &str) -> Option<(&str, u64)> {
    let (set, rank) = name.strip_suffix(".safetensors")?.rsplit_once("-TP-")?;
    let digits = rank.len() == 3 && rank.bytes().all(|byte| byte.is_ascii_digit());
    Some((set, digits.then(|| rank.parse().ok())??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_file_names() {
        assert_eq!(
            rank("pytorch_model-00006-TP-003.safetensors"),
            Some(("pytorch_model-00006", 3))
        );
        for whole in [
            "pytorch_model-00000-TP-common.safetensors",
            "model-00001-of-00003.safetensors",
            "model.safetensors",
            "a-TP-3.safetensors",
            "a-TP-+03.safetensors",
            "a-TP-003.bin",
        ] {
            assert_eq!(rank(whole), None, "{whole}");
        }
    }
}
