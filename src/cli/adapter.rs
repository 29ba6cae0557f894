//! The adapter that the options name, with what `tune` measured on it.

use std::{io::ErrorKind, mem::take, path::Path, sync::Arc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::{
        native::read_text,
        replace::{alone, make_parent, replace_file},
    },
    machine::gpu::Gpu,
    measure::autotune,
    variants::{Kept, Store, Tuning},
};

use pollster::block_on;

use super::globals::Globals;

/// Bytes of the longest file of measurements that is read.
const MAX_STORE: u64 = 16 << 20;

/// Opens the adapter that the options name, with its work divided as `tune` found best.
pub(super) async fn gpu(globals: &Globals) -> Result<Gpu> {
    Ok(measured(globals).await?.0)
}

/// The same, with what else `tune` measured on this adapter: its bandwidth, and lengths by class of
/// models. Nothing where the file has nothing or cannot be read.
pub(super) async fn measured(globals: &Globals) -> Result<(Gpu, Kept)> {
    measured_pinning(globals, false).await
}

/// The same; with `pin`, on an adapter that need not have memory of its own to pin the host's.
pub(super) async fn measured_pinning(globals: &Globals, pin: bool) -> Result<(Gpu, Kept)> {
    let (choice, profile) = (globals.choice(), globals.limits.into());
    let mut gpu = if pin {
        Gpu::open_pinning(&choice, profile).await?
    } else {
        Gpu::open(&choice, profile).await?
    };
    let terminal = globals.terminal();
    gpu.on_notice(move |notice| {
        terminal.warn(format!("{notice}; `tune` measures what runs here, and keeps it"));
    });
    if let Some(milliseconds) = globals.submission_ms {
        gpu.limit_submissions((milliseconds > 0).then(|| f64::from(milliseconds) / 1e3));
    }
    let mut kept = known(globals, &gpu.caps().describe()).unwrap_or_default();
    if !kept.settings.is_empty() {
        let measured = autotune::possible(gpu.caps(), take(&mut kept.settings));
        gpu.set_tuning(Tuning { measured: Some(Arc::new(measured)), ..gpu.caps().tuning() });
    }
    Ok((gpu, kept))
}

/// What `tune` measured on a device. A file that cannot be read gives a warning, and nothing of it
/// is heeded.
pub(super) fn known(globals: &Globals, device: &str) -> Option<Kept> {
    match read_store(&globals.tuning_file()?) {
        Ok(mut store) => store.devices.remove(device),
        Err(error) => {
            let hint = error.hint();
            globals.terminal().warn(format!("{error}; `tune` was not heeded. {hint}"));
            None
        }
    }
}

/// The file's measurements; none if there is no file.
pub(super) fn read_store(path: &Path) -> Result<Store> {
    match block_on(read_text(path, MAX_STORE)) {
        Ok(text) => Store::parse(path, &text).map_err(damaged),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(Store::default())
        }
        Err(error @ Error::Format { .. }) => Err(damaged(error)),
        Err(error) => Err(error),
    }
}

fn damaged(error: Error) -> Error {
    error.with_hint("`tune --forget` puts the file aside, and `tune` measures anew.")
}

/// Adds what was measured on a device to the file, to what other processes have written to it
/// meanwhile.
pub(super) fn keep(path: &Path, device: &str, measured: Kept) -> Result<()> {
    make_parent(path)?;
    alone(path, || {
        let mut store = read_store(path)?;
        store.devices.entry(device.to_owned()).or_default().extend(measured);
        write_store(path, &store)
    })
}

/// Removes what was measured on a device from the file. Whether there was anything.
pub(super) fn forget(path: &Path, device: &str) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    alone(path, || {
        let mut store = read_store(path)?;
        let known = store.devices.remove(device).is_some();
        if known {
            write_store(path, &store)?;
        }
        Ok(known)
    })
}

fn write_store(path: &Path, store: &Store) -> Result<()> {
    let text = format!("{:#}\n", store.to_json());
    replace_file(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// As two processes do that measure two adapters: none loses what the other has written.
    #[test]
    fn measurements_at_once_are_all_kept() {
        const EACH: usize = 25;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new").join("tuning.json");
        thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for i in 0..EACH {
                        let device = format!("device {writer} {i}");
                        let chunks = [("a class".to_owned(), 512)].into();
                        let measured = Kept { bandwidth: Some(1), chunks, ..Kept::default() };
                        keep(path, &device, measured).expect("kept");
                    }
                });
            }
        });
        let stored = read_store(&path).expect("read");
        assert_eq!(stored.devices.len(), 4 * EACH);
        assert!(stored.devices.values().all(|kept| kept.chunks["a class"] == 512));
        assert!(forget(&path, "device 0 0").expect("forgotten"));
        assert!(!forget(&path, "device 0 0").expect("forgotten"));
        let left = read_store(&path).expect("read");
        assert_eq!(left.devices.len(), 4 * EACH - 1);
    }
}
