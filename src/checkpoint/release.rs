//! Grok-1 as it was first released: `ckpt-0/tensor00000_000` to `tensor00769_000`, pickles of JAX
//! arrays as `NumPy` writes them, without names and without a configuration.
//!
//! What is known, and from where:
//!
//! - The number of a file is that of a leaf of the tree of parameters, whose keys are sorted as
//!   text: the embedding table, the last norm, then the layers in the order 0, 1, 10, 11, … 19, 2,
//!   20, …, each with the twelve tensors of `LAYER`. The names of those are in the program that
//!   was released beside the files; their order follows from `jax.tree_util`.
//! - The shapes and types follow from that program and from the lengths of the files, which others
//!   published: with these shapes, `NumPy` 1 writes files of exactly those lengths.
//! - `QuantizedWeight8bit` is `int8` with `bfloat16` scales, and the program multiplies them in
//!   `bfloat16`. Each column has one scale, but two tensors have eight blocks of rows with a scale
//!   for each column, as their rows were distributed over eight devices.
//!
//! Nobody has run this reader on the real files. Every shape and type is checked against the
//! configuration, so that a wrong guess is an error, not another model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use half::bf16;

use super::{
    WINDOW, check_rows,
    layout::Tally,
    pickle::{self, Array, Element, Pickled},
    resize, row_elements, tensor,
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    files::Source,
    model::{
        config::Config,
        schema::{self, Key, Part},
        weights::Weights,
    },
};

/// The folder of the tensors in the release.
pub const FOLDER: &str = "ckpt-0";
/// Bytes of a matrix that are kept to turn it. A file has the rows of an expert's matrix as
/// columns, so whoever reads its first row reads the whole 192 MiB.
const KEPT: u64 = 256 << 20;
/// Elements along the side of a tile that is turned at a time.
const TILE: usize = 64;
/// Devices that the rows of some tensors were distributed over.
const DEVICES: u64 = 8;

/// The tensors of a layer, in the order of their names in the tree of parameters.
const LAYER: [(Part, &str); 12] = [
    (Part::ExpertGate, "moe/linear/w"),
    (Part::ExpertDown, "moe/linear_1/w"),
    (Part::ExpertUp, "moe/linear_v/w"),
    (Part::K, "multi_head_attention/key/w"),
    (Part::O, "multi_head_attention/linear/w"),
    (Part::Q, "multi_head_attention/query/w"),
    (Part::V, "multi_head_attention/value/w"),
    (Part::PreAttnNorm, "rms_norm/scale"),
    (Part::PostAttnNorm, "rms_norm_1/scale"),
    (Part::PreMoeNorm, "rms_norm_2/scale"),
    (Part::PostMoeNorm, "rms_norm_3/scale"),
    (Part::Router, "router/w"),
];

/// The numbers in the name of a file: of the tensor, and of its shard. `None` for other files.
fn numbers(name: &str) -> Option<[u32; 2]> {
    let (tensor, shard) = name.strip_prefix("tensor")?.split_once('_')?;
    let number = |text: &str, digits: usize| {
        let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    Some([number(tensor, 5)?, number(shard, 3)?])
}

/// Whether the file of this name is a tensor of the release, or a shard of one.
pub fn is_tensor(name: &str) -> bool {
    numbers(name).is_some()
}

/// A file of the release: a tensor, or those of all experts of a layer.
struct Leaf {
    key: Key,
    /// Its name in the tree, for messages.
    name: String,
    /// Extents in the file.
    shape: Vec<u64>,
    /// Extents of its scales, if it may have some.
    scales: Option<Vec<u64>>,
}

/// All files, by number.
fn leaves(config: &Config) -> Vec<Leaf> {
    let mut layers: Vec<(String, u32)> =
        (0..).zip(&config.layers).map(|(layer, _)| (layer.to_string(), layer)).collect();
    layers.sort();
    let ends = [
        (Key::new(0, Part::Embedding), "language_model/in_out_embed/embeddings".to_owned()),
        (Key::new(0, Part::FinalNorm), "language_model/rms_norm/scale".to_owned()),
    ];
    let inner = layers.into_iter().flat_map(|(text, layer)| {
        LAYER.map(|(part, name)| {
            (Key::new(layer, part), format!("transformer/decoder_layer_{text}/{name}"))
        })
    });
    let leaf = |(key, name): (Key, String)| {
        let mut shape = schema::shape(config, key);
        let mut scales = None;
        if turned(key.part) {
            shape.reverse();
        }
        if key.part.kind().is_large() && key.part != Part::Embedding {
            let blocks = if key.part.tp_axis() == Some(1) { DEVICES } else { 1 };
            scales = Some(vec![blocks, shape[1]]);
        }
        if key.part.kind() == schema::Kind::Expert {
            let experts = u64::from(config.num_local_experts());
            shape.insert(0, experts);
            scales = scales.map(|scales| [vec![experts], scales].concat());
        }
        Leaf { key, name, shape, scales }
    };
    ends.into_iter().chain(inner).map(leaf).collect()
}

/// Whether a file has the columns of the engine's matrix as rows.
fn turned(part: Part) -> bool {
    part != Part::Embedding && part.kind() != schema::Kind::Norm
}

/// A tensor of the model, as it is stored.
#[derive(Clone, Debug)]
struct Place {
    source: usize,
    element: Element,
    /// First byte of its elements.
    offset: u64,
    /// Extents of the engine's tensor.
    shape: Vec<u64>,
    turned: bool,
    scales: Option<Scales>,
}

/// The scales of a matrix, `[blocks, rows]` of the engine's rows.
#[derive(Clone, Copy, Debug)]
struct Scales {
    /// First byte.
    offset: u64,
    /// Parts of a row that have a scale each.
    blocks: u64,
}

impl Place {
    /// The type that readers get.
    fn dtype(&self) -> DType {
        match self.element {
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            // A weight times its scale is rounded to bfloat16, as the release's program does.
            Element::BF16 | Element::I8 => DType::BF16,
        }
    }

    /// Rows of the engine's tensor, and elements of a row.
    fn extents(&self) -> [u64; 2] {
        [self.shape.first().copied().unwrap_or(1), row_elements(&self.shape)]
    }
}

/// Rows of a matrix, turned, in the elements of the file.
#[derive(Debug)]
struct Kept {
    name: String,
    first: u64,
    rows: u64,
    bytes: Vec<u8>,
    /// `[blocks, rows]`; empty for elements without scales.
    scales: Vec<f32>,
}

/// The first release of Grok-1: all tensors were found, with the right shapes.
#[derive(Debug)]
pub struct Release<S> {
    path: PathBuf,
    sources: Vec<S>,
    tensors: BTreeMap<String, Place>,
    kept: Mutex<Option<Kept>>,
    keep: u64,
}

impl<S: Source> Release<S> {
    /// Reads the heads of all files and finds every tensor that `config` needs. `path` is for
    /// messages only. Sources with other names than `tensor00000_000` are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the configuration has problems, [`Error::Checkpoint`] with everything
    /// that does not fit, and errors of reading.
    pub async fn open(path: &Path, sources: Vec<S>, config: &Config) -> Result<Self> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Config { path: path.into(), problems });
        }
        let fail = |problems| Err(Error::Checkpoint { path: path.into(), problems });
        let other = config.layers.iter().any(|rule| !rule.routed || rule.dense.is_some());
        if other || !config.ends.tied {
            return fail(vec![
                "these are files of Grok-1's first release, but config.json is of another model: \
                 wanted experts in each layer, no dense MLP (residual_moe), and \
                 tie_word_embeddings true"
                    .into(),
            ]);
        }
        let leaves = leaves(config);
        let mut problems = Vec::new();
        let files = by_number(&sources, leaves.len(), &mut problems);
        if !problems.is_empty() {
            return fail(problems);
        }
        let mut tensors = BTreeMap::new();
        let mut broken = Tally::default();
        for (leaf, source) in leaves.iter().zip(files) {
            let found = match pickle::read(&sources[source]).await? {
                Ok(pickled) => fit(config, leaf, &pickled, source),
                Err(what) => Err(what),
            };
            match found {
                Ok(found) => tensors.extend(found),
                Err(what) => {
                    broken.push(format!("{} ({}): {what}", sources[source].name(), leaf.name));
                }
            }
        }
        broken.finish("files that do not fit", &mut problems);
        if !problems.is_empty() {
            return fail(problems);
        }
        Ok(Self { path: path.into(), sources, tensors, kept: Mutex::default(), keep: KEPT })
    }

    /// Sets how many bytes of a matrix are kept at most, or one row. Without this 256 MiB are,
    /// which is enough for all of Grok-1's.
    #[must_use]
    pub fn keep_at_most(mut self, bytes: u64) -> Self {
        self.keep = bytes;
        self
    }

    /// Bytes of all tensors, in the element types that readers get.
    pub fn bytes(&self) -> u64 {
        let bytes = |place: &Place| {
            let [rows, cols] = place.extents();
            rows * place.dtype().row_bytes(cols)
        };
        self.tensors.values().map(bytes).sum()
    }

    /// The files.
    pub fn sources(&self) -> &[S] {
        &self.sources
    }

    /// The file that holds a tensor.
    pub fn files_of(&self, name: &str) -> Vec<&S> {
        self.tensors.get(name).map(|place| &self.sources[place.source]).into_iter().collect()
    }

    /// What the release is called in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name, element type and extents of every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, DType, &[u64])> {
        self.tensors
            .iter()
            .map(|(name, place)| (name.as_str(), place.dtype(), place.shape.as_slice()))
    }

    fn place(&self, name: &str) -> Result<&Place> {
        tensor(&self.tensors, &self.path, name)
    }

    /// Reads rows of a matrix that the file has as columns.
    async fn read_turned(
        &self,
        name: &str,
        place: &Place,
        row0: u64,
        rows: u64,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let [all, cols] = place.extents();
        let end = row0 + rows;
        let mut row = row0;
        while row < end {
            let kept = self.lock().take();
            let kept = match kept {
                Some(kept)
                    if kept.name == name && (kept.first..kept.first + kept.rows).contains(&row) =>
                {
                    kept
                }
                other => {
                    let bytes = other.map(|kept| kept.bytes).unwrap_or_default();
                    self.keep(name, place, row, bytes).await?
                }
            };
            let until = end.min(kept.first + kept.rows);
            kept.decode(place, row - kept.first, until - row, cols, into)?;
            row = until;
            // After the last row nothing of the matrix is needed.
            if until < all {
                *self.lock() = Some(kept);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and turns as many rows as are kept, from `first` on. `bytes` is memory to reuse.
    async fn keep(
        &self,
        name: &str,
        place: &Place,
        first: u64,
        mut bytes: Vec<u8>,
    ) -> Result<Kept> {
        let [all, cols] = place.extents();
        let size = place.element.bytes();
        let rows = (self.keep / (cols * size).max(1)).clamp(1, all - first);
        resize(name, &mut bytes, rows * cols * size)?;
        let source = &self.sources[place.source];
        let mut part = Vec::new();
        // Only whole rows of the file are next to each other.
        let at_once = if rows == all { (WINDOW / (all * size)).max(1) } else { 1 };
        let mut col = 0;
        while col < cols {
            let now = at_once.min(cols - col);
            resize(name, &mut part, now * rows * size)?;
            source.read(place.offset + (col * all + first) * size, &mut part).await?;
            let [from_cols, to_cols, at] = [rows, cols, col].map(len);
            match size {
                1 => turn::<1>(&part, from_cols, &mut bytes, to_cols, at),
                2 => turn::<2>(&part, from_cols, &mut bytes, to_cols, at),
                _ => turn::<4>(&part, from_cols, &mut bytes, to_cols, at),
            }
            col += now;
        }
        let mut scales = Vec::new();
        if let Some(stored) = place.scales {
            for block in 0..stored.blocks {
                resize(name, &mut part, rows * 2)?;
                source.read(stored.offset + (block * all + first) * 2, &mut part).await?;
                let halves = part.as_chunks::<2>().0.iter();
                scales.extend(halves.map(|half| bf16::from_le_bytes(*half).to_f32()));
            }
        }
        Ok(Kept { name: name.to_owned(), first, rows, bytes, scales })
    }
}

impl Kept {
    /// Appends rows, counted from the first that is kept, in the type that readers get.
    fn decode(
        &self,
        place: &Place,
        row0: u64,
        rows: u64,
        cols: u64,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let [row0, rows, cols, all] = [row0, rows, cols, self.rows].map(len);
        let row_bytes = cols * len(place.element.bytes());
        let bytes = &self.bytes[row0 * row_bytes..(row0 + rows) * row_bytes];
        let Some(Scales { blocks, .. }) = place.scales else {
            into.extend_from_slice(bytes);
            return Ok(());
        };
        let before = into.len();
        resize(&self.name, into, (before + 2 * bytes.len()) as u64)?;
        let width = (cols / len(blocks)).max(1);
        let to = into[before..].as_chunks_mut::<2>().0.chunks_mut(width);
        for (n, (to, from)) in to.zip(bytes.chunks(width)).enumerate() {
            let (row, block) = (row0 + n / len(blocks), n % len(blocks));
            let scale = self.scales[block * all + row];
            for (to, &from) in to.iter_mut().zip(from) {
                *to = bf16::from_f32(f32::from(from.cast_signed()) * scale).to_le_bytes();
            }
        }
        Ok(())
    }
}

impl<S: Source> Weights for Release<S> {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.place(name).map(Place::dtype)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let place = self.place(name)?;
        check_rows(name, &place.shape, row0, rows)?;
        into.clear();
        let read = if place.turned {
            self.read_turned(name, place, row0, rows, into).await
        } else {
            let row_bytes = place.dtype().row_bytes(place.extents()[1]);
            resize(name, into, rows * row_bytes)?;
            self.sources[place.source].read(place.offset + row0 * row_bytes, into).await
        };
        // After an error no partly read rows are left in `into`.
        if read.is_err() {
            into.clear();
        }
        read
    }

    /// A matrix is read once and turned, and its rows are taken from that.
    fn in_order(&self) -> bool {
        true
    }
}

/// A number that was checked to fit memory.
fn len(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Writes rows of `from`, of `from_cols` elements, as columns from `at` on of a matrix of rows of
/// `to_cols` elements.
fn turn<const N: usize>(from: &[u8], from_cols: usize, to: &mut [u8], to_cols: usize, at: usize) {
    let (from, to) = (from.as_chunks::<N>().0, to.as_chunks_mut::<N>().0);
    for (tile, rows) in from.chunks(TILE * from_cols).enumerate() {
        for left in (0..from_cols).step_by(TILE) {
            for col in left..(left + TILE).min(from_cols) {
                let to = &mut to[col * to_cols + at + tile * TILE..];
                let column = rows.iter().skip(col).step_by(from_cols);
                for (to, from) in to.iter_mut().zip(column) {
                    *to = *from;
                }
            }
        }
    }
}

/// The index of the source of each tensor. Records what is missing and what is too much.
fn by_number<S: Source>(sources: &[S], count: usize, problems: &mut Vec<String>) -> Vec<usize> {
    let mut files = vec![None; count];
    let [mut missing, mut extra] = [Tally::default(), Tally::default()];
    for (index, source) in sources.iter().enumerate() {
        match numbers(source.name()) {
            Some([tensor, 0]) if (tensor as usize) < count => files[tensor as usize] = Some(index),
            Some([_, 0]) => extra.push(format!(
                "{} is one too many: the configuration has {count} tensors",
                source.name()
            )),
            Some([_, shard]) => extra.push(format!(
                "{} is shard {shard} of a tensor that several machines wrote; whole tensors are \
                 read, in files that end in _000",
                source.name()
            )),
            None => {}
        }
    }
    for (number, _) in files.iter().enumerate().filter(|(_, file)| file.is_none()) {
        missing.push(format!("tensor{number:05}_000 is missing"));
    }
    missing.finish("missing files", problems);
    extra.finish("such files", problems);
    files.into_iter().flatten().collect()
}

/// The tensors in a file, by canonical name; or why the file does not hold those of `leaf`.
fn fit(
    config: &Config,
    leaf: &Leaf,
    pickled: &Pickled,
    source: usize,
) -> Result<Vec<(String, Place)>, String> {
    let (array, scales) = match pickled {
        Pickled::Array(array) if array.element == Element::I8 => {
            return Err("it is int8 without scales".into());
        }
        Pickled::Array(array) => (array, None),
        Pickled::Quantized { weight, scales } => {
            let Some(wanted) = &leaf.scales else {
                return Err("it is a QuantizedWeight8bit, wanted an array of floats".into());
            };
            if weight.element != Element::I8 || scales.element != Element::BF16 {
                return Err(format!(
                    "weights are {} with scales in {}, wanted int8 and bfloat16",
                    weight.element, scales.element
                ));
            }
            if scales.shape != *wanted {
                return Err(format!("scales have shape {:?}, wanted {wanted:?}", scales.shape));
            }
            (weight, Some(scales))
        }
    };
    if array.shape != leaf.shape {
        return Err(format!("shape {:?}, wanted {:?}", array.shape, leaf.shape));
    }
    let is_expert = leaf.key.part.kind() == schema::Kind::Expert;
    let count = if is_expert { config.num_local_experts() } else { 1 };
    let shape = schema::shape(config, leaf.key);
    let at = |array: &Array, n: u32| array.offset + array.len / u64::from(count) * u64::from(n);
    let place = |expert: u32| Place {
        source,
        element: array.element,
        offset: at(array, expert),
        shape: shape.clone(),
        turned: turned(leaf.key.part),
        scales: scales.map(|scales| Scales {
            offset: at(scales, expert),
            blocks: scales.shape[scales.shape.len() - 2],
        }),
    };
    let blocks = leaf.scales.as_ref().map_or(1, |scales| scales[scales.len() - 2]);
    if scales.is_some() && !shape.last().copied().unwrap_or(1).is_multiple_of(blocks) {
        return Err(format!("{:?} is not {blocks} equal blocks of rows", leaf.shape));
    }
    let named = |expert| (Key { expert, ..leaf.key }.name(), place(expert));
    Ok((0..count).map(named).collect())
}
