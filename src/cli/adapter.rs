//! The adapter that the options name, with what `tune` measured on it.

use std::{io::ErrorKind, path::Path, sync::Arc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::{
        native::read_text,
        replace::{make_parent, replace_file},
    },
    machine::gpu::Gpu,
    measure::autotune,
    variants::{Store, Tuning},
};

use pollster::block_on;

use super::globals::Globals;

/// Bytes of the longest file of measurements that is read.
const MAX_STORE: u64 = 16 << 20;

/// Opens the adapter that the options name, with its work divided as `tune` found best.
pub(super) async fn gpu(globals: &Globals) -> Result<Gpu> {
    let mut gpu = Gpu::open(&globals.choice(), globals.limits.into()).await?;
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
        Err(error) => globals.terminal().warn(format!("{error}; `tune` was not heeded")),
    }
}

/// The file's measurements; none if there is no file.
pub(super) fn read_store(path: &Path) -> Result<Store> {
    match block_on(read_text(path, MAX_STORE)) {
        Ok(text) => Store::parse(path, &text),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(Store::default())
        }
        Err(error) => Err(error),
    }
}

pub(super) fn write_store(path: &Path, store: &Store) -> Result<()> {
    let text = format!("{:#}\n", store.to_json());
    make_parent(path)?;
    replace_file(path, text.as_bytes())
}
