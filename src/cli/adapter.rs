//! The adapter that the options name, with what `tune` measured on it.

use std::{io::ErrorKind, path::Path, sync::Arc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::{
        native::read_text,
        replace::{alone, make_parent, replace_file},
    },
    machine::gpu::Gpu,
    measure::autotune,
    variants::{Measured, Store, Tuning},
};

use pollster::block_on;

use super::globals::Globals;

/// Bytes of the longest file of measurements that is read.
const MAX_STORE: u64 = 16 << 20;

/// Opens the adapter that the options name, with its work divided as `tune` found best.
pub(super) async fn gpu(globals: &Globals) -> Result<Gpu> {
    let mut gpu = Gpu::open(&globals.choice(), globals.limits.into()).await?;
    let terminal = globals.terminal();
    gpu.on_notice(move |notice| {
        terminal.warn(format!("{notice}; `tune` measures what runs here, and keeps it"));
    });
    if let Some(milliseconds) = globals.submission_ms {
        gpu.limit_submissions((milliseconds > 0).then(|| f64::from(milliseconds) / 1e3));
    }
    apply(globals, &mut gpu);
    Ok(gpu)
}

/// Applies what `tune` measured on this adapter. A file that cannot be read gives a warning, and
/// the default tuning stays.
fn apply(globals: &Globals, gpu: &mut Gpu) {
    let Some(path) = globals.tuning_file() else { return };
    match read_store(&path) {
        Ok(mut store) => {
            if let Some(measured) = store.devices.remove(&gpu.caps().describe()) {
                let measured = Some(Arc::new(autotune::possible(gpu.caps(), measured)));
                gpu.set_tuning(Tuning { measured, ..gpu.caps().tuning() });
            }
        }
        Err(error) => {
            let hint = error.hint();
            globals.terminal().warn(format!("{error}; `tune` was not heeded. {hint}"));
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

/// Bytes that a device reads in a second, if `tune` has measured that. A file that cannot be read
/// was told of when the device was opened.
pub(super) fn bandwidth(globals: &Globals, device: &str) -> Option<u64> {
    read_store(&globals.tuning_file()?).ok()?.bandwidths.get(device).copied()
}

/// How many tokens of a prompt should go through a model of this class at once, if `tune` has
/// measured that.
pub(super) fn chunk(globals: &Globals, device: &str, class: &str) -> Option<u32> {
    read_store(&globals.tuning_file()?).ok()?.chunks.get(device)?.get(class).copied()
}

/// Adds what was measured on a device to the file, to what other processes have written to it
/// meanwhile. `chunk` is a class of models, and how many tokens of a prompt suit them.
pub(super) fn keep(
    path: &Path,
    device: &str,
    measured: Measured,
    bandwidth: Option<u64>,
    chunk: Option<(String, u32)>,
) -> Result<()> {
    make_parent(path)?;
    alone(path, || {
        let mut store = read_store(path)?;
        if let Some(rate) = bandwidth {
            store.bandwidths.insert(device.to_owned(), rate);
        }
        if let Some((class, length)) = chunk {
            store.chunks.entry(device.to_owned()).or_default().insert(class, length);
        }
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
        store.bandwidths.remove(device);
        store.chunks.remove(device);
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
                        let chunk = Some(("a class".to_owned(), 512));
                        keep(path, &device, Measured::new(), Some(1), chunk).expect("kept");
                    }
                });
            }
        });
        let stored = read_store(&path).expect("read");
        assert_eq!((stored.devices.len(), stored.chunks.len()), (4 * EACH, 4 * EACH));
        assert!(forget(&path, "device 0 0").expect("forgotten"));
        assert!(!forget(&path, "device 0 0").expect("forgotten"));
        let left = read_store(&path).expect("read");
        assert_eq!((left.devices.len(), left.chunks.len()), (4 * EACH - 1, 4 * EACH - 1));
    }
}
