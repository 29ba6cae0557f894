//! The few things that differ between a computer and a browser.

mod gpu;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(target_arch = "wasm32")]
pub(crate) mod web;

pub(crate) use gpu::{Background, map_on_all_cores, read_staging, wait};

use crate::Result;

/// What must stand above a shader that uses subgroups: browsers want it, and wgpu's own compiler does
/// not know it.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const ENABLE_SUBGROUPS: &str = "";
/// The same.
#[cfg(target_arch = "wasm32")]
pub(crate) const ENABLE_SUBGROUPS: &str = "enable subgroups;\n";

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
