//! The first minute: what people type first, and what they are told.

use serde_json::{Value, json as object};

use super::{PROMPT, code, good, json, model, path, program, run, text, text_of, with_stdin};

/// The lines of a run, each an object.
fn lines(args: &[&str]) -> Vec<Value> {
    good(args).lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

#[test]
fn the_verdict_comes_first() {
    let preset = ["inspect", "--preset", "grok-2", "--no-device"];
    let with = |more: &[&str]| good(&[&preset[..], more].concat());
    let text = with(&["--memory", "192GiB", "--bandwidth", "936GB/s"]);
    let mut told = text.lines();
    let first = "grok-2: 269.5 billion parameters, 113.8 billion of them for each token";
    assert_eq!(told.next(), Some(first));
    assert_eq!(told.next(), Some("In 192 GiB: q4 fits, with a context of up to 103744 tokens."));
    for row in ["bf16        500 GiB          502.2 GiB", "14.5 tokens/s at most", "at 936 GB/s"] {
        assert!(text.contains(row), "{row}: {text}");
    }
    assert!(!text.contains("hidden_size"), "{text}");
    let none = with(&["--memory", "1.5GiB"]);
    assert!(
        none.contains("In 1.5 GiB: nothing fits whole; q4 with 4096 tokens of context"),
        "{none}"
    );
    assert!(with(&["--memory", "600GiB"]).contains("In 600 GiB: bf16 fits"), "all that fit");
    let short = with(&["--memory", "143GiB", "--context", "131072"]);
    assert!(short.contains("q4 fits with a context of up to ") && short.contains("not of 131072"));

    let value: Value =
        serde_json::from_str(&with(&["--json", "--memory", "192GiB", "--bandwidth", "936GB/s"]))
            .expect("JSON");
    let verdict = &value["verdict"];
    let types = verdict["types"].as_array().expect("a list");
    let of = |name: &str| types.iter().find(|of| of["type"] == name).expect("there");
    assert_eq!((&of("Q4")["fits"], &of("Q8")["fits"]), (&true.into(), &false.into()));
    assert_eq!(of("Q4")["longest_context"], 103_744);
    let bound = of("BF16")["most_tokens_per_second"].as_f64().expect("a rate");
    let bytes = of("BF16")["token_bytes"].as_f64().expect("bytes");
    assert!((bound * bytes - 936e9).abs() < 1.0, "{bound} {bytes}");
    // What a token reads is hardly more than its parameters.
    let active = value["parameters"]["active"].as_f64().expect("a count");
    assert!((1.0..1.001).contains(&(bytes / (2.0 * active))), "{bytes} {active}");
    // What bf16 takes is what the plan under the same limits says.
    assert_eq!(of("BF16")["total_bytes"], value["plans"][0]["total_bytes"]);
    assert_eq!(verdict["bytes_per_second_measured"], false);
}

#[test]
fn numbers_of_memory_have_units() {
    for (option, value, wanted) in [
        ("--memory", "24", "24 of what? 24GiB"),
        ("--memory", "x", "wanted a number with a unit"),
        ("--bandwidth", "936", "936 of what? 936GB/s"),
    ] {
        let output = run(&["inspect", path(model()), "--no-device", option, value]);
        let told = text_of(&output);
        assert!(output.status.code() == Some(2) && told.contains(wanted), "{told}");
    }
}

/// One number of active parameters, wherever it is told.
#[test]
fn active_parameters_are_one_number() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    let known = json(&["inspect", demo, "--no-device", "--json"]);
    let bench = ["bench", demo, "--prompt", "8", "--tokens", "1", "--repeats", "1", "--rates"];
    let measured = json(&[&bench[..], &["--json"]].concat());
    assert_eq!(known["parameters"]["active"], measured["active_parameters"]);
    assert_eq!(known["parameters"]["total"], measured["parameters"]);
    let count = |preset: &str| {
        let value = json(&["inspect", "--preset", preset, "--no-device", "--json"]);
        let of = |name: &str| value["parameters"][name].as_f64().expect("a count") / 1e6;
        [of("total"), of("active")]
    };
    let performance = include_str!("../../docs/performance.md");
    let [total, active] = count("bench");
    let told = format!("{total:.0} million parameters, {active:.0} million of them for each token");
    assert!(performance.contains(&told), "{told}");
    let readme = include_str!("../../README.md");
    let shown = good(&["inspect", "--preset", "grok-2", "--no-device", "--memory", "192GiB"]);
    let first = shown.lines().next().expect("a line");
    assert!(readme.contains(first), "{first}");
}

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = include_str!("../../README.md");
    let command = "    grok-wgpu inspect --preset grok-2 --no-device --memory 192GiB \
                   --bandwidth 936GB/s\n";
    let after = readme.split_once(command).expect("the command").1;
    let block: String = after
        .lines()
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let args: Vec<&str> = command.split_whitespace().skip(1).collect();
    assert_eq!(block.trim_end(), good(&args).trim_end());
}

#[test]
fn pieces_come_as_lines_of_json() {
    let args = ["generate", path(model()), PROMPT, "--temperature", "0", "-n", "9"];
    let args = [&args[..], &["--ignore-eos", "--quiet", "--seed", "3"]].concat();
    let whole = json(&[&args[..], &["--json"]].concat());
    let mut lines = lines(&[&args[..], &["--json-lines", "--logprobs", "2"]].concat());
    let end = lines.pop().expect("a last line");
    let text: String = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(whole["text"], text);
    let tokens: Vec<&Value> = lines.iter().filter(|line| line["type"] == "token").collect();
    let ids: Vec<&Value> = tokens.iter().map(|line| &line["id"]).collect();
    assert_eq!(object!(ids), whole["ids"]);
    for token in &tokens {
        assert_eq!(token["top"].as_array().map(Vec::len), Some(2), "{token}");
        assert_eq!(
            (&token["top"][0]["id"], &token["top"][0]["logprob"]),
            (&token["id"], &token["logprob"])
        );
    }
    assert_eq!((&end["type"], &end["finish_reason"]), (&"end".into(), &"length".into()));
    let prompt = whole["prompt_tokens"].as_u64().expect("a count");
    assert_eq!(
        end["usage"],
        object!({ "prompt_tokens": prompt, "completion_tokens": 9, "total_tokens": prompt + 9 })
    );
    assert_eq!(end["seed"], whole["seed"]);
    assert!(end["timings"]["tokens_per_second"].as_f64() > Some(0.0), "{end}");

    // An error is an object on the standard error.
    let failed = run(&["generate", "/no/such/model", "hi", "--json-lines"]);
    let told: Value = serde_json::from_str(text_of(&failed).trim_end()).expect("an object");
    assert!(told["error"]["code"] == "io" && failed.stdout.is_empty(), "{told}");
    assert_eq!(code(&["generate", path(model()), "hi", "--logprobs", "1"], "usage"), 2);
}

#[test]
fn stop_texts_end_a_text() {
    let args = ["generate", path(model()), PROMPT, "--temperature", "0", "-n", "12", "--json"];
    let args = [&args[..], &["--ignore-eos"]].concat();
    let whole = json(&args)["text"].as_str().expect("text").to_owned();
    // Two characters that can be an argument, which may lie across tokens.
    let characters: Vec<char> = whole.chars().collect();
    let printed = |pair: &&[char]| !pair.iter().any(|c| c.is_control());
    let stop: String =
        characters[2..].windows(2).find(printed).expect("a long text").iter().collect();
    let first = whole.find(&stop).expect("it is there");
    let stops = ["--stop".to_owned(), "no such text".to_owned(), format!("--stop={stop}")];
    let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
    let stopped = json(&[&args[..], &stops].concat());
    assert_eq!(
        (&stopped["text"], &stopped["finish_reason"]),
        (&whole[..first].into(), &"stop".into())
    );
    assert_eq!(run(&[&args[..], &["--stop", ""]].concat()).status.code(), Some(2));
}

/// With a system text, the prompt is a message of a conversation, as in `chat`.
#[test]
fn a_system_text_makes_the_prompt_a_message() {
    let options = ["--temperature", "0", "-n", "6", "--system", "Be brief."];
    let model = path(model());
    let chat = [&["chat", model][..], &options].concat();
    let said = text(&with_stdin(&chat, "Hello\n"), &chat);
    let args = [&["generate", model, "Hello"][..], &options].concat();
    let output = run(&args);
    let told = text_of(&output);
    assert!(told.contains("brings no chat template: the conversation is written as grok-2's"));
    assert_eq!(text(&output, &args), said);
    let whole = json(&[&args[..], &["--json"]].concat());
    assert_eq!(whole["text"], said.strip_suffix('\n').expect("a line"));
    let plain = json(&["generate", model, "Hello", "-n", "1", "--json"]);
    assert!(whole["prompt_tokens"].as_u64() > plain["prompt_tokens"].as_u64(), "{whole}");
}

/// The warm-up changes no text and no random numbers.
#[test]
fn warm_or_not_the_text_is_the_same() {
    let args = ["generate", path(model()), PROMPT, "-n", "12", "--seed", "5", "--ignore-eos"];
    let warm = good(&args);
    assert_eq!(warm, good(&[&args[..], &["--no-warmup"]].concat()));
    assert_eq!(warm, good(&[&args[..], &["--prefill", "2"]].concat()));
}

#[test]
fn mistakes_are_found_before_a_device_is() {
    let model = path(model());
    // There is no such adapter: an error that is about another thing came first.
    let nowhere = ["--adapter", "no such adapter"];
    for (args, wanted) in [
        (&["logits", model, "--ids", "5,512"][..], "token id 512 is not below vocab_size 512"),
        (&["generate", model, "hi", "--prefill", "0"], "the prefill chunk is 0"),
        (&["generate", model, "hi", "--context", "1000000"], "the context is 1000000"),
        (&["chat", model, "--prefill", "0"], "the prefill chunk is 0"),
        (&["bench", model, "--prefill", "0"], "the prefill chunk is 0"),
        (&["perplexity", model], "of which text?"),
        (&["inspect", "--config", model], "--config wants a file"),
    ] {
        let output = run(&[args, &nowhere].concat());
        let told = text_of(&output);
        assert!(output.status.code() == Some(2) && told.contains(wanted), "{args:?}: {told}");
    }
}

#[test]
fn logits_are_of_the_shipped_model_if_none_is_named() {
    assert_eq!(good(&["logits", "--ids", "5,17,3"]).lines().count(), 11);
}

#[test]
fn words_of_other_programs_do_what_they_mean() {
    let model = path(model());
    let end = ["-n", "4", "--temperature", "0", "--ignore-eos"];
    let own = good(&[&["generate", model, PROMPT][..], &end].concat());
    for typed in [
        &["generate", "-m", model, "-p", PROMPT][..],
        &["generate", "--model", model, "--prompt", PROMPT],
        &["-m", model, "-p", PROMPT],
        &["run", model, PROMPT],
    ] {
        let args = [typed, &end].concat();
        let output = run(&args);
        assert!(text_of(&output).contains("grok-wgpu generate "), "{typed:?}");
        assert_eq!(text(&output, &args), own, "{typed:?}");
    }
    let talk = ["run", model, "-n", "2"];
    assert!(!text(&with_stdin(&talk, "Hello\n"), &talk).is_empty());
    for (typed, wanted) in [
        (&["pull", "grok-2"][..], "hf://OWNER/NAME"),
        (&["chat", "--prompt", "Hello"], "grok-wgpu generate MODEL TEXT"),
        (&["generate", model, "hi", "-c", "64"], "--context TOKENS"),
        (&[model], "grok-wgpu chat"),
    ] {
        assert_eq!(code(typed, "usage"), 2, "{typed:?}");
        assert!(text_of(&run(typed)).contains(wanted), "{typed:?}");
    }
    assert_eq!(good(&["help", "chat"]), good(&["chat", "--help"]));
    assert_eq!(good(&["help", "server"]), good(&["serve", "--help"]));
    assert_eq!(good(&["help", "download"]), good(&["pull", "--help"]));
    assert_eq!(good(&["help"]), good(&["--help"]));
}

#[test]
fn quantize_says_what_to_do_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("q4");
    let output = run(&["quantize", path(model()), path(&copy), "--type", "q4"]);
    let told = text_of(&output);
    for wanted in ["wrote ", "grok-wgpu chat ", "--against "] {
        assert!(told.contains(wanted) && told.contains(path(&copy)), "{wanted}: {told}");
    }
}

/// Wayland's library would print errors of its own without the variable, so the program begins
/// again with it: in the same process, with the same arguments, input and exit codes.
#[cfg(target_os = "linux")]
#[test]
fn drivers_are_quiet_without_a_runtime_folder() {
    use std::{io::Write as _, process::Stdio};

    let bare = |args: &[&str], value: Option<&str>| {
        let mut command = program();
        command.args(args).env_remove("XDG_RUNTIME_DIR");
        command.envs(value.map(|value| ("XDG_RUNTIME_DIR", value)));
        command
    };
    for value in [None, Some(""), Some("relative")] {
        let output = bare(&["--list-adapters"], value).output().expect("the program starts");
        let told = text_of(&output);
        assert!(output.status.success() && !told.contains("XDG_RUNTIME_DIR"), "{told}");
    }
    let mut wrong = bare(&["logits", path(model()), "--ids", "512"], None);
    assert_eq!(wrong.output().expect("the program starts").status.code(), Some(2));

    let mut command = bare(&["chat", path(model()), "-n", "2"], None);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let environment = format!("/proc/{}/environ", child.id());
    let set = || {
        let bytes = std::fs::read(&environment).unwrap_or_default();
        bytes.split(|&byte| byte == 0).any(|entry| entry == b"XDG_RUNTIME_DIR=/nonexistent")
    };
    let begun = (0..2000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        set()
    });
    assert!(begun, "the same process has the variable");
    child.stdin.take().expect("piped").write_all(b"Hello\n").expect("read");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", text_of(&output));
}
