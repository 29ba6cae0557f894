//! Checkpoints: safetensors and GGUF files and Grok-1's first release, checked against the
//! configuration and read by rows.

mod checked;
mod families;
mod files;
#[cfg(not(target_arch = "wasm32"))]
pub mod folder;
pub mod gguf;
#[cfg(not(target_arch = "wasm32"))]
pub mod hub;
pub mod importance;
mod index;
#[cfg(not(target_arch = "wasm32"))]
pub mod journal;
mod layout;
mod magic;
mod names;
pub mod open;
pub mod pickle;
#[cfg(not(target_arch = "wasm32"))]
pub mod place;
#[cfg(not(target_arch = "wasm32"))]
pub mod quantize;
pub mod release;
pub mod requantize;
pub mod safetensors;
pub mod scan;
pub(crate) mod synthetic;
mod usual;
pub mod write;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use self::{
    checked::Checked, files::ModelFiles, gguf::Gguf, release::Release, synthetic::Synthetic,
};
use self::{
    index::Index,
    layout::{Header, Piece, Resolved, Stored, Tally},
};
use crate::{
    base::{
        error::{Error, Result},
        json,
        tensor::DType,
        utf8,
    },
    files::Source,
    model::{config::Config, schema, weights::Weights},
};

/// Bytes that are compared, or joined from column slices, at a time.
const WINDOW: u64 = 4 << 20;

/// Whether the file of this name may be part of a checkpoint: an index, or a file of weights.
pub fn is_part(name: &str) -> bool {
    // Names that begin with a dot are temporary files of other programs.
    !name.starts_with('.') && (name.ends_with(".safetensors") || name.ends_with(".index.json"))
}

/// The files that an index names, sorted. `path` is for messages.
///
/// # Errors
///
/// [`Error::Checkpoint`] with the problems of the index.
pub fn index_files(path: &Path, text: &str) -> Result<Vec<String>> {
    let index =
        parse_index(text).map_err(|problems| Error::Checkpoint { path: path.into(), problems })?;
    Ok(index.files().into_iter().map(str::to_owned).collect())
}

/// A safetensors checkpoint whose tensors were all found, with the right shapes.
#[derive(Debug)]
pub struct Checkpoint<S> {
    path: PathBuf,
    sources: Vec<S>,
    layout: Resolved,
    warnings: Vec<String>,
}

impl<S: Source> Checkpoint<S> {
    /// Reads the headers of all files and finds every tensor that `config` needs. `path` is for
    /// messages only.
    ///
    /// The files are one `*.safetensors`; or several with an `*.index.json`, which lists those to
    /// use; or several without: whole tensors in any file, and tensor-parallel slices in files
    /// whose names end in `-TP-000` and on. Grok-1 files may use the names of hpcai-tech or of
    /// keyfan.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if a file is not valid safetensors, [`Error::Config`] if the configuration
    /// has problems, and [`Error::Checkpoint`] with everything that does not fit.
    pub async fn open(path: &Path, sources: Vec<S>, config: &Config) -> Result<Self> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::Config { path: path.into(), problems });
        }
        let mut warnings = Vec::new();
        let headers = read_headers(path, &sources, &mut warnings).await?;
        let wanted = schema::tensors(config);
        let layout = layout::resolve(&headers, &wanted, config.ends.tied)
            .map_err(|problems| Error::Checkpoint { path: path.into(), problems })?;
        if let Some(first) = layout.derived.first() {
            warnings.push(format!(
                "tensors that follow from the configuration are not read: {}, such as `{}`",
                layout.derived.len(),
                json::clipped(first)
            ));
        }
        let checkpoint = Self { path: path.into(), sources, layout, warnings };
        checkpoint.compare_copies().await?;
        Ok(checkpoint)
    }

    /// Bytes of all tensors that the model needs.
    pub fn bytes(&self) -> u64 {
        self.layout.tensors.values().map(Stored::bytes).sum()
    }

    /// Warnings: oddities that do not prevent loading.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of tensor-parallel slices that are joined, or 1.
    pub fn slices(&self) -> usize {
        self.layout.slice_count.max(1)
    }

    /// The files.
    pub fn sources(&self) -> &[S] {
        &self.sources
    }

    /// The files that hold a tensor, in the order of its slices.
    pub fn files_of(&self, name: &str) -> Vec<&S> {
        let pieces = self.layout.tensors.get(name).map_or(&[][..], |stored| &stored.pieces);
        pieces.iter().map(|piece| &self.sources[piece.source]).collect()
    }

    /// What the checkpoint is called in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name, element type and extents of every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, DType, &[u64])> {
        self.layout
            .tensors
            .iter()
            .map(|(name, stored)| (name.as_str(), stored.dtype, stored.shape.as_slice()))
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        tensor(&self.layout.tensors, &self.path, name)
    }

    async fn read_stored(
        &self,
        name: &str,
        stored: &Stored,
        row0: u64,
        rows: u64,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        check_rows(name, &stored.shape, row0, rows)?;
        // All of it is read over. Clearing it first would have every byte written as zero.
        resize(name, into, rows * stored.row_bytes())?;
        let read = match stored.axis {
            0 => self.read_stacked(stored, row0, into).await,
            _ => self.read_woven(name, stored, row0, into).await,
        };
        // After an error no partly read rows are left in `into`.
        if read.is_err() {
            into.clear();
        }
        read
    }

    /// Pieces split the rows: every byte is read directly to its place.
    async fn read_stacked(&self, stored: &Stored, row0: u64, mut into: &mut [u8]) -> Result<()> {
        let row_bytes = stored.row_bytes();
        let mut skip = row0 * row_bytes;
        for piece in &stored.pieces {
            let bytes = piece.extent * row_bytes;
            if skip >= bytes {
                skip -= bytes;
                continue;
            }
            let take = usize::try_from(bytes - skip).unwrap_or(usize::MAX).min(into.len());
            let (now, later) = std::mem::take(&mut into).split_at_mut(take);
            into = later;
            if !now.is_empty() {
                self.read_piece(piece, skip, now).await?;
            }
            skip = 0;
        }
        Ok(())
    }

    /// Pieces split the columns: rows of each piece are read in windows and copied to their
    /// columns.
    async fn read_woven(
        &self,
        name: &str,
        stored: &Stored,
        row0: u64,
        into: &mut [u8],
    ) -> Result<()> {
        let inner: u64 = stored.shape.iter().skip(2).product();
        let row_bytes = stored.row_bytes();
        let Some(row_len) = usize::try_from(row_bytes).ok().filter(|&len| len > 0) else {
            return Ok(());
        };
        let mut part = Vec::new();
        let mut column = 0;
        for piece in &stored.pieces {
            let part_bytes = stored.dtype.row_bytes(piece.extent * inner);
            let at_once = usize::try_from(WINDOW / part_bytes.max(1)).unwrap_or(1).max(1);
            let mut row = row0;
            for rows in into.chunks_mut(row_len.saturating_mul(at_once)) {
                let count = (rows.len() / row_len) as u64;
                resize(name, &mut part, count * part_bytes)?;
                self.read_piece(piece, row * part_bytes, &mut part).await?;
                let part_len = part.len() * row_len / rows.len();
                for (to, from) in rows.chunks_exact_mut(row_len).zip(part.chunks_exact(part_len)) {
                    to[column..column + part_len].copy_from_slice(from);
                }
                row += count;
            }
            column += usize::try_from(part_bytes).unwrap_or(row_len);
        }
        Ok(())
    }

    async fn read_piece(&self, piece: &Piece, skip: u64, into: &mut [u8]) -> Result<()> {
        self.sources[piece.source].read(piece.offset + skip, into).await
    }

    /// Checks that copies of a tensor are equal, and that slices are not.
    async fn compare_copies(&self) -> Result<()> {
        let mut problems = Tally::default();
        for (name, stored) in &self.layout.tensors {
            for copy in &stored.copies {
                if !self.equal(&stored.pieces[0], copy, stored.bytes()).await? {
                    problems.push(format!(
                        "`{name}` in {} and in {} differ, wanted equal copies",
                        self.sources[stored.pieces[0].source].name(),
                        self.sources[copy.source].name()
                    ));
                }
            }
        }
        for stored in &self.layout.slices {
            let bytes = (stored.bytes() / stored.pieces.len() as u64).min(WINDOW);
            for (i, piece) in stored.pieces.iter().enumerate() {
                for earlier in &stored.pieces[..i] {
                    if self.equal(earlier, piece, bytes).await?
                        && !self.constant(piece, bytes).await?
                    {
                        problems.push(format!(
                            "{} and {} hold the same bytes, wanted different slices",
                            self.sources[earlier.source].name(),
                            self.sources[piece.source].name()
                        ));
                    }
                }
            }
        }
        if let Some(head) = &self.layout.spare_head {
            self.compare_head(head, &mut problems).await?;
        }
        let mut found = Vec::new();
        problems.finish("copies that do not agree", &mut found);
        if found.is_empty() {
            Ok(())
        } else {
            Err(Error::Checkpoint { path: self.path.clone(), problems: found })
        }
    }

    /// The files of a tied model may include a head. Only its first and last rows are compared with
    /// the embedding table: reading gigabytes would not be worth it.
    async fn compare_head(&self, head: &Stored, problems: &mut Tally) -> Result<()> {
        let table = self.stored(schema::EMBEDDING)?;
        let vocab = table.shape[0];
        let rows = vocab.min(8);
        let [mut a, mut b] = [Vec::new(), Vec::new()];
        for row0 in [0, vocab - rows] {
            self.read_stored(schema::EMBEDDING, table, row0, rows, &mut a).await?;
            self.read_stored(schema::HEAD, head, row0, rows, &mut b).await?;
            if table.dtype != head.dtype || a != b {
                problems.push(format!(
                    "tie_word_embeddings is true, but `{}` is not a copy of `{}`: set \
                     tie_word_embeddings to false to use it",
                    schema::HEAD,
                    schema::EMBEDDING
                ));
                return Ok(());
            }
        }
        Ok(())
    }

    async fn equal(&self, a: &Piece, b: &Piece, bytes: u64) -> Result<bool> {
        let [mut left, mut right] = [Vec::new(), Vec::new()];
        let mut done = 0;
        // The first read is short, because slices usually differ at once.
        let mut step = 4096;
        while done < bytes {
            let now = step.min(bytes - done);
            resize("", &mut left, now)?;
            resize("", &mut right, now)?;
            self.read_piece(a, done, &mut left).await?;
            self.read_piece(b, done, &mut right).await?;
            if left != right {
                return Ok(false);
            }
            done += now;
            step = WINDOW;
        }
        Ok(true)
    }

    /// Whether a piece begins with one repeated value, as weights made for a test may.
    async fn constant(&self, piece: &Piece, bytes: u64) -> Result<bool> {
        let mut start = Vec::new();
        resize("", &mut start, bytes.min(64))?;
        self.read_piece(piece, 0, &mut start).await?;
        Ok(start.as_chunks::<4>().0.windows(2).all(|pair| pair[0] == pair[1]))
    }
}

impl<S: Source> Weights for Checkpoint<S> {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.stored(name).map(|stored| stored.dtype)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.read_stored(name, self.stored(name)?, row0, rows, into).await
    }
}

/// The tensor of this name. `path` is for the message.
fn tensor<'t, T>(tensors: &'t BTreeMap<String, T>, path: &Path, name: &str) -> Result<&'t T> {
    tensors
        .get(name)
        .ok_or_else(|| Error::Usage(format!("{} has no tensor `{name}`", path.display())))
}

/// Elements of a row: the tensor without its first axis.
fn row_elements(shape: &[u64]) -> u64 {
    shape.iter().skip(1).product()
}

/// Row and column of an element, for a message; nothing for a vector.
fn place(shape: &[u64], element: u64) -> String {
    if shape.len() < 2 {
        return String::new();
    }
    let cols = row_elements(shape).max(1);
    format!(" (row {}, column {})", element / cols, element % cols)
}

/// Checks that a tensor has these rows.
fn check_rows(name: &str, shape: &[u64], row0: u64, rows: u64) -> Result<()> {
    let has = shape.first().copied().unwrap_or(1);
    if row0.checked_add(rows).is_none_or(|end| end > has) {
        return Err(Error::Usage(format!(
            "`{name}` has {has} rows; rows {row0} to {} do not exist",
            row0.saturating_add(rows)
        )));
    }
    Ok(())
}

fn resize(name: &str, into: &mut Vec<u8>, bytes: u64) -> Result<()> {
    let too_much = || Error::Limit {
        what: format!("reading rows of `{name}` in bytes"),
        got: bytes,
        limit: isize::MAX as u64,
    };
    let len = usize::try_from(bytes).map_err(|_| too_much())?;
    into.try_reserve(len.saturating_sub(into.len())).map_err(|_| too_much())?;
    into.resize(len, 0);
    Ok(())
}

/// Reads the headers of the files to use: all, or those that an index lists.
async fn read_headers<S: Source>(
    path: &Path,
    sources: &[S],
    warnings: &mut Vec<String>,
) -> Result<Vec<Header>> {
    let is_index = |source: &S| source.name().ends_with(".index.json");
    let mut used: Vec<usize> = (0..sources.len()).filter(|&i| !is_index(&sources[i])).collect();
    let mut problems = Vec::new();

    // The index of a PyTorch copy in the same folder lists no safetensors files.
    let indexes: Vec<&S> = sources
        .iter()
        .filter(|source| is_index(source) && !source.name().ends_with(".bin.index.json"))
        .collect();
    let index = match indexes[..] {
        [] => None,
        [source] => Some((source.name(), read_index(path, source).await?)),
        _ => {
            let names: Vec<&str> = indexes.iter().map(|source| source.name()).collect();
            let problems = vec![format!("more than one index: {}", names.join(", "))];
            return Err(Error::Checkpoint { path: path.into(), problems });
        }
    };
    if let Some((name, index)) = &index {
        let files = index.files();
        let mut absent = Tally::default();
        for file in &files {
            if !sources.iter().any(|source| source.name() == *file) {
                absent.push(format!("{file} is missing ({name} names it)"));
            }
        }
        absent.finish("missing files", &mut problems);
        used.retain(|&i| files.contains(sources[i].name()));
    }
    if used.is_empty() && problems.is_empty() {
        problems.push("there is no safetensors file".into());
    }

    let mut headers = Vec::new();
    let mut broken = Vec::new();
    for source in used {
        match read_header(&sources[source]).await? {
            Ok(entries) => {
                headers.push(Header { name: sources[source].name().into(), source, entries });
            }
            Err(what) => broken.push((sources[source].name(), what)),
        }
    }
    if let ([(name, what)], true) = (&broken[..], problems.is_empty()) {
        let file = if path.file_name().is_some_and(|last| last == *name) {
            path.to_owned()
        } else {
            path.join(name)
        };
        return Err(Error::format(file, what));
    }
    let mut files = Tally::default();
    for (name, what) in &broken {
        files.push(format!("{name}: {what}"));
    }
    files.finish("broken files", &mut problems);
    if let (Some((name, index)), true) = (&index, problems.is_empty()) {
        compare_index(name, index, &headers, &mut problems, warnings);
    }
    if problems.is_empty() {
        Ok(headers)
    } else {
        Err(Error::Checkpoint { path: path.into(), problems })
    }
}

async fn read_index<S: Source>(path: &Path, source: &S) -> Result<Index> {
    if source.len() > index::MAX_BYTES {
        return Err(Error::format(
            path.join(source.name()),
            format!("an index of {} bytes is too large", source.len()),
        ));
    }
    let mut bytes = Vec::new();
    resize(source.name(), &mut bytes, source.len())?;
    source.read(0, &mut bytes).await?;
    let fail = |problems| Error::Checkpoint { path: path.join(source.name()), problems };
    let text = utf8::decode(&bytes).map_err(|what| fail(vec![what]))?;
    parse_index(text).map_err(fail)
}

/// Parses an index; long lists of problems are shortened.
fn parse_index(text: &str) -> Result<Index, Vec<String>> {
    Index::parse(text).map_err(|problems| {
        let mut tally = Tally::default();
        let mut listed = Vec::new();
        for problem in problems {
            tally.push(problem);
        }
        tally.finish("such problems", &mut listed);
        listed
    })
}

/// Reads the header of a file. The outer error is of reading, the inner one of parsing.
async fn read_header<S: Source>(source: &S) -> Result<Result<Vec<safetensors::Entry>, String>> {
    let mut bytes = Vec::new();
    resize(source.name(), &mut bytes, source.len().min(magic::LOOK as u64))?;
    source.read(0, &mut bytes).await?;
    let len = match safetensors::header_len(&bytes, source.len()) {
        Ok(len) => len,
        Err(what) => return Ok(Err(what)),
    };
    bytes.clear();
    resize(source.name(), &mut bytes, len)?;
    source.read(safetensors::LENGTH_BYTES, &mut bytes).await?;
    Ok(safetensors::parse(&bytes, source.len()))
}

/// Checks that the index agrees with the headers.
fn compare_index(
    index_name: &str,
    index: &Index,
    headers: &[Header],
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let mut absent = Tally::default();
    let mut unlisted = Tally::default();
    let mut size = 0;
    let mut listed = 0;
    for header in headers {
        for entry in &header.entries {
            size += entry.len;
            match index.weight_map.get(&entry.name) {
                Some(file) if *file == header.name => listed += 1,
                Some(file) => unlisted.push(format!(
                    "`{}` is in {}, but {index_name} says {file}",
                    json::clipped(&entry.name),
                    header.name
                )),
                None => unlisted.push(format!(
                    "`{}` in {} is not in {index_name}",
                    json::clipped(&entry.name),
                    header.name
                )),
            }
        }
    }
    if listed < index.weight_map.len() {
        let present: std::collections::HashSet<(&str, &str)> = headers
            .iter()
            .flat_map(|header| {
                header.entries.iter().map(|entry| (entry.name.as_str(), header.name.as_str()))
            })
            .collect();
        for (tensor, file) in &index.weight_map {
            if !present.contains(&(tensor.as_str(), file.as_str())) {
                absent.push(format!(
                    "`{}` is not in {file}, though {index_name} says so",
                    json::clipped(tensor)
                ));
            }
        }
    }
    absent.finish("tensors that are not where the index says", problems);
    unlisted.finish("tensors that the index does not place there", problems);
    if let Some(total) = index.total_size
        && total != size
    {
        warnings.push(format!(
            "{index_name} says total_size is {total}, but the tensors have {size} bytes"
        ));
    }
}
