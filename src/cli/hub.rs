//! The Hugging Face hub as the commands see it: its settings from the environment, downloads with
//! a progress bar, and the model that a name like `hf://owner/name` is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use etcetera::home_dir;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::size,
    },
    checkpoint::{
        folder::open_model,
        hub::wanted,
        open::{Opened, open},
    },
    files::{
        hub::{Event, Fetched, Hub, Limits, Listing, Name, RangeFile, Remote, Settings},
        native::{FileSource, read_text},
    },
};
use indicatif::ProgressBar;

use super::{globals::Globals, signals::check_interrupt, terminal::Terminal};

/// Where the hub is if nobody says.
const ENDPOINT: &str = "https://huggingface.co";

/// Bytes of the longest file with a token.
const MAX_TOKEN: u64 = 4096;

/// A variable of the environment that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The hub, as the environment says, by the names that the hub's own programs have.
pub(super) async fn hub() -> Result<Hub> {
    let own = home_dir().ok();
    let path = |text: String| match (text.strip_prefix("~/"), &own) {
        (Some(rest), Some(own)) => own.join(rest),
        _ => PathBuf::from(text),
    };
    let cache_home = variable("XDG_CACHE_HOME").map(path);
    let cache_home = cache_home.or_else(|| own.as_ref().map(|own| own.join(".cache")));
    let home = variable("HF_HOME").map(path);
    let home = home.or_else(|| cache_home.map(|cache| cache.join("huggingface")));
    let home = home.ok_or_else(|| {
        Error::Usage("there is no home folder for the cache of the hub".into())
            .with_hint("Name a folder in HF_HOME.")
    })?;
    let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(path);
    let mut token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
    if token.is_none() {
        let file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
        token = stored_token(&file).await?;
    }
    let is_true =
        |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_ascii_lowercase());
    let offline = variable("HF_HUB_OFFLINE").or_else(|| variable("TRANSFORMERS_OFFLINE"));
    Hub::new(Settings {
        endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
        cache: cache.unwrap_or_else(|| home.join("hub")),
        token,
        offline: offline.is_some_and(is_true),
        system_proxy: true,
        limits: Limits::default(),
    })
}

/// The token that `hf auth login` stored.
async fn stored_token(file: &Path) -> Result<Option<String>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = read_text(file, MAX_TOKEN).await?;
    Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// Shows what happens on a terminal.
struct Shown {
    terminal: Terminal,
    bar: ProgressBar,
}

impl Shown {
    fn new(terminal: Terminal, bytes: u64) -> Self {
        Self { terminal, bar: terminal.bar("downloading", bytes, true) }
    }

    fn on(&self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Have(bytes) | Event::Bytes(bytes) => self.bar.inc(bytes),
            Event::Again { lost } => {
                self.bar.set_position(self.bar.position().saturating_sub(lost));
            }
            Event::Retry { what, wait } => {
                let wait = describe(wait);
                self.bar.suspend(|| self.terminal.warn(format!("{what}; another try in {wait}")));
            }
            Event::Locked => {
                let what = "another program downloads the next file, and is waited for";
                self.bar.suspend(|| self.terminal.note(what));
            }
            _ => {}
        }
        check_interrupt()
    }
}

fn describe(wait: Duration) -> String {
    let seconds = wait.as_secs_f64();
    if seconds < 1.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// The commit that a name means today, with a warning if the hub could not say.
pub(super) fn commit(hub: &Hub, name: &Name, terminal: Terminal) -> Result<String> {
    let shown = Shown { terminal, bar: ProgressBar::hidden() };
    let commit = hub.commit(name, &mut |event| shown.on(event))?;
    if let Some(error) = commit.stale {
        terminal.warn(format!("{error}; the revision that is here is taken, {}", commit.id));
    }
    Ok(commit.id)
}

/// What a model has on the hub, and which of its files are wanted, in order of need.
pub(super) fn listed(
    hub: &Hub,
    name: &Name,
    commit: &str,
    terminal: Terminal,
) -> Result<(Listing, Vec<Remote>)> {
    let shown = Shown { terminal, bar: ProgressBar::hidden() };
    let listing = hub.list(name, commit, &mut |event| shown.on(event))?;
    let wanted = wanted_of(name, &listing)?;
    Ok((listing, wanted))
}

/// Which of the files that are listed are wanted, in order of need.
fn wanted_of(name: &Name, listing: &Listing) -> Result<Vec<Remote>> {
    let (folder, file) = name.folder_and_file();
    let paths: Vec<&str> = listing.files.iter().map(|file| &*file.path).collect();
    let wanted = wanted(&name.above().to_string(), folder, file, &paths)?;
    let find = |path: &String| listing.files.iter().find(|file| file.path == *path).cloned();
    Ok(wanted.iter().filter_map(find).collect())
}

/// Paths of wanted files that the cache lacks, where another program has noted what there is.
/// Without a tokenizer, for one, a model opens that is not whole.
pub(super) fn lacking(hub: &Hub, name: &Name, commit: &str) -> Vec<String> {
    let Some(listing) = hub.kept_list(name, commit) else { return Vec::new() };
    let mut lacking = wanted_of(name, &listing).unwrap_or_default();
    lacking.retain(|file| !hub.has(name, commit, file));
    lacking.into_iter().map(|file| file.path).collect()
}

/// Downloads what is not in the cache, with a progress bar.
pub(super) fn download(
    hub: &Hub,
    listing: &Listing,
    files: &[Remote],
    terminal: Terminal,
) -> Result<Fetched> {
    let bytes = files.iter().map(|file| file.size).sum();
    let shown = Shown::new(terminal, bytes);
    let files: Vec<&Remote> = files.iter().collect();
    let fetched = hub.fetch(listing, &files, &mut |event| shown.on(event));
    shown.bar.finish_and_clear();
    if matches!(fetched, Err(Error::Interrupted)) {
        terminal.note("stopped; what came is kept, and the same command goes on from here");
    }
    fetched
}

/// A model of the hub, if the cache has all of it.
pub(super) async fn in_cache(
    hub: &Hub,
    name: &Name,
    commit: &str,
    globals: &Globals,
) -> Result<Opened<FileSource>> {
    let folder = hub.folder(name, commit);
    let opened = if folder.exists() {
        open_model(&folder, globals.compat.into()).await
    } else {
        Err(hub.absent(name))
    };
    if !hub.is_offline() {
        return opened;
    }
    opened.map_err(|error| {
        error.with_hint(format!(
            "HF_HUB_OFFLINE is set, and not all of the model is here: `grok-wgpu pull {name}` \
             without it fetches the rest."
        ))
    })
}

/// A model of the hub: from the cache if that has all of it, else after a download.
pub(super) async fn open_cached(name: &Name, globals: &Globals) -> Result<Opened<FileSource>> {
    let terminal = globals.terminal();
    let hub = hub().await?;
    let commit = commit(&hub, name, terminal)?;
    let here = in_cache(&hub, name, &commit, globals).await;
    if hub.is_offline() || here.is_ok() && lacking(&hub, name, &commit).is_empty() {
        return here;
    }
    let (listing, files) = listed(&hub, name, &commit, terminal)?;
    terminal.note(described(name, &files));
    match (download(&hub, &listing, &files, terminal), here) {
        (Err(error), Ok(here)) if !matches!(error, Error::Interrupted) => {
            terminal.warn(format!("{error}; what is here of {name} is taken"));
            return Ok(here);
        }
        (fetched, _) => fetched?,
    };
    open_model(&hub.folder(name, &commit), globals.compat.into()).await
}

/// What there is to download.
pub(super) fn described(name: &Name, files: &[Remote]) -> String {
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    format!("{name} has {} in {} files", size(bytes), files.len())
}

/// The headers of a model where it is.
pub(super) async fn open_remote<'a>(
    hub: &'a Hub,
    name: &Name,
    commit: &str,
    globals: &Globals,
) -> Result<Opened<RangeFile<'a>>> {
    let (listing, files) = listed(hub, name, commit, globals.terminal())?;
    let files: Vec<&Remote> = files.iter().collect();
    let sources = hub.sources(&listing, &files);
    open(Path::new(&name.to_string()), sources, globals.compat.into()).await
}
