//! Brings weights that are not on the machine, between the segments of a pass: from the model's
//! files, or for prompts from pinned memory of the host.

use std::{collections::HashMap, fmt};

use super::{
    on_host::OnHost,
    pool::{Pool, Unit},
    segments::{Mark, Part, Segments},
    sequence::Kind,
    views::Views,
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::Tensor,
    },
    machine::{Machine, Transfer, kernel::Need},
    model::{Matrix, Mlp, Model, Phase, Piece, Scratch, ahead::Ahead, upload},
};

/// Where a chosen expert is if it is not there in this run of the kernels: no tensor has so many.
const ABSENT: u32 = u32::MAX;

/// Called while weights are brought: with 0 when a matrix or an expert is asked for, and after each
/// part with its bytes that are there so far. An error from it ends the step.
pub type Heed = dyn FnMut(u64) -> Result<()> + Send;

/// A [`Heed`] that need not be there.
#[derive(Default)]
struct Heeded(Option<Box<Heed>>);

impl Heeded {
    fn call(&mut self, done: u64) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |heed| heed(done))
    }
}

impl fmt::Debug for Heeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heeded").field(&self.0.is_some()).finish()
    }
}

/// What was brought to a machine so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Experts that were read.
    pub experts: u64,
    /// Experts that were wanted and were there.
    pub found: u64,
    /// Matrices of attention and of dense MLPs that were read.
    pub matrices: u64,
    /// MLPs that the CPU computed, experts and dense ones.
    pub computed: u64,
    /// Bytes that were read for all of these.
    pub bytes: u64,
    /// Bytes that were copied from pinned memory of the host, for prompts.
    pub copied: u64,
}

/// Brings the weights of a model that are not on the machine.
///
/// A pass is cut where experts are needed, since which ones is known only then: the router's choice
/// is read back. What comes before the cut has been submitted, so whatever is written there may
/// replace what it used: also the matrices of the next layer.
#[derive(Debug)]
pub(super) struct Streamer {
    weights: Ahead,
    /// Computes for generated tokens what is not on the machine, if that is wanted.
    on_host: Option<OnHost>,
    /// The layer whose matrix is in memory that layers share, by the tensor of its first shard.
    holds: HashMap<usize, usize>,
    /// The slots for experts, by the tensor of their first shard.
    pools: HashMap<usize, Pool>,
    /// The layer whose experts are being read before it is known which are needed.
    early: Option<usize>,
    heeded: Heeded,
    buffer: Vec<u8>,
    moved: Moved,
}

/// Whether matrices of a layer are brought while the layer before it runs, or before the pass.
fn comes_early(model: &Model, layer: usize) -> bool {
    let Some(before) = layer.checked_sub(1) else { return true };
    slots(model, before).is_some()
}

/// How many experts of a layer there is room for, if they are brought.
fn slots(model: &Model, layer: usize) -> Option<u32> {
    model.layers.get(layer)?.feed_forward.routed()?.slots
}

/// The matrices of a layer that are brought whole. With `host` the CPU has the dense MLP.
fn brought_whole(model: &Model, layer: usize, host: bool) -> Vec<&Matrix> {
    let Some(of) = model.layers.get(layer).filter(|_| host) else {
        return model.brought_whole(layer);
    };
    [&of.qkv_proj, &of.o_proj].into_iter().filter(|matrix| matrix.is_brought()).collect()
}

/// Whether a layer has a dense MLP that is not on the machine.
fn is_dense_away(model: &Model, layer: usize) -> bool {
    let of = model.layers.get(layer).and_then(|of| of.feed_forward.dense());
    of.is_some_and(Mlp::is_brought)
}

/// Whether a pass of this model is cut at this mark; with `host`, one in which the CPU computes
/// what is not on the machine.
pub(super) fn cuts_at(model: &Model, mark: Mark, host: bool) -> bool {
    match mark {
        Mark::Need(Need::Layer(layer)) => {
            !brought_whole(model, layer, host).is_empty() && !comes_early(model, layer)
        }
        Mark::Need(Need::Dense { layer, .. }) | Mark::Used(Need::Dense { layer, .. }) => {
            host && is_dense_away(model, layer)
        }
        Mark::Need(Need::Experts { layer, .. }) => slots(model, layer).is_some(),
        // What the CPU has computed is not run.
        Mark::Used(Need::Experts { layer, .. }) if host => slots(model, layer).is_some(),
        // More experts may be chosen than there is room for, and come in rounds.
        Mark::Used(Need::Experts { layer, ids, .. }) => {
            slots(model, layer).is_some_and(|slots| ids.shape.len() > slots.into())
        }
        Mark::Used(Need::Layer(_)) | Mark::SumOverRanks(_) => false,
    }
}

/// A model, and the machine that its weights are brought to.
struct Target<'a, M> {
    model: &'a Model,
    machine: &'a mut M,
    /// The buffers of a pass in which the CPU computes what is not on the machine.
    host: Option<&'a Scratch>,
}

impl Streamer {
    /// Brings weights of a model, if some of them are not on the machine when a pass begins.
    pub(super) fn of(views: &Views, weights: Ahead, on_host: Option<OnHost>) -> Option<Self> {
        // What generated tokens need brought, prompts do as well.
        let model = views.of(Kind::Prompt);
        let mut layers = 0..model.layers.len();
        let brought =
            |layer| slots(model, layer).is_some() || !model.brought_whole(layer).is_empty();
        layers.any(brought).then(|| Self {
            weights,
            on_host,
            holds: HashMap::new(),
            pools: HashMap::new(),
            early: None,
            heeded: Heeded::default(),
            buffer: Vec::new(),
            moved: Moved::default(),
        })
    }

    /// Whether the CPU computes for generated tokens what is not on the machine.
    pub(super) fn computes(&self) -> bool {
        self.on_host.is_some()
    }

    /// Has `heed` called while weights are brought.
    pub(super) fn heed(&mut self, heed: Option<Box<Heed>>) {
        self.heeded = Heeded(heed);
    }

    /// What was brought so far.
    pub(super) fn moved(&self) -> Moved {
        self.moved
    }

    /// Runs a pass over `rows` tokens, then reads whole tensors back.
    ///
    /// # Errors
    ///
    /// Errors of reading the weights and of the machine.
    pub(super) async fn run<M: Machine>(
        &mut self,
        model: &Model,
        machine: &mut M,
        (pass, scratch): (&Segments<M::Plan>, &Scratch),
        rows: usize,
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        let host = (self.computes() && scratch.phase == Phase::Decode).then_some(scratch);
        let target = &mut Target { model, machine, host };
        let ran = self.run_parts(target, pass, rows, read).await;
        if ran.is_err() {
            self.weights.forget();
            self.early = None;
        }
        ran
    }

    async fn run_parts<M: Machine>(
        &mut self,
        target: &mut Target<'_, M>,
        pass: &Segments<M::Plan>,
        rows: usize,
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        self.expect_whole(target, 0);
        self.bring_whole(target, 0).await?;
        let mut parts = &pass.parts[..];
        while let [Part::Segment(plan), rest @ ..] = parts {
            if let Some(scratch) = target.host {
                let (needs, after) = computed(rest);
                if !needs.is_empty() {
                    self.compute(target, (plan, scratch), &needs, rows).await?;
                    parts = after;
                    continue;
                }
            }
            let Some((Part::Mark(mark), rest)) = rest.split_first() else {
                return target.machine.run_plan(plan, read).await;
            };
            parts = match *mark {
                Mark::Need(Need::Layer(layer)) => {
                    self.expect_whole(target, layer);
                    target.machine.run_plan(plan, &[]).await?;
                    self.bring_whole(target, layer).await?;
                    rest
                }
                Mark::Need(need @ Need::Experts { layer, ids, at }) => {
                    let chosen = target.machine.run_plan(plan, &[first_rows(ids, rows)?]).await?;
                    let chosen = bytemuck::pod_collect_to_vec(&chosen[0]);
                    let (block, rest) = block(rest, need);
                    self.experts(target, layer, &chosen, at, block).await?;
                    rest
                }
                other => return Err(Error::Usage(format!("a pass is cut at {other:?}"))),
            };
        }
        Err(Error::Usage("a pass does not end with a segment".into()))
    }

    /// Runs a segment and has the CPU compute what is needed after it, into the tensors in which
    /// the rest of the pass looks for it. Brings the matrices of the next layer as well.
    async fn compute<M: Machine>(
        &mut self,
        target: &mut Target<'_, M>,
        (plan, scratch): (&M::Plan, &Scratch),
        needs: &[Need],
        rows: usize,
    ) -> Result<()> {
        let Some(on_host) = &mut self.on_host else {
            return Err(Error::Usage("a pass is cut for the CPU, which computes nothing".into()));
        };
        let mut read = vec![first_rows(scratch.h, rows)?];
        for need in needs {
            if let Need::Experts { ids, .. } = *need {
                read.push(first_rows(ids, rows)?);
            }
        }
        let read = target.machine.run_plan(plan, &read).await?;
        let x: Vec<f32> = bytemuck::pod_collect_to_vec(&read[0]);
        let hidden = x.len() / rows.max(1);
        let mut next = None;
        for need in needs {
            let (layer, out, chosen): (_, _, Vec<u32>) = match *need {
                Need::Dense { layer, out } => (layer, out, vec![Unit::DENSE; rows]),
                Need::Experts { layer, .. } => {
                    next = Some(layer + 1);
                    let ids: Vec<u32> =
                        read.get(1).map_or_else(Vec::new, |ids| bytemuck::pod_collect_to_vec(ids));
                    (layer, scratch.routed, ids)
                }
                Need::Layer(_) => return Err(Error::Usage("the CPU computes no layer".into())),
            };
            let each = chosen.len() / rows.max(1);
            let units = match need {
                Need::Dense { .. } => vec![Unit::DENSE],
                _ => experts_of(target.model, layer, &chosen),
            };
            let units: Vec<(&Mlp, Unit)> =
                units.iter().map(|&at| unit(target.model, layer, at)).collect::<Result<_>>()?;
            for &(mlp, unit) in &units {
                on_host.expect(&self.weights, mlp, unit)?;
            }
            let mut outputs = vec![0.0; chosen.len() * hidden];
            for &(mlp, unit) in &units {
                let slots = (0..chosen.len()).filter(|&slot| chosen[slot] == unit.expert);
                let slots: Vec<usize> = slots.collect();
                let columns = slots.iter().map(|slot| &x[slot / each * hidden..][..hidden]);
                let columns = columns.collect::<Vec<_>>().concat();
                let heed = &mut self.heeded;
                heed.call(0)?;
                let mut heed = |done| heed.call(done);
                let gelu = target.model.config.hidden_act;
                let of = (mlp, unit);
                let work = on_host.compute(&self.weights, of, gelu, &columns, &mut heed);
                let (made, bytes) = work.await?;
                for (slot, made) in slots.iter().zip(made.chunks_exact(hidden)) {
                    outputs[slot * hidden..][..hidden].copy_from_slice(made);
                }
                self.moved.bytes += bytes;
                self.moved.computed += 1;
            }
            target.machine.write(out, 0, bytemuck::cast_slice(&outputs))?;
        }
        if let Some(next) = next {
            self.expect_whole(target, next);
            self.bring_whole(target, next).await?;
        }
        Ok(())
    }

    /// Brings the chosen experts of a layer, as many at a time as there is room for, and runs
    /// `block` each time; without a block, all have room, and what comes next runs it. Brings the
    /// matrices of the next layer as well.
    async fn experts<M: Machine>(
        &mut self,
        target: &mut Target<'_, M>,
        layer: usize,
        chosen: &[u32],
        at: Tensor,
        block: Option<&M::Plan>,
    ) -> Result<()> {
        let mut left = experts_of(target.model, layer, chosen);
        if self.early.take() != Some(layer) {
            self.expect_experts(target.model, layer, &left);
        }
        self.expect_whole(target, layer + 1);
        let all = target.model.config.num_local_experts();
        if left.len() == all as usize && slots(target.model, layer + 1).is_some() {
            // A long prompt needs them all, so they are read while the device works.
            self.expect_experts(target.model, layer + 1, &left);
            self.early = Some(layer + 1);
        }
        loop {
            let round = self.round(target, layer, &left).await?;
            let place = |id: &u32| {
                round.iter().find(|(expert, _)| expert == id).map_or(ABSENT, |(_, slot)| *slot)
            };
            let places: Vec<u32> = chosen.iter().map(place).collect();
            target.machine.write(at, 0, bytemuck::cast_slice(&places))?;
            left.retain(|id| !round.iter().any(|(expert, _)| expert == id));
            match block {
                Some(block) => drop(target.machine.run_plan(block, &[]).await?),
                None if left.is_empty() => {}
                None => return Err(Error::Usage("experts without room, in one round".into())),
            }
            if left.is_empty() {
                break;
            }
        }
        self.bring_whole(target, layer + 1).await
    }

    /// Brings as many of these experts as there is room for. Returns them with their slots.
    async fn round<M: Machine>(
        &mut self,
        Target { model, machine, .. }: &mut Target<'_, M>,
        layer: usize,
        experts: &[u32],
    ) -> Result<Vec<(u32, u32)>> {
        let routed = model.layers[layer].feed_forward.routed();
        let Some((routed, slots)) = routed.and_then(|of| Some((of, of.slots?))) else {
            return Err(Error::Usage(format!("layer {layer} has no experts that are brought")));
        };
        let first = first_tensor(&routed.experts.gate_proj);
        let pool = self.pools.entry(first).or_insert_with(|| Pool::new(slots));
        let round = pool.round(layer, experts);
        let mut placed = Vec::with_capacity(round.len());
        for &expert in &round {
            let unit = Unit { layer, expert };
            let slot = if let Some(slot) = pool.find(unit) {
                self.moved.found += 1;
                slot
            } else {
                // Until it is there whole, the slot counts as empty.
                let room = pool.make_room(layer, &round);
                let slot = room.ok_or_else(|| Error::Usage("a pool without slots".into()))?;
                if let Some(copies) = routed.experts.expert_copies(expert, slot) {
                    self.moved.copied += copy(*machine, &copies)?;
                } else {
                    let pieces = routed.experts.expert_pieces(expert, slot);
                    self.moved.bytes +=
                        bring(*machine, &self.weights, &pieces, &mut self.buffer, &mut self.heeded)
                            .await?;
                    self.moved.experts += 1;
                }
                pool.put(slot, unit);
                slot
            };
            pool.touch(slot);
            placed.push((expert, slot));
        }
        Ok(placed)
    }

    /// Has those of these experts read that are not there, in the order in which they will come.
    fn expect_experts(&self, model: &Model, layer: usize, experts: &[u32]) {
        let Some(routed) = model.layers[layer].feed_forward.routed() else { return };
        if routed.experts.gate_proj.is_copied() {
            return;
        }
        let pool = self.pools.get(&first_tensor(&routed.experts.gate_proj));
        for &expert in experts.iter().filter(|&&expert| expert < routed.rule.count) {
            if pool.is_none_or(|pool| pool.find(Unit { layer, expert }).is_none()) {
                let pieces = routed.experts.expert_pieces(expert, 0);
                self.weights.expect(pieces.iter().map(|piece| piece.read().clone()));
            }
        }
    }

    /// Has those matrices of a layer read that are brought whole and are not there.
    fn expect_whole<M>(&self, target: &Target<'_, M>, layer: usize) {
        let mut pieces = Vec::new();
        for matrix in brought_whole(target.model, layer, target.host.is_some()) {
            if !matrix.is_copied() && self.holds.get(&first_tensor(matrix)) != Some(&layer) {
                matrix.pieces(&mut pieces);
            }
        }
        self.weights.expect(pieces.iter().map(|piece| piece.read().clone()));
    }

    /// Brings the matrices of attention and of the dense MLP of a layer that are not there.
    async fn bring_whole<M: Machine>(
        &mut self,
        Target { model, machine, host }: &mut Target<'_, M>,
        layer: usize,
    ) -> Result<()> {
        for matrix in brought_whole(model, layer, host.is_some()) {
            let first = first_tensor(matrix);
            if self.holds.get(&first) == Some(&layer) {
                continue;
            }
            self.holds.remove(&first);
            if let Some(copies) = matrix.copies() {
                self.moved.copied += copy(*machine, &copies)?;
            } else {
                let mut pieces = Vec::new();
                matrix.pieces(&mut pieces);
                self.moved.bytes +=
                    bring(*machine, &self.weights, &pieces, &mut self.buffer, &mut self.heeded)
                        .await?;
                self.moved.matrices += 1;
            }
            self.holds.insert(first, layer);
        }
        Ok(())
    }
}

/// Copies weights from pinned memory. Returns how many bytes.
fn copy<M: Machine>(machine: &mut M, copies: &[Transfer]) -> Result<u64> {
    machine.copy(copies)?;
    Ok(copies.iter().map(|copy| copy.bytes).sum())
}

/// What the CPU computes in place of the segments at the beginning of these parts, and the parts
/// that follow.
fn computed<P>(mut parts: &[Part<P>]) -> (Vec<Need>, &[Part<P>]) {
    let mut needs = Vec::new();
    while let [
        Part::Mark(Mark::Need(need)),
        Part::Segment(_),
        Part::Mark(Mark::Used(used)),
        rest @ ..,
    ] = parts
        && need == used
    {
        needs.push(*need);
        parts = rest;
    }
    (needs, parts)
}

/// The dense MLP or an expert of a layer.
fn unit(model: &Model, layer: usize, expert: u32) -> Result<(&Mlp, Unit)> {
    let of = &model.layers[layer].feed_forward;
    let mlp = match expert {
        Unit::DENSE => of.dense(),
        _ => of.routed().map(|routed| &routed.experts),
    };
    let none = || Error::Usage(format!("layer {layer} has no MLP for the CPU"));
    Ok((mlp.ok_or_else(none)?, Unit { layer, expert }))
}

/// The experts among what a router chose, each once. Of a token that is not finite it may have
/// chosen what is no expert: then none is brought for it, and since its probabilities are not
/// finite either, whatever reads its logits sees it.
fn experts_of(model: &Model, layer: usize, chosen: &[u32]) -> Vec<u32> {
    let count = model.layers[layer].feed_forward.routed().map_or(0, |routed| routed.rule.count);
    let mut experts: Vec<u32> = chosen.iter().copied().filter(|&id| id < count).collect();
    experts.sort_unstable();
    experts.dedup();
    experts
}

/// Reads pieces and writes them to the machine. Returns how many bytes were read.
async fn bring<M: Machine>(
    machine: &mut M,
    weights: &Ahead,
    pieces: &[Piece],
    buffer: &mut Vec<u8>,
    heeded: &mut Heeded,
) -> Result<u64> {
    heeded.call(0)?;
    let mut bytes = 0;
    let mut count = |done| {
        bytes = done;
        heeded.call(done)
    };
    upload(machine, weights, pieces, buffer, &mut count).await?;
    Ok(bytes)
}

/// What tells a matrix from those in other memory.
fn first_tensor(matrix: &Matrix) -> usize {
    matrix.shards.first().map_or(usize::MAX, |shard| shard.tensor.id)
}

/// The first rows of a tensor.
fn first_rows(tensor: Tensor, rows: usize) -> Result<Tensor> {
    tensor.first_rows(u32::try_from(rows).unwrap_or(u32::MAX))
}

/// The segment that uses what is needed, if the pass is cut after it, and the parts that follow.
fn block<P>(parts: &[Part<P>], need: Need) -> (Option<&P>, &[Part<P>]) {
    match parts {
        [Part::Segment(block), Part::Mark(Mark::Used(used)), rest @ ..] if *used == need => {
            (Some(block), rest)
        }
        _ => (None, parts),
    }
}
