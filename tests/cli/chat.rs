//! `chat` as a user runs it.

use std::{fs, io::Write as _, path::Path, process::Stdio};

use grok_wgpu::lab::checkpoint::write::Layout;
use serde_json::Value;

use super::{damage::spoil, model, path, program, text, text_of, with_stdin, write_model};

/// The contents of the messages in a saved conversation, with their roles.
pub(super) fn saved(file: &Path) -> Vec<(String, String)> {
    let saved: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    let field = |message: &Value, name: &str| message[name].as_str().expect("text").to_owned();
    let messages = saved["messages"].as_array().expect("messages");
    messages.iter().map(|m| (field(m, "role"), field(m, "content"))).collect()
}

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
    let messages = saved(&file);
    let roles: Vec<&str> = messages.iter().map(|(role, _)| &**role).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages[1].1, "hello");
    // The saved text is the printed text.
    let answer = &messages[2].1;
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

#[test]
fn what_is_no_command_is_sent() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("saved.json");
    let said = ["/etc/hosts looks wrong", "    indented", "/help me"];
    let input = [
        b"\xef\xbb\xbf/etc/hosts looks wrong\r\n".to_vec(),
        b"not \xff text\n    indented\n//help me\n".to_vec(),
        format!("/save {}\n", file.display()).into_bytes(),
    ]
    .concat();
    let mut child = program()
        .args(["chat", path(model()), "-n", "1", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(&input).expect("read");
    let output = child.wait_with_output().expect("ends");
    let stderr = text_of(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("/etc/hosts is no command, so it is sent"), "{stderr}");
    assert!(!stderr.contains("/help is no command"), "{stderr}");
    assert!(stderr.contains("a line was not sent: not UTF-8 text: the byte at 4"), "{stderr}");
    let messages = saved(&file);
    let sent: Vec<&str> =
        messages.iter().filter(|(role, _)| role == "user").map(|(_, text)| &**text).collect();
    assert_eq!(sent, said);
}

#[test]
fn a_failed_answer_does_not_end_the_conversation() {
    let dir = tempfile::tempdir().expect("a folder");
    write_model(dir.path(), Layout::Single);
    // The last norm, whose NaN reaches every logit.
    spoil(dir.path(), "model.norm.weight", |bytes| 0..bytes, &[0xc0, 0x7f]);

    let kept = dir.path().join("saved.json");
    let input = format!("hello\nstill there?\n/save {}\n", kept.display());
    let chat = ["chat", path(dir.path()), "-n", "2", "--allow-non-finite"];
    let output = with_stdin(&chat, &input);
    let stderr = text_of(&output);
    assert_eq!(stderr.matches("there is no answer").count(), 2, "{stderr}");
    assert!(stderr.contains("error[non_finite]") && !output.status.success(), "{stderr}");
    let sent = ["hello", "still there?"].map(|text| ("user".to_owned(), text.to_owned()));
    assert_eq!(saved(&kept), sent);
}
