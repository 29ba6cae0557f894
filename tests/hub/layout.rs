//! The cache as other programs write and read it, and work without a network.

use std::{fs, path::Path};

use grok_wgpu::lab::files::{
    Source as _,
    hub::{Hub, Remote, Settings},
};
use pollster::block_on;
use serde_json::{Map, Value, json};

use crate::{
    assert_whole, name, pull, pull_by,
    server::{COMMIT, Files, Reply, Request, Server, WEIGHTS},
    settings, with_weights,
};

fn good(files: &Files) -> Server {
    with_weights(files, |files, request, _| files.reply(request))
}

/// The cache as Python's `huggingface_hub` leaves it: blobs by their hash, links, a ref.
#[cfg(unix)]
fn write_as_python(cache: &Path, files: &Files) {
    let model = cache.join("models--a--b");
    let snapshot = model.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &model.join("refs"), &model.join("blobs")] {
        fs::create_dir_all(folder).expect("made");
    }
    fs::write(model.join("refs/main"), COMMIT).expect("written");
    for (path, bytes) in &files.0 {
        let etag = files.etag(path);
        fs::write(model.join("blobs").join(&etag), bytes).expect("written");
        let up = "../".repeat(2 + path.matches('/').count());
        let link = snapshot.join(path);
        fs::create_dir_all(link.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), link).expect("linked");
    }
}

#[cfg(unix)]
#[test]
fn what_python_downloaded_is_taken() {
    let mut files = Files::usual(1000);
    files.0.push(("q4/deep/config.json".into(), b"{ }".to_vec()));
    let server = good(&files);
    let cache = tempfile::tempdir().expect("a folder");
    write_as_python(cache.path(), &files);
    let (fetched, _) = pull(settings(&server, cache.path()));
    let fetched = fetched.expect("fetched");
    assert_eq!((fetched.files, fetched.present), (0, 3));
    assert!(server.asked("/resolve/").is_empty());
    assert_whole(cache.path(), &files);
}

/// A commit's listing as Python's `huggingface_hub` notes it.
fn noted(files: &Files) -> Value {
    let entry = |path: &String| {
        let (size, etag) = (files.get(path).len(), files.etag(path));
        if etag.len() == 40 {
            return json!({ "size": size, "blob_id": etag });
        }
        json!({
            "size": size, "blob_id": "0".repeat(40), "lfs_sha256": etag, "lfs_size": size,
            "xet_hash": "1".repeat(64),
        })
    };
    let entries: Map<String, Value> =
        files.0.iter().map(|(path, _)| (path.clone(), entry(path))).collect();
    json!({ "format_version": 1, "files": entries })
}

fn write_tree(cache: &Path, text: &str) {
    let trees = cache.join("models--a--b/trees");
    fs::create_dir_all(&trees).expect("made");
    fs::write(trees.join(format!("{COMMIT}.json")), text).expect("written");
}

#[test]
fn a_listing_that_python_noted_is_used() {
    let mut files = Files::usual(1000);
    files.0.push(("q4/deep/config.json".into(), b"{ }".to_vec()));
    let server = good(&files);
    let cache = tempfile::tempdir().expect("a folder");
    write_tree(cache.path(), &noted(&files).to_string());
    let (fetched, _) = pull(settings(&server, cache.path()));
    assert_eq!(fetched.expect("fetched").files, 3);
    assert!(server.asked("/tree/").is_empty());
    assert_whole(cache.path(), &files);

    // What it lists is what the hub lists, of a folder as of all, and needs no network.
    let mut offline = settings(&server, cache.path());
    offline.offline = true;
    let asked = settings(&server, tempfile::tempdir().expect("a folder").path());
    for (text, count) in [("a/b", 3), ("a/b/q4", 1), ("a/b/q", 0)] {
        let list = |settings: &Settings| {
            let hub = Hub::new(settings.clone()).expect("a hub");
            let listing = hub.list(&name(text), COMMIT, &mut |_| Ok(())).expect("a listing");
            let mut files = listing.files;
            files.sort_by(|a, b| a.path.cmp(&b.path));
            files
        };
        let listed = list(&offline);
        assert_eq!(listed.len(), count, "{text}");
        if text == "a/b" {
            assert_eq!(listed, list(&asked));
        }
    }
    let hub = Hub::new(offline).expect("a hub");
    for path in [WEIGHTS, "config.json"] {
        let listing = hub.kept_list(&name("a/b"), COMMIT).expect("a listing");
        let file = listing.files.iter().find(|file| file.path == path).expect("listed");
        assert!(hub.has(&name("a/b"), COMMIT, file));
        assert!(!hub.has(&name("a/b"), COMMIT, &Remote { size: file.size + 1, ..file.clone() }));
    }
}

#[test]
fn a_listing_that_makes_no_sense_is_asked_for() {
    let files = Files::usual(1000);
    let good_one = noted(&files);
    let with = |key: &str, value: Value| {
        let mut tree = good_one.clone();
        tree["files"][key] = value;
        tree.to_string()
    };
    let mut newer = good_one.clone();
    newer["format_version"] = 2.into();
    let of = |hash: &str| json!({ "size": 1, "blob_id": hash });
    let hash = "a".repeat(40);
    for text in [
        String::new(),
        "nonsense".into(),
        "{}".into(),
        newer.to_string(),
        with("../x", of(&hash)),
        with("/x", of(&hash)),
        with("config.json/x", of(&hash)),
        with("x", of("../../x")),
        with("x", of(&hash[1..])),
        with("x", json!({ "size": -1, "blob_id": hash })),
        with("x", json!({ "size": 1, "blob_id": hash, "lfs_sha256": hash })),
        with("x", json!({ "size": u64::MAX, "blob_id": hash })),
    ] {
        let server = good(&files);
        let cache = tempfile::tempdir().expect("a folder");
        write_tree(cache.path(), &text);
        pull(settings(&server, cache.path())).0.expect("fetched");
        assert_eq!(server.asked("/tree/").len(), 1, "{text}");
        assert_whole(cache.path(), &files);
    }
}

#[cfg(unix)]
#[test]
fn what_is_downloaded_is_as_python_has_it() {
    let mut files = Files::usual(1000);
    files.0.push(("q4/deep/config.json".into(), b"{ }".to_vec()));
    let server = good(&files);
    let [own, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    pull(settings(&server, own.path())).0.expect("fetched");
    write_as_python(other.path(), &files);
    for (path, _) in &files.0 {
        let link = |cache: &Path| {
            let at = cache.join("models--a--b/snapshots").join(COMMIT).join(path);
            fs::read_link(at).expect("a link")
        };
        assert_eq!(link(own.path()), link(other.path()));
        let lock = format!(".locks/models--a--b/{}.lock", files.etag(path));
        assert!(own.path().join(lock).is_file());
    }
    let main = |cache: &Path| fs::read(cache.join("models--a--b/refs/main")).expect("a ref");
    assert_eq!(main(own.path()), main(other.path()));
    assert_whole(own.path(), &files);
}

#[test]
fn a_file_of_another_commit_is_not_downloaded_again() {
    let files = Files::usual(1000);
    let server = good(&files);
    let cache = tempfile::tempdir().expect("a folder");
    pull(settings(&server, cache.path())).0.expect("fetched");
    let model = cache.path().join("models--a--b");
    fs::remove_dir_all(model.join("snapshots")).expect("removed");
    let (fetched, _) = pull(settings(&server, cache.path()));
    assert_eq!(fetched.expect("fetched").files, 0);
    // A blob of the wrong length is none.
    let blob = model.join("blobs").join(files.etag(WEIGHTS));
    fs::write(&blob, "x").expect("written");
    let (fetched, _) = pull(settings(&server, cache.path()));
    assert_eq!(fetched.expect("fetched").files, 1);
    assert_whole(cache.path(), &files);
}

#[test]
fn a_part_without_its_sidecar_counts_for_nothing() {
    let files = Files::usual(1000);
    let etag = files.etag(WEIGHTS);
    let sidecar = |etag: &str, size| {
        format!("{{\"etag\": \"{etag}\", \"size\": {size}, \"validator\": null}}")
    };
    for text in ["", "nonsense", &sidecar("x", 1000), &sidecar(&etag, 999)] {
        let server = good(&files);
        let cache = tempfile::tempdir().expect("a folder");
        let blobs = cache.path().join("models--a--b/blobs");
        fs::create_dir_all(&blobs).expect("made");
        fs::write(blobs.join(format!("{etag}.grok-wgpu.part")), [9; 500]).expect("written");
        if !text.is_empty() {
            fs::write(blobs.join(format!("{etag}.grok-wgpu.json")), text).expect("written");
        }
        pull(settings(&server, cache.path())).0.expect("fetched");
        assert_eq!(server.asked(WEIGHTS)[0].from(), None, "{text}");
        assert_whole(cache.path(), &files);
    }
}

#[test]
fn offline_the_cache_says_what_a_branch_is() {
    let files = Files::usual(1000);
    let server = good(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let mut offline = settings(&server, cache.path());
    offline.offline = true;
    let commit = |text: &str| {
        let hub = Hub::new(offline.clone()).expect("a hub");
        hub.commit(&name(text), &mut |_| Ok(())).map(|commit| commit.id)
    };
    let error = commit("a/b").expect_err("nothing there");
    assert!(error.to_string().contains("HF_HUB_OFFLINE is set, and the cache"), "{error}");
    assert!(error.hint().contains("grok-wgpu pull hf://a/b"), "{}", error.hint());
    assert!(server.requests().is_empty());

    pull(settings(&server, cache.path())).0.expect("fetched");
    let asked = server.requests().len();
    assert_eq!(commit("a/b").expect("a commit"), COMMIT);
    let pinned = format!("a/b@{COMMIT}");
    assert_eq!(commit(&pinned).expect("a commit"), COMMIT);
    let error = commit("a/b@other").expect_err("another branch");
    assert!(error.to_string().contains(COMMIT), "{error}");
    let (fetched, _) = pull_by(&Hub::new(offline.clone()).expect("a hub"), &name("a/b"));
    assert!(fetched.expect_err("no listing").to_string().contains("HF_HUB_OFFLINE"));
    assert_eq!(server.requests().len(), asked, "no network");
}

#[test]
fn a_hub_out_of_reach_leaves_what_is_here() {
    let files = Files::usual(1000);
    let cache = tempfile::tempdir().expect("a folder");
    let mut gone = {
        let server = good(&files);
        pull(settings(&server, cache.path())).0.expect("fetched");
        settings(&server, cache.path())
    };
    let server = Server::new(|_, _| Reply::of(503, ""));
    gone.endpoint.clone_from(&server.address);
    let hub = Hub::new(gone).expect("a hub");
    let commit = hub.commit(&name("a/b"), &mut |_| Ok(())).expect("a commit");
    assert_eq!(commit.id, COMMIT);
    assert!(commit.stale.expect("told").to_string().contains("503 (1 try)"));
    assert_eq!(server.requests().len(), 1);
    // A refusal is not a network that is gone.
    let server = Server::new(|_, _| Reply::of(403, ""));
    let hub = Hub::new(settings(&server, cache.path())).expect("a hub");
    assert!(hub.commit(&name("a/b"), &mut |_| Ok(())).is_err());
}

#[test]
fn ranges_are_read_where_they_are() {
    let files = Files::usual(1_000_000);
    let server = good(&files);
    let cache = tempfile::tempdir().expect("a folder");
    let hub = Hub::new(settings(&server, cache.path())).expect("a hub");
    let listing = hub.list(&name("a/b"), COMMIT, &mut |_| Ok(())).expect("a listing");
    let all: Vec<&Remote> = listing.files.iter().collect();
    let [_, weights] = &hub.sources(&listing, &all)[..] else { panic!("two files") };
    let bytes = files.get(WEIGHTS);
    assert_eq!((weights.name(), weights.len()), (WEIGHTS, 1_000_000));
    for (offset, len) in [(0, 8), (8, 5000), (900_000, 100_000), (0, 1_000_000), (1_000_000, 0)] {
        let mut into = vec![0; len];
        block_on(weights.read(offset as u64, &mut into)).expect("read");
        assert_eq!(into, bytes[offset..offset + len], "{offset} {len}");
    }
    // The second read was of the first range.
    let ranges: Vec<_> = server.asked(WEIGHTS).iter().map(Request::from).collect();
    assert_eq!(ranges, [Some(0), Some(900_000), Some(0)]);
    for (offset, len) in [(999_999, 2), (u64::MAX, 1)] {
        let error = block_on(weights.read(offset, &mut vec![0; len])).expect_err("beyond");
        assert!(error.to_string().contains("beyond its 1000000 bytes"), "{error}");
    }
    assert!(!cache.path().join("models--a--b").exists(), "nothing is stored");
}

#[test]
fn a_server_without_ranges_is_told() {
    let files = Files::usual(1_000_000);
    for kind in 0..3 {
        let server = with_weights(&files, move |files, request, _| match kind {
            0 => Reply::of(200, files.get(WEIGHTS)),
            1 => {
                Reply::of(206, &files.get(WEIGHTS)[..9]).with("Content-Range", "bytes 0-8/1000000")
            }
            _ => {
                let reply = files.reply(request);
                Reply { body: reply.body[1..].to_vec(), ..reply }
            }
        });
        let cache = tempfile::tempdir().expect("a folder");
        let hub = Hub::new(settings(&server, cache.path())).expect("a hub");
        let listing = hub.list(&name("a/b"), COMMIT, &mut |_| Ok(())).expect("a listing");
        let all: Vec<&Remote> = listing.files.iter().collect();
        let sources = hub.sources(&listing, &all);
        let error = block_on(sources[1].read(500_000, &mut [0; 8])).expect_err("no range");
        let wanted = ["whole files only", "another range", "bytes of 262144 came"][kind];
        assert!(error.to_string().contains(wanted), "{error}");
        // What is wanted of the beginning of a whole file is there.
        if kind == 0 {
            let mut into = [0; 8];
            block_on(sources[1].read(0, &mut into)).expect("read");
            assert_eq!(into, files.get(WEIGHTS)[..8]);
        }
    }
}
