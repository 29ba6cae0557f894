//! `chat` on a terminal: lines that break between words, and what is typed while an answer comes.

use std::{fs, path::Path, thread, time::Duration};

use super::{
    chat::saved,
    model, path,
    signals::{answer_begins, end, find, kill, on_a_terminal},
};

/// The conversation that was kept in a person's folder.
fn kept(home: &Path) -> Vec<(String, String)> {
    let folder = find(home, "history").expect("a history").with_file_name("unsaved");
    let entries = fs::read_dir(folder).expect("a folder");
    let files: Vec<_> = entries.map(|file| file.expect("an entry").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    saved(&files[0])
}

#[test]
fn words_are_whole_on_a_terminal() {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("saved.json");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    let (mut session, _) = on_a_terminal(home.path(), &["chat", demo, "-n", "60", "--seed", "3"]);
    session.send_line("Tell me a story.").expect("typed");
    session.exp_string("\u{1b}[?2004l\r\n\u{1b}[?2004h").expect("an answer");
    let shown = session.exp_string("prompt: ").expect("an answer");
    session.exp_string("> ").expect("a prompt");
    session.send_line(&format!("/save {}", file.display())).expect("typed");
    session.exp_string("saved to").expect("saved");
    session.send_line("/bye").expect("typed");
    end(session, 0);
    let answer = &saved(&file)[1].1;
    // The editor's and the faint colour's sequences are around the answer.
    let first = answer.split_whitespace().next().expect("a word");
    let shown = &shown[shown.find(first).expect("the answer")..];
    let shown = shown.split('\u{1b}').next().expect("text").replace('\r', "");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&shown), words(answer));
    assert!(shown.lines().count() > 4, "{shown}");
    for line in shown.lines() {
        assert!(line.chars().count() <= 40, "{line:?}");
    }
}

#[test]
fn what_is_typed_ahead_comes_at_the_next_prompt() {
    let home = tempfile::tempdir().expect("a folder");
    let (mut session, _) = on_a_terminal(home.path(), &["chat", path(model()), "-n", "2000"]);
    session.send_line("hello").expect("typed");
    answer_begins(&mut session);
    // Half a line, which Ctrl-C does not discard.
    session.send("typed ahead").expect("typed");
    session.send_control('c').expect("typed");
    let answer = session.exp_string("stopped").expect("the answer ends");
    assert!(!answer.contains("typed") && !answer.contains("ahead"), "{answer:?}");
    session.exp_string("typed ahead").expect("at the prompt");
    // A whole line is sent.
    session.send_line(" of time").expect("typed");
    answer_begins(&mut session);
    session.send_line("/bye").expect("typed");
    session.send_control('c').expect("typed");
    let answer = session.exp_string("stopped").expect("the answer ends");
    assert!(!answer.contains("/bye"), "{answer:?}");
    session.exp_string("/bye").expect("at the prompt");
    end(session, 0);
}

#[test]
fn ctrl_c_does_not_lose_the_conversation() {
    let home = tempfile::tempdir().expect("a folder");
    let (mut session, pid) = on_a_terminal(home.path(), &["chat", path(model()), "-n", "2000"]);
    session.send_line("hello").expect("typed");
    answer_begins(&mut session);
    let runs = || Path::new("/proc").join(&pid).exists();
    let mut presses = 0;
    while presses < 3 || (cfg!(target_os = "linux") && runs() && presses < 50) {
        session.send_control('c').expect("typed");
        presses += 1;
        thread::sleep(Duration::from_millis(40));
    }
    session.exp_string("the conversation is kept: /load ").expect("a word");
    session.exp_string("same mode: yes").expect("the terminal is as before");
    let messages = kept(home.path());
    assert_eq!(messages[0], ("user".to_owned(), "hello".to_owned()));
    assert!(presses > 2, "two presses do not end it");
}

#[test]
fn a_signal_at_the_prompt_keeps_the_conversation() {
    let home = tempfile::tempdir().expect("a folder");
    let (mut session, pid) = on_a_terminal(home.path(), &["chat", path(model()), "-n", "2"]);
    session.send_line("\"\"\"one").expect("typed");
    session.send_line("two\"\"\"").expect("typed");
    session.exp_string("prompt: ").expect("an answer");
    session.exp_string("> ").expect("a prompt");
    kill("-TERM", &pid);
    session.exp_string("the conversation is kept: /load ").expect("a word");
    end(session, 143);
    let messages = kept(home.path());
    assert_eq!((messages.len(), &*messages[0].1), (2, "one\ntwo"));
}
