//! Conversion of weights to other element types, window by window.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use sha2::{Digest, Sha256};

use crate::{
    base::{
        error::{Error, Result},
        num::hex,
        quant,
        tensor::DType,
    },
    checkpoint::{importance::Importance, place, row_elements, write},
    model::{
        config::Config,
        schema::{self, Kind, Wanted},
        weights::Weights,
    },
};

/// Elements that one job converts, or one row if that is more.
const JOB: usize = 1 << 16;

/// The target element type of each kind of tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices(BTreeMap<Kind, Option<DType>>);

impl Choices {
    /// `dtype` for every kind that may have it; norms and routers are F32. With Q4 and fewer bits,
    /// the embedding table and the head are Q8, and with fewer than four so is attention: they are
    /// a small part of a large model, and their error affects every token.
    pub fn of(dtype: DType) -> Self {
        let bits = dtype.integers().map_or(32, |integers| integers.bits);
        let choice = |kind: Kind| match kind {
            _ if !kind.is_large() => DType::F32,
            Kind::Embedding | Kind::Head if bits < 8 => DType::Q8,
            Kind::Attention if bits < 4 => DType::Q8,
            _ => dtype,
        };
        Self(Kind::ALL.into_iter().map(|kind| (kind, Some(choice(kind)))).collect())
    }

    /// Chooses a type for a kind of tensor, or `None` to leave it as it is stored.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for norms and routers that would be quantized.
    pub fn set(&mut self, kind: Kind, dtype: Option<DType>) -> Result<()> {
        if let Some(dtype) = dtype
            && dtype.is_quantized()
            && !kind.is_large()
        {
            return Err(Error::Usage(format!(
                "{} tensors cannot be {dtype}: they are small and decide much",
                kind.name()
            )));
        }
        self.0.insert(kind, dtype);
        Ok(())
    }

    /// The type of a kind of tensor; `None` leaves it as it is stored.
    pub fn get(&self, kind: Kind) -> Option<DType> {
        self.0.get(&kind).copied().flatten()
    }

    /// The target type of `want`, which is stored as `stored`. A tensor whose rows are not whole
    /// blocks stays as it is.
    pub fn decide(&self, want: &Wanted, stored: DType) -> DType {
        self.get(want.kind()).filter(|dtype| want.may_be(*dtype)).unwrap_or(stored)
    }
}

/// Quantization error, as sums over elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Sum of the squares of the weights.
    pub squares: f64,
    /// Sum of the squared differences.
    pub error: f64,
}

impl Loss {
    /// Root mean square of the error, relative to that of the weights.
    pub fn relative(self) -> f64 {
        if self.squares > 0.0 { (self.error / self.squares).sqrt() } else { 0.0 }
    }

    fn add(&mut self, other: Self) {
        self.squares += other.squares;
        self.error += other.error;
    }
}

/// Some rows to convert. Jobs are independent, so threads may share them.
#[derive(Debug)]
pub struct Job<'a> {
    from: DType,
    to: DType,
    cols: usize,
    bytes: &'a [u8],
    /// How much each column counts, where that is known.
    importance: Option<&'a [f32]>,
    /// Whether the rows are only hashed.
    only_hash: bool,
    hash: [u8; 32],
    out: Vec<u8>,
    loss: Loss,
    fault: Option<(usize, f32)>,
}

/// A function that calls [`Job::run`] for every job, in any order.
pub type Parallel = fn(&mut [Job<'_>]);

/// A [`Parallel`] that uses one thread.
pub fn in_turn(jobs: &mut [Job<'_>]) {
    jobs.iter_mut().for_each(Job::run);
}

impl Job<'_> {
    /// Converts the rows, and hashes their stored bytes.
    pub fn run(&mut self) {
        self.hash = Sha256::digest(self.bytes).into();
        if self.only_hash {
            return;
        }
        let values = decode(self.from, self.cols, self.bytes);
        let most = match self.to {
            DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => quant::largest(self.to),
            DType::F16 => f16::MAX.to_f32(),
            DType::BF16 => bf16::MAX.to_f32(),
            DType::F32 | DType::U32 => f32::MAX,
        };
        // A NaN fails the check, too.
        self.fault = values
            .iter()
            .position(|v| !v.is_finite() || v.abs() > most)
            .map(|index| (index, values[index]));
        if self.fault.is_some() {
            return;
        }
        if self.from == self.to {
            self.out.extend_from_slice(self.bytes);
            self.loss = loss(&values, &values);
            return;
        }
        match self.to {
            DType::F16 => self.out.extend(values.iter().flat_map(|&v| half_bytes(v))),
            DType::BF16 => {
                self.out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
            }
            DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => {
                for row in values.chunks_exact(self.cols.max(1)) {
                    quant::encode_weighted(self.to, row, self.importance, &mut self.out);
                }
            }
            DType::F32 | DType::U32 => {
                self.out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        self.loss = loss(&values, &decode(self.to, self.cols, &self.out));
    }
}

fn half_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// Decodes stored rows to `f32`, which represents all types exactly.
fn decode(dtype: DType, cols: usize, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        DType::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        DType::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => quant::decode_rows(dtype, cols, bytes),
        DType::F32 | DType::U32 => {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        }
    }
}

/// Eight partial sums, which compilers vectorize.
fn loss(values: &[f32], stored: &[f32]) -> Loss {
    let mut squares = [0.0; 8];
    let mut error = [0.0; 8];
    for (values, stored) in values.chunks(8).zip(stored.chunks(8)) {
        for (i, (&value, &stored)) in values.iter().zip(stored).enumerate() {
            let (value, stored) = (f64::from(value), f64::from(stored));
            squares[i] += value * value;
            error[i] += (value - stored) * (value - stored);
        }
    }
    Loss { squares: squares.iter().sum(), error: error.iter().sum() }
}

/// A tensor and its conversion.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The tensor.
    pub want: Wanted,
    /// Its type as stored.
    pub from: DType,
    /// Its type after conversion.
    pub to: DType,
}

/// A range of rows of a tensor that were read, and the hash of their stored bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The first row.
    pub first: u64,
    /// How many rows.
    pub rows: u64,
    /// SHA-256 over the hashes of all jobs, in hexadecimal.
    pub hash: String,
}

/// An [`Origin`] that is still being read.
struct Reading {
    first: u64,
    rows: u64,
    hash: Sha256,
}

impl Reading {
    fn end(self) -> Origin {
        Origin { first: self.first, rows: self.rows, hash: hex(&self.hash.finalize()) }
    }
}

/// Wraps weights and converts them to the types of [`Choices`]. Reading rows converts them and adds
/// up the error, so every row should be read once.
pub struct Requantized<'a, W> {
    path: PathBuf,
    weights: &'a W,
    importance: Option<&'a Importance>,
    tensors: BTreeMap<String, Conversion>,
    spread: Parallel,
    losses: RefCell<BTreeMap<String, Loss>>,
    readings: RefCell<BTreeMap<String, Reading>>,
    progress: RefCell<&'a mut dyn FnMut(u64) -> Result<()>>,
}

impl<'a, W: Weights> Requantized<'a, W> {
    /// Wraps the weights of `config`. `path` is for messages only. `progress` is called with the
    /// number of stored bytes read since the last call; an error from it stops the work.
    ///
    /// # Errors
    ///
    /// Those of `weights`, if a tensor is missing.
    pub fn new(
        path: &Path,
        config: &Config,
        weights: &'a W,
        choices: &Choices,
        spread: Parallel,
        progress: &'a mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for want in schema::tensors(config) {
            let from = weights.dtype(&want.name)?;
            let to = choices.decide(&want, from);
            tensors.insert(want.name.clone(), Conversion { want, from, to });
        }
        let progress = RefCell::new(progress);
        let path = path.to_owned();
        Ok(Self {
            path,
            weights,
            importance: None,
            tensors,
            spread,
            losses: RefCell::default(),
            readings: RefCell::default(),
            progress,
        })
    }

    /// The same, with errors that count as much as their columns do.
    #[must_use]
    pub fn weighted_by(self, importance: Option<&'a Importance>) -> Self {
        Self { importance, ..self }
    }

    /// The conversion of each tensor, sorted by name.
    pub fn changes(&self) -> impl Iterator<Item = &Conversion> {
        self.tensors.values()
    }

    /// The error of a tensor so far.
    pub fn loss(&self, name: &str) -> Loss {
        self.losses.borrow().get(name).copied().unwrap_or_default()
    }

    /// Sets the error of a tensor that an earlier run has converted.
    pub fn done_before(&self, name: &str, loss: Loss) {
        self.losses.borrow_mut().insert(name.to_owned(), loss);
    }

    /// The rows of a tensor that were read since the last call.
    pub fn take_origin(&self, name: &str) -> Origin {
        self.readings.borrow_mut().remove(name).map(Reading::end).unwrap_or_default()
    }

    /// Whether the rows of `origin` still have the bytes that an earlier run read. Calls `progress`
    /// for them. False for an origin without a hash.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there are no such rows; errors of reading and of `progress`.
    pub async fn is_from(&self, name: &str, origin: &Origin) -> Result<bool> {
        let change = self.change(name)?;
        if origin.hash.is_empty() {
            return Ok(false);
        }
        let cols = row_elements(&change.want.shape);
        let at_once = write::rows_at_once(change.to.row_bytes(cols));
        let end = origin.first.saturating_add(origin.rows);
        let mut stored = Vec::new();
        let mut row = origin.first;
        while row < end {
            let now = at_once.min(end - row);
            self.weights.read_rows(name, row, now, &mut stored).await?;
            let mut jobs = jobs(change, &stored, None, true)?;
            (self.spread)(&mut jobs);
            self.note(name, row, now, &jobs);
            (self.progress.borrow_mut())(stored.len() as u64)?;
            row += now;
        }
        Ok(self.take_origin(name) == *origin)
    }

    /// Records which rows were read, and their hashes.
    fn note(&self, name: &str, row0: u64, rows: u64, jobs: &[Job<'_>]) {
        let mut readings = self.readings.borrow_mut();
        let new = || Reading { first: row0, rows: 0, hash: Sha256::new() };
        let reading = readings.entry(name.to_owned()).or_insert_with(new);
        if reading.first + reading.rows != row0 {
            *reading = new();
        }
        reading.rows += rows;
        for job in jobs {
            reading.hash.update(job.hash);
        }
    }

    fn change(&self, name: &str) -> Result<&Conversion> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::Usage(format!("the model has no tensor `{name}`")))
    }

    /// Adds the error of a window. Reading a tensor from its first row starts a new sum.
    fn count(&self, name: &str, row0: u64, more: impl Iterator<Item = Loss>) {
        let mut losses = self.losses.borrow_mut();
        let total = losses.entry(name.to_owned()).or_default();
        if row0 == 0 {
            *total = Loss::default();
        }
        more.for_each(|loss| total.add(loss));
    }

    fn report_fault(&self, change: &Conversion, index: u64, value: f32) -> Error {
        let place = place(&change.want.shape, index);
        let why = if value.is_finite() {
            format!("{} cannot hold that", change.to)
        } else {
            "wanted finite numbers".to_owned()
        };
        let name = &change.want.name;
        let problem = format!("`{name}`: element {index}{place} is {value}: {why}");
        Error::Checkpoint { path: self.path.clone(), problems: vec![problem] }
    }
}

impl<W: Weights> Weights for Requantized<'_, W> {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.change(name).map(|change| change.to)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let change = self.change(name)?;
        let mut stored = Vec::new();
        self.weights.read_rows(name, row0, rows, &mut stored).await?;
        into.clear();
        let columns = self.importance.and_then(|importance| importance.columns(change.want.key));
        let mut jobs = jobs(change, &stored, columns.as_deref(), false)?;
        (self.spread)(&mut jobs);
        let cols = row_elements(&change.want.shape);
        let job_elements = job_rows(usize::try_from(cols).unwrap_or(usize::MAX)) as u64 * cols;
        for (job, first) in jobs.iter().zip((row0 * cols..).step_by(step(job_elements))) {
            if let Some((index, value)) = job.fault {
                return Err(self.report_fault(change, first + index as u64, value));
            }
            into.extend_from_slice(&job.out);
        }
        self.count(name, row0, jobs.iter().map(|job| job.loss));
        self.note(name, row0, rows, &jobs);
        (self.progress.borrow_mut())(stored.len() as u64)
    }
}

/// Splits a window into jobs, the same for any number of threads, so that sums and hashes do not
/// depend on it.
fn jobs<'b>(
    change: &Conversion,
    stored: &'b [u8],
    importance: Option<&'b [f32]>,
    only_hash: bool,
) -> Result<Vec<Job<'b>>> {
    let cols = row_elements(&change.want.shape);
    let (Ok(width), Ok(row_bytes)) =
        (usize::try_from(cols), usize::try_from(change.from.row_bytes(cols)))
    else {
        return Err(Error::Limit {
            what: format!("a row of `{}`", change.want.name),
            got: cols,
            limit: usize::MAX as u64,
        });
    };
    let jobs = stored.chunks((job_rows(width) * row_bytes).max(1)).map(|bytes| Job {
        from: change.from,
        to: change.to,
        cols: width,
        bytes,
        importance,
        only_hash,
        hash: [0; 32],
        out: Vec::new(),
        loss: Loss::default(),
        fault: None,
    });
    Ok(jobs.collect())
}

/// Number of rows of a job, if a row has `width` elements.
fn job_rows(width: usize) -> usize {
    (JOB / width.max(1)).max(1)
}

fn step(elements: u64) -> usize {
    usize::try_from(elements).unwrap_or(usize::MAX).max(1)
}

/// The conversion of all tensors of a kind.
#[derive(Clone, Debug)]
pub struct KindReport {
    /// The kind.
    pub kind: Kind,
    /// Number of its tensors by new type.
    pub types: BTreeMap<DType, usize>,
    /// Number of elements.
    pub elements: u64,
    /// Bytes as stored before.
    pub before: u64,
    /// Bytes now.
    pub after: u64,
    /// The error over all of them.
    pub loss: Loss,
    /// The tensor with the largest relative error, and that error, if any has one.
    pub worst: Option<(String, f64)>,
    /// Tensors that were to be quantized and were not, because their rows are not whole blocks.
    pub unchanged: usize,
}

/// The conversion of all tensors, by kind.
pub fn report<W: Weights>(weights: &Requantized<'_, W>, choices: &Choices) -> Vec<KindReport> {
    let of = |kind: Kind| {
        let mut report = KindReport {
            kind,
            types: BTreeMap::new(),
            elements: 0,
            before: 0,
            after: 0,
            loss: Loss::default(),
            worst: None,
            unchanged: 0,
        };
        for Conversion { want, from, to } in weights.changes().filter(|c| c.want.kind() == kind) {
            let loss = weights.loss(&want.name);
            *report.types.entry(*to).or_default() += 1;
            report.elements += want.shape.iter().product::<u64>();
            report.before += want.bytes(*from);
            report.after += want.bytes(*to);
            report.loss.add(loss);
            report.unchanged += usize::from(choices.get(kind).is_some_and(|chosen| chosen != *to));
            let relative = loss.relative();
            if relative > report.worst.as_ref().map_or(0.0, |worst| worst.1) {
                report.worst = Some((want.name.clone(), relative));
            }
        }
        report
    };
    Kind::ALL.into_iter().map(of).filter(|report| report.elements > 0).collect()
}
