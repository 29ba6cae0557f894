//! Writes a quantized copy of a checkpoint to a folder, and resumes an interrupted run.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, ErrorKind, Write},
    path::Path,
};

use pollster::block_on;
use serde_json::{Value, json};

use crate::{
    base::{
        error::{Error, Result},
        json,
        num::size,
    },
    checkpoint::{
        importance::Importance,
        journal::{self, Done, Journal, Problem},
        requantize::{self, Choices, Job, KindReport, Requantized},
        synthetic::fnv_1a,
        usual,
        write::{self, Layout, Output},
    },
    files::{
        folder::{Folder, PartFile, Syncer},
        log::Log,
        native::{names, read_text},
        threads,
    },
    model::{
        config::Config,
        schema::{self, Kind, Wanted},
        weights::Weights,
    },
    text::tokenizer::Tokenizer,
};

/// File name of the journal of an unfinished run: a line that identifies it, then one for each
/// tensor.
const JOURNAL: &str = "quantize.journal";
/// Bytes of the longest journal that is read.
const MAX_JOURNAL: u64 = 256 << 20;
/// Bytes of the longest line of the journal, but for long names of tensors.
const JOURNAL_LINE: u64 = 512;
/// Bytes that are written between two syncs to disk.
const SYNC_BYTES: u64 = 64 << 20;

/// Licences, which go with the copy.
const LICENCES: [&str; 3] = ["LICENSE", "LICENSE.txt", "NOTICE"];

/// Files that are copied as they are, where there are such.
fn companions() -> impl Iterator<Item = &'static str> {
    Tokenizer::FILES.into_iter().chain(usual::FILES).chain(LICENCES)
}

/// A quantized copy to make.
#[derive(Clone, Debug)]
pub struct Quantize<'a> {
    /// The folder of the model, for its tokenizer and `config.json`.
    pub from: &'a Path,
    /// The folder to write: new, empty, or one with an unfinished run.
    pub to: &'a Path,
    /// The target types.
    pub choices: Choices,
    /// How the tensors are distributed over files.
    pub layout: Layout,
    /// How much each column of the matrices counts, where that was measured.
    pub importance: Option<&'a Importance>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The conversion by kind of tensor.
    pub kinds: Vec<KindReport>,
    /// Tensors that were kept from an earlier run.
    pub resumed: usize,
    /// Tensors of an earlier run that were written again, because their weights, or those of a
    /// tensor before them in the file, have changed.
    pub replaced: usize,
    /// The files, in the order in which they got their final names.
    pub files: Vec<String>,
}

impl Quantize<'_> {
    /// Writes the copy. Files get their final names when all are complete, `config.json` last.
    /// `progress` is called with numbers of bytes read. If something fails, or `progress` returns
    /// an error, what was written stays, and the next call with the same model and choices resumes.
    /// It reads the source rows of finished tensors again, and rewrites those whose bytes have
    /// changed. Memory is bounded by a window.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the folder holds anything but an unfinished run of the same model and
    /// choices, or another process is writing to it; [`Error::Checkpoint`] with the tensor and the
    /// index of a weight that is not finite or that the new type cannot hold; [`Error::Io`] if
    /// something cannot be read or written; errors of `progress`.
    pub fn run<W: Weights>(
        &self,
        config: &Config,
        weights: &W,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Outcome> {
        self.run_within(&|| Folder { dir: self.to }.room(), config, weights, progress)
    }

    /// [`run`](Self::run) on a disk with `room` bytes left, where that is known.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_within<W: Weights>(
        &self,
        room: &dyn Fn() -> Option<u64>,
        config: &Config,
        weights: &W,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Outcome> {
        let digest = self.digest(config, weights)?;
        let mut copy = Unfinished::begin(self.to, &digest)?;
        let weights =
            Requantized::new(self.from, config, weights, &self.choices, on_all_cores, progress)?
                .weighted_by(self.importance);
        let replaced = block_on(copy.keep_what_is_of(&weights))?;
        let mut resumed = 0;
        for tensor in copy.done.values().flatten() {
            weights.done_before(&tensor.name, tensor.loss);
            resumed += 1;
        }
        let text = self.config_json(config, &weights)?;
        let needed = self.needed(config, &weights, &copy, &text)?;
        if let Some(room) = room().filter(|&room| room < needed) {
            return Err(no_room(self.to, needed, room));
        }
        let written = copy.write(self, config, &weights, &text);
        if let Err(error) = written {
            // Report the first error, not one of the cleanup.
            let _ = copy.settle();
            return Err(self.with_room(error, needed, room()));
        }
        copy.commit()?;
        let kinds = requantize::report(&weights, &self.choices);
        Ok(Outcome { kinds, resumed, replaced, files: copy.files })
    }

    /// Bytes that this run adds to the folder.
    fn needed<W: Weights>(
        &self,
        config: &Config,
        weights: &Requantized<'_, W>,
        copy: &Unfinished<'_>,
        config_json: &str,
    ) -> Result<u64> {
        let mut needed = config_json.len() as u64;
        for (name, bytes) in write::file_sizes(config, weights, self.layout)? {
            let there = copy.done.get(&name).into_iter().flatten().map(|tensor| tensor.end).max();
            needed += bytes.saturating_sub(there.unwrap_or(0));
        }
        needed += JOURNAL_LINE * (weights.changes().count() - copy.count()) as u64;
        let beside = companions().filter_map(|name| self.from.join(name).metadata().ok());
        Ok(needed + beside.map(|file| file.len()).sum::<u64>())
    }

    /// An error of writing, with what the copy needs if there was no room for it.
    fn with_room(&self, error: Error, needed: u64, room: Option<u64>) -> Error {
        match error {
            Error::Io { path, source }
                if matches!(
                    source.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                ) =>
            {
                let left = room.map_or(String::new(), |room| {
                    format!(", and {} are left on its disk", size(room))
                });
                let what = format!("{source}; the copy needed {}{left}", size(needed));
                let path = if path.starts_with(self.to) { path } else { self.to.join(path) };
                Error::io(path, io::Error::new(source.kind(), what))
            }
            other => other,
        }
    }

    /// Identifies a run by its model, choices and layout. The weights are not included: the journal
    /// has a hash for each tensor. Other files are copied after all weights.
    fn digest<W: Weights>(&self, config: &Config, weights: &W) -> Result<String> {
        let mut text = format!("{:?} {:?} {}\n", self.choices, self.layout, config.to_json());
        let mut tensors = schema::tensors(config);
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for Wanted { name, shape, .. } in tensors {
            let _ = writeln!(text, "{name} {} {shape:?}", weights.dtype(&name)?);
        }
        if let Some(importance) = self.importance {
            text += &importance.digest();
        }
        Ok(format!("{:016x}", fnv_1a(&text)))
    }

    /// The model's own `config.json`, with a `quantization_config` added.
    fn config_json<W: Weights>(
        &self,
        config: &Config,
        weights: &Requantized<'_, W>,
    ) -> Result<String> {
        let path = self.from.join("config.json");
        let text =
            if path.is_file() { block_on(read_text(&path, 5 << 20))? } else { config.to_json() };
        let mut fields = json::parse_object(&text).map_err(|what| Error::format(&path, what))?;
        let mut types: BTreeMap<Kind, Vec<&str>> = BTreeMap::new();
        for change in weights.changes() {
            let names = types.entry(change.want.kind()).or_default();
            if !names.contains(&change.to.name()) {
                names.push(change.to.name());
            }
        }
        let types: BTreeMap<&str, String> =
            types.into_iter().map(|(kind, names)| (kind.name(), names.join(", "))).collect();
        let mut quantization = json!({
            "quant_method": "grok-wgpu",
            "block_size": crate::base::quant::BLOCK,
            "scale_type": "F16",
            "types": types,
        });
        if let Some(importance) = self.importance {
            quantization["calibration_tokens"] = importance.tokens().into();
        }
        fields.insert("quantization_config".into(), quantization);
        Ok(format!("{:#}\n", Value::Object(fields)))
    }
}

/// The error for a folder whose disk has too little room.
fn no_room(folder: &Path, needed: u64, room: u64) -> Error {
    let what = format!(
        "the copy needs {} ({needed} bytes), and the disk has {} ({room} bytes)",
        size(needed),
        size(room)
    );
    Error::io(folder, io::Error::new(ErrorKind::StorageFull, what)).with_hint(
        "Make room on that disk and give the same command again, or name a folder on another one.",
    )
}

/// Checks that a folder, if it is there, is empty or holds an unfinished run.
///
/// # Errors
///
/// [`Error::Usage`] if it holds something else, [`Error::Io`] if it cannot be read.
pub fn refuse_others(dir: &Path) -> Result<()> {
    if dir.is_dir() && !dir.join(JOURNAL).is_file() && !names(dir)?.is_empty() {
        let what = format!("{} is not empty and holds no unfinished run", dir.display());
        return Err(Error::Usage(what).with_hint("Name a new folder: nothing is overwritten."));
    }
    Ok(())
}

/// A [`Parallel`](super::requantize::Parallel) over all cores.
pub fn on_all_cores(jobs: &mut [Job<'_>]) {
    threads::each_on_all_cores(jobs, Job::run);
}

/// The folder of a copy that is being written.
struct Unfinished<'a> {
    folder: Folder<'a>,
    journal: Log,
    digest: String,
    /// Tensors that an earlier run wrote, by file.
    done: BTreeMap<String, Vec<Done>>,
    /// Lines of the journal whose tensors are not synced to disk yet.
    pending: String,
    unsynced: u64,
    /// The open file of weights.
    open: Option<Syncer>,
    /// Complete files, to be renamed at the end.
    files: Vec<String>,
}

/// An [`Unfinished`] copy as an [`Output`], with the weights that are written to it.
struct Sink<'c, 'a, 'w, W> {
    copy: &'c mut Unfinished<'a>,
    weights: &'c Requantized<'w, W>,
}

impl<'a> Unfinished<'a> {
    /// Creates the folder and its journal, or reads the journal of an earlier run.
    fn begin(dir: &'a Path, digest: &str) -> Result<Self> {
        let folder = Folder::make(dir)?;
        let path = dir.join(JOURNAL);
        refuse_others(dir)?;
        let busy = || Error::Usage(format!("another run is writing to {}", dir.display()));
        let mut journal = Log::open(&path)?.ok_or_else(busy)?;
        let text = block_on(read_text(&path, MAX_JOURNAL))?;
        let known = Journal::parse(&text, digest).map_err(|problem| match problem {
            Problem::Other => Error::Usage(format!(
                "{} holds an unfinished run of another model or with other options",
                dir.display()
            ))
            .with_hint("Give those again, or name a new folder."),
            Problem::Line(line) => Error::format(&path, format!("`{line}` is no tensor")),
        });
        let Journal { done, len } = known?;
        journal.cut(len)?;
        if len == 0 {
            journal.append(&journal::first_line(digest))?;
        }
        let mut copy = Self {
            folder,
            journal,
            digest: digest.to_owned(),
            done,
            pending: String::new(),
            unsynced: 0,
            open: None,
            files: Vec::new(),
        };
        copy.keep_what_is_there()?;
        Ok(copy)
    }

    /// Drops tensors from `done` whose file is missing or shorter than the journal says.
    fn keep_what_is_there(&mut self) -> Result<()> {
        let before = self.count();
        for (name, tensors) in &mut self.done {
            // The earlier run may have been interrupted while it named files.
            let len = self.folder.unfinished_bytes(name)?;
            tensors.retain(|tensor| tensor.end <= len);
        }
        if self.count() < before { self.rewrite() } else { Ok(()) }
    }

    /// Drops tensors from `done` whose source bytes have changed, and those after them in their
    /// files. Returns how many.
    async fn keep_what_is_of<W: Weights>(&mut self, weights: &Requantized<'_, W>) -> Result<usize> {
        let before = self.count();
        for tensors in self.done.values_mut() {
            let mut same = 0;
            for tensor in tensors.iter() {
                if !weights.is_from(&tensor.name, &tensor.origin).await? {
                    break;
                }
                same += 1;
            }
            tensors.truncate(same);
        }
        let replaced = before - self.count();
        if replaced > 0 {
            self.rewrite()?;
        }
        Ok(replaced)
    }

    /// Number of tensors in `done`.
    fn count(&self) -> usize {
        self.done.values().map(Vec::len).sum()
    }

    /// Rewrites the journal with the tensors in `done`. Files are truncated only after that: if a
    /// crash cuts the journal short, it lists fewer tensors than there are, never more.
    fn rewrite(&mut self) -> Result<()> {
        let mut text = journal::first_line(&self.digest);
        for (file, tensors) in &self.done {
            for tensor in tensors {
                text.push_str(&journal::line(file, tensor));
            }
        }
        self.journal.cut(0)?;
        self.journal.append(&text)
    }

    fn write<W: Weights>(
        &mut self,
        task: &Quantize<'_>,
        config: &Config,
        weights: &Requantized<'_, W>,
        config_json: &str,
    ) -> Result<()> {
        let mut sink = Sink { copy: self, weights };
        block_on(write::write_weights(&mut sink, config, weights, task.layout))?;
        for name in companions() {
            let from = task.from.join(name);
            if from.is_file() {
                sink.copy.folder.copy(&from, name)?;
                sink.copy.files.push(name.to_owned());
            }
        }
        write::write_text(&mut sink, "config.json", config_json)
    }

    /// Syncs the open file to disk, and then the journal.
    fn settle(&mut self) -> Result<()> {
        if let Some(file) = &self.open {
            file.sync().map_err(|source| Error::io(self.folder.dir, source))?;
        }
        self.journal.append(&self.pending)?;
        self.pending.clear();
        self.unsynced = 0;
        Ok(())
    }

    /// Gives all files their final names, and removes the journal.
    fn commit(&mut self) -> Result<()> {
        for name in &self.files {
            self.folder.name(name)?;
        }
        self.folder.remove(JOURNAL)
    }
}

impl<W: Weights> Output for Sink<'_, '_, '_, W> {
    type File = PartFile;

    fn create(&mut self, name: &str) -> Result<Self::File> {
        let file = self.copy.folder.create(name)?;
        self.copy.open = Syncer::of(&file);
        Ok(file)
    }

    fn resume(&mut self, name: &str) -> Result<Option<(Self::File, usize)>> {
        let Some(tensors) = self.copy.done.get(name).filter(|tensors| !tensors.is_empty()) else {
            return Ok(None);
        };
        let end = tensors.iter().map(|tensor| tensor.end).max().unwrap_or(0);
        let file = self.copy.folder.reopen(name, end)?;
        self.copy.open = Syncer::of(&file);
        Ok(Some((file, tensors.len())))
    }

    fn wrote(&mut self, file: &mut Self::File, name: &str, tensor: &str, end: u64) -> Result<()> {
        file.flush().map_err(|source| Error::io(name, source))?;
        let done = Done {
            name: tensor.to_owned(),
            end,
            loss: self.weights.loss(tensor),
            origin: self.weights.take_origin(tensor),
        };
        self.copy.pending.push_str(&journal::line(name, &done));
        let dtype = self.weights.changes().find(|change| change.want.name == tensor);
        self.copy.unsynced += dtype.map_or(0, |change| change.want.bytes(change.to));
        if self.copy.unsynced >= SYNC_BYTES { self.copy.settle() } else { Ok(()) }
    }

    fn finish(&mut self, name: &str, file: Self::File) -> Result<()> {
        self.copy.folder.sync(name, file)?;
        self.copy.settle()?;
        self.copy.files.push(name.to_owned());
        Ok(())
    }
}
