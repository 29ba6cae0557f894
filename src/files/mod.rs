//! Files, and the few other things that differ between a computer and a browser.

#[cfg(not(target_arch = "wasm32"))]
pub mod folder;
#[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
pub mod hub;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(not(target_arch = "wasm32"))]
pub mod replace;
#[cfg(not(target_arch = "wasm32"))]
pub mod scratch;
pub mod threads;
#[cfg(target_arch = "wasm32")]
pub(crate) mod web;

use std::path::PathBuf;

use crate::base::{
    error::{Error, Result},
    utf8,
};

/// A file of known length that is read at offsets, from a disk or over a network.
#[expect(async_fn_in_trait, reason = "a session is one thread, and browser futures are not Send")]
pub trait Source {
    /// The file's name within its folder.
    fn name(&self) -> &str;

    /// What messages call the file.
    fn path(&self) -> PathBuf {
        self.name().into()
    }

    /// Bytes in the file.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// If not all of them can be read. The error names the file and the offset.
    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()>;
}

/// The bytes of a file.
///
/// # Errors
///
/// [`Error::Format`] if there are more than `limit`, and the errors of [`Source::read`].
pub async fn read_all(file: &impl Source, limit: u64) -> Result<Vec<u8>> {
    let len = file.len();
    if len > limit {
        let what = format!("{len} bytes are more than the {limit} that are read");
        return Err(Error::format(file.path(), what));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read(0, &mut bytes).await?;
    Ok(bytes)
}

/// The text of a file, without a byte order mark.
///
/// # Errors
///
/// [`Error::Format`] if it is not UTF-8, and those of [`read_all`].
pub async fn read_text(file: &impl Source, limit: u64) -> Result<String> {
    let bytes = read_all(file, limit).await?;
    utf8::decode(&bytes).map(str::to_owned).map_err(|what| Error::format(file.path(), what))
}
