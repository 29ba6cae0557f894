//! `grok-wgpu bench` as a program: its counters and its comparison with an earlier run.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const DEMO: [&str; 8] =
    ["bench", "models/demo", "--prompt", "40", "--tokens", "3", "--repeats", "1"];

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grok-wgpu"));
    // Ignore what `tune` measured on this machine.
    command.env("GROK_WGPU_TUNING", "none");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command.args(args).output().expect("the program starts")
}

fn good(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {:?}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&good(args)).expect("one JSON value")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", value[key]))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn phases_have_all_their_figures() {
    let report = json(&[&DEMO[..], &["--json"]].concat());
    assert_eq!(report["format"], "grok-wgpu bench");
    for (name, tokens) in [("prefill", 40.0), ("decode", 1.0)] {
        let phase = &report[name];
        for key in [
            "tokens_per_second",
            "seconds",
            "host_seconds",
            "dispatches",
            "bytes_bound",
            "bytes_touched",
            "bytes_least",
            "flops",
            "gigaflops_per_second",
            "gigabytes_per_second",
        ] {
            assert!(number(phase, key) > 0.0, "{name}: {key}");
        }
        let rate = number(phase, "tokens_per_second");
        assert!((rate * number(phase, "seconds") - tokens).abs() < 1e-6 * tokens);
        assert!(number(phase, "tokens_per_second_low") <= rate);
        assert!(number(phase, "tokens_per_second_high") >= rate);
        assert_eq!(phase["submissions"], 1);
        assert_eq!(phase["read_back_bytes"], 8);
        assert!(number(phase, "dispatches_per_layer") <= 14.0);
        assert!(number(phase, "bytes_touched") <= number(phase, "bytes_bound"));
        assert!(number(phase, "bytes_ratio") >= 1.0, "{}", phase["bytes_ratio"]);
        if let Some(kernels) = phase["kernels"].as_array() {
            let sum = |key| kernels.iter().map(|kernel| number(kernel, key)).sum::<f64>();
            assert!((sum("share") - 1.0).abs() < 1e-9, "{name}");
            assert!((sum("seconds") - number(phase, "device_seconds")).abs() < 1e-9, "{name}");
            let count = |key| kernels.iter().filter_map(|kernel| kernel[key].as_u64()).sum::<u64>();
            assert_eq!(Some(count("runs")), phase["dispatches"].as_u64(), "{name}");
            let bytes = phase["bytes_touched"].as_u64();
            assert_eq!(Some(count("bytes_touched")), bytes, "{name}");
        }
    }
    // Decode reads and writes little more than the least possible.
    assert!(
        number(&report["decode"], "bytes_ratio") <= 1.05,
        "{}",
        report["decode"]["bytes_ratio"]
    );
}

#[test]
fn rates_alone_are_quicker_to_have() {
    let report = json(&[&DEMO[..], &["--json", "--rates"]].concat());
    for name in ["prefill", "decode"] {
        assert!(number(&report[name], "tokens_per_second") > 0.0);
        for key in ["host_seconds", "device_seconds", "kernels"] {
            assert!(report[name][key].is_null(), "{name}: {key}");
        }
    }
}

#[test]
fn prompts_of_several_chunks_are_counted_whole() {
    let report = json(&[&DEMO[..], &["--json", "--prefill", "16"]].concat());
    let prefill = &report["prefill"];
    assert_eq!(prefill["submissions"], 3);
    assert_eq!(prefill["read_back_bytes"], 8);
    assert_eq!(prefill["timed_tokens"], 16);
    // The weights were read three times, once for each chunk.
    assert!(number(prefill, "bytes_ratio") > 2.0, "{}", prefill["bytes_ratio"]);
}

#[test]
fn a_run_is_compared_with_an_earlier_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = dir.path().join("base.json");
    let first = json(&[&DEMO[..], &["--json"]].concat());
    std::fs::write(&base, first.to_string()).expect("written");
    let compare = ["--compare", path(&base)];

    let second = json(&[&DEMO[..], &compare, &["--json"]].concat());
    let compared = &second["compare"];
    assert_eq!(compared["notes"], serde_json::json!([]));
    for name in ["prefill", "decode"] {
        for key in ["dispatches", "bytes_bound", "bytes_touched", "bytes_least", "flops"] {
            assert_eq!(compared[name][key]["ratio"], 1.0, "{name} {key}");
        }
        let rate = &compared[name]["tokens_per_second"];
        assert_eq!(rate["before"], first[name]["tokens_per_second"]);
        assert_eq!(rate["now"], second[name]["tokens_per_second"]);
        let ratio = number(rate, "now") / number(rate, "before");
        assert!((number(rate, "ratio") - ratio).abs() < 1e-9);
    }

    let mut other = first;
    other["adapter"] = "a device of somebody else".into();
    other["model"] = "grok-2".into();
    other["prefill"]["kernels"] = serde_json::json!([{ "kernel": "gone", "seconds": 0.5 }]);
    std::fs::write(&base, other.to_string()).expect("written");
    let text = good(&[&DEMO[..], &compare, &["--rates"]].concat());
    for wanted in [
        "now / before",
        "note: another adapter: \"a device of somebody else\" before",
        "note: another model: \"grok-2\" before, \"models/demo\" now",
        "gone",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// Checks what `--device` and `--kernels` have of the device.
fn check_device(report: &Value) {
    for key in ["read_bytes_per_second", "copy_bytes_per_second", "flops_per_second"] {
        assert!(number(&report["ceilings"], key) > 1e6, "{key}: {}", report["ceilings"][key]);
    }
    assert!(number(report, "round_trip_seconds") > 0.0);
    for kind in ["dependent", "independent", "apart"] {
        for key in ["host_seconds", "device_seconds"] {
            let seconds = number(&report["dispatch"][kind], key);
            // A thousand of them take less than a minute on anything.
            assert!(seconds > 0.0 && seconds < 0.06, "{kind} {key}: {seconds}");
        }
    }
    assert!(report["device"]["name"].is_string() && report["adapter"].is_string());
}

#[test]
fn a_device_is_measured_without_a_model() {
    let report = json(&["bench", "--device", "--repeats", "1", "--json"]);
    assert_eq!(report["format"], "grok-wgpu device");
    assert_eq!(report["version"], 1);
    check_device(&report);
    let output = run(&["bench", "models/demo", "--device"]);
    assert_eq!(output.status.code(), Some(2));
}

const KERNELS: [&str; 13] = [
    "bench",
    "--kernels",
    "--random",
    "--preset",
    "tiny",
    "--type",
    "q4",
    "--prompt",
    "37",
    "--positions",
    "300",
    "--repeats",
    "1",
];

#[test]
fn every_kernel_of_a_pass_is_measured() {
    let report = json(&[&KERNELS[..], &["--json"]].concat());
    assert_eq!(report["format"], "grok-wgpu kernels");
    check_device(&report);
    let passes = report["passes"].as_array().expect("a list");
    let loads = [("decode", 1), ("decode", 4), ("prefill", 37)];
    assert_eq!(passes.len(), loads.len());
    for (pass, (phase, tokens)) in passes.iter().zip(loads) {
        assert_eq!((pass["phase"].as_str(), pass["tokens"].as_u64()), (Some(phase), Some(tokens)));
        assert_eq!(pass["positions"], 300);
        assert!(number(pass, "seconds") > 0.0);
        let kernels = pass["kernels"].as_array().expect("a list");
        let runs: u64 = kernels.iter().filter_map(|kernel| kernel["runs"].as_u64()).sum();
        assert_eq!(Some(runs), pass["dispatches"].as_u64());
        for kernel in kernels {
            let [seconds, bytes] = ["seconds", "bytes"].map(|key| number(kernel, key));
            assert!(seconds > 0.0 && bytes > 0.0, "{kernel}");
            let rate = number(kernel, "gigabytes_per_second");
            assert!((rate * seconds * 1e9 - bytes).abs() < 1e-6 * bytes, "{kernel}");
            let rate = number(kernel, "gigaflops_per_second");
            let flops = number(kernel, "flops");
            assert!((rate * seconds * 1e9 - flops).abs() <= 1e-6 * flops, "{kernel}");
            // Least times are of this device's own limits.
            let ceilings = &report["ceilings"];
            let least = (bytes / number(ceilings, "read_bytes_per_second"))
                .max(flops / number(ceilings, "flops_per_second"));
            let share = number(kernel, "share");
            assert!((share * seconds - least).abs() < 1e-6 * least, "{kernel}");
            assert!(kernel["limit"] == "bytes" || kernel["limit"] == "flops", "{kernel}");
        }
        // The head, [256, 64]: one row of logits for each generated token, and one for a prompt.
        let rows = if phase == "decode" { tokens } else { 1 };
        let of = |kernel: &Value| {
            kernel["kernel"].as_str().is_some_and(|name| name.starts_with("matvec"))
                && kernel["shape"] == serde_json::json!([256, 64])
        };
        let head = kernels.iter().find(|kernel| of(kernel));
        let head = head.expect("a head");
        assert_eq!(head["flops"].as_u64(), Some(rows * 2 * 256 * 64));
    }
    let text = good(&KERNELS);
    for wanted in [
        "computes",
        "needs the one before it",
        "decode, 1 token up to position 300",
        "prefill, 37 tokens",
        "8x64x64",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn what_is_no_report_is_refused_before_the_work() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("base.json");
    for (content, wanted) in [
        ("tokens", "not JSON"),
        ("{}", "its \"format\" is null"),
        (r#"{"format": "grok-wgpu peers", "version": 1}"#, "its \"format\" is \"grok-wgpu peers\""),
        (r#"{"format": "grok-wgpu bench", "version": 9}"#, "its \"version\" is 9, not 1"),
        (r#"{"format": "grok-wgpu bench", "version": 1, "prefill": {}}"#, "no object \"decode\""),
    ] {
        std::fs::write(&file, content).expect("written");
        // The comparison is read first: the error is not about the model, which does not exist
        // either.
        let output = run(&["bench", "/no/such/model", "--compare", path(&file)]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(wanted) && stderr.contains("base.json"), "{wanted}: {stderr}");
    }
    let output = run(&["bench", "--compare", "/no/such/report.json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("error[io]") && stderr.contains("/no/such/report.json"), "{stderr}");
}
