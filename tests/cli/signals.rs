//! Signals, as `kill`, a closed terminal and Ctrl-C send them.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use rexpect::session::PtySession;

use super::{PROMPT, good, model, path, program};

/// Time for a child to say what is expected, in milliseconds.
const TIMEOUT: u64 = 120_000;

pub(super) fn kill(signal: &str, pid: &str) {
    let killed = Command::new("kill").args([signal, pid]).status();
    assert!(killed.expect("kill runs").success());
}

/// The program with all pipes.
fn piped(args: &[&str]) -> Child {
    program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// A chat whose answers have no end, and its process.
fn chat_on_a_terminal(home: &Path) -> (PtySession, String) {
    on_a_terminal(home, &["chat", path(model()), "-n", "2000"])
}

/// A chat on a terminal of 40 columns, in a shell that compares the terminal's mode before and
/// after it, and prints the exit code; and the chat's process.
pub(super) fn on_a_terminal(home: &Path, args: &[&str]) -> (PtySession, String) {
    let mut command = Command::new("sh");
    let inner = r#"echo "pid $$ is it"; exec "$0" "$@""#;
    // Ctrl-C is for the chat alone.
    let outer = r#"trap : INT; stty cols 40 rows 24; mode=$(stty -g)
        sh -c "$INNER" "$0" "$@"; code=$?
        if [ "$mode" = "$(stty -g)" ]; then same=yes; else same=no; fi
        echo "code $code, same mode: $same""#;
    command.args(["-c", outer, env!("CARGO_BIN_EXE_grok-wgpu")]).args(args);
    command.env("INNER", inner).env("HOME", home).env_remove("XDG_DATA_HOME");
    command.env("GROK_WGPU_TUNING", "none").env("TERM", "xterm");
    let mut session = rexpect::session::spawn_command(command, Some(TIMEOUT)).expect("a terminal");
    let (_, pid) = session.exp_regex(r"pid \d+ is it").expect("the process");
    let pid = pid.split(' ').nth(1).expect("a number").to_owned();
    // The editor's prompt, after which it reads.
    session.exp_string("> ").expect("a prompt");
    (session, pid)
}

/// Waits for the first characters of an answer. Before it, the editor no longer has pasted text
/// marked, and the chat does.
pub(super) fn answer_begins(session: &mut PtySession) {
    session.exp_string("\u{1b}[?2004l\r\n\u{1b}[?2004h").expect("an answer");
    session.exp_regex(r"[^\x1b]{8}").expect("its text");
}

pub(super) fn end(mut session: PtySession, code: i32) {
    session.exp_string(&format!("code {code}, same mode: yes")).expect("the terminal is as before");
}

#[test]
fn a_signal_at_the_prompt_leaves_the_terminal_as_it_was() {
    for (signal, code) in [("-TERM", 143), ("-HUP", 129)] {
        let home = tempfile::tempdir().expect("a folder");
        let (mut session, pid) = chat_on_a_terminal(home.path());
        session.send_line("/help").expect("typed");
        session.exp_string("send a message that begins with a slash").expect("the list");
        session.exp_string("> ").expect("a prompt");
        kill(signal, &pid);
        end(session, code);
        let history = find(home.path(), "history").expect("a history");
        assert!(fs::read_to_string(history).expect("text").contains("/help"));
    }
}

#[test]
fn a_damaged_history_is_set_aside() {
    let home = tempfile::tempdir().expect("a folder");
    let said = |line: &str| {
        let (mut session, pid) = chat_on_a_terminal(home.path());
        session.send_line(line).expect("typed");
        session.exp_string("send a message that begins with a slash").expect("the list");
        session.exp_string("> ").expect("a prompt");
        kill("-TERM", &pid);
        end(session, 143);
        find(home.path(), "history").expect("a history")
    };
    let damaged = b"#V2\n/he\xff\xfe\n";
    fs::write(said("/help"), damaged).expect("written");
    let history = said("/help");
    assert!(fs::read_to_string(&history).expect("text").contains("/help"));
    let aside = find(home.path(), "history.damaged").expect("what it was");
    assert_eq!(fs::read(aside).expect("a file"), damaged);
}

#[test]
fn a_signal_in_an_answer_ends_the_chat() {
    let home = tempfile::tempdir().expect("a folder");
    let (mut session, pid) = chat_on_a_terminal(home.path());
    session.send_line("hello").expect("typed");
    answer_begins(&mut session);
    kill("-TERM", &pid);
    end(session, 143);
}

/// The file of this name in a folder or those in it.
pub(super) fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    fs::read_dir(folder).expect("a folder").find_map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return find(&path, name);
        }
        (path.file_name()? == name).then_some(path)
    })
}

#[test]
fn a_signal_keeps_the_text() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let args = ["generate", path(model()), PROMPT, "-n", "-1", "--ignore-eos", "--quiet"];
        let mut child = piped(&args);
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut [0]).expect("text");
        kill(signal, &child.id().to_string());
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).expect("text");
        assert_eq!(child.wait().expect("ends").code(), Some(code));
        assert_eq!(rest.last(), Some(&b'\n'));
    }
}

#[test]
fn kill_ends_a_chat_that_waits_for_a_pipe() {
    let mut child = piped(&["chat", path(model()), "-n", "1"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"/help\n").expect("read");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("the list");
    kill("-TERM", &child.id().to_string());
    assert_eq!(child.wait().expect("ends").code(), Some(143));
    drop(stdin);
}

/// One Ctrl-C ends a command whose read does not end, as with a file on a slow network.
#[test]
fn an_interrupt_ends_a_read_that_blocks() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = piped(&["generate", path(model()), "-"]);
        let mut stdin = child.stdin.take().expect("piped");
        // More than a pipe holds, so that the program is reading when this ends.
        stdin.write_all(&vec![b'a'; 1 << 20]).expect("read");
        kill(signal, &child.id().to_string());
        assert_eq!(child.wait().expect("ends").code(), Some(code));
        drop(stdin);
    }
}

/// A write beyond the limit of file sizes is an error with a hint, not the program's end.
#[test]
fn a_limit_of_file_sizes_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let to = dir.path().join("copy");
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -f 16; exec "$0" "$@""#, env!("CARGO_BIN_EXE_grok-wgpu")]);
    command.args(["quantize", path(model()), path(&to), "--type", "q8"]);
    let output = command.output().expect("the shell starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for told in ["error[io]", "copy/model.safetensors", "the copy needed", "hint: ", "ulimit -f"] {
        assert!(stderr.contains(told), "{told} in {stderr}");
    }
}

/// Files of a folder with their bytes; none where there is no folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        // The program may rename it meanwhile.
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((name, fs::read(&path).ok()?))
    });
    read.collect()
}

#[test]
fn a_copy_that_is_killed_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    let to = |folder| ["quantize", path(model()), path(folder), "--type", "q8", "--shards", "3"];
    good(&to(&whole));
    let want = contents(&whole);
    let bytes = |files: &BTreeMap<String, Vec<u8>>| files.values().map(Vec::len).sum::<usize>();
    let total = bytes(&want);
    let mut kills = 0;
    for round in 0..5 {
        let mut child = piped(&to(&killed));
        while bytes(&contents(&killed)) <= total * round / 6 {
            if child.try_wait().expect("a process").is_some() {
                break;
            }
        }
        // The signal that no program can handle.
        child.kill().expect("killed");
        kills += i32::from(!child.wait().expect("ends").success());
        let there = contents(&killed);
        // The name that makes it a model comes last.
        if there.contains_key("config.json") {
            break;
        }
    }
    assert!(kills > 0, "the program was always faster");
    if contents(&killed) != want {
        good(&to(&killed));
    }
    let (made, names) = (contents(&killed), |files: &BTreeMap<_, _>| -> Vec<String> {
        files.keys().cloned().collect()
    });
    assert_eq!(names(&made), names(&want));
    assert!(made == want, "other bytes after {kills} kills");
}
