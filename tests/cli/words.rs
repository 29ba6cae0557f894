//! Words of the command line: what is a model, a prompt, a value.

use super::{PROMPT, good, json, model, path, run, text_of};

/// What llama.cpp's programs take for a random seed, and for as many tokens as there is room for.
#[test]
fn minus_one_is_a_value() {
    let args = ["generate", path(model()), PROMPT, "-n", "-1", "--context", "16", "--json"];
    let args = [&args[..], &["--ignore-eos", "--seed", "-1"]].concat();
    let [a, b] = [json(&args), json(&args)];
    let made = a["ids"].as_array().expect("ids").len() as u64;
    assert_eq!(a["prompt_tokens"].as_u64().map(|prompt| prompt + made), Some(17), "{a}");
    assert_ne!(a["seed"], b["seed"]);
}

#[test]
fn negative_numbers_are_told_what_is_wanted() {
    for (option, value, wanted) in [
        ("--seed", "-2", "wanted a whole number from 0 to"),
        ("-n", "-2", "wanted a whole number from 1 to"),
        ("--context", "-1", "-1"),
        ("--logprobs", "-1", "0..=20"),
        ("--top-k", "-1", "-1"),
    ] {
        let output = run(&["generate", path(model()), "hi", "--json", option, value]);
        let stderr = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("invalid value") && stderr.contains(wanted), "{stderr}");
        assert!(!stderr.contains("tip"), "{stderr}");
    }
}

#[test]
fn a_word_with_a_slash_is_a_prompt() {
    let output = run(&["generate", "and/or", "-n", "2", "--echo", "--temperature", "0"]);
    let stderr = text_of(&output);
    assert!(output.status.success() && output.stdout.starts_with(b"and/or"), "{stderr}");
    assert!(stderr.contains("and/or is the prompt: there is no such file"), "{stderr}");
    for path in ["./and/or", "/and/or", "hf://and/or"] {
        let output = run(&["generate", path]);
        assert_eq!(output.status.code(), Some(3), "{path}: {}", text_of(&output));
    }
}

#[test]
fn a_prompt_may_begin_with_a_dash() {
    let end = ["-n", "2", "--temperature", "0", "--echo", "--"];
    let args = [&["generate", path(model())], &end[..], &["- a list"]].concat();
    assert!(good(&args).starts_with("- a list"));
    let args = ["generate", path(model()), "- it's a list"];
    for args in [&args[..], &[&args[..], &["--json"]].concat()] {
        let output = run(args);
        let told = text_of(&output).replace("\\\\", "\\");
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(r"after `--`: -- '- it'\''s a list'"), "{told}");
    }
}

/// Folders have names of bytes on Unix; macOS takes only UTF-8.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_whose_name_is_not_text() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::{program, write_model};

    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join(OsStr::from_bytes(b"m\xff"));
    write_model(&folder, grok_wgpu::lab::checkpoint::write::Layout::Single);
    let with = |args: &[&str]| {
        let mut command = program();
        command.arg(args[0]).arg(&folder).args(&args[1..]).output().expect("the program starts")
    };
    let inspected = with(&["inspect", "--no-device"]);
    let generated = with(&["generate", PROMPT, "-n", "2"]);
    let talked = with(&["chat", "-n", "2"]);
    for output in [inspected, generated, talked] {
        assert!(output.status.success(), "{}", text_of(&output));
    }
    // The only word: the model, with a prompt from the standard input.
    let output = program().arg("generate").arg(&folder).output().expect("the program starts");
    assert!(text_of(&output).contains("the prompt is empty"), "{}", text_of(&output));
}
