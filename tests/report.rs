//! The report of a self-test with one character of one shader changed: it must lead a stranger to
//! the file, the kernel, the row and the element.

mod common;
#[path = "common/edited.rs"]
mod edited;

use std::sync::Arc;

use edited::{Edit, Edited};
use grok_wgpu::{
    Tuning,
    gpu::Profile,
    kernels,
    selftest::{ModelReport, Replay, Row, Summary, Suspect},
};
use pollster::block_on;

const BROKEN: &str = include_str!("../shaders/lib/weight_q4.wgsl");

/// Kernels that read weights of all types, and one that reads none.
const KERNELS: [&str; 3] = ["embed", "matvec", "rms_norm"];

/// The report of some kernels whose four-bit weights have the scales of other blocks.
fn broken() -> Summary {
    let replaced = BROKEN.replacen("let block = c % 8u;", "let block = c % 4u;", 1);
    assert_ne!(replaced, BROKEN);
    let edit = Arc::new(Edit::new("scales of other blocks".into(), BROKEN.into(), replaced));
    let mut gpu = common::open(Profile::Baseline);
    let mut rows = Vec::new();
    for case in kernels::cases() {
        if KERNELS.contains(&case.kernel) {
            let edit = edit.clone();
            let case = case.map(move |kernel| Box::new(Edited::new(kernel, edit.clone())));
            rows.push(block_on(Row::run(&mut gpu, &case, "gpu", &Tuning::GPU)).expect("a device"));
        }
    }
    Summary {
        caps: gpu.caps().clone(),
        system: "a <system>".into(),
        command: "grok-wgpu selftest & more".into(),
        replay: Replay::Command,
        date: "2026-01-01".into(),
        seconds: 1.0,
        rows,
        models: Vec::new(),
    }
}

#[test]
fn a_stranger_is_led_to_the_fault() {
    let mut summary = broken();
    let failed: Vec<&Row> = summary.rows.iter().filter(|r| r.report.failure.is_some()).collect();
    assert!(failed.len() > 5, "{} rows failed", failed.len());
    assert!(failed.iter().all(|row| row.case.starts_with("Q4")), "{failed:?}");
    assert_eq!(summary.failures(), failed.len());

    // The file, before others that the failed rows link as well.
    let suspects = summary.suspects();
    let Suspect { file, failed: counted, rows } = suspects[0];
    assert_eq!((file, counted), ("shaders/lib/weight_q4.wgsl", failed.len()));
    assert!(rows >= counted && suspects.len() > 1);

    // The kernel, the row, the element with both values, and how to see it again.
    let row =
        failed.iter().find(|row| row.case == "Q4 5x1024 outliers").expect("blocks beyond four");
    let page = summary.html();
    let failure = row.report.failure.as_deref().expect("it failed");
    assert!(failure.contains("element [0, 0] of [1, 5]: got "), "{failure}");
    let replay = Replay::Command.of(row, &summary.caps.info.name);
    assert!(
        replay.contains("--kernel matvec --case 'Q4 5x1024 outliers' --tuning gpu"),
        "{replay}"
    );
    for text in [
        "<h1>",
        "checks failed</h1>",
        "<th>shaders/lib/weight_q4.wgsl</th>",
        "matvec <small>Q4 5x1024 outliers [gpu]</small>",
        "<code>shaders/matvec.wgsl</code>",
        "<code>src/kernels/matvec.rs</code>",
        failure,
        &replay,
        &summary.caps.info.name,
        "a &lt;system&gt;",
        "grok-wgpu selftest &amp; more",
        "maxStorageBufferBindingSize",
    ] {
        assert!(page.contains(text), "`{text}` is not in the report");
    }
    let json = row.json();
    assert_eq!(
        (json["kernel"].as_str(), json["failure"].as_str()),
        (Some("matvec"), Some(failure))
    );

    // A model that fails counts as well, and explains nothing about files.
    summary.rows.clear();
    let failure = Err(grok_wgpu::Error::Verification("token 7 is <wrong>".into()));
    summary.models.push(ModelReport::of("small".into(), failure).expect("a verdict"));
    assert_eq!((summary.failures(), summary.suspects()), (1, Vec::new()));
    assert!(summary.html().contains("token 7 is &lt;wrong&gt;"));
}

#[test]
fn packages_replay_by_a_call() {
    let summary = broken();
    let replay = Replay::Package.of(&summary.rows[0], "any");
    assert!(replay.starts_with("await GrokWgpu.selftest({\"case\":\""), "{replay}");
    assert!(replay.contains("\"kernel\":\"embed\""), "{replay}");
}
