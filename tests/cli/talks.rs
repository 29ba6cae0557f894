//! Conversations that are longer than the context, and the commands within them.

use std::{fs, path::Path};

use serde_json::json;

use super::{chat::saved, model, path, text, text_of, with_stdin};

/// A chat of `lines`: what it printed on each stream, and the conversation that it saved.
fn talk(args: &[&str], lines: &[&str]) -> (String, String, Vec<(String, String)>) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("saved.json");
    let args = [&["chat"], args].concat();
    let save = format!("/save {}", file.display());
    let output = with_stdin(&args, &([lines, &[&save]].concat().join("\n") + "\n"));
    (text(&output, &args), text_of(&output), saved(&file))
}

/// Writes a conversation as `/save` does.
fn write(file: &Path, messages: &[(String, String)]) {
    let list: Vec<_> =
        messages.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
    fs::write(file, json!({ "messages": list }).to_string()).expect("written");
}

/// How many of the exchanges are left out, as `/show` says.
fn left_out(stdout: &str) -> usize {
    let line = stdout.lines().find(|line| line.starts_with("exchanges ")).expect("/show");
    let count = line.split("the oldest ").nth(1).and_then(|rest| rest.split(' ').next());
    count.expect("some are left out").parse().expect("a number")
}

/// Thirty turns with the shipped model, where there is room for fewer. The last answer is that of a
/// conversation that never had the exchanges that are left out.
#[test]
fn a_conversation_passes_its_context() {
    let mut lines: Vec<String> = (1..=30).map(|i| format!("Is it {i}?")).collect();
    lines.push("/show".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    // Little is left out, as all that is left goes through the model again then.
    let args = [
        "models/demo",
        "--system",
        "Be kind.",
        "-n",
        "2",
        "--temperature",
        "0",
        "--context",
        "352",
    ];
    let (stdout, stderr, messages) = talk(&args, &lines);
    assert_eq!(messages.len(), 61, "nothing is lost: {stderr}");
    assert_eq!(stderr.matches("of 352 tokens is full").count(), 1, "once: {stderr}");
    let gone = left_out(&stdout);
    assert!((2..25).contains(&gone), "{stdout}");

    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("left.json");
    let left = [&messages[..1], &messages[1 + 2 * gone..60]].concat();
    write(&file, &left);
    let load = format!("/load {}", file.display());
    let (_, stderr, again) = talk(&args, &[&load, "/regen"]);
    assert!(stderr.contains("/regen answers the last message"), "{stderr}");
    assert!(!stderr.contains("is full"), "{stderr}");
    assert_eq!(again[..], [&messages[..1], &messages[1 + 2 * gone..]].concat());
}

#[test]
fn an_answer_goes_on_when_the_context_is_full() {
    let args = [path(model()), "--context", "48", "-n", "60", "--temperature", "0"];
    let lines = ["/set max-tokens 2", "hello", "/set max-tokens 40", "and then?"];
    let (_, stderr, messages) = talk(&args, &lines);
    assert!(stderr.contains("the oldest exchange is left out"), "{stderr}");
    // With nothing more to leave out, it ends.
    let made = |stderr: &str| -> Vec<usize> {
        let after = stderr.split("tokens made: ").skip(1);
        after
            .map(|rest| rest.split([',', '\n']).next().expect("a number").parse().expect("one"))
            .collect()
    };
    let (on, off) = (made(&stderr), [&args[..], &["--context-shift", "off"]].concat());
    let (_, stderr, cut) = talk(&off, &lines);
    assert!(stderr.contains("warning: the context of 48 tokens is full"), "{stderr}");
    assert!(!stderr.contains("left out"), "{stderr}");
    let off = made(&stderr);
    assert!(on[1] > off[1], "{on:?} {off:?}");
    assert!(
        messages[3].1.starts_with(cut[3].1.trim_end_matches('\u{fffd}')),
        "{messages:?} {cut:?}"
    );
}

#[test]
fn answers_are_made_again_and_taken_back() {
    let args = [path(model()), "--seed", "1", "-n", "6"];
    let lines = ["one", "two", "/regen", "/undo", "/show", "/undo", "/undo", "/regen", "three"];
    let (stdout, stderr, messages) = talk(&args, &lines);
    let answers: Vec<&str> = stdout.lines().collect();
    assert_ne!(answers[1], answers[2], "another seed: {stdout}");
    for told in ["seed 2\n", "taken back: two", "taken back: one", "nothing to take back"] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    assert!(stderr.contains("there is no message to answer"), "{stderr}");
    assert!(stdout.contains("exchanges          1\n"), "{stdout}");
    assert!(stdout.contains("seed               2\n"), "{stdout}");
    assert_eq!((messages.len(), &*messages[0].1), (2, "three"));
    // At temperature 0 there is no other answer.
    let greedy = [path(model()), "--temperature", "0", "-n", "6"];
    let (stdout, stderr, _) = talk(&greedy, &["one", "/regen"]);
    let answers: Vec<&str> = stdout.lines().collect();
    assert_eq!(answers[0], answers[1]);
    assert!(stderr.contains("at temperature 0 the answer is the same"), "{stderr}");
}

#[test]
fn a_saved_conversation_is_shown_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("talk.json");
    let args = [path(model()), "--temperature", "0", "-n", "5"];
    let (_, _, messages) = talk(&args, &["/system Be brief.", "one", "two"]);
    write(&file, &messages);
    let load = format!("/load {}", file.display());
    let missing = format!("/load {}", dir.path().join("none.json").display());
    let broken = dir.path().join("broken.json");
    fs::write(&broken, "{\"messages\": [{\"role\": \"user\"}]}").expect("written");
    let broken = format!("/load {}", broken.display());
    let lines = ["zero", &load, &missing, &broken, "/load", "three"];
    let (_, stderr, again) = talk(&args, &lines);
    assert_eq!(again[..5], messages);
    assert_eq!((again.len(), &*again[5].1), (7, "three"));
    for told in ["system text: Be brief.", "> one\n", "> two\n", "exchanges: 2\n", "which file?"] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    assert!(stderr.contains("as it was: ") && stderr.contains("none.json: "), "{stderr}");
    assert!(stderr.contains("broken.json: messages[0]: `content` is missing"), "{stderr}");
}

#[test]
fn options_are_set_and_shown() {
    let args = [path(model()), "-n", "3", "--system", "Be brief."];
    let lines = [
        "/set temperature 0",
        "/set temperature 7",
        "/set top-q 1",
        "/stats off",
        "hello",
        "/stats on",
        "hello again",
        "/stats maybe",
        "/show",
        "/?",
        "/clear",
    ];
    let (stdout, stderr, messages) = talk(&args, &lines);
    assert_eq!(messages.len(), 1);
    assert_eq!(stderr.matches("first token after").count(), 1, "{stderr}");
    for told in ["temperature is 7, expected 0 to 2", "NAME is temperature,", "/stats on, or"] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    let rows = ["temperature        0.0", "system text        Be brief.", "max-tokens         3"];
    for shown in rows.iter().chain(&["tokens are used", "/regen", "/bye"]) {
        assert!(stdout.contains(shown), "{shown}: {stdout}");
    }
}

#[test]
fn three_quotes_hold_lines_together() {
    let args = [path(model()), "-n", "1", "--temperature", "0", "--stats", "off"];
    let input = ["\"\"\"first", "", "/quit", "last\"\"\"", "\"\"\"one\"\"\" two", "\"\"\"\nopen"];
    let args = [&["chat"], &args[..]].concat();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("saved.json");
    // A message without an end is sent at the end of the input, where nothing can be saved.
    let save = format!("/save {}", file.display());
    let lines = [&input[..5], &[&save], &input[5..]].concat().join("\n");
    let output = with_stdin(&args, &lines);
    assert_eq!(text(&output, &args).lines().count(), 4, "four answers");
    assert!(text_of(&output).contains("the message has no \"\"\" at its end"));
    let messages = saved(&file);
    let said: Vec<&str> =
        messages.iter().filter(|(role, _)| role == "user").map(|(_, text)| &**text).collect();
    assert_eq!(said, ["first\n\n/quit\nlast", "one", " two"]);
}
