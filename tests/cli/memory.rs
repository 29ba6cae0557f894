//! Models that take less memory than they have: `--device-memory`.

use grok_wgpu::lab::{
    base::tensor::DType,
    measure::rates::{Rate, key},
    variants::{Kept, Store},
};
use serde_json::Value;

use super::{good, json, model, path, run, text, text_of};

/// The least memory for a command on the small model, as its error says.
fn least(args: &[&str]) -> String {
    let output = run(&[args, &["--device-memory", "1B"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(output.stdout.is_empty() && stderr.contains("the least device memory for"), "{stderr}");
    let (_, after) = stderr.split_once("The least is --device-memory ").expect("what would do");
    after.split_whitespace().next().expect("a size").to_owned()
}

#[test]
fn logits_do_not_depend_on_the_memory_of_the_device() {
    let args = ["logits", path(model()), "--ids", "5,17,200,3,99,42,7,7,300", "--json"];
    let whole = good(&args);
    let least = least(&args);
    let output = run(&[&args[..], &["--device-memory", &least]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // Released slices are put together at each read.
    assert!(stderr.contains("stay in the model's files"), "{stderr}");
    assert!(stderr.contains("`quantize`"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), whole);
    // A byte less is too little, and all that there is needs no word.
    let bytes: u64 = least.trim_end_matches('B').parse().expect("a number");
    let less = format!("{}B", bytes - 1);
    assert_eq!(run(&[&args[..], &["--device-memory", &less]].concat()).status.code(), Some(4));
    let all = run(&[&args[..], &["--device-memory", "100GiB"]].concat());
    assert!(!String::from_utf8_lossy(&all.stderr).contains("stay in"));
    assert_eq!(String::from_utf8_lossy(&all.stdout), whole);
}

/// A context that is too long for the memory is refused before anything is loaded, with what keys
/// and values take and what would fit, which then does.
#[test]
fn a_context_beyond_the_memory_is_refused_with_the_plan() {
    let args = |context: &'static str| {
        [
            "generate",
            path(model()),
            "She said",
            "-n",
            "4",
            "--temperature",
            "0",
            "--context",
            context,
        ]
    };
    let memory = least(&args("128"));
    let of = |context, more: &[&str]| {
        run(&[&args(context)[..], &["--device-memory", &memory], more].concat())
    };
    assert!(of("128", &[]).status.success());
    let output = of("2048", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(output.stdout.is_empty(), "nothing was generated");
    let word = |before: &str| {
        let (_, after) = stderr.split_once(before).unwrap_or_else(|| panic!("{before}: {stderr}"));
        after.split([' ', ',', '.']).next().expect("a word").to_owned()
    };
    assert!(stderr.contains("a position as F32"), "{stderr}");
    assert!(stderr.contains("for --context 2048"), "{stderr}");
    let (most, q8) = (word("At most --context "), word("would fit in this memory, "));
    let number = |text: &str| text.parse::<u32>().expect("a number");
    assert!((128..2048).contains(&number(&most)) && number(&q8) > number(&most), "{stderr}");
    for (context, more, fits) in [
        (most.clone(), &[][..], true),
        ((number(&most) + 1).to_string(), &[], false),
        (q8.clone(), &["--cache", "q8"], true),
    ] {
        let context: &'static str = context.leak();
        let output = of(context, more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = if fits { 0 } else { 4 };
        assert_eq!(output.status.code(), Some(code), "--context {context} {more:?}: {stderr}");
    }
}

/// What the device may not hold is pinned as far as it may be; the rest stays in the files.
#[test]
fn logits_do_not_depend_on_the_memory_of_the_host() {
    let args = ["logits", path(model()), "--ids", "5,17,200,3,99,42,7,7,300", "--json"];
    let whole = good(&args);
    let least = least(&args);
    let of = |host: &str| {
        let memory = ["--device-memory", least.as_str(), "--host-memory", host];
        let output = run(&[&args[..], &memory].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), whole, "{host}");
        let said = |part: &str| stderr.contains(part);
        [said("in memory of the host"), said("stay in the model's files")]
    };
    assert_eq!(of("4GiB"), [true, false]);
    assert_eq!(of("0B"), [false, true]);
    assert_eq!(of("auto"), [false, true]);
    let half = ["inspect", path(model()), "--json", "--device-memory", &least];
    let json: Value = serde_json::from_str(&good(&half)).expect("JSON");
    let files = json["placement"]["file_bytes"].as_u64();
    let half = files.map(|bytes| format!("{}B", bytes / 2));
    if let Some(half) = half {
        assert_eq!(of(&half), [true, true]);
    }
}

#[test]
fn texts_and_perplexities_do_not_depend_on_it() {
    let generate = ["generate", path(model()), "She said", "-n", "8", "--temperature", "0"];
    let memory = least(&generate);
    let given = ["--device-memory", memory.as_str()];
    assert_eq!(good(&[&generate[..], &given].concat()), good(&generate));

    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "The other day she said nothing at all.").expect("written");
    let perplexity = ["perplexity", path(model()), path(&text), "--window", "32", "--json"];
    let memory = least(&perplexity);
    let given = ["--device-memory", memory.as_str()];
    assert_eq!(good(&[&perplexity[..], &given].concat()), good(&perplexity));

    let bisect = ["selftest", "--bisect", path(model()), "--prompt", "She", "--json"];
    let memory = least(&bisect);
    let given = ["--device-memory", memory.as_str()];
    good(&[&bisect[..], &given].concat());
}

#[test]
fn a_bench_counts_what_is_brought() {
    let args =
        ["bench", path(model()), "--prompt", "8", "--tokens", "3", "--repeats", "1", "--json"];
    let memory = least(&args);
    let json = good(&[&args[..], &["--device-memory", &memory]].concat());
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let of = |phase: &str, key: &str| json[phase][key].as_f64();
    assert!(of("decode", "bytes_brought").is_some_and(|bytes| bytes > 0.0), "{json}");
    assert!(of("decode", "submissions").is_some_and(|count| count > 1.0), "{json}");
    let json: Value = serde_json::from_str(&good(&args)).expect("JSON");
    assert!(json["decode"]["bytes_brought"].is_null(), "{json}");
}

#[test]
fn inspect_says_what_goes_where() {
    let of = |memory: &str, more: &[&str]| {
        let args = ["inspect", "--preset", "grok-2", "--type", "q4", "--no-device"];
        good(&[&args[..], &["--cache", "q8", "--device-memory", memory], more].concat())
    };
    let card = of("24GB", &[]);
    for part in ["Placement in 22.4 GiB", "attention of all layers", "experts of none", "a token "]
    {
        assert!(card.contains(part), "{part}: {card}");
    }
    let json: Value = serde_json::from_str(&of("24GB", &["--json"])).expect("JSON");
    let placement = &json["placement"];
    assert_eq!((&placement["fits"], &placement["whole"]), (&true.into(), &false.into()));
    assert_eq!(placement["layers_of_attention"], 64);
    let total = placement["total_bytes"].as_u64().expect("a number");
    assert!((20_000_000_000..=24_000_000_000).contains(&total), "{total}");
    let host = ["--host-memory", "140GB", "--json"];
    let json: Value = serde_json::from_str(&of("24GB", &host)).expect("JSON");
    let both = &json["placement"];
    assert_eq!((&both["file_bytes"], &both["whole"]), (&0.into(), &false.into()));
    assert_eq!(both["host_bytes"], placement["file_bytes"]);
    assert_eq!(both["token_host_bytes"], placement["token_file_bytes"]);
    assert_eq!(both["device_bytes"], placement["device_bytes"]);
    let text = of("24GB", &host[..2]);
    assert!(text.contains("host memory ") && text.contains("experts of layers 0 to 63"), "{text}");
    let little = of("1GiB", &[]);
    assert!(little.contains("The least is --device-memory"), "{little}");
    assert!(!of("300GiB", &[]).contains("Placement"));
}

/// By assumed rates, since nobody has measured this computer; by the device's as it is given.
#[test]
fn inspect_says_how_fast_it_should_be_and_what_would_fit() {
    let of = |more: &[&str]| {
        let args = ["inspect", "--preset", "grok-2", "--type", "q4", "--no-device"];
        let given = ["--cache", "q8", "--device-memory", "24GB", "--bandwidth", "700GB/s"];
        good(&[&args[..], &given, more].concat())
    };
    let text = of(&[]);
    for part in [
        "expected         ",
        "with --host-compute ",
        "not measured: grok-wgpu tune --rates",
        "it would fit     whole in ",
        "with --type q3   whole in ",
        "with --type q2   whole in ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Value = serde_json::from_str(&of(&["--json"])).expect("JSON");
    let expected = &json["expected"];
    let rate = |value: &Value| value.as_f64().expect("a number");
    let [now, with] = ["tokens_per_second", "tokens_per_second_with_host_compute"]
        .map(|key| rate(&expected[key]));
    assert!(now > 0.0 && with > 5.0 * now, "{expected}");
    let on_cpu: Value = serde_json::from_str(&of(&["--host-compute", "--json"])).expect("JSON");
    let on_cpu = rate(&on_cpu["expected"]["tokens_per_second"]);
    assert!((on_cpu - with).abs() < 1e-9 * with, "{on_cpu} {with}");
    // Fewer bits take less and are faster.
    let smaller = expected["smaller"].as_array().expect("a list");
    let types: Vec<_> = smaller.iter().map(|of| of["type"].as_str()).collect();
    assert_eq!(types, [Some("Q3"), Some("Q2")]);
    let mut before = (rate(&expected["whole_bytes"]), now);
    for of in smaller {
        let this = (rate(&of["total_bytes"]), rate(&of["tokens_per_second"]));
        assert!(this.0 < before.0 && this.1 > before.1, "{expected}");
        before = this;
    }
    assert_eq!(expected["rates"]["device_bytes_per_second"]["measured"], true);
    assert_eq!(expected["measured"], false);
    let host: Value =
        serde_json::from_str(&of(&["--host-memory", "140GB", "--json"])).expect("JSON");
    let pinned = rate(&host["expected"]["tokens_per_second"]);
    assert!(pinned > now && pinned < with * 1.5, "{host}");
}

/// What the CPU computes is said, and a text on it is the same every time.
#[test]
fn the_cpu_computes_what_is_not_on_the_device() {
    let generate = ["generate", path(model()), "She said", "-n", "8", "--temperature", "0"];
    let memory = least(&generate);
    let given = ["--device-memory", memory.as_str(), "--host-compute"];
    let text = good(&[&generate[..], &given].concat());
    let little = ["--device-memory", memory.as_str(), "--host-compute=1KiB"];
    assert_eq!(good(&[&generate[..], &little].concat()), text);

    let inspect = ["inspect", "--preset", "grok-2", "--type", "q4", "--no-device"];
    let card = ["--cache", "q8", "--device-memory", "24GB", "--host-compute"];
    let shown = good(&[&inspect[..], &card].concat());
    assert!(shown.contains("on the CPU       experts of 64 layers, dense MLP of "), "{shown}");
    let shown = good(&[&inspect[..], &card, &["--json"]].concat());
    let json: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(json["placement"]["on_cpu"]["layers_of_experts"], 64, "{json}");

    let bench = ["bench", path(model()), "--prompt", "8", "--tokens", "3", "--repeats", "1"];
    let memory = least(&bench);
    let brought = |more: &[&str]| {
        let given = ["--device-memory", memory.as_str(), "--json"];
        let json = good(&[&bench[..], &given, more].concat());
        let json: Value = serde_json::from_str(&json).expect("JSON");
        json["decode"]["bytes_brought"].as_f64().expect("weights are brought")
    };
    // Only attention still moves.
    assert!(brought(&["--host-compute"]) < 0.5 * brought(&[]));
}

/// Measured rates choose whether the CPU computes, and `inspect` says what the commands do.
#[test]
fn measured_rates_choose_what_the_cpu_computes() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = folder.path().join("tuning.json");
    let sizes = ["--prefill", "8"];
    let bench = ["bench", path(model()), "--prompt", "8", "--tokens", "3", "--repeats", "1"];
    let memory = least(&[&bench[..], &sizes].concat());
    // As long as those of the benchmark.
    let context = ["--context", "11"];
    let told = json(&["inspect", path(model()), "--json"]);
    let device = told["plans"][0]["device"].as_str().expect("a name").to_owned();
    // Of a device with rates, the object on what the CPU computes, the expected tokens a second,
    // and the bytes that are brought for a token.
    let chosen = |rates: &[(Rate, f64)], option: &str| {
        let one = |&(rate, value): &(Rate, f64)| (key(rate, DType::BF16, None), value);
        let kept = Kept { rates: rates.iter().map(one).collect(), ..Kept::default() };
        let store = Store { devices: [(device.clone(), kept)].into() };
        std::fs::write(&file, store.to_json().to_string()).expect("written");
        let given = ["--device-memory", &memory, option, "--tuning-file", path(&file)];
        let inspect = ["inspect", path(model())];
        let inspect = [&inspect[..], &context, &sizes, &given].concat();
        let known = json(&[&inspect[..], &["--json"]].concat());
        let (rate, on_cpu) = (&known["expected"]["tokens_per_second"], &known["placement"]);
        let (rate, on_cpu) = (rate.as_f64().expect("a rate"), &on_cpu["on_cpu"]);
        let shown = good(&inspect);
        // A command runs what `inspect` has said.
        let ran = run(&[&bench[..], &["--json"], &sizes, &given].concat());
        let decode = serde_json::from_str::<Value>(&text(&ran, &bench)).expect("JSON");
        let decode = &decode["decode"];
        let expected = decode["tokens_per_second_expected"].as_f64().expect("a rate");
        // The benchmark knows which dispatches the CPU saves.
        assert!((expected - rate).abs() <= 1e-3 * rate, "{expected}, {known}");
        let (_, after) = shown.split_once("expected         ").expect("a line");
        let (word, _) = after.split_once(", ").expect("a rate");
        assert!(text_of(&ran).contains(&format!("; {word} are expected")), "{word}: {ran:?}");
        let nothing = "by the measured rates the CPU would make it slower";
        let computes = on_cpu["layers_of_experts"] != 0;
        assert_eq!(shown.contains(&format!("on the CPU       {nothing}")), !computes, "{shown}");
        assert_eq!(shown.contains("on the CPU       experts of "), computes, "{shown}");
        assert_eq!(text_of(&ran).contains(&format!("--host-compute: {nothing}")), !computes);
        assert_eq!(on_cpu["kept_bytes"].is_u64(), computes, "{on_cpu}");
        let brought = decode["bytes_brought"].as_f64().expect("weights are brought");
        (on_cpu.clone(), rate, brought)
    };
    let of =
        |value: f64| Rate::ALL.map(|rate| (rate, if rate.is_seconds() { 1e-6 } else { value }));
    let with = |changed: Rate, to: f64| {
        of(1e9).map(|(rate, value)| (rate, if rate == changed { to } else { value }))
    };

    let slow_bus = with(Rate::Upload, 1e5);
    let (on_cpu, _, less) = chosen(&slow_bus, "--host-compute");
    let layers = told["config"]["num_hidden_layers"].as_u64().expect("a number");
    assert_eq!((&on_cpu["layers_of_experts"], &on_cpu["rule"]), (&layers.into(), &"tune".into()));
    let slow_cpu = with(Rate::Cpu, 1e5);
    let (on_cpu, fast, more) = chosen(&slow_cpu, "--host-compute");
    assert_eq!((&on_cpu["layers_of_experts"], &on_cpu["rule"]), (&0.into(), &"tune".into()));
    assert!(less < 0.5 * more, "{less} {more}");
    // With a size, or as long as not all was measured, it computes whatever that takes.
    for (rates, option) in
        [(&slow_cpu[..], "--host-compute=1GiB"), (&[(Rate::Cpu, 1e5)], "--host-compute")]
    {
        let (on_cpu, slow, brought) = chosen(rates, option);
        let want = (&layers.into(), &"asked".into());
        assert_eq!((&on_cpu["layers_of_experts"], &on_cpu["rule"]), want, "{option}");
        assert!(slow < 0.01 * fast && brought < 0.5 * more, "{slow} {fast} {brought} {more}");
    }
}
