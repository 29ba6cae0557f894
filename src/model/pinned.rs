//! Weights in pinned memory of the host. Generated tokens read them there; a prompt, whose kernels
//! would read a weight once for every tile of tokens, has them copied to the device first.

use super::{FeedForward, Layer, Matrix, Mlp, Model, Pinned, Shard, matrices::Home};
use crate::{
    base::error::{Error, Result},
    machine::{BufferRole, Machine, Transfer},
};

/// A part of a layer that is pinned at once.
#[derive(Clone, Copy)]
enum Part {
    Attention,
    Dense,
    Experts,
}

/// The count of a part.
type Count = fn(&mut Pinned) -> &mut u32;

impl Layer {
    /// The matrices of a part.
    fn part(&mut self, part: Part) -> Vec<&mut Matrix> {
        match (part, &mut self.feed_forward) {
            (Part::Attention, _) => vec![&mut self.qkv_proj, &mut self.o_proj],
            (Part::Dense, FeedForward::Dense(mlp)) => mlp.matrices_mut().into(),
            (Part::Dense, FeedForward::Routed(routed)) => {
                routed.dense.as_mut().map(Mlp::matrices_mut).into_iter().flatten().collect()
            }
            (Part::Experts, FeedForward::Routed(routed)) => routed.experts.matrices_mut().into(),
            (Part::Experts, FeedForward::Dense(_)) => Vec::new(),
        }
    }
}

impl Model {
    /// Moves matrices from the files to pinned memory, as the placement says: what a token uses
    /// most comes first. If the machine refuses memory, what is pinned stays, the placement says
    /// how much that is, and [`Model::refused`] why.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the machine pins nothing; errors of its allocation other than for want
    /// of memory, or if it is lost.
    pub(super) fn pin<M: Machine>(&mut self, machine: &mut M) -> Result<()> {
        let (asked, layers) = (self.placement, self.config.num_hidden_layers());
        self.placement.pinned = Pinned::default();
        let parts: [(Part, u32, u32, Count); 3] = [
            (Part::Attention, asked.attention, asked.pinned.attention, |now| &mut now.attention),
            (Part::Dense, asked.dense, asked.pinned.dense, |now| &mut now.dense),
            (Part::Experts, asked.experts, asked.pinned.experts, |now| &mut now.experts),
        ];
        for (part, before, count, pinned) in parts {
            let first = before.min(layers);
            for layer in first..first.saturating_add(count).min(layers) {
                let keep = machine.tensor_count();
                match self.pin_part(machine, layer, part) {
                    Ok(()) => *pinned(&mut self.placement.pinned) += 1,
                    Err(error @ Error::OutOfMemory { .. }) if !machine.is_lost() => {
                        machine.truncate(keep);
                        self.refused = Some(error.to_string());
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Moves a part of a layer. After an error it is where it was.
    fn pin_part<M: Machine>(&mut self, machine: &mut M, layer: u32, part: Part) -> Result<()> {
        let mut matrices = self.layers[layer as usize].part(part);
        let made: Vec<Vec<Shard>> =
            matrices.iter().map(|matrix| matrix.pinned(machine)).collect::<Result<_>>()?;
        for (matrix, pinned) in matrices.iter_mut().zip(made) {
            matrix.home = Home::Host(std::mem::replace(&mut matrix.shards, pinned));
        }
        if let (Part::Experts, FeedForward::Routed(routed)) =
            (part, &mut self.layers[layer as usize].feed_forward)
        {
            routed.slots = None;
        }
        Ok(())
    }

    /// The model as prompts use it: what is pinned is copied to memory of the device, which layers
    /// share, before it is used. `None` if nothing is pinned: then this model is it.
    pub fn of_prompts(&self) -> Option<Self> {
        let mut model = self.clone();
        let mut copied = false;
        for layer in &mut model.layers {
            for part in [Part::Attention, Part::Dense, Part::Experts] {
                for matrix in layer.part(part) {
                    copied |= matrix.copy();
                }
            }
            if let FeedForward::Routed(routed) = &mut layer.feed_forward
                && let gate = &routed.experts.gate_proj
                && gate.is_copied()
            {
                routed.slots = gate.shards.first().map(|shard| shard.tensor.shape.extents()[0]);
            }
        }
        copied.then_some(model)
    }

    /// Bytes of weights in pinned memory of the host, as allocated.
    pub fn pinned_bytes(&self) -> u64 {
        let shards = self.matrices().into_iter().flat_map(Matrix::pinned_shards);
        shards.map(|shard| shard.tensor.size_bytes()).sum()
    }
}

impl Matrix {
    /// Allocates pinned memory for all of a matrix that is brought, cut as it is now.
    fn pinned<M: Machine>(&self, machine: &mut M) -> Result<Vec<Shard>> {
        let pin = |shard: &Shard| {
            let (mut shape, dtype) = (shard.tensor.shape, shard.tensor.dtype);
            if self.experts {
                let [_, rows, cols] = shard.tensor.dims()?;
                let count = u32::try_from(self.sources.len());
                let count = count.map_err(|_| Error::Usage("too many experts".into()))?;
                shape = [count, rows, cols].into();
            }
            let made = machine.alloc(BufferRole::Host, dtype, shape);
            let what = || format!("weights of `{}` in memory of the host", self.sources[0].name);
            Ok(Shard { tensor: made.map_err(|error| error.storing(what))?, ..*shard })
        };
        self.shards.iter().map(pin).collect()
    }

    /// Makes it one that is copied before its use, if it is pinned. Returns whether it is.
    fn copy(&mut self) -> bool {
        let Home::Host(turns) = &mut self.home else { return false };
        let turns = std::mem::take(turns);
        self.home = Home::Copied(std::mem::replace(&mut self.shards, turns));
        true
    }

    /// Whether it is in pinned memory of the host, where it is used.
    pub fn is_pinned(&self) -> bool {
        matches!(self.home, Home::Host(_))
    }

    /// Whether it is copied from pinned memory before its use.
    pub fn is_copied(&self) -> bool {
        matches!(self.home, Home::Copied(_))
    }

    /// Its shards in pinned memory, if it is used there.
    fn pinned_shards(&self) -> &[Shard] {
        if matches!(self.home, Home::Host(_)) { &self.shards } else { &[] }
    }

    /// What copies all of it to where it is used, if it is copied.
    pub fn copies(&self) -> Option<Vec<Transfer>> {
        let Home::Copied(pinned) = &self.home else { return None };
        let whole = |(from, to): (&Shard, &Shard)| Transfer {
            from: (from.tensor, 0),
            to: (to.tensor, 0),
            bytes: to.tensor.size_bytes(),
        };
        Some(pinned.iter().zip(&self.shards).map(whole).collect())
    }
}

impl Mlp {
    fn matrices_mut(&mut self) -> [&mut Matrix; 3] {
        [&mut self.gate_proj, &mut self.up_proj, &mut self.down_proj]
    }

    /// What copies one of the experts to a slot, if they are copied.
    pub fn expert_copies(&self, expert: u32, slot: u32) -> Option<Vec<Transfer>> {
        let mut copies = Vec::new();
        for matrix in self.matrices() {
            let Home::Copied(pinned) = &matrix.home else { return None };
            for (from, to) in pinned.iter().zip(&matrix.shards) {
                let (rows, row_bytes) = matrix.extents(to.tensor);
                let bytes = u64::from(rows) * row_bytes;
                let at = |tensor, index: u32| (tensor, u64::from(index) * bytes);
                let (from, to) = (at(from.tensor, expert), at(to.tensor, slot));
                copies.push(Transfer { from, to, bytes });
            }
        }
        Some(copies)
    }
}
