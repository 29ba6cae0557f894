//! Reads that fail, one after the other: each is an error with its file, and leaves nothing behind.

use std::{cell::Cell, path::Path, rc::Rc};

use grok_wgpu::lab::{
    base::error::{Error, Result},
    checkpoint::{Checkpoint, write::Layout},
    files::Source,
    model::{config::Config, schema, weights::Weights as _},
};
use pollster::block_on;

use crate::{
    files::tiny,
    memory::{Files, Memory, write},
};

/// A file whose reads fail where the count of all files' reads is at its end.
struct Failing {
    file: Memory,
    left: Rc<Cell<usize>>,
}

impl Source for Failing {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let Some(left) = self.left.get().checked_sub(1) else {
            let error = std::io::Error::from_raw_os_error(5);
            return Err(Error::io(self.file.name(), error));
        };
        self.left.set(left);
        self.file.read(offset, into).await
    }
}

/// Opens a model whose reads fail after `reads` of them, and reads all of its weights. Returns how
/// many reads are left.
fn load(files: &Files, config: &Config, reads: usize) -> Result<usize> {
    let left = Rc::new(Cell::new(reads));
    let failing = |file| Failing { file, left: left.clone() };
    let sources = files.sources().into_iter().map(failing).collect();
    let checkpoint = block_on(Checkpoint::open(Path::new("model"), sources, config))?;
    for tensor in schema::tensors(config) {
        // As if something was there before.
        let mut bytes = vec![7; 3];
        let read = block_on(checkpoint.read_rows(&tensor.name, 0, tensor.shape[0], &mut bytes));
        assert!(read.is_ok() != bytes.is_empty(), "{}", tensor.name);
        read?;
    }
    Ok(left.get())
}

#[test]
fn each_read_of_a_checkpoint_may_fail() -> Result<()> {
    let (config, weights) = tiny();
    for layout in
        [Layout::Single, Layout::Indexed { shards: 3 }, Layout::TensorParallel { slices: 2 }]
    {
        let files = write(&config, &weights, layout);
        let most = 1 << 20;
        let needed = most - load(&files, &config, most)?;
        assert!(needed > 20, "{needed}");
        for reads in 0..needed {
            let error = load(&files, &config, reads).expect_err("a read failed");
            assert_eq!(error.code(), "io", "{reads}: {error}");
            let told = error.to_string();
            let named = files.0.iter().any(|(name, _)| told.contains(name.as_str()));
            assert!(named, "{reads}: {told}");
        }
        assert_eq!(load(&files, &config, needed)?, 0);
    }
    Ok(())
}
