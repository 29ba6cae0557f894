//! The adapter that the options name, with what `tune` measured on it.

use std::{fs, io::ErrorKind, path::Path, sync::Arc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    files::replace::replace_file,
    machine::gpu::Gpu,
    measure::autotune,
    variants::{Store, Tuning},
};

use super::globals::Globals;

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
    match fs::read_to_string(path) {
        Ok(text) => Store::parse(path, &text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Store::default()),
        Err(source) => Err(Error::io(path, source)),
    }
}

pub(super) fn write_store(path: &Path, store: &Store) -> Result<()> {
    let text = format!("{:#}\n", store.to_json());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    }
    replace_file(path, text.as_bytes())
}
