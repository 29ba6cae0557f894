//! Names of models on the hub, and what of a server's answers may become a part of a path.

use std::{fmt, str::FromStr};

use crate::base::{
    error::{Error, Result},
    json::clipped,
};

/// What a name of a model on the hub begins with.
pub const SCHEME: &str = "hf://";

/// The revision that is meant where none is named.
pub(super) const MAIN: &str = "main";

/// Hosts of the hub, as people copy addresses from a browser.
const HOSTS: [&str; 3] = ["huggingface.co", "hf.co", "www.huggingface.co"];

/// A model on the hub: `hf://owner/name[@revision][/folder]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    owner: String,
    model: String,
    revision: Option<String>,
    inner: String,
}

impl Name {
    /// The name that a text is, if it begins as one.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it begins with `hf://` and does not go on as a name.
    pub fn of(text: &str) -> Result<Option<Self>> {
        text.strip_prefix(SCHEME).map(|rest| Self::parse(text, rest)).transpose()
    }

    /// The same without `hf://`, or as an address of the hub's pages.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is nothing of that.
    pub fn of_words(text: &str) -> Result<Self> {
        let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let bare = address.unwrap_or(text);
        let page = HOSTS
            .iter()
            .find_map(|host| bare.strip_prefix(host).and_then(|rest| rest.strip_prefix('/')));
        match page {
            Some(page) => Self::parse(text, &of_page(page)),
            None => Self::parse(text, text.strip_prefix(SCHEME).unwrap_or(text)),
        }
    }

    fn parse(text: &str, rest: &str) -> Result<Self> {
        let refuse = |what: &str| {
            let text = clipped(text);
            Err(Error::Usage(format!("`{text}` is no name of a model on the hub: {what}"))
                .with_hint(format!(
                    "Such names are {SCHEME}OWNER/NAME, {SCHEME}OWNER/NAME@REVISION, and \
                     {SCHEME}OWNER/NAME/FOLDER or FILE."
                )))
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let Some((owner, rest)) = rest.split_once('/') else {
            return refuse("an owner and a name are wanted");
        };
        let end = rest.find(['@', '/']).unwrap_or(rest.len());
        let (model, rest) = rest.split_at(end);
        if !is_plain(owner) || !is_plain(model) {
            return refuse(
                "an owner and a name are of letters, digits, `-`, `_` and `.`, and neither \
                 begins nor ends with `-` or `.`",
            );
        }
        let (revision, inner) = match rest.strip_prefix('@') {
            None => (None, rest),
            Some(rest) => {
                let end = revision_end(rest);
                let revision = rest[..end].replace("%2F", "/").replace("%2f", "/");
                if !is_revision(&revision) {
                    return refuse(
                        "a revision is a branch, a tag or a commit; a slash in it is written %2F",
                    );
                }
                (Some(revision), &rest[end..])
            }
        };
        let inner = inner.strip_prefix('/').unwrap_or(inner);
        if !inner.is_empty() && !is_path(inner) {
            return refuse("what follows the name is no path of a folder or a file in it");
        }
        let (owner, model, inner) = (owner.into(), model.into(), inner.into());
        Ok(Self { owner, model, revision, inner })
    }

    /// `owner/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.model)
    }

    /// The folder of the model in a cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.model)
    }

    /// The branch, tag or commit that is meant.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The commit, if one is named: what it has never changes.
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|revision| is_commit(revision))
    }

    /// The folder or the file within the repository; empty for all of it.
    pub fn inner(&self) -> &str {
        &self.inner
    }

    /// The folder that is meant or has the file that is meant, empty for all, and that file.
    pub fn folder_and_file(&self) -> (&str, Option<&str>) {
        const FILES: [&str; 3] = [".gguf", ".safetensors", ".json"];
        let (folder, last) = self.inner.rsplit_once('/').unwrap_or(("", &self.inner));
        let is_file = FILES.iter().any(|end| last.ends_with(end)) || last.contains(".gguf.part");
        if is_file { (folder, Some(last)) } else { (&self.inner, None) }
    }

    /// The same without the file, if one is named.
    #[must_use]
    pub fn above(&self) -> Self {
        Self { inner: self.folder_and_file().0.to_owned(), ..self.clone() }
    }

    /// The same repository and folder at a commit.
    #[must_use]
    pub fn at(&self, commit: &str) -> Self {
        Self { revision: Some(commit.to_owned()), ..self.clone() }
    }
}

impl FromStr for Name {
    type Err = Error;

    /// As [`Name::of_words`].
    fn from_str(text: &str) -> Result<Self> {
        Self::of_words(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.owner, self.model)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", revision.replace('/', "%2F"))?;
        }
        if self.inner.is_empty() { Ok(()) } else { write!(f, "/{}", self.inner) }
    }
}

/// What an address of a page names: `owner/name/tree/revision/folder` and so on.
fn of_page(page: &str) -> String {
    let page = page.split(['?', '#']).next().unwrap_or(page);
    let page = page.strip_suffix('/').unwrap_or(page);
    let mut parts = page.splitn(4, '/');
    let (owner, model) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    match (parts.next(), parts.next()) {
        (Some("tree" | "blob" | "resolve" | "raw"), Some(rest)) => {
            format!("{owner}/{model}@{rest}")
        }
        (Some("tree"), None) | (None, _) => format!("{owner}/{model}"),
        (Some(other), rest) => format!("{owner}/{model}/{other}/{}", rest.unwrap_or("")),
    }
}

/// Where a revision ends that a folder may follow. Those of requests and conversions have slashes.
fn revision_end(rest: &str) -> usize {
    let slashes =
        if rest.starts_with("refs/pr/") || rest.starts_with("refs/convert/") { 2 } else { 0 };
    rest.match_indices('/').nth(slashes).map_or(rest.len(), |(at, _)| at)
}

/// Whether a text can be an owner or a model, as the hub has it. Without `--`, so that the folder
/// in a cache has one meaning.
fn is_plain(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=96).contains(&text.len())
        && text.chars().all(fits)
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
        && !text.contains("--")
        && !text.contains("..")
}

/// Whether a text can be a branch, a tag or a commit, and a path below `refs`.
fn is_revision(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || "~^:?*[\\%@".contains(c);
    is_path(text) && text.len() <= 256 && !text.starts_with('-') && !text.contains(odd)
}

/// Whether a text is a commit, whole.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether a text is the name of a blob: a SHA-256 or git's SHA-1.
pub(super) fn is_etag(text: &str) -> bool {
    is_hex(text, 40) || is_hex(text, 64)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a relative path that leads nowhere but down, on every system.
pub(super) fn is_path(text: &str) -> bool {
    let part = |part: &str| {
        let odd = |c: char| c.is_control() || matches!(c, '\\' | ':');
        !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.contains(odd)
    };
    text.len() <= 1024 && text.split('/').all(part)
}

/// A part of an address: what has a meaning there is escaped. Slashes are kept where `slashes`.
pub(super) fn escaped(text: &str, slashes: bool) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            // A string takes whatever is written.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (text, shown, revision, inner) in [
            ("hf://a/b", "hf://a/b", "main", ""),
            ("a/b", "hf://a/b", "main", ""),
            ("a/b/", "hf://a/b", "main", ""),
            ("hf://a/b@v1.0/x/y", "hf://a/b@v1.0/x/y", "v1.0", "x/y"),
            ("hf://a/b/x@y", "hf://a/b/x@y", "main", "x@y"),
            ("hf://a/b@refs/pr/1/x", "hf://a/b@refs%2Fpr%2F1/x", "refs/pr/1", "x"),
            ("hf://a/b@x%2Fy/z", "hf://a/b@x%2Fy/z", "x/y", "z"),
            ("https://huggingface.co/a/b", "hf://a/b", "main", ""),
            ("https://huggingface.co/a/b/?x=y", "hf://a/b", "main", ""),
            ("hf.co/a/b/tree/main", "hf://a/b@main", "main", ""),
            ("https://hf.co/a/b/blob/v1/c/d.gguf", "hf://a/b@v1/c/d.gguf", "v1", "c/d.gguf"),
        ] {
            let name = Name::of_words(text).expect(text);
            assert_eq!(name.to_string(), shown, "{text}");
            assert_eq!((name.revision(), name.inner()), (revision, inner), "{text}");
            assert_eq!(name.commit(), None);
            let again = Name::of(&name.to_string()).expect(shown).expect(shown);
            assert_eq!(again, name);
        }
        let pinned = Name::of_words("a/b").expect("a name").at(commit);
        assert_eq!(pinned.commit(), Some(commit));
        assert_eq!(Name::of("a/b").expect("no name"), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "hf://",
            "hf://a",
            "a--b/c",
            "../b",
            "a/..",
            "-a/b",
            "a/b.",
            "a b/c",
            "a/b@",
            "a/b@../x",
            "a/b@-x",
            "a/b@x y",
            "a/b/../c",
            "a/b//c",
            "a/b/c\\d",
            "a/b/c:d",
            "a/b/\u{7}",
            "a/b:Q4_K_M",
            "https://example.com/a/b@main",
        ] {
            let error = Name::of_words(text).expect_err(text);
            assert_eq!(error.code(), "usage", "{text}");
            assert!(error.hint().contains("hf://OWNER/NAME"), "{text}");
        }
    }

    #[test]
    fn parts_of_addresses_are_escaped() {
        assert_eq!(escaped("a b/ü?#%", true), "a%20b/%C3%BC%3F%23%25");
        assert_eq!(escaped("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
