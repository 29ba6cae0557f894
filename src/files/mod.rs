//! Files, and the few other things that differ between a computer and a browser.

#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(not(target_arch = "wasm32"))]
pub mod replace;
pub(crate) mod threads;
#[cfg(target_arch = "wasm32")]
pub(crate) mod web;

use crate::base::error::Result;

/// A file of known length that is read at offsets, from a disk or over a network.
#[expect(async_fn_in_trait, reason = "a session is one thread, and browser futures are not Send")]
pub trait Source {
    /// The file's name within its folder.
    fn name(&self) -> &str;

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
    /// If all of them cannot be had, with the file and the offset.
    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()>;
}
