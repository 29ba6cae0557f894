//! Models of the Hugging Face hub: lists them, downloads them into the cache that other programs
//! share, and reads parts of them where they are.
//!
//! Before a byte of a file is asked for, its length and its hash are known from the listing of one
//! commit. A file has its name only when its hash is right; a download that was cut goes on where
//! it was. The token goes to the hub alone.

mod cache;
mod fetch;
mod http;
mod listing;
mod name;
mod ranges;

use std::{
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{cache::Cache, http::Client};
pub use self::{
    listing::{Listing, Remote, read_page},
    name::{Name, SCHEME},
    ranges::RangeFile,
};
use crate::base::{
    error::{Error, Result},
    num::size,
};

/// Bytes of a disk that are left free.
const MARGIN: u64 = 16 << 20;

/// Where the hub is and where its cache is. The doors read it from the environment.
#[derive(Clone)]
pub struct Settings {
    /// The address of the hub, `https://huggingface.co`.
    pub endpoint: String,
    /// The folder of the cache.
    pub cache: PathBuf,
    /// What proves to the hub who asks, if anything does.
    pub token: Option<String>,
    /// Whether the network is not to be used.
    pub offline: bool,
    /// Whether the proxy that the environment names is used.
    pub system_proxy: bool,
    /// Limits of time and size.
    pub limits: Limits,
}

impl fmt::Debug for Settings {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// Limits of what a server may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tries in a row in which little comes.
    pub tries: u32,
    /// Bytes after which tries are counted anew.
    pub advance: u64,
    /// The wait after the first try; each later one is twice as long.
    pub wait: Duration,
    /// The longest wait, also if the server asks for a longer one.
    pub longest_wait: Duration,
    /// Longest time to find a server and to be connected.
    pub connect: Duration,
    /// Longest time in which nothing comes.
    pub stall: Duration,
    /// Longest time until an answer begins, and until a page of a listing is whole.
    pub page: Duration,
    /// Bytes of the longest page.
    pub page_bytes: u64,
    /// Most pages.
    pub pages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tries: 5,
            advance: 1 << 20,
            wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            page: Duration::from_secs(120),
            page_bytes: 32 << 20,
            pages: 100,
        }
    }
}

/// What happens during work with the hub. Whoever is told may end the work with an error.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The next file.
    File(&'a Remote),
    /// So many bytes of the file are there from before.
    Have(u64),
    /// So many bytes came.
    Bytes(u64),
    /// The file begins again, and so many bytes of it are lost.
    Again {
        /// Bytes that had been there.
        lost: u64,
    },
    /// A try failed, and another one follows.
    Retry {
        /// What was wrong.
        what: &'a str,
        /// The time until then.
        wait: Duration,
    },
    /// Another program downloads this file, and is waited for.
    Locked,
    /// Time passes.
    Waits,
}

/// Who is told.
pub type Listener<'a> = dyn FnMut(Event<'_>) -> Result<()> + 'a;

/// A commit, and why it may not be the newest.
#[derive(Debug)]
pub struct Commit {
    /// The commit.
    pub id: String,
    /// The error that kept the hub from being asked, if it was to be.
    pub stale: Option<Error>,
}

/// What a download did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Files that came.
    pub files: usize,
    /// Bytes that came.
    pub bytes: u64,
    /// Files that were there.
    pub present: usize,
}

/// The hub, and its cache.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    settings: Settings,
}

impl Hub {
    /// The hub of these settings. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if its address is none.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { client: Client::new(&settings)?, settings })
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.settings.cache
    }

    /// Whether the network is not to be used.
    pub fn is_offline(&self) -> bool {
        self.settings.offline
    }

    fn cache_of(&self, name: &Name) -> Cache {
        Cache::of(&self.settings.cache, name)
    }

    /// The commit that is meant. The hub is asked unless one is named; if it cannot be reached, or
    /// is not to be, it is the commit that the cache has of that revision.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the hub cannot be reached and the cache has none, or the hub refuses; and
    /// [`Error::Format`] if its answer makes no sense.
    pub fn commit(&self, name: &Name, on: &mut Listener<'_>) -> Result<Commit> {
        if let Some(id) = name.commit() {
            return Ok(Commit { id: id.to_owned(), stale: None });
        }
        let kept = self.cache_of(name).commit_of(name.revision())?;
        if self.settings.offline {
            let id = kept.ok_or_else(|| self.absent(name))?;
            return Ok(Commit { id, stale: None });
        }
        // With a commit at hand one try is enough.
        match (self.client.commit_of(name, kept.is_some(), on), kept) {
            (Ok(id), _) => Ok(Commit { id, stale: None }),
            (Err(error), Some(id)) if is_unreachable(&error) => {
                Ok(Commit { id, stale: Some(error) })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The error for what the cache does not have, when the network is not to be used.
    pub fn absent(&self, name: &Name) -> Error {
        let cache = self.cache_of(name);
        let what = match &cache.commits()[..] {
            [] => format!("the cache {} has nothing of it", self.cache().display()),
            commits => format!(
                "the cache {} has no such revision of it, but {}",
                self.cache().display(),
                commits.join(", ")
            ),
        };
        let what = format!("HF_HUB_OFFLINE is set, and {what}");
        Error::io(name.to_string(), std::io::Error::new(ErrorKind::NotFound, what))
            .with_hint(format!("`grok-wgpu pull {name}` without HF_HUB_OFFLINE fetches it."))
    }

    /// The folder of the cache with the files of a commit, below what the name says. It may not
    /// exist.
    pub fn folder(&self, name: &Name, commit: &str) -> PathBuf {
        let snapshot = self.cache_of(name).snapshot(commit);
        name.inner()
            .split('/')
            .filter(|part| !part.is_empty())
            .fold(snapshot, |at, part| at.join(part))
    }

    /// What a commit has in the folder that is named, or in the folder of the file that is, as
    /// another program has noted it in the cache. Nothing is sent.
    pub fn kept_list(&self, name: &Name, commit: &str) -> Option<Listing> {
        let tree = self.cache_of(name).tree(commit, self.settings.limits.page_bytes)?;
        let files = listing::of_tree(&tree, name.folder_and_file().0)?;
        Some(Listing { name: name.clone(), commit: commit.to_owned(), files })
    }

    /// Whether the cache has a file of a commit, with its length.
    pub fn has(&self, name: &Name, commit: &str, file: &Remote) -> bool {
        self.cache_of(name).has(commit, &file.path, file.size)
    }

    /// Lists what a commit has in the folder that is named, or in the folder of the file that is.
    /// Nothing is sent if the cache knows it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the hub cannot be reached, is not to be, or refuses; [`Error::Format`] if
    /// the listing makes no sense, or names files that lead elsewhere.
    pub fn list(&self, name: &Name, commit: &str, on: &mut Listener<'_>) -> Result<Listing> {
        if let Some(kept) = self.kept_list(name, commit) {
            return Ok(kept);
        }
        if self.settings.offline {
            return Err(self.absent(name));
        }
        self.client.list(name, commit, name.folder_and_file().0, on)
    }

    /// Downloads the files of a listing that are not in the cache, in this order, and notes which
    /// commit the revision is. Another program that downloads the same is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk has no room for all of it, or a file cannot be had or written;
    /// [`Error::Format`] if what comes is not what was listed; the errors of `on`. What came is
    /// kept: the same call goes on with it.
    pub fn fetch(
        &self,
        listing: &Listing,
        files: &[&Remote],
        on: &mut Listener<'_>,
    ) -> Result<Fetched> {
        let Listing { name, commit, .. } = listing;
        let cache = self.cache_of(name);
        cache.make()?;
        self.check_room(&cache, commit, files)?;
        let pinned = name.at(commit);
        let mut fetched = Fetched::default();
        for file in files {
            on(Event::File(file))?;
            let mut came = 0;
            let mut counted = |event: Event<'_>| {
                if let Event::Bytes(bytes) = event {
                    came += bytes;
                }
                on(event)
            };
            if self.fetch_one(&cache, &pinned, commit, file, &mut counted)? {
                fetched.files += 1;
                fetched.bytes += came;
            } else {
                fetched.present += 1;
            }
        }
        if name.commit().is_none() {
            cache.note(name.revision(), commit)?;
        }
        Ok(fetched)
    }

    /// Downloads one file; `false` if it was there.
    fn fetch_one(
        &self,
        cache: &Cache,
        pinned: &Name,
        commit: &str,
        file: &Remote,
        on: &mut Listener<'_>,
    ) -> Result<bool> {
        if cache.has(commit, &file.path, file.size) {
            on(Event::Have(file.size))?;
            return Ok(false);
        }
        let mut told = false;
        let lock = loop {
            if let Some(lock) = cache.lock(&file.etag)? {
                break lock;
            }
            if !told {
                on(Event::Locked)?;
                told = true;
            }
            http::pause(http::LOOK, on)?;
        };
        // Another program may have downloaded it meanwhile, or it is a file of another commit.
        let there = cache.has_blob(&file.etag, file.size)?;
        if there {
            on(Event::Have(file.size))?;
        } else {
            self.client.download(cache, pinned, file, on)?;
        }
        // The other program may have made the link, too.
        if !cache.has(commit, &file.path, file.size) {
            cache.place(commit, &file.path, &file.etag)?;
        }
        drop(lock);
        Ok(!there)
    }

    /// Fails if the disk has no room for what is missing.
    fn check_room(&self, cache: &Cache, commit: &str, files: &[&Remote]) -> Result<()> {
        let mut need: u64 = 0;
        for file in files.iter().filter(|file| !cache.has(commit, &file.path, file.size)) {
            if !cache.has_blob(&file.etag, file.size)? {
                need += file.size - cache.partial(&file.etag, file.size).0;
            }
        }
        let Some(room) = cache.room().filter(|_| need > 0) else { return Ok(()) };
        if need.saturating_add(MARGIN) <= room {
            return Ok(());
        }
        let what = format!(
            "{} are to be downloaded, and the disk has room for {}",
            size(need),
            size(room)
        );
        let full = std::io::Error::new(ErrorKind::StorageFull, what);
        Err(Error::io(self.cache(), full)
            .with_hint("Make room on that disk, or name a folder on another one in HF_HUB_CACHE."))
    }

    /// The files of a listing as files that are read where they are, with the names that they have
    /// in their folder.
    pub fn sources(&self, listing: &Listing, files: &[&Remote]) -> Vec<RangeFile<'_>> {
        let name = listing.name.at(&listing.commit);
        files.iter().map(|file| RangeFile::new(&self.client, &name, file)).collect()
    }
}

/// Whether an error says that the hub was not reached, or did not answer.
fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::Hinted { error, .. } => is_unreachable(error),
        Error::Io { source, .. } => source.kind() == ErrorKind::HostUnreachable,
        _ => false,
    }
}
