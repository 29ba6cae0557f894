//! Files, memory and weights that fail while a model runs whose weights are brought: typed errors
//! that name the file, no token of the step that failed, and the same bits when all is well again.

mod common;

use std::{
    fs::{self, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Duration,
};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{
        Synthetic,
        folder::{open_model, write_checkpoint},
        write::Layout,
    },
    engine::{Engine, SessionOptions, session::Session, step::Readback},
    files::{Source, native::FileSource},
    machine::{
        Machine,
        gpu::{Gpu, LimitProfile, Refusal},
    },
    model::{
        Placement, Slots,
        config::{Compat, Config},
        weights::{Lasting, Weights},
    },
};
use pollster::block_on;

const SIZES: SessionOptions = SessionOptions::new(64, 24, DType::F32);
const PLACEMENT: Placement = Placement::least(Slots::Shared(2));
const PROMPT: [u32; 5] = [11, 48, 85, 122, 159];
const TOKENS: [u32; 4] = [3, 77, 201, 130];

fn config() -> Config {
    Config::preset("tiny").expect("a preset").with_layers(2)
}

fn load<M: Machine>(machine: M, config: &Config, weights: &impl Lasting) -> Result<Session<M>> {
    let mut progress = |_| Ok(());
    let load = Engine::load_placed(machine, config, weights, SIZES, PLACEMENT, &mut progress);
    Ok(block_on(load)?.into())
}

/// The bits of the logits after the prompt or after a token.
fn step<M: Machine>(session: &mut Session<M>, token: Option<u32>) -> Result<Vec<u32>> {
    let output = match token {
        None => block_on(session.prefill(&PROMPT, Readback::Logits))?,
        Some(id) => block_on(session.decode(id, Readback::Logits))?,
    };
    Ok(output.candidates.iter().map(|candidate| candidate.logit.to_bits()).collect())
}

/// Something happens to the file of a model while a text is written, and is mended.
fn between_tokens(path: &Path, harm: impl Fn(), mend: impl Fn(), told: &[&str]) -> Result<()> {
    let opened = block_on(open_model(path.parent().expect("a folder"), Compat::Reference))?;
    let gpu = || common::open(LimitProfile::Baseline);
    let mut whole = load(gpu(), &opened.config, &opened.weights)?;
    let mut session = load(gpu(), &opened.config, &opened.weights)?;
    for token in [None, Some(TOKENS[0])] {
        assert_eq!(step(&mut session, token)?, step(&mut whole, token)?);
    }
    let want: Vec<_> =
        TOKENS[1..].iter().map(|&id| step(&mut whole, Some(id))).collect::<Result<_>>()?;
    harm();
    let before = session.tokens().to_vec();
    for _ in 0..2 {
        let error = step(&mut session, Some(TOKENS[1])).expect_err("the file is harmed");
        assert_eq!((error.code(), error.exit_code()), ("io", 3), "{error}");
        let text = error.to_string();
        assert!(told.iter().all(|part| text.contains(part)), "{told:?}: {error}");
        assert!(matches!(&error, Error::Io { path: named, .. } if named == path), "{error:?}");
        assert_eq!(session.tokens(), before, "no token of a step that failed");
    }
    mend();
    for (&id, want) in TOKENS[1..].iter().zip(&want) {
        assert_eq!(&step(&mut session, Some(id))?, want, "other bits after it");
    }
    Ok(())
}

#[test]
fn files_that_are_cut_or_written_to_between_tokens_are_told_and_the_text_goes_on() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config();
    let weights = Synthetic::new(&config, DType::BF16, 11)?;
    block_on(write_checkpoint(folder.path(), &config, &weights, Layout::Single))?;
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("it was written");
    let time = fs::metadata(&path).and_then(|of| of.modified()).expect("files have times");
    let open = || OpenOptions::new().write(true).open(&path).expect("it is there");
    let mend = || {
        let mut file = open();
        file.write_all(&bytes).expect("writes");
        file.set_modified(time).expect("sets");
    };
    let cut = || open().set_len(bytes.len() as u64 / 2).expect("cuts");
    between_tokens(&path, cut, mend, &["model.safetensors", "at offset "])?;
    // As long as before, with other bytes.
    let change = || {
        let mut file = open();
        file.seek(SeekFrom::End(-1000)).expect("seeks");
        file.write_all(&[0x41; 1000]).expect("writes");
        file.set_modified(time + Duration::from_secs(2)).expect("sets");
    };
    let told = ["model.safetensors", "at offset ", "was written to since it was opened"];
    between_tokens(&path, change, mend, &told)
}

/// One that takes the name, with the same length and time, where files are opened for each read.
#[cfg(unix)]
#[test]
fn a_file_in_the_place_of_another_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let [path, other] = ["a.bin", "b.bin"].map(|name| folder.path().join(name));
    fs::write(&path, [7; 100]).expect("writes");
    fs::write(&other, [8; 100]).expect("writes");
    let time = fs::metadata(&path).and_then(|of| of.modified()).expect("files have times");
    let file = OpenOptions::new().write(true).open(&other).expect("it is there");
    file.set_modified(time).expect("sets");
    let source = FileSource::open_closed(&path).expect("opens");
    let held = FileSource::open(&path).expect("opens");
    let mut into = [0; 10];
    block_on(source.read(90, &mut into)).expect("reads");
    fs::rename(&other, &path).expect("renames");
    let error = block_on(source.read(90, &mut into)).expect_err("another file").to_string();
    for part in ["a.bin", "at offset 90", "another file has its name"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // What is held open is the file of before, whatever has its name.
    into.fill(0);
    block_on(held.read(90, &mut into)).expect("reads");
    assert_eq!(into, [7; 10]);
}

/// Weights of which a router is NaN.
#[derive(Clone)]
struct Poisoned(Synthetic);

impl Weights for Poisoned {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.0.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.0.read_rows(name, row0, rows, into).await?;
        if name.contains("layers.1.") && name.contains("gate.weight") {
            into.chunks_exact_mut(2).for_each(|bf16| bf16.copy_from_slice(&[0xc0, 0x7f]));
        }
        Ok(())
    }
}

#[test]
fn a_router_that_is_nan_is_refused_where_experts_are_brought() -> Result<()> {
    let config = config();
    let weights = Poisoned(Synthetic::new(&config, DType::BF16, 11)?);
    let mut session = load(common::open(LimitProfile::Baseline), &config, &weights)?;
    let error = step(&mut session, None).expect_err("a router is NaN");
    assert_eq!(error.code(), "non_finite", "{error}");
    assert!(session.tokens().is_empty());
    Ok(())
}

#[test]
fn wherever_memory_is_out_for_a_placement_all_of_it_is_freed() -> Result<()> {
    let config = config();
    let weights = Synthetic::new(&config, DType::Q8, 11)?;
    let mut gpu = common::open(LimitProfile::Baseline);
    gpu.refuse(None);
    drop(load(&mut gpu, &config, &weights)?);
    let [buffers, ..] = gpu.made();
    gpu.truncate(0);
    assert!(buffers > 40, "{buffers}");
    for n in 0..buffers {
        gpu.refuse(Some(Refusal::Buffer(n)));
        let error = load::<&mut Gpu>(&mut gpu, &config, &weights).expect_err("a buffer is refused");
        assert_eq!((error.code(), error.exit_code()), ("out_of_memory", 4), "{n}: {error}");
        assert_eq!((gpu.tensor_count(), gpu.allocated_bytes()), (0, 0), "{n}: {error}");
    }
    gpu.refuse(None);
    drop(load(&mut gpu, &config, &weights)?);
    Ok(())
}
