//! A made-up Grok-2 in the released layout, from its files to text, in less memory than it takes.
//!
//! The files are mostly holes: of every stretch of a tensor only the beginning has numbers, so that
//! a wrong offset changes logits. With `GROK_WGPU_FULL=true` widths are the released ones, which
//! makes four layers of 38 GB; else they are small, and all else is the same.

#![cfg(target_os = "linux")]

#[path = "../common/full.rs"]
mod full;

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{
        Synthetic,
        write::{self, Layout},
    },
    model::{config::Config, schema, weights::Weights},
    text::tokenizer::synthetic_tok_json,
};
use pollster::block_on;
use serde_json::Value;

/// Free bytes of the disk without which the large model is not made.
const DISK: u64 = 16_000_000_000;
/// Host memory that `quantize` takes at the most, however large a model is: windows of its files.
const QUANTIZE: u64 = 128 << 20;
/// Host memory by which two runs of a program differ: allocators and threads.
const NOISE: u64 = 32 << 20;
/// Tokens that have numbers in the embedding table.
const IDS: &str = "1,5,9,2";

/// How large the model is.
struct Scale {
    config: Config,
    /// Bytes of a tensor of which the first `numbers` are not zeros.
    stretch: u64,
    numbers: u64,
}

impl Scale {
    fn of(full: bool) -> Self {
        let released = Config::preset("grok-2").expect("a preset").with_layers(4);
        if full {
            return Self { config: released, stretch: 64 << 20, numbers: 1 << 20 };
        }
        let mut config = released.with_head_dim(32).with_widths(512, 256);
        (config.vocab_size, config.hidden_size) = (512, 256);
        (config.num_attention_heads, config.num_key_value_heads) = (8, 2);
        Self { config, stretch: 64 << 10, numbers: 8 << 10 }
    }
}

/// Whether the number at this place of a matrix has the other sign. What a model of real width is
/// made of repeats, so without that slices would be alike, and an offset that is wrong by a period
/// would change nothing.
fn is_turned(at: u64) -> bool {
    let mut bits = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (bits ^ (bits >> 29)) & 1 == 1
}

/// Weights of which matrices are mostly zeros.
struct Holes<'a> {
    weights: Synthetic,
    scale: &'a Scale,
}

impl Weights for Holes<'_> {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let tensors = schema::tensors(&self.scale.config);
        let shape = tensors.iter().find(|tensor| tensor.name == name).map(|tensor| &tensor.shape);
        let cols = shape.and_then(|shape| (shape.len() > 1).then(|| shape[1..].iter().product()));
        let Some(cols) = cols else {
            return self.weights.read_rows(name, row0, rows, into).await;
        };
        let row: u64 = self.dtype(name)?.row_bytes(cols);
        into.clear();
        let mut one = Vec::new();
        for at in row0..row0 + rows {
            let (begin, end) = (at * row, (at + 1) * row);
            let mut bytes = vec![0; usize::try_from(row).expect("a row is short")];
            // Numbers that begin in this row, or before it and reach into it.
            let first = begin / self.scale.stretch * self.scale.stretch;
            for from in (first..end).step_by(usize::try_from(self.scale.stretch).expect("small")) {
                let (low, high) = (from.max(begin), (from + self.scale.numbers).min(end));
                if low < high {
                    self.weights.read_rows(name, at, 1, &mut one).await?;
                    let [low, high] =
                        [low, high].map(|at| usize::try_from(at - begin).expect("a row is short"));
                    bytes[low..high].copy_from_slice(&one[low..high]);
                    // The second byte of a number has its sign.
                    for i in (low..high).step_by(2).filter(|&i| is_turned(begin + i as u64)) {
                        bytes[i + 1] ^= 0x80;
                    }
                }
            }
            into.extend(bytes);
        }
        Ok(())
    }
}

/// A file whose zeros are holes.
struct Sparse(File);

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // One piece is numbers or zeros as a whole, or is written.
        let piece = &bytes[..bytes.len().min(1 << 16)];
        if piece.iter().all(|&byte| byte == 0) {
            self.0
                .seek(SeekFrom::Current(i64::try_from(piece.len()).expect("a piece is short")))?;
        } else {
            self.0.write_all(piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A folder of such files.
struct Folder<'a>(&'a Path);

impl write::Output for Folder<'_> {
    type File = Sparse;

    fn create(&mut self, name: &str) -> Result<Sparse> {
        let path = self.0.join(name);
        File::create(&path).map(Sparse).map_err(|error| Error::io(&path, error))
    }

    fn finish(&mut self, name: &str, mut file: Sparse) -> Result<()> {
        let end = file.0.stream_position().and_then(|end| file.0.set_len(end));
        end.map_err(|error| Error::io(name, error))
    }
}

/// What a run of the program gave, and the most memory that it had at once.
struct Ran {
    output: Output,
    peak: u64,
}

/// Runs the program, and looks every few milliseconds at the most that it had so far.
fn run(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grok-wgpu"));
    command.args(args).env("GROK_WGPU_TUNING", "none").stdin(Stdio::null());
    // Files, since nobody reads from a pipe before the program ends.
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().expect("a file"));
    let [out, err] = [&stdout, &stderr].map(|file| file.try_clone().expect("another handle"));
    let mut child = command.stdout(out).stderr(err).spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("it is a child").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default() << 10);
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().expect("it has ended");
    let [stdout, stderr] = [&mut stdout, &mut stderr].map(|file| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what it wrote");
        bytes
    });
    Ran { output: Output { status, stdout, stderr }, peak }
}

fn good(args: &[&str]) -> (String, u64) {
    let Ran { output, peak } = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    assert!(peak > 0, "{args:?}: no memory was seen");
    (String::from_utf8(output.stdout).expect("text"), peak)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&good(args).0).expect("JSON")
}

fn make(folder: &Path, scale: &Scale) {
    std::fs::create_dir(folder).expect("a folder");
    let weights = Synthetic::new(&scale.config, DType::BF16, 0).expect("weights");
    let holes = Holes { weights, scale };
    let layout = Layout::TensorParallel { slices: 8 };
    block_on(write::write(&mut Folder(folder), &scale.config, &holes, layout)).expect("written");
    let tokenizer = synthetic_tok_json(scale.config.vocab_size).expect("a tokenizer");
    std::fs::write(folder.join("tokenizer.tok.json"), tokenizer).expect("written");
}

/// Bytes that the files of a folder seem to have, and those that they take on the disk.
fn bytes_of(folder: &Path) -> [u64; 2] {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).expect("a folder");
    let all = entries.map(|entry| entry.expect("a file").metadata().expect("a size"));
    all.fold([0, 0], |[seem, take], file| [seem + file.len(), take + 512 * file.blocks()])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The least memory, as `inspect` names it.
fn least(model: &str, sizes: &[&str]) -> u64 {
    let args = [&["inspect", model, "--device-memory", "1B"], sizes].concat();
    let (card, _) = good(&args);
    let (_, after) = card.split_once("The least is --device-memory ").expect("what would do");
    let word = after.split_whitespace().next().expect("a size");
    word.trim_end_matches('B').parse().expect("bytes")
}

#[test]
fn a_model_is_quantized_and_runs_in_the_least_memory() {
    let full = full::is_full();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let free = fs4::available_space(folder.path()).expect("a disk");
    if full && free < DISK {
        eprintln!("the model of 38 GB was left out: the disk has {free} bytes free, not {DISK}");
        return;
    }
    let scale = Scale::of(full);
    let (released, copy): (PathBuf, PathBuf) =
        (folder.path().join("released"), folder.path().join("q4"));
    make(&released, &scale);
    let [seem, take] = bytes_of(&released);
    // Of small matrices the disk's blocks leave few holes.
    assert!(take < if full { seem / 2 } else { seem }, "{seem} bytes take {take} on the disk");
    assert!(!full || seem > 38_000_000_000 - 2_000_000_000, "{seem} bytes");

    let card = json(&["inspect", text(&released), "--no-device", "--json"]);
    assert!(card.is_object());
    let (_, peak) = good(&["quantize", text(&released), text(&copy), "--type", "q4"]);
    eprintln!("{seem} bytes, {take} on the disk; quantize had {peak} at the most");
    assert!(peak < QUANTIZE, "quantize took {peak} bytes of memory");

    let model = text(&copy);
    let sizes = ["--context", "12", "--prefill", "4"];
    let least = least(model, &sizes);
    // Code, shaders and the driver, with the demo model, which has few tensors in comparison.
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    let bench = ["bench", demo, "--prompt", "4", "--tokens", "8", "--repeats", "1", "--json"];
    let (_, program) = good(&bench);
    let mut logits = Vec::new();
    for memory in [least, least + least / 5] {
        let given = format!("{memory}B");
        let given = ["--device-memory", given.as_str()];
        let args = [&["inspect", model, "--json"], &sizes[..], &given].concat();
        let placement = &json(&args)["placement"];
        let planned = placement["total_bytes"].as_u64().expect("a plan");
        assert!(planned <= memory && placement["whole"] == false, "{placement}");
        let bench = ["bench", model, "--prompt", "4", "--tokens", "8", "--repeats", "1", "--json"];
        let (out, peak) = good(&[&bench[..], &["--prefill", "4"], &given].concat());
        let bench: Value = serde_json::from_str(&out).expect("JSON");
        let held = bench["allocated_bytes"].as_u64().expect("bytes");
        eprintln!("in {memory} bytes: planned {planned}, held {held}, the host {peak}");
        assert!(held.abs_diff(planned) * 20 <= planned, "{held} bytes held, {planned} planned");
        // The tensors of a software device are in the host's memory.
        let most = program + planned + planned / 20 + NOISE;
        assert!(peak < most, "{peak} bytes of the host, {planned} planned, a program {program}");
        logits.push(good(&[&["logits", model, "--ids", IDS, "--json"], &given[..]].concat()).0);
    }
    assert_eq!(logits[0], logits[1], "the logits depend on the memory");
    assert!(logits[0].len() > 20, "{}", logits[0]);
    let less = format!("{}B", least - 1);
    let bench = ["bench", model, "--prompt", "4", "--tokens", "8", "--prefill", "4"];
    let refused = run(&[&bench[..], &["--device-memory", &less]].concat()).output;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
}
