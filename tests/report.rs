//! The report of a self-test with one wrong character in a shader must lead to the file, the
//! kernel, the row and the element. Self-tests on devices that refuse shaders or get lost must keep
//! their earlier results.

mod common;

use std::sync::Arc;

use grok_wgpu::lab::{
    base::error::{Error, Result},
    kernels::{self, Case},
    machine::{
        binder::{Binder, Dispatch},
        gpu::{Gpu, LimitProfile, WGPU},
        host::Host,
        kernel::Kernel,
        shader::Shader,
    },
    selftest::{self, ModelReport, Replay, Row, Runner, Summary, Suspect},
    variants::Tuning,
};
use grok_wgpu_tools::edited::{Edit, Edited};
use pollster::block_on;

const BROKEN: &str = include_str!("../shaders/lib/weight_q4.wgsl");

/// Kernels that read weights of all types, and one that reads none.
const KERNELS: [&str; 3] = ["embed", "matvec", "rms_norm"];

/// The row with an edited shader.
fn edited(case: Case, edit: &Arc<Edit>) -> Case {
    let edit = edit.clone();
    case.map(move |kernel| Box::new(Edited::new(kernel, edit.clone())))
}

/// A runner on a device with the default limits.
fn runner(profile: selftest::Profile) -> Runner {
    Runner::new(common::open(LimitProfile::Baseline), profile)
}

/// The report of a few kernels after a bug in `weight_q4.wgsl`: wrong scales for blocks.
fn broken() -> Summary {
    let replaced = BROKEN.replacen("return c % 8u;", "return c % 4u;", 1);
    assert_ne!(replaced, BROKEN);
    let edit = Arc::new(Edit::new("scales of other blocks".into(), BROKEN.into(), replaced));
    let mut runner = runner(selftest::Profile::Full);
    let mut rows = Vec::new();
    for case in kernels::cases() {
        if KERNELS.contains(&case.kernel) {
            rows.push(run(&mut runner, &edited(case, &edit)));
        }
    }
    Summary {
        caps: runner.caps().clone(),
        system: "a <system>".into(),
        command: "grok-wgpu selftest & more".into(),
        replay: Replay::Command,
        date: "2026-01-01".into(),
        seconds: 1.0,
        rows,
        models: Vec::new(),
        unfinished: None,
    }
}

#[test]
fn a_stranger_is_led_to_the_fault() {
    let mut summary = broken();
    let failed: Vec<&Row> = summary.rows.iter().filter(|r| r.report.failure.is_some()).collect();
    assert!(failed.len() > 5, "{} rows failed", failed.len());
    assert!(failed.iter().all(|row| row.case.starts_with("Q4")), "{failed:?}");
    assert_eq!(summary.failures(), failed.len());

    // The culprit comes first, before other files that the failed rows link.
    let suspects = summary.suspects();
    let Suspect { file, failed: counted, rows } = suspects[0];
    assert_eq!((file, counted), ("shaders/lib/weight_q4.wgsl", failed.len()));
    assert!(rows >= counted && suspects.len() > 1);

    // Kernel, row, element with both values, and the command to repeat it.
    let row =
        failed.iter().find(|row| row.case == "Q4 9x5x1024 outliers").expect("blocks beyond four");
    let page = summary.html();
    let failure = row.report.failure.as_deref().expect("it failed");
    assert!(failure.contains("element [0, 0] of [9, 5]: got "), "{failure}");
    let replay = Replay::Command.of(row, &summary.caps);
    assert!(
        replay.ends_with(" --limits baseline --row 'matvec/Q4 9x5x1024 outliers [gpu]'"),
        "{replay}"
    );
    for text in [
        "<h1>",
        "checks failed</h1>",
        "<th>shaders/lib/weight_q4.wgsl</th>",
        "matvec <small>Q4 9x5x1024 outliers [gpu]</small>",
        "<code>shaders/kernels/matmul.wgsl</code>",
        "<code>src/kernels/matmul.rs</code>",
        failure,
        &replay,
        &summary.caps.name,
        "a &lt;system&gt;",
        "grok-wgpu selftest &amp; more",
        "maxStorageBufferBindingSize",
    ] {
        assert!(page.contains(text), "`{text}` is not in the report");
    }
    // The same for programs, with bits and distances.
    let json = summary.json();
    assert_eq!(json["failures"], failed.len());
    let rows = json["rows"].as_array().expect("rows");
    let found = rows.iter().find(|found| found["row"] == row.id()).expect("the row");
    assert_eq!((&found["kernel"], &found["failure"]), (&"matvec".into(), &failure.into()));
    assert_eq!(found["replay"], replay);
    let wrong = row.report.wrong.as_ref().expect("values are wrong");
    assert!(wrong.count > 0 && wrong.count <= wrong.of && wrong.of == 45, "{wrong:?}");
    assert_eq!(found["wrong"]["count"], wrong.count);
    assert_eq!(found["wrong"]["of"], 45);
    let first = &found["wrong"]["first"];
    for side in ["got", "expected"] {
        let bits = first[side]["bits"].as_str().expect("bits");
        assert!(bits.starts_with("0x") && bits.len() == 10, "{first}");
        assert!(failure.contains(bits) && page.contains(bits), "{bits}");
    }
    assert!(first["ulps"].as_u64().is_some_and(|ulps| ulps > 0), "{first}");
    let program = "matvec.rows/q4 scales of other blocks.rows";
    let digest = &json["programs"][program]["sha256"];
    assert!(digest.as_str().is_some_and(|digest| page.contains(digest)), "{}", json["programs"]);

    // Of the same failures, none is new if all are known.
    let mut known = summary.clone();
    known.rows.iter_mut().for_each(|row| row.known = row.report.failure.is_some());
    assert_eq!((known.failures(), known.known_failures()), (0, failed.len()));
    assert!(known.passed() && known.suspects().is_empty() && known.known_passes().is_empty());
    let text = format!("<h1>Nothing new failed: {} of", failed.len());
    assert!(known.html().contains(&text));
    known.rows.iter_mut().for_each(|row| row.known = true);
    assert_eq!(known.known_passes().len(), known.rows.len() - failed.len());

    // A failed model counts as a failure but gives no suspects.
    summary.rows.clear();
    let failure = Err(Error::Verification("token 7 is <wrong>".into()));
    summary.models.push(ModelReport::of("small".into(), failure).expect("a verdict"));
    assert_eq!((summary.failures(), summary.suspects()), (1, Vec::new()));
    assert!(summary.html().contains("token 7 is &lt;wrong&gt;"));
}

/// `wgpu` does not tell its version; bug reports need it.
#[test]
fn reports_name_the_version_of_wgpu() {
    let lock = include_str!("../Cargo.lock");
    for name in ["wgpu", "naga"] {
        let entry = format!("name = \"{name}\"\nversion = \"{WGPU}\"\n");
        assert!(lock.contains(&entry), "Cargo.lock has another version of {name} than {WGPU}");
    }
}

#[test]
fn packages_replay_by_a_call() {
    let summary = broken();
    let replay = Replay::Package.of(&summary.rows[0], &summary.caps);
    assert!(replay.starts_with("await GrokWgpu.selftest({\""), "{replay}");
    for field in ["\"kernel\":\"embed\"", "\"case\":\""] {
        assert!(replay.contains(field), "{replay}");
    }
}

/// A kernel whose oracle destroys the device, before the device runs it.
struct Losing {
    kernel: Box<dyn Kernel>,
    lose: Arc<dyn Fn() + Send + Sync>,
}

/// The row, changed to destroy the runner's device.
fn losing(case: Case, runner: &mut Runner) -> Case {
    let lose = block_on(runner.gpu(another)).expect("a device").destroyer();
    let lose: Arc<dyn Fn() + Send + Sync> = Arc::new(lose);
    case.map(move |kernel| Box::new(Losing { kernel, lose: lose.clone() }))
}

impl Kernel for Losing {
    fn shader(&self, tuning: &Tuning) -> Shader {
        self.kernel.shader(tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        self.kernel.dispatch(binder)
    }

    fn oracle(&self, host: &mut Host) {
        (self.lose)();
        self.kernel.oracle(host);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(Self { kernel: self.kernel.boxed(), lose: self.lose.clone() })
    }
}

fn rows_of(kernel: &str) -> impl Iterator<Item = Case> {
    kernels::cases().into_iter().filter(move |case| case.kernel == kernel)
}

async fn another() -> Result<Gpu> {
    Gpu::open(&common::choice(), LimitProfile::Baseline).await
}

fn run(runner: &mut Runner, case: &Case) -> Row {
    block_on(runner.row(case, "gpu", &Tuning::default(), another)).expect("a row")
}

#[test]
fn a_lost_device_fails_its_row_and_no_other() {
    let mut runner = runner(selftest::Profile::Quick);
    let mut failures = Vec::new();
    for (i, case) in rows_of("rms_norm").enumerate() {
        let case = if [0, 1, 6].contains(&i) { losing(case, &mut runner) } else { case };
        failures.push(run(&mut runner, &case).report.failure.unwrap_or_default());
    }
    for (i, failure) in failures.iter().enumerate() {
        let expected = match i {
            0 | 1 | 6 => "the GPU device was lost",
            2..=5 => "",
            _ => "not run: rows of this kernel lost the device 3 times",
        };
        let same =
            if expected.is_empty() { failure.is_empty() } else { failure.contains(expected) };
        assert!(same, "row {i}: {failure}");
    }
    assert!(failures.len() > 10);
    // Rows of other kernels get a new device.
    assert!(rows_of("gather").all(|case| run(&mut runner, &case).report.failure.is_none()));
}

#[test]
fn a_device_that_is_not_replaced_ends_the_test_and_keeps_its_rows() {
    let mut runner = runner(selftest::Profile::Quick);
    let mut cases = rows_of("rms_norm");
    let first = losing(cases.next().expect("a row"), &mut runner);
    let mut summary = broken();
    summary.rows = vec![run(&mut runner, &first)];
    let none = async || Err(Error::Adapter("it is <gone>".into()));
    let next = cases.next().expect("a row");
    let error =
        block_on(runner.row(&next, "gpu", &Tuning::default(), none)).expect_err("no device");
    summary.unfinished = Some(error.to_string());
    assert!(!summary.passed() && summary.failures() == 1);
    let page = summary.html();
    assert!(page.contains("The test did not end: 1 of 1 checks failed until then"), "{page}");
    assert!(page.contains("<p>no usable GPU adapter: it is &lt;gone&gt;</p>"), "{page}");
}

#[test]
fn a_shader_that_the_device_refuses_fails_its_rows_and_no_others() {
    let refused = BROKEN.replacen("return c % 8u;", "return f32(c % 8u);", 1);
    assert_ne!(refused, BROKEN);
    let edit = Arc::new(Edit::new("refused".into(), BROKEN.into(), refused));
    let mut runner = runner(selftest::Profile::Quick);
    let mut failed = 0;
    for case in rows_of("embed") {
        let row = run(&mut runner, &edited(case, &edit));
        assert_eq!(row.report.failure.is_some(), row.case.starts_with("Q4"), "{row:?}");
        if let Some(failure) = row.report.failure {
            // Every failed row has the compiler's message, not only the first.
            assert!(failure.contains("embed") && failure.contains("f32"), "{failure}");
            failed += 1;
        }
    }
    assert!(failed > 3, "{failed} rows failed");
}
