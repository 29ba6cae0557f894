//! Models of the Hugging Face hub, from a server that misbehaves in every way that is known. No
//! test needs a network.

mod faults;
mod layout;
mod limits;
mod program;
mod server;

use std::{path::Path, time::Duration};

use grok_wgpu::lab::{
    base::error::Result,
    files::hub::{Event, Fetched, Hub, Limits, Name, Remote, Settings},
};

use server::{COMMIT, Files, Reply, Request, Server, WEIGHTS};

/// Limits with which a test is quick.
const QUICK: Limits = Limits {
    tries: 3,
    advance: 1 << 20,
    wait: Duration::from_millis(10),
    longest_wait: Duration::from_millis(400),
    connect: Duration::from_secs(5),
    stall: Duration::from_millis(400),
    page: Duration::from_secs(2),
    page_bytes: 1 << 20,
    pages: 5,
};

fn settings(server: &Server, cache: &Path) -> Settings {
    Settings {
        endpoint: server.address.clone(),
        cache: cache.to_owned(),
        token: Some("hf_secret".into()),
        offline: false,
        system_proxy: false,
        limits: QUICK,
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// What happened during a download, in words.
type Told = Vec<String>;

fn told(event: Event<'_>) -> Option<String> {
    match event {
        Event::Have(0) | Event::Bytes(_) | Event::Waits => None,
        Event::File(file) => Some(file.path.clone()),
        Event::Have(bytes) => Some(format!("have {bytes}")),
        Event::Again { lost } => Some(format!("again {lost}")),
        Event::Retry { what, .. } => Some(what.to_owned()),
        Event::Locked => Some("locked".into()),
    }
}

/// Downloads all files of a model.
fn pull_by(hub: &Hub, name: &Name) -> (Result<Fetched>, Told) {
    let mut log = Told::new();
    let mut on = |event: Event<'_>| {
        log.extend(told(event));
        Ok(())
    };
    let fetched = hub.commit(name, &mut on).and_then(|commit| {
        let listing = hub.list(name, &commit.id, &mut on)?;
        let files: Vec<&Remote> = listing.files.iter().collect();
        hub.fetch(&listing, &files, &mut on)
    });
    (fetched, log)
}

fn pull(settings: Settings) -> (Result<Fetched>, Told) {
    pull_by(&Hub::new(settings).expect("a hub"), &name("a/b"))
}

/// The bytes of a file of the commit in a cache.
fn read(cache: &Path, path: &str) -> Option<Vec<u8>> {
    std::fs::read(cache.join("models--a--b/snapshots").join(COMMIT).join(path)).ok()
}

/// Names in the folder of blobs, sorted.
fn blobs(cache: &Path) -> Vec<String> {
    let folder = std::fs::read_dir(cache.join("models--a--b/blobs")).expect("a folder");
    let mut names: Vec<String> =
        folder.map(|entry| entry.expect("a file").file_name().to_string_lossy().into()).collect();
    names.sort();
    names
}

/// A server of these files that does `other` with requests for the weights.
fn with_weights(
    files: &Files,
    other: impl Fn(&Files, &Request, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let files = files.clone();
    Server::new(move |request, before| {
        if request.path.ends_with(WEIGHTS) {
            other(&files, request, before)
        } else {
            files.reply(request)
        }
    })
}

/// Everything is there, and nothing else.
fn assert_whole(cache: &Path, files: &Files) {
    for (path, bytes) in &files.0 {
        assert_eq!(read(cache, path).as_ref(), Some(bytes), "{path}");
    }
    let mut etags: Vec<String> = files.0.iter().map(|(path, _)| files.etag(path)).collect();
    etags.sort();
    assert_eq!(blobs(cache), etags);
}
