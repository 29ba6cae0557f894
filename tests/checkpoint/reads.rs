//! Reads that fail, one after the other: each is an error with its file, and leaves nothing behind.

use std::{cell::Cell, path::Path, rc::Rc};

use grok_wgpu::lab::{
    base::error::Result,
    checkpoint::{Checkpoint, write::Layout},
    model::{config::Config, schema, weights::Weights as _},
};
use pollster::block_on;

use crate::{
    failing::Failing,
    files::tiny,
    memory::{Files, write},
};

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
