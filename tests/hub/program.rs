//! The program with a hub of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::server::{COMMIT, End, Files, Reply, Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_grok-wgpu");

/// The files of the model that is in the program, and one that no model has.
fn model() -> Files {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo-q4");
    let mut files = Files::default();
    for entry in fs::read_dir(&folder).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        files.0.push((name, fs::read(entry.path()).expect("read")));
    }
    files.0.push(("README.md".into(), b"Words.".to_vec()));
    files
}

fn good(files: &Files) -> Server {
    let files = files.clone();
    Server::new(move |request, _| files.reply(request))
}

/// The program with a hub at an address and a cache in a home, and nothing of this machine's own.
fn command(address: &str, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command.args(args).env("HF_ENDPOINT", address).env("HF_HOME", home);
    command
}

fn run(address: &str, home: &Path, args: &[&str]) -> Output {
    command(address, home, args).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The standard output of a run that succeeds.
fn good_output(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&good_output(output)).expect("JSON")
}

/// Code and text of a run that fails.
fn failed(output: &Output) -> (i32, String) {
    (output.status.code().expect("an exit code"), text(&output.stderr))
}

#[test]
fn pull_and_then_the_name_is_a_model() {
    let files = model();
    let server = good(&files);
    let home = tempfile::tempdir().expect("a folder");
    fs::write(home.path().join("token"), "hf_stored\n").expect("written");
    let output = run(&server.address, home.path(), &["pull", "some-one/tiny"]);
    let folder = good_output(&output).trim().to_owned();
    let wanted = home.path().join("hub/models--some-one--tiny/snapshots").join(COMMIT);
    assert_eq!(Path::new(&folder), wanted);
    let told = text(&output.stderr);
    assert!(told.contains("next: grok-wgpu chat hf://some-one/tiny"), "{told}");
    // Only what a model has, in the order of need.
    let asked: Vec<String> = server.asked("/resolve/").into_iter().map(|r| r.path).collect();
    assert!(asked[0].ends_with("/config.json"), "{asked:?}");
    assert!(asked.last().expect("some").ends_with(".safetensors"), "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains("README")), "{asked:?}");
    assert!(
        server.requests().iter().all(|r| r.header("authorization") == Some("Bearer hf_stored"))
    );

    let again = run(&server.address, home.path(), &["pull", "hf://some-one/tiny", "--json"]);
    let again = json(&again);
    assert_eq!(again["downloaded_files"], 0);
    assert_eq!(again["commit"], COMMIT);
    assert_eq!(again["folder"], folder);
    assert!(again["files"].as_array().expect("files").iter().any(|f| f["sha256"].is_string()));

    // A pinned commit needs no network, and a branch none where it is not to be used.
    let before = server.requests().len();
    let pinned = format!("hf://some-one/tiny@{COMMIT}");
    let of = |name: &str, offline: &str| {
        let args = ["inspect", name, "--no-device", "--json"];
        command(&server.address, home.path(), &args).env("HF_HUB_OFFLINE", offline).output()
    };
    json(&of(&pinned, "").expect("run"));
    json(&of("hf://some-one/tiny", "1").expect("run"));
    assert_eq!(server.requests().len(), before);
    // The branch is asked for, and nothing else.
    json(&of("hf://some-one/tiny", "").expect("run"));
    assert_eq!(server.requests().len(), before + 1);
    let pull = |offline| {
        let args = ["pull", &*pinned];
        command(&server.address, home.path(), &args).env("HF_HUB_OFFLINE", offline).output()
    };
    assert_eq!(good_output(&pull("yes").expect("run")).trim(), folder);
    assert_eq!(server.requests().len(), before + 1);
}

#[test]
fn what_another_program_left_out_is_fetched() {
    let files = model();
    let served = files.clone();
    let server = Server::new(move |request, before| match before {
        1.. if request.path.ends_with("tokenizer.tok.json") => Reply::of(404, ""),
        _ => served.reply(request),
    });
    let home = tempfile::tempdir().expect("a folder");
    let folder = good_output(&run(&server.address, home.path(), &["pull", "some-one/tiny"]));
    let tokenizer = Path::new(folder.trim()).join("tokenizer.tok.json");
    let sizes = files.0.iter().map(|(path, bytes)| {
        let (size, etag) = (bytes.len(), files.etag(path));
        let id = "0".repeat(40);
        let entry = match etag.len() {
            40 => serde_json::json!({ "size": size, "blob_id": etag }),
            _ => serde_json::json!({ "size": size, "blob_id": id, "lfs_sha256": etag }),
        };
        (path.clone(), entry)
    });
    let sizes: serde_json::Map<String, Value> = sizes.collect();
    let tree = serde_json::json!({ "format_version": 1, "files": sizes });
    let trees = home.path().join("hub/models--some-one--tiny/trees");
    fs::create_dir_all(&trees).expect("made");
    fs::write(trees.join(format!("{COMMIT}.json")), tree.to_string()).expect("written");

    let name = format!("hf://some-one/tiny@{COMMIT}");
    let logits = || {
        let args = ["logits", &name, "--ids", "1"];
        run(&server.address, home.path(), &args)
    };
    let pull = || {
        let mut command = command(&server.address, home.path(), &["pull", &name]);
        command.env("HF_HUB_OFFLINE", "1").output().expect("the program runs")
    };
    good_output(&pull());
    fs::remove_file(&tokenizer).expect("removed");
    let (_, told) = failed(&pull());
    assert!(told.contains("the cache lacks tokenizer.tok.json"), "{told}");
    let before = server.requests().len();
    good_output(&logits());
    assert!(tokenizer.is_file());
    assert!(server.asked("/tree/").len() == 1, "the listing is known");
    good_output(&pull());

    // Where it cannot be had, what is there is taken.
    fs::remove_file(&tokenizer).expect("removed");
    let blobs = home.path().join("hub/models--some-one--tiny/blobs");
    fs::remove_file(blobs.join(files.etag("tokenizer.tok.json"))).expect("removed");
    let asked = server.requests().len();
    assert_eq!(asked, before, "the blob was there");
    let output = logits();
    good_output(&output);
    assert!(text(&output.stderr).contains("what is here of"), "{}", text(&output.stderr));
}

#[test]
fn inspect_reads_headers_where_they_are() {
    let files = model();
    let server = good(&files);
    let home = tempfile::tempdir().expect("a folder");
    let args = |name| ["inspect", name, "--no-device", "--json", "--tensors"];
    let there = run(&server.address, home.path(), &args("hf://some-one/tiny"));
    let mut there = json(&there);
    assert!(!home.path().join("hub").exists(), "nothing is stored");
    // Of the weights, ranges alone.
    let weights = server.asked(".safetensors");
    assert!(!weights.is_empty() && weights.iter().all(|r| r.header("range").is_some()));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo-q4");
    let own = run(&server.address, home.path(), &args(folder.to_str().expect("UTF-8")));
    let mut own = json(&own);
    // All but where it is.
    for value in [&mut there, &mut own] {
        let text = value.to_string();
        assert!(text.contains("tokenizer"), "{text}");
        for key in ["name", "model", "files", "tokenizer"] {
            value.as_object_mut().expect("an object").remove(key);
        }
        value["verdict"]["name"] = Value::Null;
    }
    assert!(there == own, "{there:#}\n{own:#}");
}

#[test]
fn a_model_is_downloaded_where_it_is_named() {
    let files = model();
    let server = good(&files);
    let home = tempfile::tempdir().expect("a folder");
    let args = ["inspect", "hf://some-one/tiny", "--no-device", "--scan"];
    let output = run(&server.address, home.path(), &args);
    assert!(good_output(&output).contains("all weights were read"));
    assert!(text(&output.stderr).contains("hf://some-one/tiny has"), "{}", text(&output.stderr));
    // A file that is gone is fetched again.
    let snapshot = home.path().join("hub/models--some-one--tiny/snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("model.safetensors")).expect("removed");
    good_output(&run(&server.address, home.path(), &args));
}

#[test]
fn names_that_are_none_are_told_what_to_type() {
    let server = Server::new(|_, _| Reply::of(404, "").with("X-Error-Code", "RevisionNotFound"));
    let home = tempfile::tempdir().expect("a folder");
    let fail = |args: &[&str]| failed(&run(&server.address, home.path(), args));
    let (code, told) = fail(&["inspect", "some-one/tiny"]);
    assert_eq!(code, 3);
    assert!(told.contains("`grok-wgpu pull hf://some-one/tiny`"), "{told}");
    let (code, told) = fail(&["inspect", "hf://some-one"]);
    assert_eq!(code, 3);
    assert!(told.contains("no name of a model") && told.contains("hf://OWNER/NAME"), "{told}");
    let (code, told) = fail(&["pull", "tiny"]);
    assert_eq!(code, 2);
    assert!(told.contains("hf://OWNER/NAME@REVISION"), "{told}");
    assert!(server.requests().is_empty());
    let (code, told) = fail(&["pull", "some-one/tiny@v9"]);
    assert_eq!(code, 3);
    assert!(told.contains("no revision `v9`"), "{told}");
    let (code, told) = fail(&["inspect", "hf://some-one/tiny@v9", "--json"]);
    assert_eq!(code, 3);
    assert!(told.contains("\"code\":\"io\""), "{told}");
    let offline = command(&server.address, home.path(), &["pull", "some-one/tiny"])
        .env("HF_HUB_OFFLINE", "1")
        .output();
    let (code, told) = failed(&offline.expect("run"));
    assert_eq!(code, 3);
    assert!(told.contains("HF_HUB_OFFLINE is set") && told.contains("some-one/tiny"), "{told}");
}

#[test]
fn a_repository_without_a_model_is_told() {
    let mut files = Files::default();
    files.0.push(("README.md".into(), b"Words.".to_vec()));
    files.0.push(("big/x.gguf".into(), b"GGUF".to_vec()));
    let server = good(&files);
    let home = tempfile::tempdir().expect("a folder");
    let (code, told) = failed(&run(&server.address, home.path(), &["pull", "some-one/tiny"]));
    assert_eq!(code, 3);
    assert!(told.contains("it holds big/, README.md"), "{told}");
}

/// A limit of file sizes stands for a disk that is full while something comes.
#[cfg(unix)]
#[test]
fn a_write_that_fails_keeps_what_came() {
    let files = model();
    let server = good(&files);
    let home = tempfile::tempdir().expect("a folder");
    let script = format!("ulimit -f 2048; exec '{PROGRAM}' pull some-one/tiny");
    let mut shell = command(&server.address, home.path(), &[]);
    let output = Command::new("sh")
        .args(["-c", &script])
        .envs(shell.env("X", "").get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .output()
        .expect("a shell");
    let (code, told) = failed(&output);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("ulimit -f"), "{told}");
    good_output(&run(&server.address, home.path(), &["pull", "some-one/tiny"]));
    let last = server.asked(".safetensors");
    assert!(last[1].from().is_some_and(|from| from > 0), "{last:?}");
}

#[test]
fn two_programs_at_once_download_once() {
    let files = model();
    let served = files.clone();
    let server = Server::new(move |request, _| {
        if request.path.ends_with(".safetensors") {
            std::thread::sleep(std::time::Duration::from_millis(700));
        }
        served.reply(request)
    });
    let home = tempfile::tempdir().expect("a folder");
    let args = ["pull", "some-one/tiny"];
    let start = || command(&server.address, home.path(), &args).stdout(Stdio::null()).spawn();
    for child in [start(), start()].map(|child| child.expect("the program runs")) {
        assert!(child.wait_with_output().expect("an end").status.success());
    }
    assert_eq!(server.asked(".safetensors").len(), 1);
}

#[cfg(unix)]
#[test]
fn a_signal_keeps_what_came() {
    let files = model();
    let served = files.clone();
    let server = Server::new(move |request, before| {
        let reply = served.reply(request);
        let stalls = request.path.ends_with(".safetensors") && before == 0;
        if stalls { reply.ending(End::Stalls(1_000_000)) } else { reply }
    });
    let home = tempfile::tempdir().expect("a folder");
    let child = command(&server.address, home.path(), &["pull", "some-one/tiny"]).spawn();
    let mut child = child.expect("the program runs");
    let part = || {
        let blobs = home.path().join("hub/models--some-one--tiny/blobs");
        let parts = fs::read_dir(blobs).into_iter().flatten().flatten();
        parts
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "part"))
            .any(|entry| entry.metadata().is_ok_and(|part| part.len() == 1_000_000))
    };
    while !part() && child.try_wait().expect("a state").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    good_output(&run(&server.address, home.path(), &["pull", "some-one/tiny"]));
    assert_eq!(server.asked(".safetensors")[1].from(), Some(1_000_000));
}
