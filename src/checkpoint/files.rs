//! A model's weights in whichever file format they are.

use super::{Checkpoint, Gguf};
use crate::{
    base::{error::Result, tensor::DType},
    files::Source,
    model::weights::Weights,
};

/// Weights in safetensors or in GGUF.
#[derive(Debug)]
pub enum ModelFiles<S> {
    /// Safetensors, whose configuration is a file of its own.
    Safetensors(Box<Checkpoint<S>>),
    /// GGUF, which has everything.
    Gguf(Box<Gguf<S>>),
}

impl<S: Source> ModelFiles<S> {
    /// Bytes of all tensors that the model needs, in the types in which they are given.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.bytes(),
            Self::Gguf(gguf) => gguf.bytes(),
        }
    }

    /// Oddities that do not stand in the way.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.warnings(),
            Self::Gguf(gguf) => gguf.warnings(),
        }
    }

    /// Tensor-parallel slices that are joined, or 1.
    pub fn slices(&self) -> usize {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.slices(),
            Self::Gguf(_) => 1,
        }
    }

    /// The files.
    pub fn sources(&self) -> &[S] {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.sources(),
            Self::Gguf(gguf) => gguf.sources(),
        }
    }

    /// Name, element type and extents of every tensor, sorted by name.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = (&str, DType, &[u64])> + '_> {
        match self {
            Self::Safetensors(checkpoint) => Box::new(checkpoint.tensors()),
            Self::Gguf(gguf) => Box::new(gguf.tensors()),
        }
    }
}

impl<S: Source> Weights for ModelFiles<S> {
    fn dtype(&self, name: &str) -> Result<DType> {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.dtype(name),
            Self::Gguf(gguf) => gguf.dtype(name),
        }
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.read_rows(name, row0, rows, into).await,
            Self::Gguf(gguf) => gguf.read_rows(name, row0, rows, into).await,
        }
    }
}
