//! The program as a user runs it: output, exit codes, behaviour on errors.

mod builtin;
mod calibrate;
mod chat;
mod damage;
mod defaults;
mod first;
// Its texts are those of the adapter that Linux has in tests.
#[cfg(target_os = "linux")]
mod hour;
mod machines;
mod memory;
mod release;
mod selftest;
#[cfg(unix)]
mod signals;
mod talks;
#[cfg(unix)]
mod terminal;
mod texts;
mod tune;
mod words;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::{
        Checkpoint, Synthetic,
        folder::{open_config, open_folder, write_checkpoint},
        write::Layout,
    },
    engine::{SessionOptions, session::Session, step::Readback},
    machine::{
        Machine as _,
        gpu::{AdapterChoice, Gpu, LimitProfile},
    },
    model::config::Config,
    text::tokenizer::synthetic_tok_json,
};
use pollster::block_on;
use serde_json::Value;

const PROMPT: &str = "The other day she said";

/// A small model in the layout of the release, written once for all tests.
fn model() -> &'static Path {
    static MODEL: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = MODEL.get_or_init(|| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        write_model(dir.path(), Layout::TensorParallel { slices: 8 });
        dir
    });
    dir.path()
}

/// Writes the small model and its tokenizer to a folder.
fn write_model(dir: &Path, layout: Layout) {
    let config = Config::preset("small").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
    block_on(write_checkpoint(dir, &config, &weights, layout)).expect("written");
    let tokenizer = synthetic_tok_json(config.vocab_size).expect("a tokenizer");
    std::fs::write(dir.join("tokenizer.tok.json"), tokenizer).expect("written");
}

/// A device on the adapter that the program uses.
fn device(profile: LimitProfile) -> Gpu {
    let choice =
        std::env::var("GROK_WGPU_ADAPTER").map_or(AdapterChoice::Best, AdapterChoice::Named);
    block_on(Gpu::open(&choice, profile)).expect("tests need an adapter")
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_grok-wgpu");

fn program() -> Command {
    program_at(Path::new(PROGRAM))
}

/// A copy of the program in a folder.
fn install(folder: &Path) -> PathBuf {
    let copy = folder.join("grok-wgpu");
    std::fs::copy(PROGRAM, &copy).expect("installed");
    copy
}

fn program_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_remove("NO_COLOR").env_remove("HOME").env_remove("XDG_DATA_HOME");
    // Ignore what `tune` measured on this machine.
    command.env("GROK_WGPU_TUNING", "none");
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().expect("the program starts")
}

/// The standard output of a run that must succeed.
fn good(args: &[&str]) -> String {
    text(&run(args), args)
}

fn text(output: &Output, args: &[&str]) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {:?}\n{stderr}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn with_stdin(args: &[&str], input: &str) -> Output {
    let mut child = program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("read");
    child.wait_with_output().expect("ends")
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&good(args)).expect("one JSON value")
}

/// The exit code of a run that must fail with the error `name`.
fn code(args: &[&str], name: &str) -> i32 {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("error[{name}]: ")), "{args:?}: {stderr}");
    assert!(!stderr.contains('\x1b') && output.stdout.is_empty(), "{args:?}: {stderr}");
    assert_eq!(stderr.matches("\nhint: ").count(), 1, "{args:?}: {stderr}");
    output.status.code().expect("not a signal")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn greedy<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["generate", path(model()), PROMPT, "--temperature", "0", "-n", "12"];
    args.push("--ignore-eos");
    args.extend(more);
    args
}

#[test]
fn a_seed_repeats_its_text() {
    let args = ["generate", path(model()), PROMPT, "-n", "16", "--seed", "7", "--ignore-eos"];
    let first = good(&args);
    assert!(first.len() > 16, "{first:?}");
    assert_eq!(first, good(&args));
    let mut other = args;
    other[6] = "8";
    assert_ne!(first, good(&other));
}

#[test]
fn an_unnamed_seed_is_told_and_works() {
    let args = ["generate", path(model()), PROMPT, "-n", "8", "--ignore-eos"];
    let output = run(&args);
    let text = text(&output, &args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let seed = stderr.lines().find_map(|line| line.strip_prefix("seed ")).expect("a seed");
    assert_eq!(text, good(&[&args[..], &["--seed", seed]].concat()));
}

#[test]
fn limits_give_the_same_greedy_text() {
    let full = good(&greedy(&["--limits", "full"]));
    assert_eq!(full, good(&greedy(&["--limits", "baseline"])));
    assert_eq!(full, good(&greedy(&["--prefill", "3", "--context", "64"])));
}

#[test]
fn the_shipped_model_tells_a_story_and_remembers_it() {
    let story = good(&["generate", "Once upon a time", "--echo", "--seed", "1", "-n", "40"]);
    assert!(story.starts_with("Once upon a time"), "{story}");
    assert!(story.split_whitespace().count() > 25, "{story}");

    let turns = "Tell me a story about a fox who lost her hat.\nWhat was the name of the fox?\n";
    let args = ["chat", "--seed", "3"];
    let output = with_stdin(&args, turns);
    let said = text(&output, &args);
    assert!(said.contains("fox") && said.contains("hat"), "{said}");
    let name = said.split("fox named ").nth(1).or_else(|| said.split("fox called ").nth(1));
    let name = name.and_then(|rest| rest.split_whitespace().next()).expect("the fox has a name");
    let answer = said.trim_end().lines().last().expect("an answer");
    assert!(answer.contains(name.trim_matches(['.', ','])), "{said}");
}

#[test]
fn prompts_come_from_anywhere() {
    let typed = good(&greedy(&[]));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("prompt.txt");
    std::fs::write(&file, PROMPT).expect("written");
    let options = ["--temperature", "0", "-n", "12", "--ignore-eos"];
    let args = |words: &[&'static str]| [&["generate", path(model())], words, &options].concat();
    let from_file = [&args(&["--file"])[..3], &[path(&file)], &options].concat();
    assert_eq!(typed, good(&from_file));
    for words in [&["-"][..], &[]] {
        let args = args(words);
        assert_eq!(typed, text(&with_stdin(&args, &format!("{PROMPT}\n")), &args));
    }
    // The last line end and a byte order mark are no part of it, wherever it comes from.
    for written in [
        format!("{PROMPT}\n"),
        format!("{PROMPT}\r\n"),
        format!("\u{feff}{PROMPT}"),
        format!("\u{feff}{PROMPT}\r\n"),
    ] {
        std::fs::write(&file, &written).expect("written");
        assert_eq!(typed, good(&from_file), "{written:?}");
        let args = args(&["-"]);
        assert_eq!(typed, text(&with_stdin(&args, &written), &args), "{written:?}");
    }
    // Line ends within it are.
    let count = |written: &str| {
        std::fs::write(&file, written).expect("written");
        json(&[&from_file[..], &["--json"]].concat())["prompt_tokens"].as_u64().expect("a count")
    };
    assert_eq!(count("a\nb\n"), count("a\nb"));
    assert!(count("a\nb\n\n") > count("a\nb"), "one of two is left");
    let wide: Vec<u8> = PROMPT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&file, wide).expect("written");
    let stderr = text_of(&run(&from_file));
    assert!(stderr.contains("error[format]") && stderr.contains("UTF-16"), "{stderr}");
}

#[test]
fn json_holds_everything() {
    let value = json(&greedy(&["--json", "--logprobs", "3", "--quiet"]));
    let text = value["text"].as_str().expect("text");
    assert_eq!(format!("{text}\n"), good(&greedy(&[])));
    assert_eq!(value["finish_reason"], "length");
    let ids = value["ids"].as_array().expect("ids");
    assert_eq!(ids.len(), 12);
    let logprobs = value["logprobs"].as_array().expect("logprobs");
    assert_eq!(logprobs.len(), 12);
    for (id, logprob) in ids.iter().zip(logprobs) {
        assert_eq!(&logprob["id"], id);
        let top = logprob["top"].as_array().expect("three");
        // Greedy decoding takes the likeliest token.
        assert_eq!((top.len(), &top[0]["id"]), (3, id));
        assert_eq!(top[0]["logprob"], logprob["logprob"]);
        assert!(logprob["logprob"].as_f64().expect("a number") <= 0.0);
    }
    assert!(value["timings"]["tokens_per_second"].as_f64().expect("a rate") > 0.0);
}

#[test]
fn a_full_context_ends_the_text() {
    let value = json(&greedy(&["--json", "--context", "16"]));
    let made = value["ids"].as_array().expect("ids").len();
    let prompt = usize::try_from(value["prompt_tokens"].as_u64().expect("a count")).expect("few");
    // The last token is sampled when the cache is full, and does not go into it.
    assert_eq!(made + prompt, 17);
    assert_eq!(value["finish_reason"], "length");
    assert_eq!(code(&greedy(&["--context", "2"]), "context_length_exceeded"), 2);
}

#[test]
fn mistakes_have_their_codes() {
    let model = path(model());
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(code(&["generate", "/no/such/model", "hi"], "io"), 3);
    assert_eq!(code(&["generate", path(dir.path()), "hi"], "format"), 3);
    std::fs::write(dir.path().join("config.json"), r#"{"hidden_size": -1}"#).expect("written");
    std::fs::write(dir.path().join("model.safetensors"), "").expect("written");
    assert_eq!(code(&["generate", path(dir.path()), "hi"], "config"), 3);
    assert_eq!(code(&["generate", model, "hi", "--temperature", "-1"], "usage"), 2);
    assert_eq!(code(&["generate", model, "hi", "--top-p", "NaN"], "usage"), 2);
    assert_eq!(code(&["generate", model, ""], "usage"), 2);
    assert_eq!(code(&["generate", model, "hi", "--adapter", "no such thing"], "no_adapter"), 5);
    assert_eq!(code(&["logits", model, "--ids", "512"], "usage"), 2);
    assert_eq!(code(&["selftest", "--kernel", "nothing"], "usage"), 2);
    for args in [&["nonsense"][..], &["generate", "--max-tokens", "0"], &["logits", model], &[]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

/// With `--json`, the last line of the standard error is an object, for mistakes of the command
/// line too.
#[test]
fn errors_are_objects_with_json() {
    for (args, code, message, hint) in [
        (&["generate", "/no/such/model", "hi"][..], "io", "/no/such/model", "Check the name"),
        (&["generate", path(model()), "hi", "-n", "x"], "usage", "invalid value 'x'", "--help"),
        (&["chat", path(model())], "usage", "chat has no --json", "generate"),
        (&[], "usage", "a command is needed", "Usage: grok-wgpu"),
    ] {
        let output = run(&[args, &["--json"]].concat());
        assert!(output.stdout.is_empty(), "{args:?}");
        let stderr = text_of(&output);
        let last: Value =
            serde_json::from_str(stderr.lines().last().expect("a line")).expect("JSON");
        let error = |name: &str| last["error"][name].as_str().expect("text").to_owned();
        assert_eq!(error("code"), code, "{last}");
        assert!(error("message").contains(message) && error("hint").contains(hint), "{last}");
        assert_eq!(last["error"].as_object().map(serde_json::Map::len), Some(3));
    }
}

/// Logits of every position of each text, from the library.
fn library_logits<'a>(texts: impl Iterator<Item = &'a [u32]>) -> Vec<Vec<Vec<f32>>> {
    block_on(async {
        let (config, _) = block_on(open_config(model()))?;
        let weights = Checkpoint::open(model(), open_folder(model())?, &config).await?;
        let weights = std::sync::Arc::new(weights);
        let sizes = SessionOptions::new(64, 32, DType::F32);
        let gpu = device(LimitProfile::Full);
        let mut session = Session::load(gpu, &config, &weights, sizes, &mut |_| Ok(())).await?;
        let mut all = Vec::new();
        for ids in texts {
            session.rewind(0);
            all.push(session.prefill(ids, Readback::AllLogits).await?.rows);
        }
        Ok::<_, grok_wgpu::lab::base::error::Error>(all)
    })
    .expect("logits")
}

#[test]
fn logits_are_those_of_the_library() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("out.safetensors");
    let model = path(model());
    good(&["logits", model, "--ids", "5,17,3", "--all", "--out", path(&file)]);
    let want = library_logits([&[5, 17, 3][..]].into_iter()).remove(0);
    let bytes = std::fs::read(&file).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = tensors.tensor("logits").expect("logits");
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[3, 512][..]));
    let want: Vec<u8> = want.iter().flatten().flat_map(|logit| logit.to_le_bytes()).collect();
    assert!(tensor.data() == want);

    let value = json(&["logits", model, "--ids", "5,17,3", "--json"]);
    assert_eq!(value["positions"], serde_json::json!([2]));
    let last = value["logits"][0].as_array().expect("a row");
    // The logits of the last row alone come from another kernel, with another order of sums.
    for (got, want) in last.iter().zip(want[2 * 2048..].chunks_exact(4)) {
        let want = f32::from_le_bytes(want.try_into().expect("four bytes"));
        let got = got.as_f64().expect("a number");
        assert!((got - f64::from(want)).abs() < 1e-4, "{got} {want}");
    }
    assert!(good(&["logits", model, "--text", PROMPT]).lines().count() == 11);
}

#[test]
fn perplexity_is_that_of_the_logits() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("text.txt");
    std::fs::write(&file, PROMPT).expect("written");
    let model = path(model());
    let value = json(&["perplexity", model, path(&file), "--window", "4", "--json"]);
    let ids = json(&["logits", model, "--text", PROMPT, "--json"])["ids"].clone();
    let ids: Vec<u32> = serde_json::from_value(ids).expect("ids");
    let (mut sum, mut scored) = (0.0, 0);
    for (rows, window) in library_logits(ids.chunks(4)).iter().zip(ids.chunks(4)) {
        for (row, id) in rows.iter().zip(&window[1..]) {
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum += total.ln() - f64::from(row[*id as usize]);
            scored += 1;
        }
    }
    assert_eq!(value["scored"], scored);
    assert_eq!(value["tokens"], ids.len());
    let got = value["nll"].as_f64().expect("a number");
    assert!((got - sum).abs() < 1e-6 * sum, "{got} {sum}");
    let perplexity = value["perplexity"].as_f64().expect("a number");
    assert!((perplexity - (sum / f64::from(scored)).exp()).abs() < 1e-6 * perplexity);
}

#[test]
fn a_quantized_copy_serves_every_command() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("q4");
    let (from, to) = (path(model()), path(&copy));
    let args = ["quantize", from, to, "--type", "q4", "--tensor", "head=q4", "--shards", "2"];
    let report = json(&[&args[..], &["--json"]].concat());
    let kinds = report["kinds"].as_array().expect("kinds");
    assert_eq!(kinds.len(), 7);
    for kind in kinds {
        let name = kind["kind"].as_str().expect("a name");
        let (dtype, most_bits) = match name {
            "norm" | "router" => ("F32", 32.0),
            // A row of 64 has its scales in 16 bytes instead of 4, due to padding.
            "embedding" => ("Q8", 10.0),
            "head" | "attention" | "expert" | "dense" => ("Q4", 6.0),
            _ => panic!("{name}"),
        };
        assert!(kind["types"][dtype].as_u64() > Some(0), "{kind}");
        let bits = kind["bits_per_weight"].as_f64().expect("a number");
        assert!(bits <= most_bits, "{kind}");
        let error = kind["relative_error"].as_f64().expect("a number");
        match dtype {
            "F32" => assert!(error == 0.0 && kind["worst_tensor"].is_null(), "{kind}"),
            "Q8" => assert!((1e-4..0.01).contains(&error), "{kind}"),
            _ => assert!((0.01..0.12).contains(&error), "{kind}"),
        }
    }

    let known = json(&["inspect", to, "--no-device", "--json"]);
    assert_eq!(known["bytes"], report["bytes_after"]);
    assert_eq!(known["tensors"]["kinds"]["head"]["types"], serde_json::json!(["Q4"]));
    assert_eq!(known["tensors"]["kinds"]["norm"]["bytes"], kinds_bytes(&report, "norm"));
    assert!(good(&["inspect", to, "--no-device", "--all"]).contains("Q8"));

    let text = dir.path().join("text.txt");
    std::fs::write(&text, PROMPT).expect("written");
    let compare = ["perplexity", to, path(&text), "--against", from];
    let value = json(&[&compare[..], &["--json"]].concat());
    let alone = json(&["perplexity", to, path(&text), "--json"]);
    let original = json(&["perplexity", from, path(&text), "--json"]);
    for (name, alone) in [("perplexity", alone), ("perplexity_of_original", original)] {
        let [a, b] =
            [&value[name], &alone["perplexity"]].map(|value| value.as_f64().expect("a number"));
        assert!((a - b).abs() < 1e-9 * b, "{name}: {a} {b}");
    }
    let divergence = &value["kl_divergence"];
    let [median, most] = ["median", "max"].map(|name| divergence[name].as_f64().expect("nats"));
    assert!(0.0 < median && median < most, "{value}");
    assert!(good(&compare).contains("same likeliest token"));
    let itself = json(&["perplexity", to, path(&text), "--against", to, "--json"]);
    assert_eq!(itself["same_top_token"], 1.0);
    assert_eq!(itself["kl_divergence"]["max"], 0.0);

    assert!(!good(&["generate", to, PROMPT, "-n", "4", "--ignore-eos"]).is_empty());
    assert!(good(&["logits", to, "--ids", "5,17,3"]).lines().count() == 11);
    let bench = ["bench", to, "--prompt", "8", "--tokens", "2", "--repeats", "1", "--json"];
    assert!(json(&bench)["decode"]["tokens_per_second"].as_f64() > Some(0.0));

    assert_eq!(code(&["quantize", from, to, "--type", "q4"], "usage"), 2);
    let mut args = ["quantize", from, to, "--type", "q8", "--tensor", "router=q8"];
    assert_eq!(code(&args, "usage"), 2);
    for wrong in ["router", "nose=q8", "head=q2"] {
        args[6] = wrong;
        assert_eq!(run(&args).status.code(), Some(2), "{wrong}");
    }
}

fn kinds_bytes(report: &Value, name: &str) -> Value {
    let kinds = report["kinds"].as_array().expect("kinds");
    let kind = kinds.iter().find(|kind| kind["kind"] == name).expect("the kind is there");
    kind["bytes_after"].clone()
}

#[test]
fn the_released_model_can_be_inspected_anywhere() {
    let text = good(&["inspect", "--preset", "grok-2", "--no-device", "--all"]);
    for want in ["269515497472", "539030994944", "113822932992", "theta 208533496"] {
        assert!(text.contains(want), "{want} in {text}");
    }
    let args = ["inspect", "--preset", "grok-2", "--no-device", "--json", "--memory", "600GiB"];
    let value = json(&args);
    assert_eq!(value["parameters"]["total"], 269_515_497_472_u64);
    assert_eq!(value["bytes"], 539_030_994_944_u64);
    assert_eq!(value["plans"][0]["max_binding_bytes"], 128 << 20);
    assert_eq!(value["plans"][0]["kv_bytes_per_position"], 524_288);
    assert_eq!(value["plans"][0]["fits"], true);
    assert_eq!(value["plans"][0]["longest_context"], 131_072);
    let value = json(&[&args[..], &["--cache", "q8"]].concat());
    assert_eq!(
        (&value["cache"], &value["plans"][0]["kv_bytes_per_position"]),
        (&"Q8".into(), &139_264.into())
    );
}

#[test]
fn a_checkpoint_can_be_inspected() {
    let value = json(&["inspect", path(model()), "--tensors", "--json"]);
    assert_eq!(value["slices"], 8);
    let count = value["tensors"]["count"].as_u64().expect("a count");
    assert_eq!(value["tensors"]["list"].as_array().expect("a list").len() as u64, count);
    let plans = value["plans"].as_array().expect("plans");
    assert_eq!(plans.len(), 2);
    let fits = |memory: u64| {
        let memory = format!("{memory}B");
        let args = ["inspect", path(model()), "--no-device", "--json", "--memory", &memory];
        json(&args)["plans"][0]["fits"].clone()
    };
    let total = plans[1]["total_bytes"].as_u64().expect("bytes");
    assert_eq!((fits(total), fits(total - 1)), (true.into(), false.into()));
}

#[test]
fn a_plan_is_what_a_session_allocates() {
    let config = Config::preset("small").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("weights");
    for cache in grok_wgpu::lab::kernels::CACHES {
        let sizes = SessionOptions::new(300, 64, cache);
        let gpu = device(LimitProfile::Baseline);
        let limits = grok_wgpu::lab::machine::counting::DeviceLimits::of(gpu.caps());
        assert_eq!(limits, grok_wgpu::lab::machine::counting::DeviceLimits::BASELINE);
        let planner = grok_wgpu::lab::measure::capacity::Planner::new(&config, &weights, limits)
            .expect("a layout");
        let plan = planner.plan(sizes).expect("a plan");
        let mut session = block_on(Session::load(gpu, &config, &weights, sizes, &mut |_| Ok(())))
            .expect("a session");
        let recorded = session.decode_plan(Readback::Top(40)).expect("a plan");
        assert_eq!(plan.decode.dispatches, recorded.dispatches());
        // The variant of a kernel depends on the device; the label has it between kernel and weight
        // type.
        let kernel = |label: &str| {
            let (name, dtype) = label.split_once('/').unwrap_or((label, ""));
            let (kernel, _) = name.split_once('.').unwrap_or((name, ""));
            format!("{kernel}/{dtype}")
        };
        let of_kernels = |list: &[(String, u64)]| -> Vec<(String, u64)> {
            list.iter().map(|(label, count)| (kernel(label), *count)).collect()
        };
        assert_eq!(of_kernels(&plan.decode.kernels), of_kernels(&recorded.kernels()));
        assert_eq!(plan.decode.bytes_bound, recorded.bytes_bound());
        assert_eq!(plan.decode.bytes_touched, recorded.bytes_touched());
        assert_eq!(plan.total(), session.machine().allocated_bytes());
        assert_eq!(plan.tensors, session.machine().tensor_count());
    }
}

/// What a program wrote to the standard error.
fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn completions_and_help_exist() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(good(&["completions", shell]).contains("perplexity"), "{shell}");
    }
    let commands = [
        "generate",
        "chat",
        "inspect",
        "logits",
        "perplexity",
        "quantize",
        "selftest",
        "bench",
        "tune",
        "completions",
    ];
    assert!(good(&["help", "bench"]).contains("grok-wgpu bench"));
    for command in commands {
        let help = good(&[command, "--help"]);
        let examples = help.split("Examples:").nth(1).unwrap_or_default();
        let count = examples.matches(&format!("grok-wgpu {command}")).count();
        assert!(count >= 2, "{command}: {count} examples");
        assert!(good(&["--help"]).contains(command), "{command}");
    }
    assert!(good(&["--version"]).starts_with("grok-wgpu "));
    for (page, has) in [(&["man"][..], "grok-wgpu-bench(1)"), (&["man", "bench"], "--compare")] {
        let page = good(page).replace('\\', "");
        assert!(page.contains(".TH grok-wgpu") && page.contains(has), "{page}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = program()
        .args(greedy(&["--prefill", "2"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("error["), "{stderr}");
}

#[test]
fn quiet_is_quiet_and_colours_are_asked_for() {
    let output = run(&greedy(&["--quiet"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("tokens") && output.status.success(), "{stderr}");
    let colored = run(&["generate", "/no/such/model", "hi", "--color", "always"]);
    assert!(String::from_utf8_lossy(&colored.stderr).contains("\x1b[1;31merror[io]"));
}

/// What a file's name or an argument has of control characters is shown, and not sent.
#[cfg(unix)]
#[test]
fn escape_sequences_are_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("a\u{1b}[31mb");
    let output = run(&["inspect", path(&model)]);
    assert!(!output.stderr.contains(&0x1b), "{}", text_of(&output));
    assert!(text_of(&output).contains("a\\u{1b}[31mb"), "{}", text_of(&output));
}

#[test]
fn the_file_of_a_model_names_it_too() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    let file: PathBuf = dir.path().join("model.safetensors");
    let mut args = greedy(&[]);
    let sliced = good(&args);
    args[1] = path(&file);
    assert_eq!(sliced, good(&args));
}
