//! Pipelines: each is built once, a plan's are built together, and a file keeps them between runs.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use grok_wgpu::lab::{
    base::{error::Error, tensor::DType},
    checkpoint::{Synthetic, folder::open_model},
    engine::{SessionOptions, sequence::Kind, session::Session, step::Readback},
    kernels::{self, Case},
    machine::gpu::{
        AdapterChoice, Counters, Gpu, LimitProfile,
        kept::{restore_pipelines, save_pipelines},
    },
    model::config::{Compat, Config},
    selftest,
    variants::Tuning,
};
use grok_wgpu_tools::edited::{Edit, Edited};
use pollster::block_on;
use tempfile::TempDir;

fn open() -> Gpu {
    let choice =
        std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
    block_on(Gpu::open(&choice, LimitProfile::Baseline)).expect("needs an adapter")
}

fn load(gpu: Gpu) -> Session<Gpu> {
    let config = Config::preset("tiny").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 1).expect("weights");
    let sizes = SessionOptions::new(64, 48, DType::F32);
    block_on(Session::load(gpu, &config, &weights, sizes, &mut |_| Ok(()))).expect("loads")
}

fn built(session: &Session<Gpu>) -> usize {
    session.machine().pipeline_count()
}

/// Saves the pipelines of a device to a file; `None` where the driver has no pipeline cache.
fn kept(folder: &TempDir) -> Option<PathBuf> {
    let mut gpu = open();
    assert!(!restore_pipelines(folder.path(), &mut gpu).expect("no file is no error"));
    gpu.kept_pipelines()?;
    let mut session = load(gpu);
    block_on(session.prepare(1, Readback::Top(4))).expect("compiles");
    let gpu = session.machine();
    assert!(save_pipelines(folder.path(), gpu).expect("a folder that can be written"));
    assert!(!save_pipelines(folder.path(), gpu).expect("a file that can be read"), "nothing new");
    let name = gpu.pipelines_name().expect("a device that keeps has a name");
    let files: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().collect();
    assert_eq!(files.len(), 1, "no unfinished file is left: {files:?}");
    Some(folder.path().join(name))
}

#[test]
fn what_was_prepared_is_all_that_a_text_needs() {
    let mut session = load(open());
    assert_eq!(built(&session), 0);
    block_on(session.prepare(3, Readback::Top(4))).expect("compiles");
    let prepared = built(&session);
    assert!(prepared > 10, "only {prepared}");
    block_on(session.prefill(&[1, 2, 3], Readback::Top(4))).expect("runs");
    block_on(session.decode(4, Readback::Top(4))).expect("runs");
    // A longer sequence takes larger buffers but no other pipelines.
    block_on(session.prefill(&[5; 40], Readback::Top(4))).expect("runs");
    block_on(session.decode(6, Readback::Top(4))).expect("runs");
    assert_eq!(built(&session), prepared);
}

/// All programs run once, which is told one by one; and what is computed then is used by nothing.
#[test]
fn a_warm_engine_gives_the_same_bits() {
    let mut plain = load(open());
    let mut warm = load(open());
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    warm.machine_mut().on_compiled(Some(Box::new(move |done, all| {
        listener.lock().expect("no panic before").push((done, all));
    })));
    let mut run = Vec::new();
    let mut progress = |done, all| {
        run.push((done, all));
        Ok(())
    };
    block_on(warm.warm_up(3, Readback::Logits, &mut progress)).expect("runs");
    let count = built(&warm);
    assert_eq!((run.len(), run.last()), (count, Some(&(count, count))));
    let mut told = told.lock().expect("no panic").clone();
    told.sort_unstable();
    assert!(told.into_iter().eq((1..=count).map(|done| (done, count))), "each is compiled once");
    assert_eq!(warm.machine().counters(), Counters::default(), "no pass was run");

    for session in [&mut plain, &mut warm] {
        block_on(session.prefill(&[1, 2, 3], Readback::Nothing)).expect("runs");
    }
    let [one, other] = [&mut plain, &mut warm]
        .map(|session| block_on(session.decode(4, Readback::Logits)).expect("runs"));
    assert_eq!(one, other);
    // There is a text in the cache now.
    let again = block_on(warm.warm_up(3, Readback::Logits, &mut |_, _| Ok(())));
    assert_eq!(again.expect_err("too late").code(), "usage");
    // Who is told can end it.
    let mut other = load(open());
    let stop = &mut |_, _| Err(Error::Interrupted);
    let stopped = block_on(other.warm_up(1, Readback::Top(4), stop));
    assert_eq!(stopped.expect_err("stopped").code(), "interrupted");
}

/// The shipped model, with prompts in chunks of 32 tokens.
fn demo(gpu: Gpu) -> Session<Gpu> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let model = block_on(open_model(&folder, Compat::Reference)).expect("the shipped model");
    let sizes = SessionOptions::new(128, 32, DType::F32);
    let mut progress = |_| Ok(());
    let load = Session::load(gpu, &model.config, &model.weights, sizes, &mut progress);
    block_on(load).expect("loads")
}

/// Compiles one pipeline after another, until there are `most`. Returns what was told.
fn compile_each(
    session: &mut Session<Gpu>,
    kinds: &[Kind],
    read: Readback,
    most: usize,
) -> (Vec<(usize, usize)>, Result<(), Error>) {
    let mut told = Vec::new();
    let mut progress = |done: usize, all: usize| {
        told.push((done, all));
        if done == most { Err(Error::Interrupted) } else { Ok(()) }
    };
    let result = block_on(session.compile_each(kinds, read, &mut progress));
    (told, result)
}

/// A page compiles what the first prompt and its first token use, and nothing else, before it shows
/// that token; the rest one by one after that, while there is a text, or when a token needs it.
#[test]
fn the_first_token_takes_the_pipelines_that_it_uses_and_no_others() {
    const READ: Readback = Readback::Top(40);
    const BOTH: [Kind; 2] = [Kind::Prompt, Kind::Generated];
    let prompt: Vec<u32> = (300..340).collect();
    // Here each step compiles what it uses.
    let mut plain = demo(open());
    let first = block_on(plain.prefill(&prompt, READ)).expect("runs");
    let used = built(&plain);
    let second = block_on(plain.decode(9, READ)).expect("runs");
    let all = built(&plain);
    assert!(used > 10 && all > used + 2, "{used} of {all}");

    let mut gpu = open();
    gpu.refuse(None);
    let mut lazy = demo(gpu);
    let made =
        |session: &Session<Gpu>| usize::try_from(session.machine().made()[2]).expect("some dozens");
    let (told, result) = compile_each(&mut lazy, &[Kind::Prompt], READ, usize::MAX);
    result.expect("compiles");
    assert!(told.into_iter().eq((0..=used).map(|done| (done, used))), "each is told once");
    assert_eq!(made(&lazy), used);
    assert_eq!(lazy.machine().counters(), Counters::default(), "no pass was run");
    assert_eq!(block_on(lazy.prefill(&prompt, READ)).expect("runs"), first);
    assert_eq!(made(&lazy), used, "the first token waits for nothing");

    // Stopped after one, it goes on from there. The text stays as it was.
    let (told, result) = compile_each(&mut lazy, &BOTH, READ, used + 1);
    assert_eq!(result.expect_err("stopped").code(), "interrupted");
    assert_eq!((told, made(&lazy)), (vec![(used, all), (used + 1, all)], used + 1));
    let (told, result) = compile_each(&mut lazy, &BOTH, READ, usize::MAX);
    result.expect("compiles");
    assert_eq!((told.len(), made(&lazy)), (all - used, all));
    assert_eq!(block_on(lazy.decode(9, READ)).expect("runs"), second);
    assert_eq!((made(&lazy), built(&lazy)), (all, all), "each is made once");
    let (told, result) = compile_each(&mut lazy, &BOTH, READ, usize::MAX);
    result.expect("nothing to do");
    assert_eq!(told, [(all, all)]);
}

#[test]
fn preparing_changes_no_bit() {
    let mut plain = load(open());
    let mut prepared = load(open());
    block_on(prepared.prepare(2, Readback::Logits)).expect("compiles");
    for session in [&mut plain, &mut prepared] {
        block_on(session.prefill(&[1, 2], Readback::Nothing)).expect("runs");
    }
    let reply = block_on(plain.decode(3, Readback::Logits)).expect("runs");
    assert_eq!(block_on(prepared.decode(3, Readback::Logits)).expect("runs"), reply);
}

#[test]
fn too_many_candidates_are_refused_before_anything_is_compiled() {
    let mut session = load(open());
    let error = block_on(session.prepare(1, Readback::Top(1_000_000))).expect_err("too many");
    assert_eq!((error.code(), built(&session)), ("usage", 0));
}

#[test]
fn a_second_start_takes_the_file() {
    let folder = TempDir::new().expect("a folder");
    let Some(_) = kept(&folder) else { return };
    let mut gpu = open();
    assert!(restore_pipelines(folder.path(), &mut gpu).expect("a file"));
    let mut session = load(gpu);
    block_on(session.prefill(&[1, 2], Readback::Top(4))).expect("runs");
    assert_eq!(block_on(session.decode(3, Readback::Logits)).expect("runs"), {
        let mut fresh = load(open());
        block_on(fresh.prefill(&[1, 2], Readback::Top(4))).expect("runs");
        block_on(fresh.decode(3, Readback::Logits)).expect("runs")
    });
}

#[test]
fn damaged_files_and_those_of_others_are_ignored() {
    let folder = TempDir::new().expect("a folder");
    let Some(path) = kept(&folder) else { return };
    let whole = fs::read(&path).expect("a file");
    let mut other_driver = whole.clone();
    // A byte of the digest of adapter and driver, which follows a 16-byte file header.
    other_driver[20] ^= 1;
    let mut changed = whole.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    let half = whole[..whole.len() / 2].to_vec();
    for bytes in [other_driver, changed, half, Vec::new(), b"something else".to_vec()] {
        fs::write(&path, &bytes).expect("writes");
        let mut gpu = open();
        assert!(!restore_pipelines(folder.path(), &mut gpu).expect("a file"), "{bytes:?}");
        let mut session = load(gpu);
        block_on(session.prefill(&[1], Readback::Top(4))).expect("runs without");
        assert!(save_pipelines(folder.path(), session.machine()).expect("replaces it"));
        assert!(restore_pipelines(folder.path(), &mut open()).expect("a file"));
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = TempDir::new().expect("a folder");
    let Some(path) = kept(&folder) else { return };
    let file = fs::File::create(&path).expect("a file");
    file.set_len(65 << 20).expect("a hole");
    assert!(!restore_pipelines(folder.path(), &mut open()).expect("ignored"));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_no_more() {
    let folder = TempDir::new().expect("a folder");
    let Some(_) = kept(&folder) else { return };
    // A file in place of the folder: it fails for every user, even root.
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "").expect("writes");
    let mut gpu = open();
    assert!(!restore_pipelines(&blocked, &mut gpu).unwrap_or(false));
    let mut session = load(gpu);
    block_on(session.prepare(1, Readback::Top(4))).expect("compiles");
    let error = save_pipelines(&blocked, session.machine()).expect_err("no folder");
    assert_eq!(error.code(), "io");
    block_on(session.prefill(&[1], Readback::Top(4))).expect("the session goes on");
}

fn rows(kernel: &str) -> impl Iterator<Item = Case> {
    kernels::cases().into_iter().filter(move |case| case.kernel == kernel)
}

fn prepare_ahead(gpu: &mut Gpu, cases: &[Case]) {
    gpu.prepare_ahead(selftest::dispatches(cases, &[("gpu".to_owned(), Tuning::default())]));
}

#[test]
fn pipelines_that_are_built_ahead_are_those_that_rows_use() {
    let cases: Vec<Case> = rows("matvec").chain(rows("rms_norm")).collect();
    let run = |gpu: &mut Gpu| {
        for case in &cases {
            let report =
                block_on(selftest::check(gpu, case, &Tuning::default())).expect("a verdict");
            assert_eq!(report.failure, None, "{case:?}");
        }
        gpu.pipeline_count()
    };
    let mut plain = open();
    let count = run(&mut plain);
    let mut ahead = open();
    prepare_ahead(&mut ahead, &cases);
    assert_eq!(run(&mut ahead), count);
    assert!(count > 5, "{count}");
    // Dropping the device during compilation must be safe.
    prepare_ahead(&mut open(), &cases);
}

#[test]
fn what_is_refused_ahead_is_refused_where_it_is_used() {
    let text = include_str!("../shaders/lib/weight_q8.wgsl").to_owned();
    let broken = format!("{text}\nconst BROKEN: u32 = 1.5;\n");
    let edit = Arc::new(Edit::new("refused".into(), text, broken));
    let edited = |case: Case| {
        let edit = edit.clone();
        case.map(move |kernel| Box::new(Edited::new(kernel, edit.clone())))
    };
    let cases: Vec<Case> = rows("embed").map(edited).collect();
    let mut gpu = open();
    prepare_ahead(&mut gpu, &cases);
    for case in &cases {
        let result = block_on(selftest::check(&mut gpu, case, &Tuning::default()));
        if case.name.starts_with("Q8") {
            let error = result.expect_err("it does not compile");
            assert!(matches!(&error, Error::Device(what) if what.contains("BROKEN")), "{error}");
        } else {
            assert_eq!(result.expect("a verdict").failure, None, "{case:?}");
        }
    }
}
