//! Large writes to the device, through a ring of staging buffers that stay mapped between them.
//!
//! wgpu's `write_buffer` allocates staging memory for each call, and the first use of new memory
//! costs more than the copy into it. The ring's memory is used again and again.
//!
//! Each part of a write is copied to a staging buffer, and from there by a submission of its own.
//! wgpu puts the writes of `write_buffer` before the submission that follows them. So all writes
//! and passes happen in the order of the calls, whichever way a write goes.

use std::collections::VecDeque;

use super::{Gpu, wait};
use crate::{
    base::error::{Error, Result},
    machine::Transfer,
};

/// Bytes of the smallest write that goes through the ring.
const LARGE: usize = 64 << 10;

/// Bytes of a staging buffer. In browsers each is several messages to another process, so that
/// fewer and larger ones take less time.
const STAGED: usize = if cfg!(target_arch = "wasm32") { 4 << 20 } else { 2 << 20 };

/// Staging buffers of the ring: some are filled while the device copies others.
const COUNT: usize = 4;

/// The staging buffers for large writes.
#[derive(Debug)]
pub(super) struct Uploads {
    on: bool,
    /// Those in use. The one that was used first is at the front.
    ring: VecDeque<Staged>,
    /// Those that are mapped.
    free: Vec<wgpu::Buffer>,
}

/// A staging buffer whose bytes are being copied.
#[derive(Debug)]
struct Staged {
    buffer: wgpu::Buffer,
    /// The submission that copies them.
    copied: wgpu::SubmissionIndex,
    /// The answer to the request to map the buffer after that.
    mapped: wait::Mapped,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { on: true, ring: VecDeque::new(), free: Vec::new() }
    }
}

impl Uploads {
    /// Whether a write of `bytes` goes through the ring.
    pub(super) fn take(&self, bytes: &[u8]) -> bool {
        // wgpu has an error for lengths that are no multiples of four.
        self.on && bytes.len() >= LARGE && bytes.len().is_multiple_of(4)
    }

    /// Frees the ring, as soon as the device has copied what is in it.
    pub(super) fn free(&mut self) {
        self.ring.clear();
        self.free.clear();
    }

    /// Buffers that can be written to at once, those that are still to be made among them.
    #[cfg(target_arch = "wasm32")]
    fn ready(&self) -> usize {
        COUNT - self.ring.len()
    }
}

/// Copies bytes to the start of a buffer that is mapped.
#[cfg(not(target_arch = "wasm32"))]
fn fill(buffer: &wgpu::Buffer, bytes: &[u8]) -> std::result::Result<(), wgpu::MapRangeError> {
    buffer.get_mapped_range_mut(0..bytes.len() as u64)?.copy_from_slice(bytes);
    Ok(())
}

/// Copies bytes to the start of a buffer that is mapped. A view to write to is a copy of the mapped
/// memory for Rust, so that each byte would be copied three times; a view to read from gives
/// JavaScript the memory itself.
#[cfg(target_arch = "wasm32")]
fn fill(buffer: &wgpu::Buffer, bytes: &[u8]) -> std::result::Result<(), wgpu::MapRangeError> {
    buffer.get_mapped_range(0..bytes.len() as u64)?.as_uint8array().copy_from(bytes);
    Ok(())
}

impl Gpu {
    /// Bytes of staging buffers for large writes that there are at the most.
    pub const MOST_STAGED_BYTES: u64 = (STAGED * COUNT) as u64;

    /// Whether large writes go through staging buffers that are used again, as they do unless this
    /// says otherwise. Frees those that there are.
    pub fn stage_uploads(&mut self, on: bool) {
        self.uploads = Uploads { on, ..Uploads::default() };
    }

    /// Bytes of the staging buffers for large writes. They are made with the first such writes, and
    /// freed when a plan is recorded or all tensors are freed.
    pub fn staged_bytes(&self) -> u64 {
        let Uploads { ring, free, .. } = &self.uploads;
        ring.iter().map(|staged| &staged.buffer).chain(free).map(wgpu::Buffer::size).sum()
    }

    /// Waits until so many bytes can be written through the ring, as far as it has room for them.
    #[cfg(target_arch = "wasm32")]
    pub(super) async fn await_uploads(&mut self, bytes: usize) -> Result<()> {
        if !self.uploads.on || bytes < LARGE {
            return Ok(());
        }
        while self.uploads.ready() < bytes.div_ceil(STAGED).min(COUNT) {
            let Some(Staged { buffer, mapped, .. }) = self.uploads.ring.pop_front() else { break };
            match mapped.await {
                Ok(Ok(())) => self.uploads.free.push(buffer),
                Ok(Err(error)) => {
                    // Browsers report a lost device after the errors that follow from the loss.
                    crate::files::web::pause(50).await;
                    return Err(self.unmapped(&error.to_string()));
                }
                Err(_) => return Err(self.unmapped("the request was dropped")),
            }
        }
        Ok(())
    }

    /// Writes bytes to a buffer through the ring. Waits for the device where all of the ring is in
    /// use. After an error a part of them may be written.
    pub(super) fn upload(&mut self, to: &wgpu::Buffer, mut at: u64, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(STAGED) {
            let size = part.len() as u64;
            match self.mapped_staging()? {
                Some(buffer) => {
                    fill(&buffer, part).map_err(|error| self.unmapped(&error.to_string()))?;
                    buffer.unmap();
                    let mut encoder = self
                        .device
                        .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                    encoder.copy_buffer_to_buffer(&buffer, 0, to, at, size);
                    let copied = self.queue.submit([encoder.finish()]);
                    let mapped = wait::map(&buffer, wgpu::MapMode::Write, buffer.size());
                    self.uploads.ring.push_back(Staged { buffer, copied, mapped });
                }
                None => self.queue.write_buffer(to, at, part),
            }
            at += size;
        }
        Ok(())
    }

    /// Copies bytes from tensors to tensors, in a submission of its own: see [`Machine::copy`].
    ///
    /// [`Machine::copy`]: crate::machine::Machine::copy
    pub(super) fn transfer(&mut self, copies: &[Transfer]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for &Transfer { from, to, bytes } in copies {
            let [(from, start), (to, at)] = [from, to].map(|(tensor, offset)| {
                let slot = &self.slots[tensor.id];
                (slot, (offset.saturating_add(bytes) <= slot.size).then(|| slot.offset + offset))
            });
            let (Some(start), Some(at)) = (start, at) else {
                return Err(Error::Limit {
                    what: "bytes that are copied from one tensor to another".into(),
                    got: bytes,
                    limit: from.size.min(to.size),
                });
            };
            encoder.copy_buffer_to_buffer(&from.buffer, start, &to.buffer, at, bytes);
        }
        self.queue.submit([encoder.finish()]);
        self.check()
    }

    /// A staging buffer that is mapped and not in the ring. `None` if all are in use and cannot be
    /// waited for, as in browsers.
    fn mapped_staging(&mut self) -> Result<Option<wgpu::Buffer>> {
        if let Some(buffer) = self.uploads.free.pop() {
            return Ok(Some(buffer));
        }
        if self.uploads.ring.len() < COUNT {
            let size = STAGED as u64;
            let buffer = self.make.buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            self.check_made(|| "a staging buffer for uploads".to_owned(), size)?;
            return Ok(Some(buffer));
        }
        let Some(Staged { buffer, copied, mut mapped }) = self.uploads.ring.pop_front() else {
            return Ok(None);
        };
        let waited = wait::until(&self.device, copied.clone(), self.patience);
        match mapped.try_recv() {
            Ok(Some(Ok(()))) => Ok(Some(buffer)),
            Ok(None) => {
                self.uploads.ring.push_front(Staged { buffer, copied, mapped });
                waited.map(|()| None)
            }
            Ok(Some(Err(error))) => Err(self.unmapped(&error.to_string())),
            Err(_) => Err(self.unmapped("the request was dropped")),
        }
    }

    /// The error for a staging buffer that was not mapped.
    fn unmapped(&mut self, why: &str) -> Error {
        self.uploads.free();
        let lost = || Error::Lost(format!("weights could not be uploaded: {why}"));
        self.check().err().unwrap_or_else(lost)
    }
}
