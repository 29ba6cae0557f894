//! What a model has on the hub at one commit: names, sizes and hashes, before a byte of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::Path,
};

use serde::Deserialize;

use super::{
    Listener,
    http::{About, Answer, Client, Failure},
    name::{Name, escaped, is_commit, is_etag, is_path},
};
use crate::base::{
    error::{Error, Result},
    json::{clipped, parse_object},
};

/// The files of a model at one commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The name that was asked for.
    pub name: Name,
    /// The commit.
    pub commit: String,
    /// The files, in the hub's order.
    pub files: Vec<Remote>,
}

/// A file on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its path in the repository, with slashes: checked to lead nowhere but down.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256 in 64 hexadecimal digits, or git's SHA-1 in 40.
    pub etag: String,
}

/// An entry of a page of the hub's tree.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

/// What a large file is instead of what its entry says.
#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Client {
    /// The commit that a revision is today; `once` for a single try.
    pub(super) fn commit_of(
        &self,
        name: &Name,
        once: bool,
        on: &mut Listener<'_>,
    ) -> Result<String> {
        let about = About { name, file: None };
        let revision = escaped(name.revision(), false);
        let path = format!("api/models/{}/revision/{revision}", name.repository());
        let address = self.address(&path);
        let tries = if once { 1 } else { self.limits.tries };
        self.try_for(tries, about, on, |_, _| {
            let answer = self.ask(about, &address, &[], Some(self.limits.page))?;
            let text = self.text_of(answer, &address)?;
            let fields = parse_object(&text).map_err(|what| bad(&address, &what))?;
            match fields.get("sha").and_then(|sha| sha.as_str()) {
                Some(sha) if is_commit(sha) => Ok(sha.to_owned()),
                Some(sha) => {
                    Err(bad(&address, &format!("`sha` is {}, which is no commit", clipped(sha))))
                }
                None => Err(bad(&address, "there is no field `sha` with the commit")),
            }
        })
    }

    /// The files below a folder at a commit; `folder` is empty for all.
    pub(super) fn list(
        &self,
        name: &Name,
        commit: &str,
        folder: &str,
        on: &mut Listener<'_>,
    ) -> Result<Listing> {
        let about = About { name, file: None };
        let mut path = format!("api/models/{}/tree/{commit}", name.repository());
        if !folder.is_empty() {
            path = format!("{path}/{}", escaped(folder, true));
        }
        let path = self.address(&path);
        let mut address = format!("{path}?recursive=true&expand=false");
        let mut files = Vec::new();
        for _ in 0..self.limits.pages {
            let (page, next) = self.persist(about, on, |_, _| {
                let answer = self.ask(about, &address, &[], Some(self.limits.page))?;
                let next = answer.header("link").and_then(next_page).map(str::to_owned);
                let text = self.text_of(answer, &address)?;
                let page = page(&text, folder).map_err(|what| bad(&address, &what))?;
                Ok((page, next))
            })?;
            files.extend(page);
            let Some(next) = next else {
                check(&files).map_err(|what| Error::format(&address, what))?;
                return Ok(Listing { commit: commit.to_owned(), name: name.clone(), files });
            };
            // Where the next page is, is known: of what the server says only the query counts.
            let query = next.split_once('?').map_or("", |(_, query)| query);
            address = format!("{path}?{query}");
        }
        let what = format!("the listing has more than {} pages", self.limits.pages);
        Err(Error::format(&address, what))
    }

    /// The text of an answer, with a limit.
    fn text_of(&self, answer: Answer, address: &str) -> Result<String, Failure> {
        let most = self.limits.page_bytes;
        let mut bytes = Vec::new();
        let reader = answer.response.into_body().into_reader();
        let read = reader.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.broken(&error))?;
        if bytes.len() as u64 > most {
            return Err(bad(address, &format!("the answer has more than {most} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| bad(address, "the answer is not UTF-8"))
    }
}

/// The files of a page of the hub's tree.
///
/// # Errors
///
/// What is wrong: it is not JSON of this form, or a path or a hash may be no part of a path.
fn page(text: &str, folder: &str) -> Result<Vec<Remote>, String> {
    let entries: Vec<Entry> =
        serde_json::from_str(text).map_err(|error| format!("not the expected JSON: {error}"))?;
    let files = entries.into_iter().filter(|entry| entry.kind == "file");
    files.map(|entry| remote(entry, folder)).collect()
}

/// The files of a listing of one page, for programs that look for texts that break this.
///
/// # Errors
///
/// [`Error::Format`] if it makes no sense, or names files that lead elsewhere.
pub fn read_page(text: &str) -> Result<Vec<Remote>> {
    let files = page(text, "").map_err(|what| Error::format("listing", what))?;
    check(&files).map_err(|what| Error::format("listing", what))?;
    Ok(files)
}

/// A commit's files as `huggingface_hub` notes them.
#[derive(Deserialize)]
struct Tree {
    format_version: u64,
    files: BTreeMap<String, Noted>,
}

/// A file of a [`Tree`].
#[derive(Deserialize)]
struct Noted {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
    lfs_size: Option<u64>,
}

/// The files below a folder, as a tree of the cache lists them; `None` if it is of another form, or
/// anything in it may be no part of a path: the hub has the same listing.
pub(super) fn of_tree(text: &str, folder: &str) -> Option<Vec<Remote>> {
    let tree: Tree = serde_json::from_str(text).ok().filter(|of: &Tree| of.format_version == 1)?;
    let remotes = tree.files.into_iter().map(|(path, of)| {
        let lfs = of.lfs_sha256.map(|oid| Lfs { oid, size: of.lfs_size.unwrap_or(of.size) });
        let (kind, size, oid) = ("file".to_owned(), of.size, of.blob_id);
        remote(Entry { kind, path, size, oid, lfs }, "")
    });
    let mut files: Vec<Remote> = remotes.collect::<Result<_, _>>().ok()?;
    check(&files).ok()?;
    files.retain(|file| is_below(&file.path, folder));
    Some(files)
}

/// Whether a path is below a folder, which is empty for all.
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| folder.is_empty() || rest.starts_with('/'))
}

fn bad(address: &str, what: &str) -> Failure {
    let hint = "Something else than the hub may answer, such as the page of a network that wants a \
                login: open the address in a browser.";
    Failure::Final(Error::format(Path::new(address), what).with_hint(hint))
}

/// The address of the next page in a `Link` header.
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (address, rest) = part.trim().strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then_some(address)
    })
}

/// The file of an entry, if its path and its hash may become parts of a path.
fn remote(entry: Entry, folder: &str) -> Result<Remote, String> {
    let Entry { path, size, oid, lfs, .. } = entry;
    let shown = clipped(&path);
    if !is_path(&path) {
        return Err(format!("the listing has a file `{shown}`, which is no plain path"));
    }
    if !is_below(&path, folder) {
        return Err(format!("the listing of {folder} has a file `{shown}`, which is elsewhere"));
    }
    let (etag, size, digits) = match lfs {
        Some(lfs) => {
            let oid = lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid).to_owned();
            (oid, lfs.size, 64)
        }
        None => (oid, size, 40),
    };
    if !is_etag(&etag) || etag.len() != digits {
        let etag = clipped(&etag);
        return Err(format!("`{shown}` has the hash `{etag}`; {digits} digits are wanted"));
    }
    Ok(Remote { path, size, etag })
}

/// Whether the files can be in one folder, on every system, and their sizes can be.
fn check(files: &[Remote]) -> Result<(), String> {
    let mut paths = BTreeSet::new();
    for file in files {
        if !paths.insert(&*file.path) {
            return Err(format!("the listing has `{}` twice", clipped(&file.path)));
        }
    }
    for file in files {
        for (at, _) in file.path.match_indices('/') {
            if paths.contains(&file.path[..at]) {
                let what = clipped(&file.path[..at]);
                return Err(format!("the listing has `{what}` as a file and as a folder"));
            }
        }
    }
    let total = files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size));
    total.map(drop).ok_or_else(|| "the sizes are more than 2^64 bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        assert_eq!(next_page("<https://a/b?c=1>; rel=\"next\""), Some("https://a/b?c=1"));
        assert_eq!(next_page("<x>; rel=\"prev\", <y>; rel=\"next\""), Some("y"));
        assert_eq!(next_page("<x>; rel=\"last\""), None);
        assert_eq!(next_page("nonsense"), None);
    }
}
