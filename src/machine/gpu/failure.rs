//! What went wrong on the device, as its callbacks report it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use crate::base::error::{Error, Result};

/// What went wrong on the device. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<Mutex<Failed>>);

#[derive(Debug, Default)]
struct Failed {
    /// The first error that was not reported yet.
    first: Option<Error>,
    /// Why the device was lost. Never reset.
    lost: Option<String>,
    /// Is told when the device is lost.
    listener: Option<oneshot::Sender<String>>,
}

impl Failure {
    /// Listens to the errors of a device, and to its loss.
    pub(super) fn of(device: &wgpu::Device) -> Self {
        let failure = Self::default();
        let on_error = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            on_error.set(convert(&error));
        }));
        let on_loss = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            on_loss.lose(match (reason, message.as_str()) {
                (wgpu::DeviceLostReason::Destroyed, "") => "it was destroyed".to_owned(),
                (_, "") => "the driver gives no reason".to_owned(),
                _ => message,
            });
        });
        failure
    }

    /// Keeps an error until the next [`Failure::check`], unless there is one already.
    pub(super) fn set(&self, error: Error) {
        self.lock().first.get_or_insert(error);
    }

    /// Notes that the device is lost.
    pub(super) fn lose(&self, why: String) {
        let mut failed = self.lock();
        if let Some(listener) = failed.listener.take() {
            // The receiver may have been dropped.
            let _ = listener.send(why.clone());
        }
        failed.lost.get_or_insert(why);
    }

    /// Resolves with the reason of the loss. `None` if this is called again.
    pub(super) fn listen(&self) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        self.lock().listener = Some(sender);
        receiver
    }

    /// Whether the device is known to be lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lock().lost.is_some()
    }

    /// The first error since the last call; always the loss once the device is lost.
    pub(super) fn check(&self, device: &wgpu::Device) -> Result<()> {
        self.take().map_err(|error| {
            // A loss is reported when the device is polled. Before that, errors are about objects
            // that it made invalid.
            let _ = device.poll(wgpu::PollType::Poll);
            self.lock().lost.as_deref().map_or(error, loss)
        })
    }

    fn take(&self) -> Result<()> {
        let mut failed = self.lock();
        // Other errors of a lost device are consequences of the loss.
        if let Some(why) = &failed.lost {
            return Err(loss(why));
        }
        failed.first.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error of wgpu as one of ours. What was allocated is filled in where it is known.
pub(super) fn convert(error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => {
            no_memory("the driver's own buffers", source.to_string())
        }
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Device(description.clone())
        }
    }
}

/// The error of a device that was lost for this reason: drivers also lose devices for want of
/// memory.
fn loss(why: &str) -> Error {
    if is_of_memory(why) {
        no_memory("the driver's own buffers", format!("the device was lost: {why}"))
    } else {
        Error::Lost(why.to_owned())
    }
}

/// Out of memory. The bytes are filled in where they are known.
pub(super) fn no_memory(what: &str, why: String) -> Error {
    Error::OutOfMemory { what: what.to_owned(), bytes: None, held: 0, why }
}

/// Whether a message of a driver or a browser is about memory: `Out of memory`,
/// `VK_ERROR_OUT_OF_DEVICE_MEMORY`, `E_OUTOFMEMORY`, `Not enough memory`.
pub(super) fn is_of_memory(message: &str) -> bool {
    const SAID: [&str; 6] = [
        "outofmemory",
        "outofdevicememory",
        "outofhostmemory",
        "outofpoolmemory",
        "notenoughmemory",
        "insufficientmemory",
    ];
    let letters: String =
        message.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
    SAID.iter().any(|said| letters.contains(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_for_want_of_memory_is_told_from_others() {
        let of_memory = [
            "Out of memory",
            "VK_ERROR_OUT_OF_DEVICE_MEMORY",
            "vkQueueSubmit failed: ERROR_OUT_OF_HOST_MEMORY",
            "D3D12: E_OUTOFMEMORY (0x8007000E)",
            "Not enough memory left.",
        ];
        for why in of_memory {
            assert_eq!(loss(why).code(), "out_of_memory", "{why}");
        }
        for why in ["it was destroyed", "DXGI_ERROR_DEVICE_HUNG", "Parent device is lost", ""] {
            assert_eq!(loss(why).code(), "device_lost", "{why}");
        }
    }

    #[test]
    fn a_loss_outlives_other_errors() {
        let failure = Failure::default();
        failure.set(Error::Device("first".into()));
        failure.set(Error::Device("second".into()));
        assert!(failure.take().is_err_and(|error| error.to_string().contains("first")));
        assert!(failure.take().is_ok());
        failure.set(no_memory("a buffer", String::new()));
        failure.lose("Out of memory".into());
        failure.lose("it was destroyed".into());
        for _ in 0..2 {
            let error = failure.take().expect_err("it is lost");
            assert_eq!(error.code(), "out_of_memory");
            assert!(error.to_string().contains("Out of memory"), "{error}");
        }
    }
}
