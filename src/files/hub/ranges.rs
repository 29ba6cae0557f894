//! A file on the hub, of which only what is asked for comes: the headers of a model are some
//! megabytes of hundreds of gigabytes.

use std::{cell::RefCell, io::Read as _, path::PathBuf};

use super::{
    fetch::content_range,
    http::{About, Client, Failure},
    listing::Remote,
    name::{Name, escaped},
};
use crate::{
    base::error::{Error, Result},
    files::Source,
};

/// Bytes of the shortest range: headers are read in pieces that lie close together.
const BLOCK: u64 = 256 << 10;

/// A file that is read by ranges over HTTP.
#[derive(Debug)]
pub struct RangeFile<'a> {
    client: &'a Client,
    /// With the commit as its revision.
    model: Name,
    path: String,
    address: String,
    size: u64,
    /// The last range that came, and where it begins.
    block: RefCell<(u64, Vec<u8>)>,
}

impl<'a> RangeFile<'a> {
    pub(super) fn new(client: &'a Client, model: &Name, file: &Remote) -> Self {
        let path = escaped(&file.path, true);
        let address = format!("{}/resolve/{}/{path}", model.repository(), model.revision());
        Self {
            client,
            model: model.clone(),
            path: file.path.clone(),
            address: client.address(&address),
            size: file.size,
            block: RefCell::default(),
        }
    }

    /// What the last range has of these bytes, if it has them all.
    fn kept(&self, offset: u64, into: &mut [u8]) -> bool {
        let block = self.block.borrow();
        let from = offset.checked_sub(block.0).and_then(|from| usize::try_from(from).ok());
        let kept = from.and_then(|from| block.1.get(from..from.checked_add(into.len())?));
        kept.map(|kept| into.copy_from_slice(kept)).is_some()
    }

    /// The bytes from `offset` on.
    fn range(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let about = About { name: &self.model, file: Some(&self.path) };
        let header = ("range", format!("bytes={offset}-{}", offset + len - 1));
        self.client.persist(about, &mut |_| Ok(()), |_, _| {
            let answer =
                self.client.ask(about, &self.address, std::slice::from_ref(&header), None)?;
            let wrong = |what: &str| Failure::Final(Error::format(about.what(), what));
            // A whole file, of which what is wanted is the beginning, is a range as well.
            let starts = match answer.status() {
                206 => content_range(answer.header("content-range")),
                200 => Some((0, None)),
                _ => None,
            };
            match starts {
                Some((from, total))
                    if from == offset && total.is_none_or(|all| all == self.size) => {}
                Some((0, None)) => return Err(wrong("the server sends whole files only")),
                _ => return Err(wrong("the server sent another range than was asked for")),
            }
            let mut bytes = Vec::new();
            // To its end, after which the connection serves again.
            let mut reader = answer.response.into_body().into_reader().take(len + 1);
            reader.read_to_end(&mut bytes).map_err(|error| self.client.broken(&error))?;
            bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            if bytes.len() as u64 == len {
                return Ok(bytes);
            }
            Err(Failure::passing(format!("{} bytes of {len} came", bytes.len())))
        })
    }
}

impl Source for RangeFile<'_> {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    fn path(&self) -> PathBuf {
        format!("hf://{}/{}", self.model.repository(), self.path).into()
    }

    fn len(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let wanted = into.len() as u64;
        if offset.checked_add(wanted).is_none_or(|end| end > self.size) {
            let what =
                format!("{wanted} bytes at offset {offset} are beyond its {} bytes", self.size);
            return Err(Error::format(self.path(), what));
        }
        if wanted == 0 || self.kept(offset, into) {
            return Ok(());
        }
        let bytes = self.range(offset, wanted.max(BLOCK).min(self.size - offset))?;
        into.copy_from_slice(&bytes[..into.len()]);
        *self.block.borrow_mut() = (offset, bytes);
        Ok(())
    }
}
