//! `chat` as a user runs it.

use serde_json::Value;

use super::{model, path, text, with_stdin};

#[test]
fn a_conversation_by_lines() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("saved.json");
    let save = format!("/save {}", file.display());
    let lines = ["/help", "/system Be brief.", "hello", "and then?", &save, "/reset", "/nonsense"];
    let input = lines.join("\n") + "\n/quit\nnever read\n";
    let args = ["chat", path(model()), "--seed", "1", "-n", "5"];
    let output = with_stdin(&args, &input);
    let stdout = text(&output, &args);
    assert!(stdout.contains("/reset"), "{stdout}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("more in the cache") && stderr.contains("/nonsense"), "{stderr}");
    let saved = std::fs::read(&file).expect("a file");
    let saved: Value = serde_json::from_slice(&saved).expect("JSON");
    let messages = saved["messages"].as_array().expect("messages");
    let roles: Vec<&str> = messages.iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages[1]["content"], "hello");
    // The saved text is the printed text.
    let answer = messages[2]["content"].as_str().expect("text");
    assert!(stdout.contains(answer), "{stdout:?} {answer:?}");
}

#[test]
fn a_conversation_that_is_full_says_so() {
    let args = ["chat", path(model()), "--context", "16", "--temperature", "0"];
    let output = with_stdin(&args, "hello\nA much longer message that has no room here\n");
    text(&output, &args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the context holds 16") && stderr.contains("/reset"), "{stderr}");
}
