//! A model's weights in any file format.

use std::path::Path;

use super::{Checkpoint, Gguf, Release};
use crate::{
    base::{error::Result, tensor::DType},
    files::Source,
    model::weights::Weights,
};

/// Weights in files.
#[derive(Debug)]
pub enum ModelFiles<S> {
    /// Safetensors, whose configuration is in a separate `config.json`.
    Safetensors(Box<Checkpoint<S>>),
    /// GGUF, which includes configuration and tokenizer.
    Gguf(Box<Gguf<S>>),
    /// Grok-1's first release, which includes neither.
    Release(Box<Release<S>>),
}

impl<S: Source> ModelFiles<S> {
    /// Bytes of all tensors that the model needs, in the element types that readers get.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.bytes(),
            Self::Gguf(gguf) => gguf.bytes(),
            Self::Release(release) => release.bytes(),
        }
    }

    /// Warnings: oddities that do not prevent loading.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.warnings(),
            Self::Gguf(gguf) => gguf.warnings(),
            Self::Release(_) => &[],
        }
    }

    /// Number of tensor-parallel slices that are joined, or 1.
    pub fn slices(&self) -> usize {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.slices(),
            Self::Gguf(_) | Self::Release(_) => 1,
        }
    }

    /// Whether rows are put together from several places of the files, or converted, each time they
    /// are read: tensor-parallel slices, GGUF, Grok-1's first release.
    pub fn are_converted(&self) -> bool {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.slices() > 1,
            Self::Gguf(_) | Self::Release(_) => true,
        }
    }

    /// The files.
    pub fn sources(&self) -> &[S] {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.sources(),
            Self::Gguf(gguf) => gguf.sources(),
            Self::Release(release) => release.sources(),
        }
    }

    /// The files that hold a tensor, in the order of its slices; none if there is no such tensor.
    pub fn files_of(&self, name: &str) -> Vec<&S> {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.files_of(name),
            Self::Gguf(gguf) => gguf.files_of(name),
            Self::Release(release) => release.files_of(name),
        }
    }

    /// What the model is called in messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.path(),
            Self::Gguf(gguf) => gguf.path(),
            Self::Release(release) => release.path(),
        }
    }

    /// Name, element type and extents of every tensor, sorted by name.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = (&str, DType, &[u64])> + '_> {
        match self {
            Self::Safetensors(checkpoint) => Box::new(checkpoint.tensors()),
            Self::Gguf(gguf) => Box::new(gguf.tensors()),
            Self::Release(release) => Box::new(release.tensors()),
        }
    }
}

impl<S: Source> Weights for ModelFiles<S> {
    fn dtype(&self, name: &str) -> Result<DType> {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.dtype(name),
            Self::Gguf(gguf) => gguf.dtype(name),
            Self::Release(release) => release.dtype(name),
        }
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.read_rows(name, row0, rows, into).await,
            Self::Gguf(gguf) => gguf.read_rows(name, row0, rows, into).await,
            Self::Release(release) => release.read_rows(name, row0, rows, into).await,
        }
    }

    fn in_order(&self) -> bool {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.in_order(),
            Self::Gguf(gguf) => gguf.in_order(),
            Self::Release(release) => release.in_order(),
        }
    }
}
