//! The download of one file: it goes on where it was, and has its name when its hash is right.

use std::io::Read as _;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{
    Event, Listener,
    cache::{CHUNK, Cache, Part, Sidecar},
    http::{About, Answer, Client, Failure},
    listing::Remote,
    name::{Name, escaped},
};
use crate::base::{
    error::{Error, Result},
    num::hex,
};

/// The hash that a blob has as its name.
#[derive(Clone, Debug)]
enum Hash {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hash {
    fn of(file: &Remote) -> Self {
        if file.etag.len() == 64 {
            return Self::Sha256(Sha256::new());
        }
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", file.size));
        Self::Git(hash)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git hash",
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Git(hash) => hex(&hash.finalize()),
        }
    }
}

/// A download under way.
struct Download<'a> {
    client: &'a Client,
    cache: &'a Cache,
    about: About<'a>,
    file: &'a Remote,
    address: String,
    part: Part,
    hash: Hash,
    /// Bytes that are there.
    have: u64,
    validator: Option<String>,
    /// Whether some of it is from another request than the rest.
    joined: bool,
}

impl Client {
    /// Downloads a blob, whose lock is held. `name` has the commit as its revision.
    ///
    /// # Errors
    ///
    /// Those of the network after the last try, of a file that is not what was listed, of the disk,
    /// and of `on`. What came is kept for the next time, unless it is wrong.
    pub(super) fn download(
        &self,
        cache: &Cache,
        name: &Name,
        file: &Remote,
        on: &mut Listener<'_>,
    ) -> Result<()> {
        let about = About { name, file: Some(&file.path) };
        let (have, validator) = cache.partial(&file.etag, file.size);
        if have == 0 {
            cache.discard(&file.etag)?;
        }
        on(Event::Have(have))?;
        let mut hash = Hash::of(file);
        let part = cache.open(&file.etag, have, |bytes| {
            hash.update(bytes);
            on(Event::Waits)
        })?;
        let path = escaped(&file.path, true);
        let address = format!("{}/resolve/{}/{path}", name.repository(), name.revision());
        let address = self.address(&address);
        let joined = have > 0;
        let mut download = Download {
            client: self,
            cache,
            about,
            file,
            address,
            part,
            hash,
            have,
            validator,
            joined,
        };
        if have == 0 {
            download.describe()?;
        }
        loop {
            self.persist(about, on, |reached, on| {
                let result = download.attempt(on);
                *reached = download.have;
                result
            })?;
            let (got, kind) = (download.hash.clone().finish(), download.hash.name());
            if got == file.etag {
                return cache.finish(&file.etag, download.part);
            }
            // One of the pieces may be of something else, which a whole download cannot be.
            if download.joined {
                download.begin_again(on)?;
                download.joined = false;
                continue;
            }
            drop(download);
            cache.discard(&file.etag)?;
            let what = format!(
                "the bytes that came are not the file: their {kind} is {got}, and {} is wanted",
                file.etag
            );
            let hint = "They were removed. Run it again; if it stays so, a proxy or a mirror on \
                        the way changes them.";
            return Err(Error::format(about.what(), what).with_hint(hint));
        }
    }
}

impl Download<'_> {
    fn describe(&self) -> Result<()> {
        let (etag, size) = (self.file.etag.clone(), self.file.size);
        self.cache.describe(&Sidecar { etag, size, validator: self.validator.clone() })
    }

    /// Forgets what is there.
    fn begin_again(&mut self, on: &mut Listener<'_>) -> Result<()> {
        on(Event::Again { lost: self.have })?;
        self.part.clear()?;
        (self.have, self.hash) = (0, Hash::of(self.file));
        self.validator = None;
        self.describe()
    }

    /// Asks for the rest, and appends what comes.
    fn attempt(&mut self, on: &mut Listener<'_>) -> Result<(), Failure> {
        let size = self.file.size;
        if self.have == size {
            return Ok(());
        }
        let mut headers = Vec::new();
        if self.have > 0 {
            headers.push(("range", format!("bytes={}-", self.have)));
            if let Some(validator) = &self.validator {
                headers.push(("if-range", validator.clone()));
            }
        }
        let answer = self.client.ask(self.about, &self.address, &headers, None)?;
        let validator = strong(&answer);
        let changed =
            self.validator.is_some() && validator.is_some() && validator != self.validator;
        let left = match answer.status() {
            206 if self.have > 0 => match content_range(answer.header("content-range")) {
                Some((from, total)) if from == self.have && total.is_none_or(|all| all == size) => {
                    if changed {
                        self.begin_again(on)?;
                        return Err(Failure::passing("the file changed on the server"));
                    }
                    self.joined = true;
                    size - self.have
                }
                _ => {
                    self.begin_again(on)?;
                    return Err(Failure::passing(
                        "the server sent another range than was asked for",
                    ));
                }
            },
            200 => {
                // It has no ranges, or another file than before.
                if self.have > 0 {
                    self.begin_again(on)?;
                }
                self.joined = false;
                size
            }
            416 if self.have > 0 => {
                self.begin_again(on)?;
                return Err(Failure::passing("the server has no such range of the file"));
            }
            status => return Err(Failure::passing(format!("the server answers {status}"))),
        };
        if validator.is_some() && validator != self.validator {
            self.validator = validator;
            self.describe()?;
        }
        if answer.header("content-encoding").is_some_and(|coding| coding != "identity") {
            return Err(self
                .refused("the server compresses it, though it was asked not to")
                .into());
        }
        let declared: Option<u64> = answer.header("content-length").and_then(|n| n.parse().ok());
        if let Some(declared) = declared.filter(|&declared| declared != left) {
            let what = format!("the server has {declared} bytes, and {left} are wanted");
            return Err(self.refused(&what).into());
        }
        self.take(answer, on)
    }

    /// Appends what comes.
    fn take(&mut self, answer: Answer, on: &mut Listener<'_>) -> Result<(), Failure> {
        let size = self.file.size;
        let mut reader = answer.response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) if self.have < size => {
                    let what = format!("the connection ended after {} of {size} bytes", self.have);
                    return Err(Failure::passing(what));
                }
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // All is there: that the connection ends badly changes nothing.
                Err(_) if self.have == size => return Ok(()),
                Err(error) => return Err(self.client.broken(&error)),
            };
            if read as u64 > size - self.have {
                let what = format!("more than its {size} bytes come");
                self.part.clear()?;
                return Err(self.refused(&what).into());
            }
            self.part.append(&chunk[..read])?;
            self.hash.update(&chunk[..read]);
            self.have += read as u64;
            on(Event::Bytes(read as u64))?;
        }
    }

    fn refused(&self, what: &str) -> Error {
        let hint = "Run it again; if it stays so, a proxy or a mirror on the way changes the file.";
        Error::format(self.about.what(), what).with_hint(hint)
    }
}

/// A strong `ETag`: one that is the same only for the same bytes.
pub(super) fn strong(answer: &Answer) -> Option<String> {
    let etag = answer.header("etag")?;
    let plain = etag.len() <= 256 && etag.starts_with('"') && etag.ends_with('"');
    plain.then(|| etag.to_owned())
}

/// The first byte and the whole length of a `Content-Range`.
pub(super) fn content_range(header: Option<&str>) -> Option<(u64, Option<u64>)> {
    let (range, total) = header?.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((from.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range(Some("bytes 5-9/10")), Some((5, Some(10))));
        assert_eq!(content_range(Some("bytes 5-9/*")), Some((5, None)));
        for odd in ["bytes */10", "items 1-2/3", "bytes 1-2", "bytes x-2/3", "bytes 1-2/x"] {
            assert_eq!(content_range(Some(odd)), None, "{odd}");
        }
        assert_eq!(content_range(None), None);
    }
}
