//! Quantized copies: their bytes, their logits, interrupted runs, and errors.

mod calibrate;
#[path = "../common/mod.rs"]
mod common;
mod stopped;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::round,
        quant,
        tensor::DType,
    },
    checkpoint::{
        Checkpoint, Synthetic,
        folder::{open_config, open_folder, write_checkpoint},
        quantize::{Outcome, Quantize, on_all_cores},
        requantize::{Choices, Requantized, in_turn},
        write::Layout,
    },
    engine::{SessionOptions, session::Session, step::Readback},
    files::native::FileSource,
    machine::{
        Machine,
        gpu::LimitProfile,
        host::{self, Host},
    },
    model::{
        config::Config,
        schema::{self, Kind},
        weights::Weights,
    },
};
use pollster::block_on;

const IDS: [u32; 37] = [
    11, 48, 85, 122, 159, 196, 233, 14, 51, 88, 125, 162, 199, 236, 17, 54, 91, 128, 165, 202, 239,
    20, 57, 94, 131, 168, 205, 242, 23, 60, 97, 134, 171, 208, 245, 26, 63,
];

/// A folder for files of a test.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn tiny(name: &str) -> Config {
    Config::preset(name).expect("the preset is there")
}

/// Writes a model of made-up weights.
fn original(dir: &Path, config: &Config, dtype: DType) -> PathBuf {
    let weights = Synthetic::new(config, dtype, 3).expect("weights");
    let dir = dir.join("original");
    block_on(write_checkpoint(&dir, config, &weights, Layout::TensorParallel { slices: 2 }))
        .expect("written");
    dir
}

fn open(dir: &Path) -> (Config, Arc<Checkpoint<FileSource>>) {
    let (config, warnings) = block_on(open_config(dir)).expect("a config");
    assert!(warnings.is_empty(), "{warnings:?}");
    let sources = open_folder(dir).expect("files");
    let checkpoint = block_on(Checkpoint::open(dir, sources, &config)).expect("a checkpoint");
    (config, Arc::new(checkpoint))
}

/// Quantizes; the `progress` callback interrupts the run after `calls` calls.
fn quantize(
    from: &Path,
    to: &Path,
    choices: Choices,
    layout: Layout,
    calls: usize,
) -> Result<Outcome> {
    let (config, checkpoint) = open(from);
    let mut left = calls;
    Quantize { from, to, choices, layout, importance: None }.run(&config, &checkpoint, &mut |_| {
        if left == 0 {
            return Err(Error::Interrupted);
        }
        left -= 1;
        Ok(())
    })
}

fn whole(from: &Path, to: &Path, choices: Choices) -> Outcome {
    quantize(from, to, choices, Layout::Single, usize::MAX).expect("quantized")
}

fn rows(weights: &impl Weights, name: &str, shape: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    block_on(weights.read_rows(name, 0, shape[0], &mut bytes)).expect("rows");
    bytes
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a plain name");
            (name, std::fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

#[test]
fn what_is_written_is_what_rounding_gives() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    for name in ["tokenizer.model", "tokenizer_config.json"] {
        std::fs::write(from.join(name), "{}").expect("written");
    }
    let to = dir.path().join("q4");
    let outcome = whole(&from, &to, Choices::of(DType::Q4));
    assert_eq!(outcome.files.last().map(String::as_str), Some("config.json"));
    let names: Vec<String> = files(&to).into_keys().collect();
    assert_eq!(
        names,
        ["config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"]
    );

    let (config, before) = open(&from);
    let (copied, after) = open(&to);
    assert_eq!(config, copied);
    let mut sums = BTreeMap::new();
    for want in schema::tensors(&config) {
        let name = &want.name;
        let dtype = after.dtype(name).expect("a tensor");
        let expected = match want.kind() {
            Kind::Norm | Kind::Router => DType::F32,
            Kind::Embedding | Kind::Head => DType::Q8,
            Kind::Attention | Kind::Dense | Kind::Expert => DType::Q4,
        };
        assert_eq!(dtype, expected, "{name}");
        let cols = usize::try_from(want.shape.iter().skip(1).product::<u64>()).expect("small");
        let values: Vec<f32> =
            host::decode_rows(DType::BF16, cols, &rows(&before, name, &want.shape))
                .into_iter()
                .map(round)
                .collect();
        let mut bytes = Vec::new();
        for row in values.chunks(cols) {
            if dtype.is_quantized() {
                quant::encode_row(dtype, row, &mut bytes);
            } else {
                bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        let stored = rows(&after, name, &want.shape);
        assert!(bytes == stored, "{name}");
        let back = host::decode_rows(dtype, cols, &stored);
        let sum: &mut [f64; 2] = sums.entry(want.kind()).or_default();
        for (value, back) in values.iter().zip(back) {
            sum[0] += f64::from(*value).powi(2);
            sum[1] += (f64::from(*value) - back).powi(2);
        }
    }
    // The reported sizes and losses agree with the files.
    for kind in &outcome.kinds {
        let [squares, error] = sums[&kind.kind];
        let expected = (error / squares).sqrt();
        assert!((kind.loss.relative() - expected).abs() <= 1e-9, "{:?}", kind.kind);
        let most = kind.worst.as_ref().map_or(0.0, |worst| worst.1);
        assert!(most >= kind.loss.relative() - 1e-9, "{:?}", kind.kind);
    }
    let total: u64 = outcome.kinds.iter().map(|kind| kind.after).sum();
    assert_eq!(total, after.bytes());
}

/// Logits after a prompt in chunks, and after two more tokens.
fn logits<M: Machine>(machine: M, dir: &Path) -> Vec<f32> {
    let (config, checkpoint) = open(dir);
    let sizes = SessionOptions::new(64, 32, DType::F32);
    let mut session =
        block_on(Session::load(machine, &config, &checkpoint, sizes, &mut |_| Ok(())))
            .expect("loads");
    let mut all = Vec::new();
    for part in IDS.chunks(20) {
        let rows = block_on(session.prefill(part, Readback::AllLogits)).expect("runs").rows;
        all.extend(rows.concat());
    }
    for id in [3, 200] {
        let reply = block_on(session.decode(id, Readback::Logits)).expect("runs");
        all.extend(reply.candidates.iter().map(|candidate| candidate.logit));
    }
    all
}

#[test]
fn the_device_has_the_logits_of_the_host() {
    for name in ["tiny", "tiny-grok-1"] {
        let dir = scratch();
        let config = tiny(name);
        let from = original(dir.path(), &config, DType::F32);
        for (dtype, layout) in [
            (DType::Q8, Layout::Single),
            (DType::Q4, Layout::Indexed { shards: 3 }),
            (DType::Q3, Layout::Single),
            (DType::Q2, Layout::Indexed { shards: 2 }),
        ] {
            // Of the types of few bits one model is enough.
            if name != "tiny" && matches!(dtype, DType::Q3 | DType::Q2) {
                continue;
            }
            let to = dir.path().join(dtype.name());
            let choices = Choices::of(dtype);
            quantize(&from, &to, choices, layout, usize::MAX).expect("quantized");
            let device = logits(common::open(LimitProfile::Baseline), &to);
            let host = logits(Host::default(), &to);
            assert_eq!(device.len(), (IDS.len() + 2) * config.vocab_size as usize);
            assert_eq!(device.len(), host.len());
            let worst = device.iter().zip(&host).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            eprintln!("{name} {dtype}: largest difference {worst:.1e}");
            assert!(worst <= 1e-4, "{name} {dtype}: {worst}");
            // The quantized copy was run, not the original.
            let exact = logits(common::open(LimitProfile::Baseline), &from);
            assert!(exact.iter().zip(&device).any(|(a, b)| (a - b).abs() > 1e-3), "{dtype}");
        }
    }
}

#[test]
fn threads_change_nothing() {
    let mut config = tiny("small");
    config.vocab_size = 8192;
    let weights = Synthetic::new(&config, DType::F16, 1).expect("weights");
    let choices = Choices::of(DType::Q4);
    let shape = [u64::from(config.vocab_size), u64::from(config.hidden_size)];
    let read = |spread| {
        let mut progress = |_| Ok(());
        let path = Path::new("made up");
        let weights = Requantized::new(path, &config, &weights, &choices, spread, &mut progress)
            .expect("all tensors");
        let bytes = rows(&weights, schema::EMBEDDING, &shape);
        (bytes, weights.loss(schema::EMBEDDING))
    };
    assert!(shape[0] * shape[1] > 4 << 16, "several jobs");
    assert!(read(in_turn) == read(on_all_cores));
}

/// Weights with one value that is not finite.
struct Broken(Synthetic, f32);

impl Weights for Broken {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.0.dtype(name)
    }
    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.0.read_rows(name, row0, rows, into).await?;
        if name.ends_with("layers.1.self_attn.v_proj.weight") {
            // Row 2, column 5.
            let at = (2 * 64 + 5) * 4;
            into[at..at + 4].copy_from_slice(&self.1.to_le_bytes());
        }
        Ok(())
    }
}

#[test]
fn weights_that_cannot_be_held_are_named() {
    let config = tiny("tiny");
    for (value, why) in [
        (f32::NAN, "NaN: wanted finite"),
        (f32::NEG_INFINITY, "-inf: wanted finite"),
        (1e30, "Q4 cannot hold that"),
    ] {
        let dir = scratch();
        let from = dir.path().join("broken");
        let weights = Broken(Synthetic::new(&config, DType::F32, 0).expect("weights"), value);
        block_on(write_checkpoint(&from, &config, &weights, Layout::Single)).expect("written");
        let to = dir.path().join("to");
        let error = quantize(&from, &to, Choices::of(DType::Q4), Layout::Single, usize::MAX)
            .expect_err("refused");
        assert_eq!(error.code(), "checkpoint");
        let text = error.to_string();
        let place = "`model.layers.1.self_attn.v_proj.weight`: element 133 (row 2, column 5) is ";
        assert!(text.contains(place) && text.contains(why), "{text}");
    }
}

#[test]
fn choices_have_sound_defaults_and_limits() {
    let mut choices = Choices::of(DType::Q4);
    assert_eq!(choices.get(Kind::Head), Some(DType::Q8));
    assert_eq!(choices.get(Kind::Embedding), Some(DType::Q8));
    assert_eq!(choices.get(Kind::Expert), Some(DType::Q4));
    assert_eq!(choices.get(Kind::Router), Some(DType::F32));
    assert_eq!(Choices::of(DType::Q8).get(Kind::Attention), Some(DType::Q8));
    for kind in [Kind::Router, Kind::Norm] {
        let error = choices.set(kind, Some(DType::Q8)).expect_err("refused");
        assert!(error.to_string().contains(kind.name()), "{error}");
    }
    choices.set(Kind::Head, Some(DType::Q4)).expect("may be");
    choices.set(Kind::Expert, None).expect("may stay");
    choices.set(Kind::Dense, Some(DType::F16)).expect("may be");

    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    let to = dir.path().join("mixed");
    whole(&from, &to, choices);
    let (config, after) = open(&to);
    for want in schema::tensors(&config) {
        let expected = match want.kind() {
            Kind::Head | Kind::Attention => DType::Q4,
            Kind::Embedding => DType::Q8,
            Kind::Expert => DType::BF16,
            Kind::Dense => DType::F16,
            Kind::Norm | Kind::Router => DType::F32,
        };
        assert_eq!(after.dtype(&want.name).expect("there"), expected, "{}", want.name);
    }
    let text = std::fs::read_to_string(to.join("config.json")).expect("a config");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let about = &value["quantization_config"];
    assert_eq!(about["quant_method"], "grok-wgpu");
    assert_eq!(about["block_size"], 32);
    assert_eq!(about["types"]["expert"], "BF16");
    assert_eq!(about["types"]["head"], "Q4");
}

#[test]
fn rows_that_are_no_blocks_stay_as_they_are() {
    let config = tiny("tiny").with_widths(128, 40);
    let dir = scratch();
    let from = original(dir.path(), &config, DType::BF16);
    let to = dir.path().join("to");
    let outcome = whole(&from, &to, Choices::of(DType::Q8));
    let (_, after) = open(&to);
    let at = |name: &str| format!("model.layers.0.block_sparse_moe.experts.1.{name}.weight");
    assert_eq!(after.dtype(&at("w1")).expect("there"), DType::Q8);
    assert_eq!(after.dtype(&at("w2")).expect("there"), DType::BF16);
    let experts = outcome.kinds.iter().find(|kind| kind.kind == Kind::Expert).expect("experts");
    let count = config.num_hidden_layers() * config.num_local_experts();
    assert_eq!(experts.unchanged, count as usize);
    assert_eq!(experts.types[&DType::BF16], count as usize);
}

#[test]
fn a_block_size_that_is_not_ours_is_refused() {
    let config = tiny("tiny");
    let mut value: serde_json::Value = serde_json::from_str(&config.to_json()).expect("JSON");
    let mut parse = |about: serde_json::Value| {
        value["quantization_config"] = about;
        Config::from_json(Path::new("config.json"), &value.to_string())
    };
    let ours = |size: u32| serde_json::json!({"quant_method": "grok-wgpu", "block_size": size});
    assert!(parse(ours(32)).expect("good").1.is_empty());
    let error = parse(ours(64)).expect_err("not ours").to_string();
    assert!(error.contains("quantization_config.block_size is 64, wanted 32"), "{error}");
    let theirs = serde_json::json!({"quant_method": "gptq"});
    let error = parse(theirs).expect_err("not read").to_string();
    assert!(error.contains("gptq"), "{error}");
}

#[test]
fn a_width_of_no_type_is_told() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    let to = dir.path().join("to");
    whole(&from, &to, Choices::of(DType::Q8));
    // The same bytes, with rows of another width.
    let path = to.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    let shape = format!("\"shape\":[256,{}]", DType::Q8.row_bytes(64));
    let found = bytes.windows(shape.len()).position(|window| window == shape.as_bytes());
    let at = found.expect("a table of 256 rows");
    let other = "\"shape\":[320,64]";
    assert_eq!(shape.len(), other.len());
    bytes[at..at + other.len()].copy_from_slice(other.as_bytes());
    std::fs::write(&path, bytes).expect("written");
    let (config, _) = block_on(open_config(&to)).expect("a config");
    let error = block_on(Checkpoint::open(&to, open_folder(&to).expect("files"), &config))
        .expect_err("no such width")
        .to_string();
    for part in ["U8 [320, 64]", "rows of 80 bytes (Q8)", "48 (Q4) or 32 (Q2)", "of 32 (Q3)"] {
        assert!(error.contains(part), "{error}");
    }
}
