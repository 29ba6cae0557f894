//! `quantize`: writes a smaller copy of a model.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueEnum};
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::size,
        tensor::DType,
    },
    checkpoint::{
        ModelFiles,
        folder::folder_of,
        importance::Importance,
        open::Opened,
        quantize::{Outcome, Quantize, refuse_others},
        requantize::{Choices, KindReport},
        write::Layout,
    },
    engine::{SessionOptions, segments::Segmented},
    files::native::{FileSource, read_text},
    measure::calibrate::{Taps, calibrate},
    model::schema::Kind,
};
use serde_json::{Value, json};

use super::{
    globals::Globals,
    memory::MemoryOption,
    model::{load_wrapped, locate, open, tokenizer},
    signals::{check_interrupt, keep},
    sizes::Sizes,
    terminal::{out, out_json},
};

/// Largest text to calibrate with, in bytes. Only its beginning is read by the model.
const MAX_TEXT: u64 = 1 << 30;

/// Windows of the text are this long where the model allows it.
const WINDOW: u32 = 512;

/// The shortest text that says something of a model, in tokens.
const FEWEST_TOKENS: usize = 32;

/// Write a smaller copy of a model
///
/// Weights are rounded to 8 or 4 bits, in blocks of 32 that share a scale, or to 3 or 2, in blocks
/// of 16. Norms and routers stay F32. With --type q4, q3 and q2 the embedding table and the head
/// get 8 bits, and with q3 and q2 attention does. A run that was stopped goes on where it was when
/// the same command is given again.
///
/// With --calibrate, the model reads a text first, on the adapter, and the errors of a matrix count
/// by how large its inputs are there. That costs no bits. The text should be like those that the
/// model will be used for. The same text on the same adapter gives the same files.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu quantize models/demo demo-q4 --type q4
  grok-wgpu quantize grok-2 grok-2-q4 --type q4 --tensor attention=q8 --shards 40
  grok-wgpu quantize models/demo demo-q8 --type q8 --json
  grok-wgpu quantize models/demo demo-q2 --type q2 --calibrate book.txt

KIND is embedding, attention, expert, dense, head, norm or router.
TYPE is q8, q4, q3, q2, f32, f16, bf16, or keep for the type that is stored.")]
pub(super) struct Options {
    /// Folder or file of the model, or `hf://OWNER/NAME`
    model: PathBuf,
    /// Folder to write: a new one, or one that an earlier run left unfinished
    out: PathBuf,
    /// Element type of matrices
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    element: Type,
    /// Element type of a kind of tensor; may be given several times
    #[arg(long = "tensor", value_name = "KIND=TYPE", value_parser = choice)]
    tensors: Vec<(Kind, Option<DType>)>,
    /// Files to spread the weights over
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// A text that the model reads first, so that errors count where its inputs are large
    #[arg(long, value_name = "TEXT")]
    calibrate: Option<PathBuf>,
    /// Tokens of the text that the model reads, from its beginning
    #[arg(long, value_name = "TOKENS", default_value = "4096", requires = "calibrate")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    calibrate_tokens: u32,
    /// For --calibrate, which runs the model
    #[command(flatten)]
    memory: MemoryOption,
}

/// Types with blocks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    Q8,
    Q4,
    Q3,
    Q2,
}

/// `KIND=TYPE`.
fn choice(text: &str) -> Result<(Kind, Option<DType>), String> {
    let (kind, dtype) = text.split_once('=').ok_or("wanted KIND=TYPE, as in head=q8")?;
    let kinds = Kind::ALL.map(Kind::name).join(", ");
    let kind = Kind::ALL
        .into_iter()
        .find(|known| known.name() == kind)
        .ok_or_else(|| format!("there is no kind {kind}; there are {kinds}"))?;
    let dtype = match dtype {
        "keep" => None,
        "q8" => Some(DType::Q8),
        "q4" => Some(DType::Q4),
        "q3" => Some(DType::Q3),
        "q2" => Some(DType::Q2),
        "f32" => Some(DType::F32),
        "f16" => Some(DType::F16),
        "bf16" => Some(DType::BF16),
        _ => {
            return Err(format!(
                "type {dtype} is not known; q8, q4, q3, q2, f32, f16, bf16 and keep are"
            ));
        }
    };
    Ok((kind, dtype))
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let mut choices = Choices::of(match options.element {
        Type::Q8 => DType::Q8,
        Type::Q4 => DType::Q4,
        Type::Q3 => DType::Q3,
        Type::Q2 => DType::Q2,
    });
    for &(kind, dtype) in &options.tensors {
        choices.set(kind, dtype)?;
    }
    let terminal = globals.terminal();
    let opened = open(&locate(Some(&options.model)), globals).await?;
    if let ModelFiles::Gguf(_) = &*opened.weights {
        return Err(Error::Usage(format!(
            "{} is a GGUF file, whose tokenizer cannot be written to a folder",
            options.model.display()
        ))
        .with_hint("Quantize the safetensors that it was made of."));
    }
    let importance = match &options.calibrate {
        Some(text) => Some(importance(globals, options, &choices, &opened, text).await?),
        None => None,
    };
    let task = Quantize {
        from: folder_of(opened.weights.path()),
        to: &options.out,
        choices,
        layout: options.shards.map_or(Layout::Single, |shards| Layout::Indexed { shards }),
        importance: importance.as_ref(),
    };
    let total = opened.weights.bytes();
    let bar = terminal.bar("quantizing", total, true);
    let start = Instant::now();
    let kept = keep();
    let result = task.run(&opened.config, &opened.weights, &mut |bytes| {
        bar.inc(bytes);
        check_interrupt()
    });
    drop(kept);
    bar.finish_and_clear();
    if matches!(result, Err(Error::Interrupted)) {
        terminal.note("stopped; the same command goes on from here");
    }
    let outcome = result?;
    let seconds = start.elapsed().as_secs_f64();
    if outcome.replaced > 0 {
        terminal.note(format!(
            "{} tensors of an earlier run were made of other weights than {} has now, or come \
             after such a one in their file; they were made anew",
            outcome.replaced,
            options.model.display()
        ));
    }
    if outcome.resumed > 0 {
        terminal.note(format!("{} tensors were there from an earlier run", outcome.resumed));
    }
    if globals.json {
        return out_json(&as_json(&outcome, importance.as_ref(), seconds));
    }
    out(&table(&outcome, seconds))?;
    let (from, to) = (options.model.display(), options.out.display());
    let [_, _, after] = totals(&outcome.kinds);
    terminal.note(format!(
        "wrote {to}: {} of weights and what belongs to them in {} files\n\
         next: grok-wgpu chat {to}\n      \
         grok-wgpu perplexity {to} TEXT --against {from}   # what it costs in quality",
        size(after),
        outcome.files.len()
    ));
    Ok(())
}

/// Has the model read the beginning of a text, and adds up the inputs of its matrices.
async fn importance(
    globals: &Globals,
    options: &Options,
    choices: &Choices,
    opened: &Opened<FileSource>,
    text: &Path,
) -> Result<Importance> {
    // What cannot be written is told before the model is loaded.
    refuse_others(&options.out)?;
    let weighted = |kind| {
        choices.get(kind).and_then(DType::integers).is_some_and(|integers| integers.bits < 8)
    };
    if !Kind::ALL.into_iter().any(weighted) {
        return Err(Error::Usage(
            "--calibrate needs a type of 4 bits or fewer: the errors of others are too small to be \
             moved"
                .into(),
        )
        .with_hint("Leave --calibrate out, or choose --type q4, q3 or q2."));
    }
    let read = read_text(text, MAX_TEXT).await?;
    let tokenizer = tokenizer(globals, opened).await?;
    let mut ids = tokenizer.encode(&read)?;
    ids.truncate(options.calibrate_tokens as usize);
    if ids.len() < FEWEST_TOKENS {
        return Err(Error::Usage(format!(
            "{} tokens of {} are too few to calibrate with, at least {FEWEST_TOKENS} are needed",
            ids.len(),
            text.display()
        ))
        .with_hint("Give a longer text, or a larger --calibrate-tokens."));
    }
    let window = WINDOW.min(opened.config.max_position_embeddings);
    let sizes = Sizes::from(SessionOptions::new(window, window, DType::F32));
    let wrap = |gpu| Segmented::new(gpu, Taps::default());
    let mut session = load_wrapped(globals, opened, sizes.within(options.memory), wrap).await?;
    let terminal = globals.terminal();
    let bar = terminal.bar("calibrating", ids.len() as u64, false);
    let start = Instant::now();
    let mut progress = |tokens: usize| {
        bar.inc(tokens as u64);
        check_interrupt()
    };
    let sums = calibrate(&mut session, tokenizer.begin_ids(), &ids, &mut progress).await;
    bar.finish_and_clear();
    let sums = sums?;
    terminal.note(format!(
        "calibrated with {} tokens of {} in {:.1} s",
        ids.len(),
        text.display(),
        start.elapsed().as_secs_f64()
    ));
    let unreached = sums.unreached();
    if let Some((layer, expert)) = unreached.first() {
        terminal.warn(format!(
            "{} experts were chosen for no token of {}, the first of them expert {expert} of layer \
             {layer}: their weights are rounded by the inputs of the other experts of their layer",
            unreached.len(),
            text.display()
        ));
    }
    Ok(sums)
}

/// Bits of memory that an element takes.
fn bits(bytes: u64, elements: u64) -> f64 {
    8.0 * bytes as f64 / elements.max(1) as f64
}

fn types(kind: &KindReport) -> String {
    let names: Vec<&str> = kind.types.keys().map(|dtype| dtype.name()).collect();
    names.join("+")
}

fn totals(kinds: &[KindReport]) -> [u64; 3] {
    kinds.iter().fold([0; 3], |[elements, before, after], kind| {
        [elements + kind.elements, before + kind.before, after + kind.after]
    })
}

fn table(outcome: &Outcome, seconds: f64) -> String {
    let mut lines = vec![format!(
        "{:<10} {:<8} {:>12} {:>12} {:>6} {:>9}  {}",
        "kind", "type", "before", "after", "bits", "error", "worst tensor"
    )];
    for kind in &outcome.kinds {
        let worst = kind
            .worst
            .as_ref()
            .map_or(String::new(), |(name, error)| format!("{:.4}% {name}", 100.0 * error));
        lines.push(format!(
            "{:<10} {:<8} {:>12} {:>12} {:>6.3} {:>8.4}%  {worst}",
            kind.kind.name(),
            types(kind),
            size(kind.before),
            size(kind.after),
            bits(kind.after, kind.elements),
            100.0 * kind.loss.relative(),
        ));
    }
    let [elements, before, after] = totals(&outcome.kinds);
    lines.push(format!(
        "{:<10} {:<8} {:>12} {:>12} {:>6.3}",
        "all",
        "",
        size(before),
        size(after),
        bits(after, elements)
    ));
    for kind in outcome.kinds.iter().filter(|kind| kind.unchanged > 0) {
        lines.push(format!(
            "{} tensors of kind {} stayed as they were: their rows are not whole blocks of 32",
            kind.unchanged,
            kind.kind.name()
        ));
    }
    let rate = before as f64 / 1e6 / seconds.max(1e-9);
    lines.push(format!("{seconds:.2} s, {rate:.0} MB/s of stored weights"));
    lines.join("\n") + "\n"
}

fn as_json(outcome: &Outcome, importance: Option<&Importance>, seconds: f64) -> Value {
    let kinds: Vec<Value> = outcome
        .kinds
        .iter()
        .map(|kind| {
            let types: serde_json::Map<String, Value> = kind
                .types
                .iter()
                .map(|(dtype, count)| (dtype.name().to_owned(), json!(count)))
                .collect();
            json!({
                "kind": kind.kind.name(),
                "types": types,
                "elements": kind.elements,
                "bytes_before": kind.before,
                "bytes_after": kind.after,
                "bits_per_weight": bits(kind.after, kind.elements),
                "relative_error": kind.loss.relative(),
                "worst_tensor": kind.worst.as_ref().map(|(name, error)| {
                    json!({"name": name, "relative_error": error})
                }),
                "not_in_blocks": kind.unchanged,
            })
        })
        .collect();
    let [elements, before, after] = totals(&outcome.kinds);
    json!({
        "kinds": kinds,
        "elements": elements,
        "bytes_before": before,
        "bytes_after": after,
        "bits_per_weight": bits(after, elements),
        "calibration": importance.map(|importance| {
            json!({
                "tokens": importance.tokens(),
                "experts_not_reached": importance.unreached().len(),
            })
        }),
        "resumed_tensors": outcome.resumed,
        "replaced_tensors": outcome.replaced,
        "files": outcome.files,
        "seconds": seconds,
    })
}
