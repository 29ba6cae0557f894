//! `tune` as a user runs it, and what other commands make of its file.

use grok_wgpu::lab::variants::Store;
use serde_json::Value;

use super::{PROMPT, json, model, path, run, text_of};

#[test]
fn what_was_measured_is_kept_and_heeded() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = folder.path().join("new").join("tuning.json");
    let keep = ["--tuning-file", path(&file)];
    let tune = ["tune", path(model()), "--prompt", "8", "--rounds", "1", "--json"];
    let tune = [&tune[..], &["--chunks", "8,24,16"]].concat();
    let with = |args: &[&str]| run(&[args, &keep].concat());

    let report = json(&[&tune[..], &keep].concat());
    let products = report["products"].as_array().expect("a list");
    let kernels = [
        "matvec ",
        "matmul ",
        "expert_gated_matmul ",
        "expert_matvec ",
        "attention decode ",
        "attention prefill ",
    ];
    for kernel in kernels {
        let of = |p: &Value| p["product"].as_str().is_some_and(|name| name.starts_with(kernel));
        let of = products.iter().find(|p| of(p)).unwrap_or_else(|| panic!("{kernel}: {report}"));
        let ways = of["ways"].as_array().expect("a list");
        // Only some variants divide attention over heads as narrow as these.
        let fewest = if kernel.starts_with("attention") { 1 } else { 3 };
        assert!(ways.len() >= fewest, "{of}");
        assert!(ways.iter().all(|way| way["nanoseconds"].as_f64() > Some(0.0)), "{of}");
        assert!(ways.iter().any(|way| way["way"] == of["best"]), "{of}");
    }
    let stored = std::fs::read_to_string(&file).expect("it was kept");
    let Store { devices: stored, bandwidths, chunks } =
        Store::parse(&file, &stored).expect("it can be read");
    let rate = bandwidths[report["device"].as_str().expect("a name")];
    assert_eq!(report["bytes_per_second"], rate);
    // It bounds the speed that `inspect` tells.
    let known = json(&[&["inspect", path(model()), "--json"][..], &keep].concat());
    let verdict = &known["verdict"];
    assert_eq!(
        (&verdict["bytes_per_second"], &verdict["bytes_per_second_measured"]),
        (&rate.into(), &true.into())
    );
    let token = verdict["types"][0]["token_bytes"].as_f64().expect("bytes");
    let bound = verdict["types"][0]["most_tokens_per_second"].as_f64().expect("a rate");
    assert!((bound * token / rate as f64 - 1.0).abs() < 1e-9, "{verdict}");
    // So does the length of chunks.
    let timed = report["chunks"].as_array().expect("a list");
    let lengths: Vec<_> = timed.iter().map(|of| of["tokens"].as_u64()).collect();
    assert_eq!(lengths, [Some(8), Some(16), Some(24)]);
    assert!(timed.iter().all(|of| of["seconds"].as_f64() > Some(0.0)), "{report}");
    let class = report["model"].as_str().expect("a text");
    let length = chunks[report["device"].as_str().expect("a name")][class];
    assert_eq!(report["chunk"], length);
    assert!(timed.iter().any(|of| of["tokens"] == length), "{report}");
    assert_eq!((&known["prefill"], &known["prefill_rule"]), (&length.into(), &"tune".into()));
    let asked = with(&["inspect", path(model()), "--json", "--prefill", "33"]);
    let asked: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    assert_eq!((&asked["prefill"], &asked["prefill_rule"]), (&33.into(), &"asked".into()));
    let unknown = json(&["inspect", path(model()), "--json", "--no-device"]);
    assert_eq!((&unknown["prefill"], &unknown["prefill_rule"]), (&256.into(), &"default".into()));
    let measured = &stored[report["device"].as_str().expect("a name")];
    assert_eq!(measured.len(), products.len());

    let heeded = with(&["generate", path(model()), PROMPT, "--max-tokens", "4"]);
    assert!(heeded.status.success() && !text_of(&heeded).contains("heeded"), "{heeded:?}");
    std::fs::write(&file, "{}").expect("written");
    let ignored = with(&["generate", path(model()), PROMPT, "--max-tokens", "4"]);
    assert!(ignored.status.success() && text_of(&ignored).contains("not heeded"), "{ignored:?}");
    assert!(text_of(&ignored).contains("`tune --forget` puts the file aside"), "{ignored:?}");
    let refused = with(&tune);
    assert_eq!(refused.status.code(), Some(3));
    assert!(text_of(&refused).contains("`tune --forget` puts the file aside"), "{refused:?}");
    for damaged in ["{}", "", "{\"version\": 1, \"devi", "\u{0}"] {
        std::fs::write(&file, damaged).expect("written");
        let forgot = with(&["tune", "--forget"]);
        assert!(forgot.status.success(), "{damaged:?}: {forgot:?}");
        assert!(text_of(&forgot).contains("tuning.json.damaged now") && !file.exists());
    }
    let stored = serde_json::to_string(&Store { devices: stored, ..Store::default() }.to_json())
        .expect("JSON");
    std::fs::write(&file, stored).expect("written");
    assert!(text_of(&with(&["tune", "--forget"])).contains("forgot what was measured"));
    assert!(text_of(&with(&["tune", "--forget"])).contains("nothing was measured"));
}
