//! Listings that make no sense or want to harm: nothing is written by them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use grok_wgpu::lab::files::hub::{Hub, Settings};
use serde_json::{Value, json};

use crate::{
    pull,
    server::{COMMIT, End, Files, Reply, Server},
    settings,
};

/// The error of a pull whose listing is answered like this.
fn refused(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (String, String) {
    let files = Files::usual(100);
    let server =
        Server::new(
            move |request, _| {
                if request.path.contains("/tree/") { reply() } else { files.reply(request) }
            },
        );
    let dir = tempfile::tempdir().expect("a folder");
    let cache = dir.path().join("in/cache");
    let start = Instant::now();
    let error = pull(settings(&server, &cache)).0.expect_err("refused");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(server.asked("/resolve/").is_empty());
    assert_eq!(written(dir.path()), Vec::<String>::new());
    assert_eq!(error.exit_code(), 3);
    (error.to_string(), error.hint().to_owned())
}

/// Regular files below a folder.
fn written(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(written(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

fn entry(path: &str) -> Value {
    json!({ "type": "file", "path": path, "size": 1, "oid": COMMIT })
}

fn listed(entries: Value) -> (String, String) {
    refused(move || Reply::of(200, entries.to_string()))
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in [
        "../x",
        "x/../../y",
        "/etc/passwd",
        "x//y",
        "./x",
        "x\\..\\y",
        "C:x",
        "x\u{0}",
        "",
        "..",
        "x/\u{1b}[31m",
    ] {
        let (message, _) = listed(json!([entry("config.json"), entry(path)]));
        assert!(message.contains("no plain path"), "{path}: {message}");
        assert!(!message.contains('\u{1b}'), "{message}");
    }
    let long = "x".repeat(300);
    assert!(listed(json!([entry(&long)])).0.contains("no plain path"));
}

#[test]
fn hashes_that_are_none_are_refused() {
    let odd = ["../../x", "", "0123", &COMMIT.to_uppercase(), &format!("{COMMIT}/x")];
    for oid in odd {
        let (message, _) = listed(json!([{ "type": "file", "path": "x", "size": 1, "oid": oid }]));
        assert!(message.contains("40 digits are wanted"), "{oid}: {message}");
        let lfs = json!({ "oid": oid, "size": 1 });
        let (message, _) = listed(json!(
            [{ "type": "file", "path": "x", "size": 1, "oid": COMMIT, "lfs": lfs }]
        ));
        assert!(message.contains("64 digits are wanted"), "{oid}: {message}");
    }
}

#[test]
fn files_twice_and_sizes_beyond_all_are_refused() {
    assert!(listed(json!([entry("x"), entry("x")])).0.contains("has `x` twice"));
    let both = json!([entry("x"), entry("x/y")]);
    assert!(listed(both).0.contains("as a file and as a folder"));
    let mut huge = [entry("x"), entry("y")];
    for entry in &mut huge {
        entry["size"] = u64::MAX.into();
    }
    assert!(listed(json!(huge)).0.contains("more than 2^64"));
}

#[test]
fn answers_that_are_no_listing_are_told() {
    for body in
        ["<html>Please log in</html>", "", "{}", "[1]", "[{\"type\": 1}]", "[\"x\"", "\u{feff}"]
    {
        let (message, hint) = refused(move || Reply::of(200, body));
        assert!(message.contains("not the expected JSON"), "{body}: {message}");
        assert!(hint.contains("a network that wants a login"), "{hint}");
    }
    let (message, _) = refused(|| Reply::of(200, vec![0xff, 0xfe]));
    assert!(message.contains("not UTF-8"), "{message}");
    let deep = "[".repeat(100_000);
    assert!(refused(move || Reply::of(200, deep.clone())).0.contains("not the expected JSON"));
}

#[test]
fn endless_answers_end() {
    let (message, _) = refused(|| Reply::of(200, vec![b' '; 10_000]).ending(End::Endless));
    assert!(message.contains("more than 1048576 bytes"), "{message}");
    // A page that names itself as the next one.
    let (message, _) = refused(|| {
        Reply::of(200, "[]").with("Link", "<http://x/api/models/a/b/tree/x?cursor=1>; rel=\"next\"")
    });
    assert!(message.contains("more than 5 pages"), "{message}");
    let (message, _) = refused(|| Reply::of(200, "[ ]").ending(End::Stalls(1)));
    assert!(message.contains("nothing came for 0.4 s (3 tries)"), "{message}");
}

#[test]
fn the_next_page_is_asked_of_the_hub_itself() {
    let files = Files::usual(100);
    let served = files.clone();
    let server = Server::new(move |request, _| {
        let all = served.listing();
        match (request.path.contains("/tree/"), request.path.contains("cursor=2")) {
            (true, false) => Reply::of(200, json!([all[0]]).to_string())
                .with("Link", "<http://elsewhere.invalid/api?cursor=2>; rel=\"next\""),
            (true, true) => Reply::of(200, json!([all[1]]).to_string()),
            _ => served.reply(request),
        }
    });
    let cache = tempfile::tempdir().expect("a folder");
    pull(settings(&server, cache.path())).0.expect("fetched");
    crate::assert_whole(cache.path(), &files);
}

#[test]
fn revisions_that_are_no_commit_are_refused() {
    for (body, wanted) in [
        ("{\"sha\": \"../../x\"}", "no commit"),
        ("{\"sha\": 5}", "no field `sha`"),
        ("{}", "no field `sha`"),
        ("[]", "not the expected JSON"),
        ("{\"sha\": \"x\", \"sha\": \"y\"}", "not the expected JSON"),
    ] {
        let server = Server::new(move |_, _| Reply::of(200, body));
        let dir = tempfile::tempdir().expect("a folder");
        let error = pull(settings(&server, dir.path())).0.expect_err("refused");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(written(dir.path()), Vec::<String>::new());
    }
}

#[test]
fn settings_that_make_no_sense_are_told() {
    let server = Server::new(|_, _| Reply::of(500, ""));
    let dir = tempfile::tempdir().expect("a folder");
    for endpoint in ["", "huggingface.co", "ftp://x", "https://", "not an address"] {
        let mut settings = settings(&server, dir.path());
        settings.endpoint = endpoint.into();
        let error = pull_error(settings);
        assert!(error.contains("the hub's address"), "{endpoint}: {error}");
    }
    let hub = Hub::new(settings(&server, dir.path())).expect("a hub");
    let shown = format!("{hub:?} {:?}", settings(&server, dir.path()));
    assert!(!shown.contains("hf_secret"), "{shown}");
    let mut odd = settings(&server, dir.path());
    odd.token = Some("two\nlines".into());
    let error = pull_error(odd);
    assert!(error.contains("token") && !error.contains("lines"), "{error}");
}

fn pull_error(settings: Settings) -> String {
    Hub::new(settings).expect_err("refused").to_string()
}
