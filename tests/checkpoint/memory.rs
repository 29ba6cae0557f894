//! Checkpoints in memory, for tests of reading.

use std::{cell::RefCell, io, path::Path, rc::Rc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    checkpoint::{
        Checkpoint,
        write::{self, Layout, Output},
    },
    files::Source,
    model::{config::Config, weights::Weights},
};
use pollster::block_on;

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) bytes: Rc<[u8]>,
    /// Zeros after the bytes, which take no memory.
    pub(crate) zeros: u64,
    /// Reads at or beyond this offset fail.
    pub(crate) fail_from: Option<u64>,
}

impl Source for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.zeros
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let fail = || Error::io(&self.name, io::ErrorKind::UnexpectedEof.into());
        let end = offset.checked_add(into.len() as u64).ok_or_else(fail)?;
        if self.fail_from.is_some_and(|from| end > from) {
            return Err(fail());
        }
        if end > self.len() {
            return Err(fail());
        }
        let from = usize::try_from(offset).map_or(self.bytes.len(), |n| n.min(self.bytes.len()));
        let (real, zeros) = into.split_at_mut(into.len().min(self.bytes.len() - from));
        real.copy_from_slice(&self.bytes[from..from + real.len()]);
        zeros.fill(0);
        Ok(())
    }
}

/// A folder in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(pub(crate) Vec<(String, Vec<u8>)>);

impl Files {
    pub(crate) fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.0.iter_mut().find(|(file, _)| file == name);
        &mut found.unwrap_or_else(|| panic!("no file {name}")).1
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let before = self.0.len();
        self.0.retain(|(file, _)| file != name);
        assert_eq!(self.0.len() + 1, before, "no file {name}");
    }

    /// The files with weights and their index.
    pub(crate) fn sources(&self) -> Vec<Memory> {
        self.0
            .iter()
            .filter(|(name, _)| name != "config.json")
            .map(|(name, bytes)| Memory {
                name: name.clone(),
                bytes: bytes.as_slice().into(),
                zeros: 0,
                fail_from: None,
            })
            .collect()
    }

    pub(crate) fn edit_json(&mut self, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let bytes = self.bytes(name);
        let mut value = serde_json::from_slice(bytes).expect("valid JSON");
        edit(&mut value);
        *bytes = value.to_string().into_bytes();
    }

    /// Edits the JSON header of a file and keeps its data.
    pub(crate) fn edit_header(&mut self, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let bytes = self.bytes(name);
        let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
        let end = 8 + usize::try_from(length.expect("a length")).expect("small");
        let mut header = serde_json::from_slice(&bytes[8..end]).expect("valid JSON");
        edit(&mut header);
        let header = header.to_string();
        let data = bytes.split_off(end);
        *bytes = file(header.as_bytes(), &data);
    }

    pub(crate) fn rename_tensors(&mut self, rename: impl Fn(&str) -> String) {
        self.edit_header("model.safetensors", |header| {
            let fields = std::mem::take(header.as_object_mut().expect("an object"));
            *header = fields.into_iter().map(|(name, value)| (rename(&name), value)).collect();
        });
    }
}

/// A safetensors file of this header and data.
pub(crate) fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A file of [`Files`] that is being written.
#[derive(Clone, Default)]
pub(crate) struct Growing(Rc<RefCell<Vec<u8>>>);

impl io::Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Files {
    type File = Growing;

    fn create(&mut self, _: &str) -> Result<Growing> {
        Ok(Growing::default())
    }

    fn finish(&mut self, name: &str, file: Growing) -> Result<()> {
        self.0.push((name.into(), file.0.take()));
        Ok(())
    }
}

pub(crate) fn try_write(config: &Config, weights: &impl Weights, layout: Layout) -> Result<Files> {
    let mut files = Files::default();
    block_on(write::write(&mut files, config, weights, layout))?;
    Ok(files)
}

pub(crate) fn write(config: &Config, weights: &impl Weights, layout: Layout) -> Files {
    try_write(config, weights, layout).expect("the layout suits the model")
}

pub(crate) fn open(files: &Files, config: &Config) -> Result<Checkpoint<Memory>> {
    block_on(Checkpoint::open(Path::new("model"), files.sources(), config))
}

/// The problems of a checkpoint that cannot be opened.
pub(crate) fn problems<T>(opened: Result<T>) -> Vec<String> {
    match opened {
        Ok(_) => panic!("it was opened"),
        Err(Error::Checkpoint { problems, .. } | Error::Config { problems, .. }) => problems,
        Err(Error::Format { what, .. }) => vec![what],
        Err(other) => panic!("another error: {other}"),
    }
}

pub(crate) fn read_all(weights: &impl Weights, name: &str, rows: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    block_on(weights.read_rows(name, 0, rows, &mut bytes)).expect("the tensor has these rows");
    bytes
}
