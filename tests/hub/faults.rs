//! Downloads that go wrong, and what is there afterwards.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use grok_wgpu::lab::{base::error::Error, files::hub::Hub};

use crate::{
    assert_whole, blobs, name, pull, pull_by, read,
    server::{COMMIT, End, Files, Reply, Server, WEIGHTS},
    settings, with_weights,
};

/// The error of a pull, its message and its hint.
fn refused(server: &Server, cache: &std::path::Path) -> (Error, String, String) {
    let (fetched, _) = pull(settings(server, cache));
    let error = fetched.expect_err("refused");
    let (message, hint) = (error.to_string(), error.hint().to_owned());
    (error, message, hint)
}

#[test]
fn a_model_comes_once() {
    let files = Files::usual(300_000);
    let server = with_weights(&files, |files, request, _| files.reply(request));
    let cache = tempfile::tempdir().expect("a folder");
    let (fetched, log) = pull(settings(&server, cache.path()));
    let fetched = fetched.expect("fetched");
    assert_eq!((fetched.files, fetched.bytes, fetched.present), (2, 300_002, 0));
    assert_eq!(log, ["config.json", WEIGHTS]);
    assert_whole(cache.path(), &files);
    let requests = server.requests().len();
    // The branch is asked for, and the listing; no file.
    let (fetched, _) = pull(settings(&server, cache.path()));
    let fetched = fetched.expect("fetched");
    assert_eq!((fetched.files, fetched.present), (0, 2));
    assert_eq!(server.requests().len(), requests + 2);
}

#[test]
fn the_token_never_follows_a_redirect_to_another_server() {
    let files = Files::usual(1000);
    let other = with_weights(&files, |files, request, _| files.file(WEIGHTS, request));
    let there = format!("{}/signed?x=y&z=/{WEIGHTS}", other.address);
    let back_at = Arc::new(std::sync::OnceLock::<String>::new());
    let back = Arc::clone(&back_at);
    // The other server sends the client back for the small file.
    let third = Server::new(move |_, _| {
        let hub = back.get().cloned().unwrap_or_default();
        Reply::redirect(format!("{hub}/returned/config.json"))
    });
    let elsewhere = third.address.clone();
    let served = files.clone();
    let hub = Server::new(move |request, _| {
        if request.path.starts_with("/returned/") {
            return served.file("config.json", request);
        }
        if request.path.contains("/resolve/") {
            return if request.path.ends_with(WEIGHTS) {
                Reply::redirect(&there)
            } else {
                Reply::redirect(format!("{elsewhere}/x"))
            };
        }
        served.reply(request)
    });
    back_at.set(hub.address.clone()).expect("once");
    let cache = tempfile::tempdir().expect("a folder");
    pull(settings(&hub, cache.path())).0.expect("fetched");
    assert_whole(cache.path(), &files);
    for request in hub.requests() {
        let returned = request.path.starts_with("/returned/");
        let token = request.header("authorization");
        assert_eq!(token, (!returned).then_some("Bearer hf_secret"), "{}", request.path);
    }
    let others: Vec<_> = other.requests().into_iter().chain(third.requests()).collect();
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|request| request.header("authorization").is_none()), "{others:?}");
}

#[test]
fn a_redirect_within_the_hub_keeps_the_token() {
    let files = Files::usual(1000);
    let served = files.clone();
    let hub = Server::new(move |request, _| match request.path.strip_prefix("/a/b/resolve/") {
        Some(rest) => Reply::of(307, "").with("Location", format!("/moved/resolve/{rest}")),
        None => served.reply(request),
    });
    let cache = tempfile::tempdir().expect("a folder");
    pull(settings(&hub, cache.path())).0.expect("fetched");
    assert_whole(cache.path(), &files);
    let moved = hub.asked("/moved/");
    assert!(
        moved.len() == 2 && moved.iter().all(|request| request.header("authorization").is_some())
    );
}

#[test]
fn redirects_in_a_circle_and_to_nowhere_end() {
    let files = Files::usual(100);
    for (to, wanted) in
        [("/x", "more than 5 redirects"), ("ftp://x/y", "no address"), ("y", "no address")]
    {
        let served = files.clone();
        let server = Server::new(move |request, _| {
            let revision = request.path.contains("/revision/");
            if revision { served.reply(request) } else { Reply::redirect(to) }
        });
        let cache = tempfile::tempdir().expect("a folder");
        let (_, message, _) = refused(&server, cache.path());
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let files = Files::usual(300_000);
    // Twice within a run: cut, then reset.
    let server = with_weights(&files, |files, request, before| {
        let reply = files.reply(request);
        match before {
            0 => reply.ending(End::Cut(100_000)),
            1 => reply.ending(End::Closed),
            _ => reply,
        }
    });
    let cache = tempfile::tempdir().expect("a folder");
    let (fetched, log) = pull(settings(&server, cache.path()));
    assert_eq!(fetched.expect("fetched").bytes, 300_002);
    assert_eq!(log.len(), 4, "{log:?}");
    assert_whole(cache.path(), &files);
    let asked = server.asked(WEIGHTS);
    let etag = format!("\"{}\"", files.etag(WEIGHTS));
    assert_eq!(asked[0].from(), None);
    for again in &asked[1..] {
        assert_eq!(again.from(), Some(100_000));
        assert_eq!(again.header("if-range"), Some(&*etag));
    }
}

#[test]
fn what_came_in_an_earlier_run_is_kept() {
    let files = Files::usual(300_000);
    let server = with_weights(&files, |files, request, before| {
        let reply = files.reply(request);
        match before {
            0 => reply.ending(End::Cut(120_000)),
            1 | 2 => Reply::of(503, ""),
            _ => reply,
        }
    });
    let cache = tempfile::tempdir().expect("a folder");
    let (error, message, hint) = refused(&server, cache.path());
    assert_eq!(error.code(), "io");
    assert!(
        message.contains("model.safetensors") && message.contains("503 (3 tries)"),
        "{message}"
    );
    assert!(hint.contains("the same command goes on with it"), "{hint}");
    assert_eq!(read(cache.path(), WEIGHTS), None);
    let (fetched, log) = pull(settings(&server, cache.path()));
    assert_eq!(fetched.expect("fetched").bytes, 180_000);
    assert!(log.contains(&"have 120000".to_owned()), "{log:?}");
    assert_whole(cache.path(), &files);
}

#[test]
fn another_file_than_before_begins_again() {
    let (old, files) = (Files::usual(200_000), Files::usual(300_000));
    let etags = ["\"one\"", "\"two\""];
    // A server that heeds If-Range, one that does not, and one that has no ranges.
    for kind in 0..3 {
        let first = old.get(WEIGHTS).to_vec();
        let server = with_weights(&files, move |files, request, before| {
            if before == 0 {
                let mut body = first.clone();
                body.resize(300_000, 0);
                return Reply::of(200, body).with("ETag", etags[0]).ending(End::Cut(100_000));
            }
            let whole = || Reply::of(200, files.get(WEIGHTS)).with("ETag", etags[1]);
            match (request.from(), kind) {
                (Some(from), 1) => Reply::of(206, &files.get(WEIGHTS)[from..])
                    .with("Content-Range", format!("bytes {from}-299999/300000"))
                    .with("ETag", etags[1]),
                (_, 2) => Reply::of(200, files.get(WEIGHTS)),
                _ => whole(),
            }
        });
        let cache = tempfile::tempdir().expect("a folder");
        let (fetched, log) = pull(settings(&server, cache.path()));
        fetched.expect("fetched");
        assert!(log.contains(&"again 100000".to_owned()), "{kind}: {log:?}");
        assert_whole(cache.path(), &files);
        assert_eq!(server.asked(WEIGHTS)[1].header("if-range"), Some(etags[0]));
    }
}

#[test]
fn ranges_that_were_not_asked_for_and_416_begin_again() {
    let files = Files::usual(300_000);
    for kind in 0..3 {
        let server = with_weights(&files, move |files, request, before| {
            let reply = files.reply(request);
            match (before, kind) {
                (0, _) => reply.ending(End::Cut(50_000)),
                (1, 0) => Reply::of(416, "").with("Content-Range", "bytes */40000"),
                (1, 1) => Reply::of(206, &files.get(WEIGHTS)[7..])
                    .with("Content-Range", "bytes 7-299999/300000"),
                (1, _) => Reply::of(206, &files.get(WEIGHTS)[50_000..])
                    .with("Content-Range", "bytes 50000-399999/400000"),
                _ => reply,
            }
        });
        let cache = tempfile::tempdir().expect("a folder");
        let (fetched, log) = pull(settings(&server, cache.path()));
        fetched.expect("fetched");
        assert!(log.contains(&"again 50000".to_owned()), "{kind}: {log:?}");
        assert_whole(cache.path(), &files);
    }
}

#[test]
fn pieces_of_different_files_are_noticed_by_their_hash() {
    let files = Files::usual(300_000);
    // Without an ETag the server cannot tell that the beginning was of another file.
    let server = with_weights(&files, |files, request, before| {
        let bytes = files.get(WEIGHTS);
        match (before, request.from()) {
            (0, _) => Reply::of(200, vec![7; 300_000]).ending(End::Cut(90_000)),
            (_, Some(from)) => Reply::of(206, &bytes[from..])
                .with("Content-Range", format!("bytes {from}-299999/300000")),
            _ => Reply::of(200, bytes),
        }
    });
    let cache = tempfile::tempdir().expect("a folder");
    let (fetched, log) = pull(settings(&server, cache.path()));
    fetched.expect("fetched");
    assert!(log.contains(&"again 300000".to_owned()), "{log:?}");
    assert_whole(cache.path(), &files);
}

#[test]
fn wrong_bytes_never_get_a_name() {
    for (path, hash) in [(WEIGHTS, "SHA-256"), ("config.json", "git hash")] {
        let files = Files::usual(1000);
        let served = files.clone();
        let server = Server::new(move |request, _| {
            let mut reply = served.reply(request);
            if request.path.ends_with(path) {
                reply.body[0] ^= 1;
            }
            reply
        });
        let cache = tempfile::tempdir().expect("a folder");
        let (error, message, hint) = refused(&server, cache.path());
        assert_eq!(error.code(), "format");
        let wanted = files.etag(path);
        assert!(message.contains(hash) && message.contains(&wanted), "{message}");
        assert!(hint.contains("were removed"), "{hint}");
        assert_eq!(read(cache.path(), path), None);
        assert!(!blobs(cache.path()).iter().any(|name| name.contains(&wanted)));
    }
}

#[test]
fn wrong_sizes_are_told() {
    let files = Files::usual(1000);
    // Longer and shorter as declared, and longer without saying so.
    for kind in 0..3 {
        let server = with_weights(&files, move |files, _, _| {
            let mut body = files.get(WEIGHTS).to_vec();
            match kind {
                0 => body.push(0),
                1 => body.truncate(999),
                _ => {}
            }
            let reply = Reply::of(200, body);
            if kind == 2 { reply.ending(End::Endless) } else { reply }
        });
        let cache = tempfile::tempdir().expect("a folder");
        let (error, message, _) = refused(&server, cache.path());
        assert_eq!(error.code(), "format");
        let wanted = ["1001 bytes, and 1000", "999 bytes, and 1000", "more than its 1000"][kind];
        assert!(message.contains(wanted), "{message}");
        assert_eq!(read(cache.path(), WEIGHTS), None);
    }
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let files = Files::usual(300_000);
    let server = with_weights(&files, |files, request, before| {
        let reply = files.reply(request);
        if before == 0 { reply.ending(End::Stalls(80_000)) } else { reply }
    });
    let cache = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let (fetched, log) = pull(settings(&server, cache.path()));
    fetched.expect("fetched");
    assert!(log.iter().any(|line| line.contains("nothing came for 0.4 s")), "{log:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(server.asked(WEIGHTS)[1].from(), Some(80_000));
    assert_whole(cache.path(), &files);
}

#[test]
fn busy_servers_are_asked_again_when_they_say() {
    let files = Files::usual(100);
    for status in [429, 503] {
        let served = files.clone();
        let server = Server::new(move |request, before| match before {
            0 if request.path.contains("/tree/") => Reply::of(status, "").with("Retry-After", "1"),
            _ => served.reply(request),
        });
        let cache = tempfile::tempdir().expect("a folder");
        let start = Instant::now();
        let (fetched, log) = pull(settings(&server, cache.path()));
        fetched.expect("fetched");
        // The wait that is asked for is longer than the usual one, and is cut at the longest.
        assert!(start.elapsed() >= Duration::from_millis(400), "{status}");
        assert!(log[0].contains(&status.to_string()), "{log:?}");
    }
}

#[test]
fn a_date_says_when_to_ask_again() {
    let files = Files::usual(100);
    let served = files.clone();
    let server = Server::new(move |request, before| match before {
        0 if request.path.contains("/tree/") => Reply::of(503, "")
            .with("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .with("Retry-After", "Sun, 06 Nov 1994 08:50:00 GMT"),
        _ => served.reply(request),
    });
    let cache = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let (fetched, _) = pull(settings(&server, cache.path()));
    fetched.expect("fetched");
    // 23 s are asked for, and cut at the longest wait; the usual one is 10 ms.
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[test]
fn what_the_hub_refuses_is_told_with_what_to_do() {
    for (status, code, token, wanted, hint) in [
        (401, "RepoNotFound", false, "no such model, or it is private", "set HF_TOKEN"),
        (401, "RepoNotFound", true, "the token is not valid", "Check HF_TOKEN"),
        (403, "GatedRepo", true, "wants its terms accepted", "Accept them at http"),
        (404, "RevisionNotFound", true, "no revision `main`", "lists branches and tags"),
        (404, "RepoNotFound", true, "nothing of this name", "Check the name"),
        (400, "", true, "answers 400", "in a browser"),
    ] {
        let server = Server::new(move |_, _| {
            Reply::of(status, "").with("X-Error-Code", code).with("X-Error-Message", "So it is")
        });
        let cache = tempfile::tempdir().expect("a folder");
        let mut settings = settings(&server, cache.path());
        settings.token = settings.token.filter(|_| token);
        let (fetched, _) = pull(settings);
        let error = fetched.expect_err("refused");
        assert_eq!(error.exit_code(), 3);
        let message = error.to_string();
        assert!(message.starts_with("hf://a/b") && message.contains(wanted), "{message}");
        assert!(message.contains("So it is") && !message.contains("hf_secret"), "{message}");
        assert!(error.hint().contains(hint), "{}", error.hint());
        // None is asked again.
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[test]
fn an_address_that_expired_is_signed_anew() {
    let files = Files::usual(1000);
    let cdn = with_weights(&files, |files, request, before| match before {
        0 => Reply::of(403, "expired"),
        _ => files.file(WEIGHTS, request),
    });
    let there = format!("{}/{WEIGHTS}", cdn.address);
    let server = with_weights(&files, move |_, _, _| Reply::redirect(&there));
    let cache = tempfile::tempdir().expect("a folder");
    pull(settings(&server, cache.path())).0.expect("fetched");
    assert_eq!(server.asked(WEIGHTS).len(), 2);
    assert_whole(cache.path(), &files);
}

#[test]
fn two_at_once_share_one_download() {
    let files = Files::usual(300_000);
    let server = with_weights(&files, |files, request, _| {
        thread::sleep(Duration::from_millis(250));
        files.reply(request)
    });
    let cache = tempfile::tempdir().expect("a folder");
    let waited = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (fetched, log) = pull(settings(&server, cache.path()));
                fetched.expect("fetched");
                waited.fetch_add(usize::from(log.contains(&"locked".to_owned())), Ordering::SeqCst);
            });
        }
    });
    assert_eq!(waited.load(Ordering::SeqCst), 1);
    assert_eq!(server.asked(WEIGHTS).len(), 1);
    assert_whole(cache.path(), &files);
}

#[test]
fn a_wait_ends_when_it_is_to() {
    // The lock is another program's.
    let files = Files::usual(100);
    let server = with_weights(&files, |files, request, _| files.reply(request));
    let cache = tempfile::tempdir().expect("a folder");
    let locks = cache.path().join(".locks/models--a--b");
    fs::create_dir_all(&locks).expect("made");
    let lock = fs::File::create(locks.join(format!("{}.lock", files.etag(WEIGHTS)))).expect("made");
    lock.lock().expect("locked");
    let hub = Hub::new(settings(&server, cache.path())).expect("a hub");
    let name = name(&format!("a/b@{COMMIT}"));
    let listing = hub.list(&name, COMMIT, &mut |_| Ok(())).expect("a listing");
    let mut waits = 0;
    let fetched = hub.fetch(&listing, &listing.files.iter().collect::<Vec<_>>(), &mut |_| {
        waits += 1;
        if waits > 10 { Err(Error::Interrupted) } else { Ok(()) }
    });
    assert!(matches!(fetched, Err(Error::Interrupted)), "{fetched:?}");
    drop(lock);
    assert!(pull_by(&hub, &name).0.is_ok());
}

#[test]
fn a_full_disk_is_told_before_anything_comes() {
    let mut files = Files::usual(100).listing();
    files[1]["size"] = (1_u64 << 60).into();
    files[1]["lfs"]["size"] = (1_u64 << 60).into();
    let server = Server::new(move |request, _| {
        if request.path.contains("/tree/") {
            Reply::of(200, files.to_string())
        } else {
            Files::usual(100).reply(request)
        }
    });
    let cache = tempfile::tempdir().expect("a folder");
    let (error, message, hint) = refused(&server, cache.path());
    assert_eq!(error.code(), "io");
    assert!(message.contains("are to be downloaded, and the disk has room for"), "{message}");
    assert!(hint.contains("HF_HUB_CACHE"), "{hint}");
    assert!(server.asked("/resolve/").is_empty());
}
