//! `tune --rates`: how fast this computer moves and multiplies weights, by which the other commands
//! tell how many tokens a second to expect.

use std::{path::Path, sync::Arc, time::Instant};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::open::Opened,
    files::{Source as _, native::FileSource, replace::make_parent, scratch::Scratch},
    machine::{counting::DeviceLimits, gpu::Gpu},
    measure::{
        capacity::Planner,
        computing,
        fit::type_of_most,
        placement::least,
        rates::{Rate, Rates, key},
        transfers,
    },
    model::{
        Model, Piece,
        ahead::Ahead,
        weights::{Read, Stored, Weights},
    },
    variants::Kept,
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        adapter::{self, read_store},
        expected::{amount, kind},
        globals::Globals,
        model::{folder_of, locate, open},
        signals::check_interrupt,
        terminal::Terminal,
    },
    Options, Report,
};

/// Bytes of a row of a scratch file: a window, as weights are read.
const WINDOW: usize = 8 << 20;
/// Windows of a scratch file.
const WINDOWS: usize = 32;
/// Bytes that are read of a model's files at the most.
const MOST_READ: u64 = 512 << 20;
/// Seconds after which no more is read.
const LONG: f64 = 0.5;
/// Files that are not slower than the system's memory by this were in it.
const FROM_DISK: f64 = 0.8;

/// What was measured.
struct Found {
    device: String,
    /// The type of the weights.
    dtype: DType,
    /// The folder of the model's files; `None` for a scratch file.
    folder: Option<String>,
    rates: Vec<(Rate, f64)>,
    /// That of the device's memory with a large matrix.
    matrix: Option<f64>,
    /// Whether that among the others is of the model's own kernels.
    kernels: bool,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    let keep = if options.dry_run { None } else { globals.tuning_file() };
    // Fails before the measurement if the file cannot be read.
    keep.as_deref().map(read_store).transpose()?;
    let opened = match options.of.model.as_deref() {
        Some(model) => Some(open(&locate(Some(model)), globals).await?),
        None => None,
    };
    let dtype = match (&opened, options.of.made_up(globals).await?) {
        (Some(opened), _) => type_of_most(&opened.config, &opened.weights)?,
        (None, Some((config, weights))) => type_of_most(&config, &weights)?,
        (None, None) => DType::Q4,
    };
    let (mut gpu, _) = adapter::measured(globals).await?;
    let bar = terminal.bar("measuring", transfers::RATES.len() as u64 + 3, false);
    let mut progress = |_: Rate| {
        bar.inc(1);
        check_interrupt()
    };
    let mut rates = Box::pin(transfers::measure(&mut gpu, dtype, &mut progress)).await?;
    let matrix = rates.iter().find(|(rate, _)| *rate == Rate::Device).map(|&(_, value)| value);
    let folder = opened.as_ref().and_then(folder_of);
    let mut kernels = false;
    if let (Some(opened), Some(_)) = (&opened, &folder) {
        progress(Rate::Device)?;
        if let Some(own) = Box::pin(of_kernels(&mut gpu, opened, &rates)).await? {
            rates.retain(|(rate, _)| *rate != Rate::Device);
            rates.push((Rate::Device, own));
            kernels = true;
        } else {
            terminal.note("this model's kernels are too short to tell how fast they read weights");
        }
    }
    progress(Rate::Cpu)?;
    match transfers::cpu(dtype) {
        Ok(rate) => rates.push((Rate::Cpu, rate)),
        Err(error) => terminal.warn(format!("not measured: {}: {error}", Rate::Cpu.what())),
    }
    progress(Rate::Files)?;
    match (&opened, &folder) {
        (Some(opened), Some(_)) => rates.extend(of_model(opened).await?),
        _ => rates.extend(of_scratch(globals, terminal).await?),
    }
    bar.finish_and_clear();
    let found = Found { device: gpu.caps().describe(), dtype, folder, rates, matrix, kernels };
    let assumed = Rates::assumed(kind(Some(&gpu)));
    let missing = Rate::ALL.into_iter().filter(|rate| found.rates.iter().all(|(of, _)| of != rate));
    let taken =
        |rate: Rate| format!("{}, taken to be {}", rate.what(), amount(rate, assumed.get(rate)));
    Report {
        device: &found.device,
        kept: found.kept(),
        json: found.as_json(keep.as_deref()),
        text: found.describe(),
        left_out: missing.map(taken).collect(),
    }
    .keep_and_tell(globals, keep.as_deref())
}

impl Found {
    /// What other commands heed.
    fn kept(&self) -> Kept {
        let folder = self.folder.as_deref();
        let of = |rate| if rate == Rate::Device && !self.kernels { None } else { folder };
        let one = |&(rate, value): &(Rate, f64)| (key(rate, self.dtype, of(rate)), value);
        let of_matrix = self.matrix.map(|value| (key(Rate::Device, self.dtype, None), value));
        let rates = self.rates.iter().map(one).chain(of_matrix).collect();
        Kept { rates, ..Kept::default() }
    }

    fn describe(&self) -> String {
        let line = |&(rate, value): &(Rate, f64)| {
            let of = match rate {
                Rate::Device | Rate::Link | Rate::Cpu | Rate::Operations => {
                    format!(", {}", self.dtype.name().to_lowercase())
                }
                _ => String::new(),
            };
            format!("{:<48} {:>14}\n", format!("{}{of}", rate.what()), amount(rate, value))
        };
        let of_matrix = self.matrix.filter(|_| self.kernels).map(|value| {
            format!(
                "{:<48} {:>14}\n",
                "  of them, with one large matrix",
                amount(Rate::Device, value)
            )
        });
        self.rates.iter().map(line).chain(of_matrix).collect()
    }

    fn as_json(&self, kept: Option<&Path>) -> Value {
        let rates: Map<String, Value> =
            self.rates.iter().map(|&(rate, value)| (rate.name().into(), value.into())).collect();
        json!({
            "device": self.device,
            "file": kept.map(Path::to_string_lossy),
            "type": self.dtype.name(),
            "folder": self.folder,
            "rates": rates,
            "matrix_bytes_per_second": self.matrix,
            "device_measured_with": if self.kernels { "kernels" } else { "matrix" },
        })
    }
}

/// How fast the device reads its memory with kernels of a model's sizes, by what else is known of
/// it. `None` if that cannot be told.
async fn of_kernels(
    gpu: &mut Gpu,
    Opened { config, weights, .. }: &Opened<FileSource>,
    found: &[(Rate, f64)],
) -> Result<Option<f64>> {
    let assumed = Rates::assumed(kind(Some(gpu)));
    let rates = found.iter().try_fold(assumed, |rates, &(rate, value)| rates.with(rate, value))?;
    computing::of_model(gpu, config, weights, &rates, &mut check_interrupt).await
}

/// The rates of a model's files: of random experts and matrices, each read as when it is brought.
async fn of_model(opened: &Opened<FileSource>) -> Result<Vec<(Rate, f64)>> {
    let (config, weights) = (&opened.config, &opened.weights);
    let planner = Planner::placed(config, weights, DeviceLimits::BASELINE, least(config))?;
    let mut units = units(planner.model());
    shuffle(&mut units);
    let sources = weights.sources();
    let from_disk = sources.iter().all(FileSource::drop_cached);
    let ahead = Ahead::new(Stored::new(weights));
    of_units(&ahead, &units, from_disk).await
}

/// The rates of a file in the folder of the measurements, or of temporary files if there is none.
async fn of_scratch(globals: &Globals, terminal: Terminal) -> Result<Vec<(Rate, f64)>> {
    let file = globals.tuning_file();
    if let Some(file) = &file {
        make_parent(file)?;
    }
    let temporary = std::env::temp_dir();
    let folder = file.as_deref().and_then(Path::parent).unwrap_or(&temporary);
    let window: Vec<u8> =
        (0_u32..).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).take(WINDOW).collect();
    let scratch = match Scratch::new(folder, &window, WINDOWS, &mut check_interrupt) {
        Err(error @ Error::Io { .. }) => {
            terminal.warn(format!("not measured: {}: {error}", Rate::Files.what()));
            return Ok(Vec::new());
        }
        scratch => Arc::new(scratch?),
    };
    let from_disk = scratch.source().drop_cached();
    let name: Arc<str> = "scratch".into();
    let mut units: Vec<Vec<Read>> = (0..WINDOWS as u64 / 4)
        .map(|unit| {
            let rows = 4 * unit..4 * unit + 4;
            rows.map(|row0| Read { name: name.clone(), row0, rows: 1 }).collect()
        })
        .collect();
    shuffle(&mut units);
    let ahead = Ahead::new(Stored::new(&Windows(scratch)));
    of_units(&ahead, &units, from_disk).await
}

/// A scratch file as weights: a row is a window.
#[derive(Clone)]
struct Windows(Arc<Scratch>);

impl Weights for Windows {
    fn dtype(&self, _: &str) -> Result<DType> {
        Ok(DType::F32)
    }

    async fn read_rows(&self, _: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        into.resize(usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(WINDOW), 0);
        self.0.source().read(row0 * WINDOW as u64, into).await
    }
}

/// What is brought together of a model: an expert, or the matrices of a layer.
fn units(model: &Model) -> Vec<Vec<Read>> {
    let mut units = Vec::new();
    for (at, layer) in model.layers.iter().enumerate() {
        let mut pieces = Vec::new();
        for matrix in model.brought_whole(at) {
            matrix.pieces(&mut pieces);
        }
        units.push(pieces);
        if let Some(routed) = layer.feed_forward.routed() {
            let experts = 0..routed.rule.count;
            units.extend(experts.map(|expert| routed.experts.expert_pieces(expert, 0)));
        }
    }
    let reads = |pieces: &Vec<_>| pieces.iter().map(Piece::read).cloned().collect();
    units.iter().map(reads).filter(|unit: &Vec<_>| !unit.is_empty()).collect()
}

/// The same order each time, and none that a disk could read ahead in.
fn shuffle<T>(items: &mut [T]) {
    let mut state = 1_u64;
    for at in (1..items.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).unwrap_or_default() % (at + 1);
        items.swap(at, other);
    }
}

/// Reads units, and the same ones again from the system's memory. `from_disk` says whether they
/// were not in it before; where nobody knows, their time must say so.
async fn of_units(ahead: &Ahead, units: &[Vec<Read>], from_disk: bool) -> Result<Vec<(Rate, f64)>> {
    let (count, disk) = read(ahead, units).await?;
    let (_, memory) = read(ahead, &units[..count]).await?;
    let mut rates = Vec::new();
    if from_disk || disk < FROM_DISK * memory {
        rates.push((Rate::Files, disk));
    }
    rates.push((Rate::Cached, memory));
    Ok(rates)
}

/// Reads units for a while, as weights are brought. Returns how many, and the bytes by the second.
async fn read(ahead: &Ahead, units: &[Vec<Read>]) -> Result<(usize, f64)> {
    let (start, mut bytes, mut window) = (Instant::now(), 0, Vec::new());
    let mut count = 0;
    for unit in units {
        ahead.expect(unit.iter().cloned());
        for Read { name, row0, rows } in unit {
            ahead.read_rows(name, *row0, *rows, &mut window).await?;
            bytes += window.len() as u64;
        }
        count += 1;
        check_interrupt()?;
        if bytes >= MOST_READ || start.elapsed().as_secs_f64() > LONG {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    Ok((count, bytes as f64 / seconds))
}
