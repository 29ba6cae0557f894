//! Devices that refuse: memory that is out wherever something is allocated, programs that do not
//! compile, work that takes too long at once, and answers that do not come.

mod common;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    checkpoint::{Synthetic, folder::open_model},
    engine::{Engine, SessionOptions, sequence::Kind, session::Session, step::Readback},
    kernels::{self, Case},
    machine::{
        Machine as _,
        gpu::{Gpu, LimitProfile, Refusal},
        shader::Shader,
    },
    measure::autotune::{measure, ways},
    model::config::{Compat, Config},
    selftest::{failed_trials, trial},
    variants::{Form, Tuning, VARIANTS, Variant},
};
use grok_wgpu_tools::edited::{Edit, Edited};
use pollster::block_on;

const PROMPT: [u32; 5] = [11, 48, 85, 122, 159];
const TOKENS: [u32; 2] = [3, 77];
const SIZES: SessionOptions = SessionOptions::new(64, 40, DType::F32);

fn open() -> Gpu {
    common::open(LimitProfile::Baseline)
}

/// Loads a small model onto a device that other models may have used, and runs a prompt and two
/// tokens. Returns the bits of the logits, and then of the best candidate.
fn load_and_run(gpu: &mut Gpu) -> Result<Vec<u32>> {
    let config = Config::preset("tiny").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::Q8, 7).expect("weights");
    let mut progress = |_| Ok(());
    let load = Session::load(&mut *gpu, &config, &weights, SIZES, &mut progress);
    let mut session = block_on(load)?;
    let mut all = block_on(session.prefill(&PROMPT, Readback::Logits))?.candidates;
    for id in TOKENS {
        all.extend(block_on(session.decode(id, Readback::Top(1)))?.candidates);
    }
    Ok(all.iter().map(|candidate| candidate.logit.to_bits()).collect())
}

#[test]
fn wherever_memory_is_out_the_error_has_names_and_sizes_and_nothing_is_left() -> Result<()> {
    let mut gpu = open();
    gpu.refuse(None);
    let want = load_and_run(&mut gpu)?;
    let [buffers, ..] = gpu.made();
    gpu.truncate(0);
    assert!(buffers > 60, "{buffers}");
    let mut named = BTreeSet::new();
    for n in 0..buffers {
        gpu.refuse(Some(Refusal::Buffer(n)));
        let error = load_and_run(&mut gpu).expect_err("a buffer is refused");
        assert_eq!((error.code(), error.exit_code()), ("out_of_memory", 4), "{n}: {error}");
        let Error::OutOfMemory { what, bytes, held, .. } = &error else { panic!("{error}") };
        let bytes = bytes.unwrap_or_default();
        assert!(bytes > 0 && (*held > 0 || n == 0), "{n}: {error}");
        let text = error.to_string();
        assert!(text.contains(" needs ") && text.contains("allocated already"), "{n}: {error}");
        named.insert(what.replace(char::is_numeric, "#"));
        // What the session did not give back is only what a step had grown: none of it in a load.
        if n < buffers / 2 {
            assert_eq!((gpu.tensor_count(), gpu.allocated_bytes()), (0, 0), "{n}: {error}");
        }
        gpu.truncate(0);
        gpu.refuse(None);
        assert_eq!(load_and_run(&mut gpu)?, want, "after {error}");
        gpu.truncate(0);
    }
    for part in [
        "weights of `",
        "key-value cache",
        "activations of",
        "largest logits",
        "a buffer for results",
        "parameters of a pass",
    ] {
        assert!(named.iter().any(|what| what.contains(part)), "{part}: {named:#?}");
    }
    Ok(())
}

#[test]
fn a_device_that_is_lost_for_want_of_memory_is_out_of_memory() {
    let mut gpu = open();
    gpu.refuse(None);
    load_and_run(&mut gpu).expect("runs");
    let [buffers, ..] = gpu.made();
    for n in [0, buffers / 2, buffers - 1] {
        let mut gpu = open();
        gpu.refuse(Some(Refusal::BufferAndDevice(n)));
        let error = load_and_run(&mut gpu).expect_err("the device is lost");
        assert_eq!(error.code(), "out_of_memory", "{n}: {error}");
        assert!(gpu.is_lost() && error.to_string().contains("device was lost"), "{n}: {error}");
        // It stays lost, for the same reason.
        let again = load_and_run(&mut gpu).expect_err("it is still lost");
        assert_eq!(again.code(), "out_of_memory", "{n}: {again}");
    }
}

/// The variants that run on every device.
const PLAIN: [&str; 2] = ["lanes", "tiles"];

fn refuses_all_but_plain(shader: &Shader) -> bool {
    let divided = shader.main().starts_with("shaders/variants/");
    divided && shader.variant.is_some_and(|variant| !PLAIN.contains(&variant))
}

/// The same tuning with plain variants in place of others.
fn plain(tuning: &Tuning) -> Tuning {
    let settings = ["lanes 32 4", "tiles 32"].map(|text| text.parse().expect("a setting"));
    Form::ALL.into_iter().zip(settings).fold(tuning.clone(), |all, (form, setting)| {
        let is_plain = PLAIN.contains(&all.default_of(form).variant().name());
        if is_plain { all } else { all.with(form, setting) }
    })
}

/// Has the device keep what it is told of variants that it refuses.
fn listen(gpu: &mut Gpu) -> Arc<Mutex<Vec<String>>> {
    let notices = Arc::<Mutex<Vec<String>>>::default();
    let heard = notices.clone();
    gpu.on_notice(move |notice| heard.lock().expect("a list").push(notice.to_owned()));
    notices
}

#[test]
fn variants_that_are_refused_give_way_to_plain_ones() -> Result<()> {
    let on = open().caps().capabilities();
    let mut tried = 0;
    for (name, tuning) in Tuning::all(&on) {
        let variants = Form::ALL.map(|form| tuning.default_of(form).variant().name());
        if variants.iter().all(|variant| PLAIN.contains(variant)) {
            continue;
        }
        tried += 1;
        let mut gpu = open();
        gpu.set_tuning(plain(&tuning));
        let want = load_and_run(&mut gpu)?;

        let mut gpu = open();
        let notices = listen(&mut gpu);
        gpu.set_tuning(tuning.clone());
        gpu.refuse(Some(Refusal::Programs(refuses_all_but_plain)));
        for round in 0..2 {
            assert!(load_and_run(&mut gpu)? == want, "{name}, round {round}: other bits");
            gpu.truncate(0);
        }
        let told = notices.lock().expect("a list");
        assert!(told.len() >= 2 && told[0].contains("refuses the program `"), "{name}: {told:#?}");
        let once: BTreeSet<&String> = told.iter().collect();
        assert_eq!(once.len(), told.len(), "{name}: each is told once: {told:#?}");

        // Where the variant is asked for, it is an error that names it.
        let mut gpu = open();
        gpu.set_tuning(Tuning { strict: true, ..tuning });
        gpu.refuse(Some(Refusal::Programs(refuses_all_but_plain)));
        let error = load_and_run(&mut gpu).expect_err("it is strict");
        assert_eq!(error.code(), "device");
        let named = variants.iter().any(|variant| error.to_string().contains(variant));
        assert!(named, "{name}: {error}");
    }
    assert!(tried > 0, "all variants are plain");
    Ok(())
}

/// The first tuning of the adapter that has a variant which is not plain.
fn with_features() -> Tuning {
    let all = Tuning::all(&open().caps().capabilities());
    let special = all.into_iter().map(|(_, tuning)| tuning).find(|tuning| {
        let variant = tuning.default_of(Form::Vector).variant().name();
        !PLAIN.contains(&variant)
    });
    special.expect("the adapter has subgroups")
}

#[test]
fn the_shipped_model_writes_the_same_with_refused_variants() -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let opened = block_on(open_model(&folder, Compat::Reference))?;
    let ids = block_on(opened.tokenizer())?.encode("Once upon a time")?;
    let tuning = with_features();
    let text = |tuning: Tuning, refusal| -> Result<Vec<u32>> {
        let mut gpu = open();
        gpu.set_tuning(tuning);
        gpu.refuse(refusal);
        let mut session: Session<Gpu> = block_on(Engine::of(gpu, &opened))?.into();
        let mut best = block_on(session.prefill(&ids, Readback::Top(1)))?.candidates[0];
        let mut text = vec![best.id];
        for _ in 0..12 {
            best = block_on(session.decode(best.id, Readback::Top(1)))?.candidates[0];
            text.extend([best.id, best.logit.to_bits()]);
        }
        Ok(text)
    };
    let want = text(plain(&tuning), None)?;
    let refusal = Some(Refusal::Programs(refuses_all_but_plain));
    assert_eq!(text(tuning, refusal)?, want);
    Ok(())
}

#[test]
fn a_plain_variant_that_is_refused_as_well_is_an_error_with_its_name() {
    let mut gpu = open();
    let notices = listen(&mut gpu);
    gpu.set_tuning(with_features());
    gpu.refuse(Some(Refusal::Programs(|shader| shader.own.kernel == "gated_matvec")));
    let error = load_and_run(&mut gpu).expect_err("there is no other");
    assert!(matches!(&error, Error::Refused { measured: false, .. }), "{error}");
    assert_eq!((error.code(), error.exit_code()), ("device", 5));
    assert!(error.to_string().contains("gated_matvec."), "{error}");
    assert!(notices.lock().expect("a list").is_empty(), "nothing took a place");
    gpu.truncate(0);
    gpu.refuse(None);
    let right = load_and_run(&mut gpu).expect("the tuning is that of before");
    let mut fresh = open();
    fresh.set_tuning(with_features());
    assert_eq!(load_and_run(&mut fresh).expect("runs"), right);
}

/// As in a page, where pipelines are compiled one by one, those of generated tokens after the first
/// token.
#[test]
fn what_is_refused_one_by_one_is_replaced_or_named() -> Result<()> {
    let config = Config::preset("tiny").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::Q8, 7).expect("weights");
    let read = Readback::Top(1);
    let load = |tuning, refusal| -> Result<_> {
        let mut gpu = open();
        let notices = listen(&mut gpu);
        gpu.set_tuning(tuning);
        gpu.refuse(refusal);
        let mut progress = |_| Ok(());
        let load = Session::load(gpu, &config, &weights, SIZES, &mut progress);
        Ok((block_on(load)?, notices))
    };
    let compile = |session: &mut Session<Gpu>, kind| {
        block_on(session.compile_each(&[kind], read, &mut |_, _| Ok(())))
    };
    let write = |session: &mut Session<Gpu>| -> Result<_> {
        let first = block_on(session.prefill(&PROMPT, read))?;
        compile(session, Kind::Generated)?;
        Ok((first, block_on(session.decode(TOKENS[0], read))?))
    };
    let (mut usual, _) = load(plain(&with_features()), None)?;
    let want = write(&mut usual)?;

    let special = Some(Refusal::Programs(refuses_all_but_plain));
    let (mut session, notices) = load(with_features(), special)?;
    compile(&mut session, Kind::Prompt)?;
    let before = notices.lock().expect("a list").len();
    assert_eq!(write(&mut session)?, want);
    let told = notices.lock().expect("a list").clone();
    assert!(told.len() > before, "{before} before the first token, then {told:#?}");

    // A plain program has no other: it is named at once, and by the step that needs it.
    let late = Some(Refusal::Programs(|shader| shader.own.kernel == "gated_matvec"));
    let (mut session, _) = load(Tuning::default(), late)?;
    compile(&mut session, Kind::Prompt)?;
    let error = write(&mut session).expect_err("there is no other");
    assert!(error.to_string().contains("a test refuses it"), "{error}");
    let again = block_on(session.decode(TOKENS[0], read)).expect_err("it is needed here");
    assert_eq!((again.code(), error.code()), ("device", "device"), "{again}");
    Ok(())
}

#[test]
fn variants_that_are_refused_are_not_measured() -> Result<()> {
    let config = Config::preset("tiny").expect("a preset").with_layers(1);
    let weights = Synthetic::new(&config, DType::Q8, 7).expect("weights");
    let mut gpu = open();
    gpu.refuse(Some(Refusal::Programs(refuses_all_but_plain)));
    let mut session = block_on(Session::load(gpu, &config, &weights, SIZES, &mut |_| Ok(())))?;
    let found = block_on(measure(&mut session, &PROMPT, 1, false, &[], &mut |_| Ok(())))?;
    assert!(found.len() > 5, "{found:#?}");
    for of in found {
        assert!(!of.times.is_empty());
        for (way, _) in of.times {
            let variant = way.setting.variant().name();
            assert!(PLAIN.contains(&variant), "{}: {way}", of.class);
        }
    }
    Ok(())
}

/// Variants on trial are measured only where their rows pass. No software driver runs one, so
/// another variant stands for them.
#[test]
fn a_trial_finds_wrong_results_and_refused_programs() -> Result<()> {
    let named = |variant: &&&dyn Variant| variant.name() == "packed";
    let packed = *VARIANTS.iter().find(named).expect("it is there");
    let rows = || kernels::cases().into_iter().filter(|case| case.is_meant_by("matmul/Q8 2x3x96"));
    let of = |gpu: &mut Gpu, cases: &[Case]| -> Result<(Option<String>, u32)> {
        let mut count = 0;
        let mut progress = || {
            count += 1;
            Ok(())
        };
        let failure = block_on(trial(gpu, packed, cases, &mut progress))?;
        Ok((failure, count))
    };
    let mut gpu = open();
    let cases: Vec<Case> = rows().collect();
    let (failure, count) = of(&mut gpu, &cases)?;
    assert_eq!(failure, None);
    assert!(count > 3, "{count} rows");

    let (find, replace) = ("scale = bitcast<f32>(largest) / 127.0;", "scale = 1.0;");
    let edit = Arc::new(Edit::new("no scale".into(), find.into(), replace.into()));
    let broken = rows().map(|case| {
        let edit = edit.clone();
        case.map(move |kernel| Box::new(Edited::new(kernel, edit.clone())))
    });
    let broken: Vec<Case> = broken.collect();
    let (failure, count) = of(&mut gpu, &broken)?;
    let failure = failure.expect("a scale is missing");
    assert!(failure.contains("[packed 32]: ") && failure.contains("element ["), "{failure}");
    assert_eq!(count, 1);

    let mut gpu = open();
    gpu.refuse(Some(Refusal::Programs(refuses_all_but_plain)));
    let (failure, _) = of(&mut gpu, &cases)?;
    assert!(failure.is_some_and(|failure| failure.contains("a test refuses it")));

    // What failed is not among what is measured, and what cannot run is on no trial.
    let names = |without: &[&str]| -> BTreeSet<&'static str> {
        let ways = ways(gpu.caps(), true, without);
        ways.into_iter().map(|way| way.setting.variant().name()).collect()
    };
    assert!(names(&[]).contains("packed") && !names(&["packed"]).contains("packed"));
    let on_trial = VARIANTS.iter().filter(|variant| variant.is_on_trial()).count();
    assert_eq!(on_trial, 1, "`coop`");
    if !gpu.caps().matrices() {
        let mut never = || panic!("no row runs");
        assert_eq!(block_on(failed_trials(&mut gpu, &cases, &mut never))?, []);
    }
    Ok(())
}

/// Whatever program or pipeline is refused: the text is right, or the error names the program; and
/// the device goes on.
#[test]
fn whatever_is_refused_is_replaced_or_named() -> Result<()> {
    let mut gpu = open();
    gpu.refuse(None);
    let want = load_and_run(&mut gpu)?;
    let [_, modules, pipelines] = gpu.made();
    assert!(modules > 15 && pipelines >= modules, "{modules} modules, {pipelines} pipelines");
    // A pipeline is refused as its module is, so that a few of them will do.
    let few = (0..pipelines).step_by(8).map(Refusal::Pipeline);
    let all = (0..modules).map(Refusal::Module).chain(few);
    let (mut replaced, mut named) = (0, 0);
    for refusal in all {
        let mut gpu = open();
        gpu.refuse(Some(refusal));
        match load_and_run(&mut gpu) {
            Ok(_) => replaced += 1,
            Err(error) => {
                named += 1;
                assert_eq!(error.code(), "device", "{refusal:?}: {error}");
                let text = error.to_string();
                assert!(text.contains("a test refuses it"), "{refusal:?}: {error}");
            }
        }
        if !matches!(refusal, Refusal::Pipeline(_)) && (replaced + named) % 4 != 0 {
            continue;
        }
        gpu.truncate(0);
        gpu.refuse(None);
        let after = load_and_run(&mut gpu).expect("nothing is refused any more");
        // After a replacement, the tuning is another one, whose bits may differ.
        assert!(!gpu.tuning().refused.is_empty() || after == want, "{refusal:?}");
    }
    assert!(named > 0, "{replaced} replaced, {named} named");
    Ok(())
}

#[test]
fn passes_are_divided_by_their_expected_time_and_keep_their_bits() -> Result<()> {
    let run = |longest: Option<Option<f64>>| -> Result<_> {
        let mut gpu = open();
        if let Some(longest) = longest {
            gpu.limit_submissions(longest);
        }
        let bits = load_and_run(&mut gpu)?;
        Ok((bits, gpu.counters()))
    };
    let (want, plain) = run(None)?;
    assert_eq!(plain.submissions, 3, "a chunk, and two tokens");
    for unlimited in [None, Some(1.0)] {
        let (bits, counters) = run(Some(unlimited))?;
        assert!(bits == want);
        assert_eq!(counters, plain, "a small model takes no second: {unlimited:?}");
    }
    let (bits, counters) = run(Some(Some(0.0)))?;
    assert!(bits == want, "other bits where each dispatch is submitted by itself");
    assert_eq!(counters.submissions, counters.dispatches);
    assert_eq!(counters.dispatches, plain.dispatches);
    assert_eq!(counters.read_backs, plain.read_backs);
    Ok(())
}

/// A wait that ends too early is no end: the device works on, and the next load is right.
#[test]
fn a_device_that_does_not_answer_in_time_is_an_error() -> Result<()> {
    let mut gpu = open();
    let want = load_and_run(&mut gpu)?;
    gpu.truncate(0);
    for _ in 0..2 {
        gpu.limit_waits(Duration::ZERO);
        let error = load_and_run(&mut gpu).expect_err("no device is done at once");
        assert_eq!(error.code(), "device");
        assert!(error.to_string().contains("the device did not finish"), "{error}");
        gpu.truncate(0);
        gpu.limit_waits(Duration::from_secs(600));
        assert!(load_and_run(&mut gpu)? == want, "other bits after it");
        gpu.truncate(0);
    }
    Ok(())
}
