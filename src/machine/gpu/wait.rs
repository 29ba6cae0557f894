//! Waiting for a device: natively by polling, in browsers by their event loop.

pub(super) use std::time::Duration;
#[cfg(not(target_arch = "wasm32"))]
use std::{sync::LazyLock, time::Instant};

use crate::base::error::{Error, Result};

/// Whether shaders need `enable` directives for the optional features that they use. Browsers
/// require them; naga, wgpu's own compiler, does not know them.
pub(crate) const SHADERS_ENABLE: bool = cfg!(target_arch = "wasm32");

/// The longest wait: long enough for the slowest software adapter, short enough that a hung device
/// is noticed. Browsers end work that hangs themselves.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// Seconds since some moment.
pub(crate) fn now() -> f64 {
    #[cfg(not(target_arch = "wasm32"))]
    {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_secs_f64()
    }
    #[cfg(target_arch = "wasm32")]
    {
        crate::files::web::now()
    }
}

/// Waits until the device has done everything submitted so far, for `patience` at the most.
#[cfg_attr(
    not(target_arch = "wasm32"),
    expect(clippy::unused_async, reason = "browsers wait in their event loop, others block")
)]
pub(crate) async fn wait(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    patience: Duration,
) -> Result<()> {
    #[cfg(not(target_arch = "wasm32"))]
    {
        let _ = queue;
        poll(device, None, patience)
    }
    #[cfg(target_arch = "wasm32")]
    {
        let _ = (device, patience);
        let (sender, receiver) = futures_channel::oneshot::channel();
        queue.on_submitted_work_done(move || {
            // The receiver is gone only if the wait was dropped.
            let _ = sender.send(());
        });
        receiver.await.map_err(|_| Error::Lost("nobody told when its work was done".into()))
    }
}

/// The answer to a request to map a buffer.
pub(super) type Mapped = futures_channel::oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// Asks for the first `size` bytes of a staging buffer, once the work that was submitted is done.
pub(super) fn map(staging: &wgpu::Buffer, mode: wgpu::MapMode, size: u64) -> Mapped {
    let (sender, receiver) = futures_channel::oneshot::channel();
    staging.map_async(mode, 0..size, move |result| {
        // The receiver is gone only if nobody wants the buffer any more.
        let _ = sender.send(result);
    });
    receiver
}

/// Waits for what [`map`] asked for, copies it out and unmaps it. After an error the buffer may
/// still be about to be mapped, and must not be used again.
pub(super) async fn read(
    device: &wgpu::Device,
    staging: &wgpu::Buffer,
    mapped: Mapped,
    size: u64,
    patience: Duration,
) -> Result<Vec<u8>> {
    #[cfg(not(target_arch = "wasm32"))]
    poll(device, None, patience)?;
    #[cfg(target_arch = "wasm32")]
    let _ = (device, patience);
    let lost = |what: String| Error::Lost(format!("results could not be read back: {what}"));
    let mapped = mapped
        .await
        .map_err(|_| lost("the request was dropped".into()))
        .and_then(|mapped| mapped.map_err(|error| lost(error.to_string())));
    if mapped.is_err() {
        // Browsers report a lost device after the errors that follow from the loss.
        #[cfg(target_arch = "wasm32")]
        crate::files::web::pause(50).await;
        mapped?;
    }
    let view = staging.get_mapped_range(0..size).map_err(|error| lost(error.to_string()))?;
    let bytes = view.to_vec();
    drop(view);
    staging.unmap();
    Ok(bytes)
}

/// Waits until the device has done a submission, for `patience` at the most. Browsers cannot: there
/// it returns at once.
pub(super) fn until(
    device: &wgpu::Device,
    submission: wgpu::SubmissionIndex,
    patience: Duration,
) -> Result<()> {
    poll(device, Some(submission), patience)
}

/// The same for all submissions if none is named.
fn poll(
    device: &wgpu::Device,
    submission: Option<wgpu::SubmissionIndex>,
    patience: Duration,
) -> Result<()> {
    device
        .poll(wgpu::PollType::Wait { submission_index: submission, timeout: Some(patience) })
        .map(|_| ())
        .map_err(|error| Error::Device(format!("the device did not finish: {error}")))
}
