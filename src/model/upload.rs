//! Weights to a machine, in bounded windows: all that stays there, and what is brought while it
//! runs.

use std::{ops::Range, sync::Arc};

use super::{Matrix, Mlp, Model, ahead::Ahead, weights::Read};
use crate::{
    base::{
        error::Result,
        num::round,
        tensor::{DType, Tensor},
    },
    machine::{Machine, host},
    model::{
        schema::{FINAL_NORM, Key, Part},
        weights::Weights as _,
    },
};

/// Bytes read from a checkpoint at a time.
const WINDOW_BYTES: u64 = 8 << 20;

/// Bytes written to the machine between two flushes; bounds what waits in staging buffers.
const FLUSH_BYTES: u64 = 64 << 20;

/// Rows of a tensor of the checkpoint, and where they go.
#[derive(Clone, Debug)]
pub struct Piece {
    read: Read,
    tensor: Tensor,
    /// Bytes from the start of `tensor`.
    offset: u64,
}

impl Piece {
    /// What is read.
    pub fn read(&self) -> &Read {
        &self.read
    }

    /// Bytes that are written.
    pub fn bytes(&self) -> u64 {
        let cols = self.tensor.shape.extents().last().map_or(1, |&cols| cols.into());
        self.read.rows * self.tensor.dtype.row_bytes(cols)
    }

    /// A whole tensor.
    fn whole(tensor: Tensor, name: String) -> Self {
        let rows = u64::from(tensor.shape.extents()[0]);
        Self { read: Read { name: name.into(), row0: 0, rows }, tensor, offset: 0 }
    }

    /// Rows of a matrix of `cols` columns, in windows; the first goes to byte `offset`.
    fn windows(
        into: &mut Vec<Self>,
        (tensor, offset): (Tensor, u64),
        name: &Arc<str>,
        rows: Range<u32>,
        cols: u32,
    ) {
        let row_bytes = tensor.dtype.row_bytes(cols.into());
        let window = (WINDOW_BYTES / row_bytes).max(1);
        let (first, end) = (u64::from(rows.start), u64::from(rows.end));
        let mut row0 = first;
        while row0 < end {
            let rows = window.min(end - row0);
            let read = Read { name: name.clone(), row0, rows };
            into.push(Self { read, tensor, offset: offset + (row0 - first) * row_bytes });
            row0 += rows;
        }
    }
}

impl Matrix {
    /// All of the matrix, in the order of its shards.
    pub fn pieces(&self, into: &mut Vec<Piece>) {
        for shard in &self.shards {
            let (rows, row_bytes) = self.extents(shard.tensor);
            let mut first = 0; // first row of the source within the matrix
            for (i, source) in (0u64..).zip(&self.sources) {
                let (begin, end, offset) = if self.experts {
                    (shard.row0, shard.row0 + rows, i * u64::from(rows) * row_bytes)
                } else {
                    let begin = shard.row0.clamp(first, first + source.rows);
                    let end = (shard.row0 + rows).clamp(first, first + source.rows);
                    (
                        begin - first,
                        end - first,
                        u64::from(begin - shard.row0.min(begin)) * row_bytes,
                    )
                };
                first += source.rows;
                let to = (shard.tensor, offset);
                Piece::windows(into, to, &source.name, begin..end, self.cols);
            }
        }
    }

    /// The rows of one of the stacked matrices, stored as `dtype`, in windows.
    pub fn reads(&self, at: usize, dtype: DType) -> Vec<Read> {
        let Some(source) = self.sources.get(at) else { return Vec::new() };
        let window = (WINDOW_BYTES / dtype.row_bytes(self.cols.into()).max(1)).max(1);
        let all = u64::from(source.rows);
        let of = |row0| Read { name: source.name.clone(), row0, rows: window.min(all - row0) };
        (0..all).step_by(usize::try_from(window).unwrap_or(usize::MAX)).map(of).collect()
    }

    /// Rows of a shard, or of each expert in it, and the bytes of a row.
    pub(super) fn extents(&self, shard: Tensor) -> (u32, u64) {
        let extents = shard.shape.extents();
        (extents[extents.len() - 2], shard.dtype.row_bytes(self.cols.into()))
    }
}

impl Mlp {
    /// Whether its matrices come to memory that they share before they are used.
    pub fn is_brought(&self) -> bool {
        self.gate_proj.is_brought()
    }

    /// All of its matrices.
    fn pieces(&self, into: &mut Vec<Piece>) {
        self.matrices().into_iter().for_each(|matrix| matrix.pieces(into));
    }

    /// One of the experts, for a slot.
    ///
    /// # Panics
    ///
    /// If there is no such expert.
    pub fn expert_pieces(&self, expert: u32, slot: u32) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for matrix in self.matrices() {
            let source = &matrix.sources[expert as usize];
            for shard in &matrix.shards {
                let (rows, row_bytes) = matrix.extents(shard.tensor);
                let to = (shard.tensor, u64::from(slot) * u64::from(rows) * row_bytes);
                let rows = shard.row0..shard.row0 + rows;
                Piece::windows(&mut pieces, to, &source.name, rows, matrix.cols);
            }
        }
        pieces
    }
}

impl Model {
    /// Every weight that is on the machine, or in pinned memory.
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (i, layer) in (0..).zip(&self.layers) {
            let whole = |tensor, part| Piece::whole(tensor, Key::new(i, part).name());
            pieces.push(whole(layer.pre_attn_norm, Part::PreAttnNorm));
            if !layer.qkv_proj.is_brought() {
                layer.qkv_proj.pieces(&mut pieces);
                layer.o_proj.pieces(&mut pieces);
            }
            pieces.push(whole(layer.post_attn_norm, Part::PostAttnNorm));
            pieces.push(whole(layer.pre_moe_norm, Part::PreMoeNorm));
            if let Some(routed) = layer.feed_forward.routed() {
                pieces.push(whole(routed.router, Part::Router));
                if !routed.experts.is_brought() {
                    routed.experts.pieces(&mut pieces);
                }
            }
            if let Some(mlp) = layer.feed_forward.dense().filter(|mlp| !mlp.is_brought()) {
                mlp.pieces(&mut pieces);
            }
            pieces.push(whole(layer.post_moe_norm, Part::PostMoeNorm));
        }
        pieces.push(Piece::whole(self.norm, FINAL_NORM.to_owned()));
        self.lm_head.pieces(&mut pieces);
        pieces
    }

    /// Uploads every weight that is on the machine or in pinned memory. `progress` is called with
    /// the number of bytes read so far; an error from it stops the upload.
    ///
    /// # Errors
    ///
    /// Errors of reading `weights`, of the machine, and of `progress`.
    pub async fn fill<M: Machine>(
        &self,
        machine: &mut M,
        weights: &Ahead,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let pieces = self.pieces();
        weights.expect(pieces.iter().map(|piece| piece.read.clone()));
        let filled = upload(machine, weights, &pieces, &mut Vec::new(), progress).await;
        if filled.is_err() {
            weights.forget();
        }
        filled?;
        machine.flush().await
    }

    /// The matrices of a layer that are brought whole before the layer runs: those of attention and
    /// of the dense MLP, unless they are on the machine or pinned.
    pub fn brought_whole(&self, layer: usize) -> Vec<&Matrix> {
        let Some(of) = self.layers.get(layer) else { return Vec::new() };
        let dense = of.feed_forward.dense().into_iter().flat_map(Mlp::matrices);
        let all = [&of.qkv_proj, &of.o_proj].into_iter().chain(dense);
        all.filter(|matrix| matrix.is_brought()).collect()
    }
}

/// Reads the pieces and writes them to the machine. `progress` is called with the number of bytes
/// read so far; an error from it ends the work.
///
/// # Errors
///
/// Errors of reading `weights`, of the machine, and of `progress`.
pub async fn upload<M: Machine>(
    machine: &mut M,
    weights: &Ahead,
    pieces: &[Piece],
    buffer: &mut Vec<u8>,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut done, mut unflushed) = (0, 0);
    for Piece { read: Read { name, row0, rows }, tensor, offset } in pieces {
        weights.read_rows(name, *row0, *rows, buffer).await?;
        done += buffer.len() as u64;
        let stored = weights.dtype(name)?;
        unflushed += if stored == tensor.dtype {
            machine.await_room(buffer.len()).await?;
            machine.write(*tensor, *offset, buffer)?;
            buffer.len() as u64
        } else {
            let cols = tensor.shape.extents().last().map_or(1, |&cols| cols as usize);
            let values = host::decode_rows(stored, cols, buffer);
            let values: Vec<f32> = values.into_iter().map(round).collect();
            let bytes = bytemuck::cast_slice(&values);
            machine.write(*tensor, *offset, bytes)?;
            bytes.len() as u64
        };
        progress(done)?;
        if unflushed >= FLUSH_BYTES {
            let flushed = machine.flush().await;
            flushed.map_err(|error| error.storing(|| format!("the upload of `{name}`")))?;
            unflushed = 0;
        }
    }
    Ok(())
}
