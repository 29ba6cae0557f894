//! Writes a safetensors checkpoint in any of the layouts that can be read.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::{WINDOW, families::HPCAI, row_elements};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    model::{
        config::Config,
        schema::{self, Kind, Part, Wanted},
        weights::Weights,
    },
};

/// File name of the index.
const INDEX: &str = "model.safetensors.index.json";

/// How the tensors of a checkpoint are distributed over files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One `model.safetensors`.
    Single,
    /// `model-00001-of-0000N.safetensors` and `model.safetensors.index.json`.
    Indexed {
        /// Number of files; at most the number of tensors.
        shards: u32,
    },
    /// As Grok-2 was released: a file for each kind of tensor, experts in tensor-parallel slices,
    /// no index.
    TensorParallel {
        /// Number of slices; must divide `moe_intermediate_size`.
        slices: u32,
    },
    /// One `model.safetensors` with hpcai-tech/grok-1's names and a copy of a tied head.
    Grok1,
}

/// Destination of the files.
pub trait Output {
    /// A file that is being written.
    type File: Write;

    /// Creates a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    fn create(&mut self, name: &str) -> Result<Self::File>;

    /// Completes a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be completed.
    fn finish(&mut self, name: &str, file: Self::File) -> Result<()>;

    /// Reopens a file of weights that an earlier run began, truncated after its last complete
    /// tensor, and says how many of its tensors it has. The default never resumes.
    ///
    /// # Errors
    ///
    /// If the file cannot be reopened.
    fn resume(&mut self, _name: &str) -> Result<Option<(Self::File, usize)>> {
        Ok(None)
    }

    /// Called after each tensor, with the offset of its end in the file. The default does nothing.
    ///
    /// # Errors
    ///
    /// If the tensor cannot be recorded.
    fn wrote(
        &mut self,
        _file: &mut Self::File,
        _name: &str,
        _tensor: &str,
        _end: u64,
    ) -> Result<()> {
        Ok(())
    }
}

/// A file of the checkpoint, and the tensors in it.
struct Plan {
    name: String,
    items: Vec<Item>,
}

/// A tensor, or a slice of one, in a file.
#[derive(Clone)]
struct Item {
    /// Its name in the file.
    name: String,
    /// The tensor it comes from.
    source: String,
    /// Extents of the whole tensor.
    shape: Vec<u64>,
    /// Axis, index and number of slices, if it is a slice.
    slice: Option<(usize, u64, u64)>,
}

impl Item {
    fn whole(want: &Wanted) -> Self {
        Self {
            name: want.name.clone(),
            source: want.name.clone(),
            shape: want.shape.clone(),
            slice: None,
        }
    }

    /// Extents of the tensor or slice in the file.
    fn cut(&self) -> Vec<u64> {
        let mut cut = self.shape.clone();
        if let Some((axis, _, count)) = self.slice {
            cut[axis] /= count;
        }
        cut
    }

    /// Bytes of a row of the whole tensor.
    fn row_bytes(&self, dtype: DType) -> u64 {
        dtype.row_bytes(row_elements(&self.shape))
    }

    /// Bytes of the tensor or slice in the file.
    fn bytes(&self, dtype: DType) -> u64 {
        let cut = self.cut();
        cut.first().copied().unwrap_or(1) * dtype.row_bytes(row_elements(&cut))
    }
}

/// Writes `config.json` and the weights. Memory is bounded by a few megabytes, or one row if that
/// is more.
///
/// # Errors
///
/// [`Error::Usage`] if the layout does not suit the model; errors of `weights` and `output`.
pub async fn write<W: Weights>(
    output: &mut impl Output,
    config: &Config,
    weights: &W,
    layout: Layout,
) -> Result<()> {
    write_text(output, "config.json", &config.to_json())?;
    write_weights(output, config, weights, layout).await
}

/// As [`write()`], without `config.json`.
///
/// # Errors
///
/// Those of [`write()`].
pub async fn write_weights<W: Weights>(
    output: &mut impl Output,
    config: &Config,
    weights: &W,
    layout: Layout,
) -> Result<()> {
    let plans = plan(config, layout)?;
    for plan in &plans {
        write_file(output, plan, weights).await?;
    }
    match index(&plans, weights, layout)? {
        Some(text) => write_text(output, INDEX, &text),
        None => Ok(()),
    }
}

/// Name and bytes of each file that [`write_weights`] writes.
///
/// # Errors
///
/// Those of [`write()`] that are known without a weight.
pub fn file_sizes<W: Weights>(
    config: &Config,
    weights: &W,
    layout: Layout,
) -> Result<Vec<(String, u64)>> {
    let plans = plan(config, layout)?;
    let mut sizes = Vec::new();
    for plan in &plans {
        let items = in_file(plan, weights)?;
        let data: u64 = items.iter().map(|(dtype, item)| item.bytes(*dtype)).sum();
        sizes.push((plan.name.clone(), 8 + header(&plan.name, &items)?.len() as u64 + data));
    }
    let index = index(&plans, weights, layout)?;
    sizes.extend(index.map(|text| (INDEX.to_owned(), text.len() as u64)));
    Ok(sizes)
}

/// The index of these files, if the layout has one.
fn index<W: Weights>(plans: &[Plan], weights: &W, layout: Layout) -> Result<Option<String>> {
    if !matches!(layout, Layout::Indexed { .. }) {
        return Ok(None);
    }
    let mut weight_map = BTreeMap::new();
    let mut total = 0;
    for plan in plans {
        for item in &plan.items {
            total += item.bytes(weights.dtype(&item.source)?);
            weight_map.insert(item.name.clone(), plan.name.clone());
        }
    }
    let index = serde_json::json!({
        "metadata": { "total_size": total },
        "weight_map": weight_map,
    });
    Ok(Some(format!("{index:#}\n")))
}

/// The tensors of a file in their order, with their types.
fn in_file<'p, W: Weights>(plan: &'p Plan, weights: &W) -> Result<Vec<(DType, &'p Item)>> {
    let mut items: Vec<(DType, &Item)> = Vec::new();
    for item in &plan.items {
        items.push((weights.dtype(&item.source)?, item));
    }
    // Wider elements first keeps every tensor aligned.
    items.sort_by_key(|(dtype, _)| std::cmp::Reverse(dtype.row_bytes(1)));
    Ok(items)
}

/// Writes a small file.
pub(crate) fn write_text(output: &mut impl Output, name: &str, text: &str) -> Result<()> {
    let mut file = output.create(name)?;
    file.write_all(text.as_bytes()).map_err(|source| Error::io(name, source))?;
    output.finish(name, file)
}

async fn write_file<W: Weights>(output: &mut impl Output, plan: &Plan, weights: &W) -> Result<()> {
    let items = in_file(plan, weights)?;
    let header = header(&plan.name, &items)?;
    let fail = |source| Error::io(&plan.name, source);
    let (mut file, done) = if let Some(begun) = output.resume(&plan.name)? {
        begun
    } else {
        let mut file = output.create(&plan.name)?;
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(fail)?;
        file.write_all(&header).map_err(fail)?;
        (file, 0)
    };
    let mut end_of_item = header.len() as u64 + 8;

    let mut rows = Vec::new();
    let mut narrow = Vec::new();
    for (i, (dtype, item)) in items.into_iter().enumerate() {
        end_of_item += item.bytes(dtype);
        if i < done {
            continue;
        }
        let row_bytes = item.row_bytes(dtype);
        let at_once = rows_at_once(row_bytes);
        let (mut row, end) = match item.slice {
            Some((0, number, count)) => {
                let cut = item.shape[0] / count;
                (number * cut, (number + 1) * cut)
            }
            _ => (0, item.shape.first().copied().unwrap_or(1)),
        };
        while row < end {
            let now = at_once.min(end - row);
            weights.read_rows(&item.source, row, now, &mut rows).await?;
            let bytes = match item.slice {
                Some((1, number, count)) => {
                    let width = size(row_bytes / count)?;
                    let skip = size(number)? * width;
                    narrow.clear();
                    for row in rows.chunks_exact(size(row_bytes)?) {
                        narrow.extend_from_slice(&row[skip..skip + width]);
                    }
                    &narrow
                }
                _ => &rows,
            };
            file.write_all(bytes).map_err(fail)?;
            row += now;
        }
        output.wrote(&mut file, &plan.name, &item.source, end_of_item)?;
    }
    output.finish(&plan.name, file)
}

/// Number of rows to read at a time, if a written row has `row_bytes`.
pub(super) fn rows_at_once(row_bytes: u64) -> u64 {
    (WINDOW / row_bytes.max(1)).max(1)
}

/// The header's JSON, padded so that the data begins at a multiple of eight bytes.
fn header(name: &str, items: &[(DType, &Item)]) -> Result<Vec<u8>> {
    let mut offset = 0_u64;
    let mut infos = Vec::new();
    for (dtype, item) in items {
        let end = offset + item.bytes(*dtype);
        let info = TensorInfo {
            dtype: match dtype {
                DType::F32 => Dtype::F32,
                DType::F16 => Dtype::F16,
                DType::BF16 => Dtype::BF16,
                DType::U32 => Dtype::U32,
                DType::Q8 | DType::Q4 | DType::Q2 => Dtype::U8,
                // A short row has as many bytes as one of Q2.
                DType::Q3 => Dtype::I8,
            },
            shape: stored_shape(*dtype, item.cut()).into_iter().map(size).collect::<Result<_>>()?,
            data_offsets: (size(offset)?, size(end)?),
        };
        infos.push((item.name.clone(), info));
        offset = end;
    }
    let fail = |error: String| Error::format(name, error);
    let metadata =
        Metadata::new(Some(about(items)), infos).map_err(|error| fail(error.to_string()))?;
    let mut value = serde_json::to_value(&metadata).map_err(|error| fail(error.to_string()))?;
    // The order of a hash map changes with every run.
    value.sort_all_objects();
    let mut header = serde_json::to_vec(&value).map_err(|error| fail(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// The `__metadata__` of a file. Floats are marked as `PyTorch`'s, which other programs can read;
/// for quantized tensors it lists the types.
fn about(items: &[(DType, &Item)]) -> HashMap<String, String> {
    let quantized: BTreeMap<&str, &str> = items
        .iter()
        .filter(|(dtype, _)| dtype.is_quantized())
        .map(|(dtype, item)| (item.name.as_str(), dtype.name()))
        .collect();
    let mut about = HashMap::new();
    if quantized.is_empty() {
        about.insert("format".to_owned(), "pt".to_owned());
    } else {
        about.insert("format".to_owned(), "grok-wgpu".to_owned());
        about.insert("block_size".to_owned(), crate::base::quant::BLOCK.to_string());
        about.insert("scale_type".to_owned(), "F16".to_owned());
        about.insert("types".to_owned(), serde_json::json!(quantized).to_string());
    }
    about
}

/// Extents in the header: a quantized row is an array of bytes.
fn stored_shape(dtype: DType, cut: Vec<u64>) -> Vec<u64> {
    match cut[..] {
        [rows, cols] if dtype.is_quantized() => vec![rows, dtype.row_bytes(cols)],
        _ => cut,
    }
}

fn plan(config: &Config, layout: Layout) -> Result<Vec<Plan>> {
    let wanted = schema::tensors(config);
    match layout {
        Layout::Single => Ok(vec![Plan {
            name: "model.safetensors".into(),
            items: wanted.iter().map(Item::whole).collect(),
        }]),
        Layout::Indexed { shards } => indexed(&wanted, shards),
        Layout::TensorParallel { slices } => sliced(config, &wanted, slices),
        Layout::Grok1 => grok_1(config, &wanted),
    }
}

/// Fills the files in order, each to an equal share of the elements.
fn indexed(wanted: &[Wanted], shards: u32) -> Result<Vec<Plan>> {
    if shards == 0 || shards as usize > wanted.len() || shards > 99_999 {
        return Err(Error::Usage(format!(
            "{shards} files cannot hold {} tensors, wanted 1 to {}",
            wanted.len(),
            wanted.len().min(99_999)
        )));
    }
    let total: u64 = wanted.iter().map(|want| want.shape.iter().product::<u64>()).sum();
    let mut plans: Vec<Plan> = (1..=shards)
        .map(|number| Plan {
            name: format!("model-{number:05}-of-{shards:05}.safetensors"),
            items: Vec::new(),
        })
        .collect();
    let mut before = 0;
    let mut shard = 0;
    for (i, want) in wanted.iter().enumerate() {
        let share = u128::from(before) * u128::from(shards) / u128::from(total.max(1));
        // Goes on to the next file when the share is full, or when only enough tensors are left to
        // give each remaining file one.
        let due =
            usize::try_from(share).unwrap_or(0).max((i + plans.len()).saturating_sub(wanted.len()));
        if due > shard && !plans[shard].items.is_empty() {
            shard = (shard + 1).min(plans.len() - 1);
        }
        plans[shard].items.push(Item::whole(want));
        before += want.shape.iter().product::<u64>();
    }
    Ok(plans)
}

/// The files of the released Grok-2, by number: the tensor of every layer that each holds.
const RELEASED: [Part; 18] = [
    Part::Embedding,
    Part::Head,
    Part::FinalNorm,
    Part::DenseGate,
    Part::DenseDown,
    Part::DenseUp,
    Part::ExpertGate,
    Part::ExpertDown,
    Part::ExpertUp,
    Part::K,
    Part::O,
    Part::Q,
    Part::V,
    Part::PreAttnNorm,
    Part::PostAttnNorm,
    Part::PreMoeNorm,
    Part::PostMoeNorm,
    Part::Router,
];

fn sliced(config: &Config, wanted: &[Wanted], slices: u32) -> Result<Vec<Plan>> {
    let width = config.moe_intermediate_size();
    if slices == 0 || slices > 999 || !width.is_multiple_of(slices) {
        return Err(Error::Usage(format!(
            "{slices} slices do not divide moe_intermediate_size ({width})"
        )));
    }
    let mut plans = Vec::new();
    for (number, part) in RELEASED.into_iter().enumerate() {
        let these: Vec<&Wanted> = wanted.iter().filter(|want| want.key.part == part).collect();
        if these.is_empty() {
            continue;
        }
        let name = |rank: &str| format!("pytorch_model-{number:05}-TP-{rank}.safetensors");
        let (Kind::Expert, Some(axis)) = (part.kind(), part.tp_axis()) else {
            let items = these.into_iter().map(Item::whole).collect();
            plans.push(Plan { name: name("common"), items });
            continue;
        };
        for rank in 0..u64::from(slices) {
            let slice = Some((axis, rank, u64::from(slices)));
            let item = |want: &&Wanted| Item { slice, ..Item::whole(want) };
            plans.push(Plan {
                name: name(&format!("{rank:03}")),
                items: these.iter().map(item).collect(),
            });
        }
    }
    Ok(plans)
}

fn grok_1(config: &Config, wanted: &[Wanted]) -> Result<Vec<Plan>> {
    let item = |want: &Wanted| {
        let name = HPCAI.name(want.key).ok_or_else(|| {
            Error::Usage(
                "Grok-1's names have none for the dense MLP of a model with residual_moe".into(),
            )
        })?;
        Ok(Item { name, ..Item::whole(want) })
    };
    let mut items: Vec<Item> = wanted.iter().map(item).collect::<Result<_>>()?;
    if config.ends.tied {
        let table = wanted.iter().find(|want| want.key.part == Part::Embedding);
        items.extend(table.map(|want| Item { name: schema::HEAD.into(), ..Item::whole(want) }));
    }
    Ok(vec![Plan { name: "model.safetensors".into(), items }])
}

fn size(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::Limit {
        what: "a tensor in bytes".into(),
        got: bytes,
        limit: usize::MAX as u64,
    })
}
