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
    let stored = Store::parse(&file, &stored).expect("it can be read");
    let device = report["device"].as_str().expect("a name");
    let kept = &stored.devices[device];
    let rate = kept.bandwidth.expect("it was measured");
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
    let length = kept.chunks[class];
    assert_eq!(report["chunk"], length);
    assert!(timed.iter().any(|of| of["tokens"] == length), "{report}");
    assert_eq!((&known["prefill"], &known["prefill_rule"]), (&length.into(), &"tune".into()));
    let asked = with(&["inspect", path(model()), "--json", "--prefill", "33"]);
    let asked: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    assert_eq!((&asked["prefill"], &asked["prefill_rule"]), (&33.into(), &"asked".into()));
    let unknown = json(&["inspect", path(model()), "--json", "--no-device"]);
    assert_eq!((&unknown["prefill"], &unknown["prefill_rule"]), (&256.into(), &"default".into()));
    assert_eq!(kept.settings.len(), products.len());

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
    std::fs::write(&file, stored.to_json().to_string()).expect("written");
    assert!(text_of(&with(&["tune", "--forget"])).contains("forgot what was measured"));
    assert!(text_of(&with(&["tune", "--forget"])).contains("nothing was measured"));
}

/// Splits of decode attention, as chunks, are measured and kept by the model's heads and the type
/// of the cache.
#[test]
fn splits_of_attention_are_measured_and_heeded() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = folder.path().join("tuning.json");
    let keep = ["--tuning-file", path(&file)];
    let with = |args: &[&str]| json(&[args, &["--json"], &keep].concat());
    let held = |args: &[&str]| {
        let known = with(&[&["inspect", path(model())], args].concat());
        (known["split"].clone(), known["split_rule"].clone())
    };
    let default = (Value::from(128), Value::from("default"));

    // A file of an earlier version has no splits.
    std::fs::write(&file, r#"{ "version": 1, "devices": {} }"#).expect("written");
    assert_eq!(held(&[]), default);

    let tune = ["tune", path(model()), "--prompt", "8", "--rounds", "1", "--chunks", "8"];
    let report = with(&[&tune[..], &["--cache", "f16"]].concat());
    let splits = report["splits"].as_array().expect("a list");
    let lengths: Vec<_> = splits.iter().map(|of| of["positions"].as_u64()).collect();
    assert_eq!(lengths, [32, 64, 128, 256, 512].map(Some));
    for of in splits {
        let texts = of["texts"].as_array().expect("a list");
        let at: Vec<_> = texts.iter().map(|text| text["positions"].as_u64()).collect();
        assert_eq!(at, [512, 2048, 4096].map(Some), "{of}");
        let seconds = texts.iter().map(|text| text["seconds"].as_f64().expect("a time"));
        let sum: f64 = seconds.inspect(|&seconds| assert!(seconds > 0.0, "{of}")).sum();
        assert!((sum - of["seconds"].as_f64().expect("a sum")).abs() < 1e-9 * sum, "{of}");
    }
    let best = report["split"].as_u64().expect("a length");
    assert!(lengths.contains(&Some(best)), "{report}");
    let text = std::fs::read_to_string(&file).expect("it was kept");
    let mut stored = Store::parse(&file, &text).expect("it can be read");
    let device = report["device"].as_str().expect("a name");
    let class = report["heads"].as_str().expect("a text");
    assert!(class.ends_with(", F16"), "{class}");
    let kept = stored.devices.get_mut(device).expect("it was measured");
    assert_eq!(kept.splits.get(class).map(|&split| u64::from(split)), Some(best));

    // What rules does so for these heads with this cache, on this device.
    kept.splits.insert(class.to_owned(), 64);
    std::fs::write(&file, stored.to_json().to_string()).expect("written");
    let of_f16 = ["--cache", "f16"];
    assert_eq!(held(&of_f16), (64.into(), "tune".into()));
    assert_eq!(held(&[]), default);
    assert_eq!(held(&["--cache", "f16", "--no-device"]), default);
    let shown = run(&[&["inspect", path(model()), "--all"][..], &of_f16, &keep].concat());
    let line = "attention    of a generated token in splits of at least 64 positions, as `tune`";
    assert!(String::from_utf8_lossy(&shown.stdout).contains(line), "{shown:?}");
    let bench = ["bench", path(model()), "--prompt", "8", "--tokens", "2", "--repeats", "1"];
    assert_eq!(with(&[&bench[..], &of_f16].concat())["split"], 64);
    assert_eq!(with(&bench)["split"], 128);

    // It is forgotten with all else.
    assert!(text_of(&run(&[&["tune", "--forget"][..], &keep].concat())).contains("forgot"));
    assert_eq!(held(&of_f16), default);
}

/// What is measured of a model and of a scratch file is kept, and `inspect` and `bench` expect by
/// it.
#[test]
fn rates_are_measured_kept_and_heeded() {
    const NAMES: [&str; 7] = [
        "segment_seconds",
        "dispatch_seconds",
        "upload_bytes_per_second",
        "device_bytes_per_second",
        "operations_per_second",
        "cpu_bytes_per_second",
        "cached_bytes_per_second",
    ];
    const DEVICE: &str = "device_bytes_per_second";
    const MATRIX: &str = "matrix_bytes_per_second";
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = folder.path().join("new").join("tuning.json");
    let keep = ["--tuning-file", path(&file)];
    let with = |args: &[&str]| json(&[args, &keep, &["--json"]].concat());

    let inspect = ["inspect", path(model())];
    assert_eq!(with(&inspect)["expected"]["measured"], false);
    let scratch = with(&["tune", "--rates"]);
    assert!(scratch["folder"].is_null(), "{scratch}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("new"))
        .expect("it was made")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8"))
        .filter(|name| !name.starts_with("tuning.json"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let report = with(&["tune", "--rates", path(model())]);
    for name in NAMES {
        let rate = |report: &Value| report["rates"][name].as_f64().is_some_and(|rate| rate > 0.0);
        assert!(rate(&scratch) && rate(&report), "{name}: {scratch} {report}");
    }
    // The device's rate is that of the model's kernels, unless they are too short to tell: in a
    // model as small as this one, starting them may take longer than they do.
    assert_eq!(scratch["device_measured_with"], "matrix", "{scratch}");
    for report in [&scratch, &report] {
        assert!(report[MATRIX].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
        let same = report["rates"][DEVICE] == report[MATRIX];
        assert_eq!(report["device_measured_with"] == "matrix", same, "{report}");
    }
    let own = report["folder"].as_str().expect("the model's");
    assert!(own.starts_with('/') || !cfg!(unix), "{own}");

    let known = with(&inspect);
    let expected = &known["expected"];
    assert_eq!(expected["measured"], true, "{known}");
    for name in NAMES {
        let rate = &expected["rates"][name];
        assert_eq!((&rate["value"], &rate["measured"]), (&report["rates"][name], &true.into()));
    }
    let bench = ["bench", path(model()), "--prompt", "8", "--tokens", "2", "--repeats", "1"];
    let figures = with(&bench);
    for phase in ["prefill", "decode"] {
        let rate = figures[phase]["tokens_per_second_expected"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{figures}");
    }
    // Without measurements nothing is told of a model that is whole.
    let other = folder.path().join("other.json");
    let unknown = json(&[&bench[..], &["--json", "--tuning-file", path(&other)]].concat());
    assert!(unknown["decode"]["tokens_per_second_expected"].is_null(), "{unknown}");
}
