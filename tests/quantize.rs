//! Quantized copies: their bytes, their logits, interrupted runs, and errors.

mod common;

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
    Quantize { from, to, choices, layout }.run(&config, &checkpoint, &mut |_| {
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
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    for (layout, label) in [(Layout::Single, "one"), (Layout::Indexed { shards: 4 }, "four")] {
        let straight = dir.path().join(label);
        let choices = || Choices::of(DType::Q4);
        let outcome = quantize(&from, &straight, choices(), layout, usize::MAX).expect("whole");
        assert_eq!(outcome.resumed, 0);
        for calls in [0, 1, 7, 30] {
            let to = dir.path().join(format!("{label}-{calls}"));
            // Interrupt the run twice, the second time a little later.
            for calls in [calls, calls + 3] {
                let error = quantize(&from, &to, choices(), layout, calls).expect_err("stopped");
                assert!(matches!(error, Error::Interrupted), "{error}");
                assert!(!to.join("config.json").exists(), "an unfinished copy has no name");
            }
            // A crash may leave a partial tensor, and half a line in the journal.
            for (name, mut bytes) in files(&to) {
                bytes.extend_from_slice(b"{\"file");
                std::fs::write(to.join(name), bytes).expect("written");
            }
            let again = quantize(&from, &to, choices(), layout, usize::MAX).expect("goes on");
            assert!(again.resumed >= calls, "{} of {calls}", again.resumed);
            assert!(files(&to) == files(&straight), "{label} {calls}");
            let losses = |outcome: &Outcome| -> Vec<_> {
                outcome
                    .kinds
                    .iter()
                    .map(|kind| (kind.kind, kind.loss, kind.worst.clone()))
                    .collect()
            };
            assert_eq!(losses(&again), losses(&outcome));
        }
    }
}

/// The room on the disk is compared with what is still to be written before anything is.
#[test]
fn a_copy_that_has_no_room_is_refused_at_first() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    std::fs::write(from.join("LICENSE"), vec![b'x'; 5000]).expect("written");
    for (layout, label) in [(Layout::Single, "one"), (Layout::Indexed { shards: 4 }, "four")] {
        let choices = || Choices::of(DType::Q4);
        let straight = dir.path().join(label);
        quantize(&from, &straight, choices(), layout, usize::MAX).expect("whole");
        let total: usize = files(&straight).values().map(Vec::len).sum();
        let (config, checkpoint) = open(&from);
        // The journal's lines; its own bytes are all that is not known before.
        let journal = 512 * checkpoint.tensors().count();
        let to = dir.path().join(format!("{label}-again"));
        let within = |room: usize, calls: usize| {
            let mut left = calls;
            let task = Quantize { from: &from, to: &to, choices: choices(), layout };
            task.run_within(&|| Some(room as u64), &config, &checkpoint, &mut |_| {
                left = left.checked_sub(1).ok_or(Error::Interrupted)?;
                Ok(())
            })
        };
        let refused = |room: usize| {
            let error = within(room, usize::MAX).expect_err("no room");
            assert_eq!(error.code(), "io");
            let told = error.to_string();
            assert!(told.starts_with(&*to.to_string_lossy()), "{told}");
            assert!(told.contains(&format!("the disk has {room} B ({room} bytes)")), "{told}");
            assert!(error.hint().contains("Make room on that disk"), "{}", error.hint());
            told
        };
        let told = refused(10);
        assert!(told.contains(&format!("({} bytes), and the disk", total + journal)), "{told}");
        assert!(within(total + journal - 1, usize::MAX).is_err());
        // What an earlier run has written is not counted again.
        assert!(matches!(within(total + journal, 9), Err(Error::Interrupted)));
        let there: usize = files(&to)
            .iter()
            .filter(|(name, _)| name.as_str() != "quantize.journal")
            .map(|(_, bytes)| bytes.len())
            .sum();
        assert!(there > 0);
        assert!(within(total - there + journal, usize::MAX).is_ok());
        assert!(files(&to) == files(&straight));
    }
}

/// Overwrites bytes of a file with those of `all`, except where `keep` says so; the modification
/// time stays the same.
fn replace(path: &Path, all: &Path, keep: impl Fn(usize) -> bool) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
    let time = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    let mut bytes = std::fs::read(path).expect("a file");
    let others = std::fs::read(all).expect("a file");
    assert_eq!(bytes.len(), others.len());
    for (at, (byte, other)) in bytes.iter_mut().zip(&others).enumerate() {
        if !keep(at) {
            *byte = *other;
        }
    }
    std::fs::write(path, bytes).expect("written");
    file.set_modified(time).expect("its time");
}

/// Whether to keep the byte at an offset, in a file of some length.
type Keep = fn(usize, usize) -> bool;

#[test]
fn weights_that_were_replaced_are_not_mixed_with_the_earlier_ones() {
    let config = tiny("tiny");
    let single = |dir: &Path, seed| {
        let weights = Synthetic::new(&config, DType::BF16, seed).expect("weights");
        block_on(write_checkpoint(dir, &config, &weights, Layout::Single)).expect("written");
    };
    let dir = scratch();
    let other = dir.path().join("other");
    single(&other, 4);
    let choices = || Choices::of(DType::Q4);
    let name = "model.safetensors";
    let len = usize::try_from(std::fs::metadata(other.join(name)).expect("a file").len());
    let len = len.expect("small");
    // Different amounts of data are replaced, also where neither end of a file shows it.
    let ways: [(&str, Keep); 3] = [
        ("all", |_, _| false),
        ("the second half", |at, len| at < len / 2),
        ("one byte in the middle", |at, len| at != len / 2),
    ];
    for (number, (what, keep)) in ways.into_iter().enumerate() {
        for (layout, calls) in [(Layout::Single, 30), (Layout::Indexed { shards: 4 }, 31)] {
            let at = |name: &str| dir.path().join(format!("{name} {number} {calls}"));
            let from = at("from");
            single(&from, 3);
            let to = at("to");
            let stop = |calls| {
                let error = quantize(&from, &to, choices(), layout, calls).expect_err("stopped");
                assert!(matches!(error, Error::Interrupted), "{error}");
            };
            stop(calls);
            replace(&from.join(name), &other.join(name), |at| keep(at, len));
            // Interrupt it during the check of earlier output, and later.
            stop(2);
            stop(calls + 4);
            let again = quantize(&from, &to, choices(), layout, usize::MAX).expect("goes on");
            let fresh = at("fresh");
            let straight = quantize(&from, &fresh, choices(), layout, usize::MAX).expect("whole");
            assert_eq!((straight.resumed, straight.replaced), (0, 0));
            assert!(files(&to) == files(&fresh), "{what}, {layout:?}: a mixture");
            // The reported losses are those of the files.
            let losses = |outcome: &Outcome| -> Vec<_> {
                outcome.kinds.iter().map(|kind| (kind.kind, kind.loss)).collect()
            };
            assert_eq!(losses(&again), losses(&straight), "{what}");
        }
    }
}

#[test]
fn what_was_replaced_is_told_and_what_was_not_is_kept() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    let to = dir.path().join("to");
    let run = |calls| quantize(&from, &to, Choices::of(DType::Q8), Layout::Single, calls);
    run(20).expect_err("stopped");
    let same = run(usize::MAX).expect("goes on");
    assert_eq!((same.resumed, same.replaced), (20, 0));
    std::fs::remove_dir_all(&to).expect("removed");

    run(20).expect_err("stopped");
    let other = original(&dir.path().join("other"), &tiny("tiny"), DType::BF16);
    let weights = Synthetic::new(&tiny("tiny"), DType::BF16, 4).expect("weights");
    std::fs::remove_dir_all(&other).expect("removed");
    let layout = Layout::TensorParallel { slices: 2 };
    block_on(write_checkpoint(&other, &tiny("tiny"), &weights, layout)).expect("written");
    for (name, bytes) in files(&other) {
        std::fs::write(from.join(name), bytes).expect("written");
    }
    let again = run(usize::MAX).expect("begins anew");
    assert_eq!((again.resumed, again.replaced), (0, 20));

    // A journal without hashes, of an earlier version, cannot show that the input is unchanged.
    std::fs::remove_dir_all(&to).expect("removed");
    run(20).expect_err("stopped");
    let journal = to.join("quantize.journal");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    let old: Vec<String> = text
        .lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            for field in ["first", "rows", "sha256"] {
                value.as_object_mut().expect("an object").remove(field);
            }
            format!("{value}\n")
        })
        .collect();
    std::fs::write(&journal, old.concat()).expect("written");
    let again = run(usize::MAX).expect("begins anew");
    assert_eq!((again.resumed, again.replaced), (0, 20));
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

#[test]
fn nothing_is_overwritten() {
    let dir = scratch();
    let from = original(dir.path(), &tiny("tiny"), DType::BF16);
    let to = dir.path().join("to");
    let refused = |to: &Path, choices: Choices| {
        let error = quantize(&from, to, choices, Layout::Single, usize::MAX).expect_err("refused");
        assert_eq!(error.code(), "usage", "{error}");
        error.to_string()
    };
    std::fs::create_dir(&to).expect("made");
    std::fs::write(to.join("letter.txt"), "dear").expect("written");
    assert!(refused(&to, Choices::of(DType::Q8)).contains("not empty"));
    assert!(refused(&from, Choices::of(DType::Q8)).contains("not empty"));
    assert_eq!(files(&to).len(), 1);

    let half = dir.path().join("half");
    quantize(&from, &half, Choices::of(DType::Q8), Layout::Single, 9).expect_err("stopped");
    let before = files(&half);
    assert!(refused(&half, Choices::of(DType::Q4)).contains("other options"));
    assert!(files(&half) == before);
    whole(&from, &half, Choices::of(DType::Q8));
    assert!(refused(&half, Choices::of(DType::Q8)).contains("not empty"));
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
