//! What a pass over a model reads from where, and in how many parts it runs, counted without a
//! device: what its time follows from ([`super::rates`]).

use std::collections::HashMap;

use super::work::flops;
use crate::model::{Matrix, Mlp, Model, Piece, Routed, ahead::MOST_READ};

/// What a pass over some tokens reads from where.
///
/// Experts count as they are chosen on average, if each is as likely as any other: how many of them
/// are in their slots already follows from how many there are slots for. Keys and values do not
/// count: it is a pass at the beginning of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Tokens of the pass.
    pub tokens: u32,
    /// Bytes that the device reads of its own memory, also those that were brought there.
    pub device: u64,
    /// Bytes that cross the bus from pinned memory of the host.
    pub link: u64,
    /// Bytes that are read from files while the device waits, and written to it.
    pub files: u64,
    /// Bytes that may be read from files while the device works, and are written to it after that:
    /// of what is needed next, if that is known beforehand, as much as is read ahead.
    pub ahead: u64,
    /// Of [`Traffic::active`], the bytes of those segments in which `ahead` is read.
    pub under: u64,
    /// Bytes of weights that one token is multiplied by on the device.
    pub active: u64,
    /// Bytes that the CPU multiplies.
    pub cpu: u64,
    /// Bytes of all that the CPU may have to multiply, whichever experts are chosen.
    pub cpu_all: u64,
    /// Bytes of all weights that stay in files.
    pub stored: u64,
    /// Floating-point operations that bound the pass; 0 for a generated token, which is bound by
    /// bytes.
    pub operations: u64,
    /// Submissions of the pass, one more than it is cut.
    pub segments: u64,
    /// Dispatches.
    pub dispatches: u64,
}

impl Traffic {
    /// A generated token. `dispatches` is how many the pass has, `on_cpu` whether the CPU computes
    /// the experts and dense MLPs that would be brought.
    pub fn of_token(model: &Model, dispatches: u64, on_cpu: bool) -> Self {
        let mut of = Self { tokens: 1, dispatches, ..Self::default() };
        let chosen = |routed: &Routed| u64::from(routed.rule.chosen);
        of.count(&Brought::of(model, on_cpu), &chosen);
        for layer in &model.layers {
            let dense = layer.feed_forward.dense().into_iter().flat_map(Mlp::matrices);
            for matrix in [&layer.qkv_proj, &layer.o_proj].into_iter().chain(dense) {
                of.link += if matrix.is_pinned() { matrix.bytes() } else { 0 };
            }
            if let Some(routed) = layer.feed_forward.routed()
                && routed.experts.gate_proj.is_pinned()
            {
                of.link += of_one(&routed.experts) * chosen(routed);
            }
        }
        of.active = model.needed_bytes(1).saturating_sub(of.cpu);
        of.device = of.active.saturating_sub(of.link);
        of
    }

    /// A chunk of a prompt of `tokens` tokens, all of it in one pass. Of the experts as many come
    /// as different ones are chosen on average.
    pub fn of_prompt(model: &Model, dispatches: u64, tokens: u32) -> Self {
        let operations = flops(&model.config, tokens, 0);
        let mut of = Self { tokens, operations, dispatches, ..Self::default() };
        let copied = model.of_prompts();
        let brought = Brought::of(copied.as_ref().unwrap_or(model), false);
        of.count(&brought, &|routed| different(routed, tokens));
        of.active = model.needed_bytes(1);
        of.device = model.needed_bytes(tokens);
        of
    }

    /// Adds what is brought, in the order of the pass. `chosen` is how many experts of a layer it
    /// needs.
    fn count(&mut self, brought: &Brought<'_>, chosen: &dyn Fn(&Routed) -> u64) {
        let Brought { model, on_cpu, .. } = *brought;
        self.segments = 1;
        // What a token is multiplied by while this layer is read: in the last round of the experts
        // before it, or in the segment that is cut before it.
        let (mut round, mut segment) = (0, 0);
        // Whether experts of this layer are expected before it is known which are needed.
        let mut expects = false;
        for (at, layer) in model.layers.iter().enumerate() {
            let whole = brought.whole(at);
            let early =
                at.checked_sub(1).is_none_or(|before| brought.experts.contains_key(&before));
            if !whole.is_empty() && !early {
                self.segments += 1;
                round = std::mem::take(&mut segment);
            }
            // What has its room alone stays there.
            let moves = |matrix: &Matrix| brought.turns[&first(matrix)] > 1;
            let (copied, stored): (Vec<&Matrix>, Vec<&Matrix>) =
                whole.into_iter().partition(|matrix| matrix.is_copied());
            self.stored += bytes(&stored);
            self.link += bytes(&moving(&copied, moves));
            let stored = moving(&stored, moves);
            if !stored.is_empty() {
                let mut pieces = Vec::new();
                for matrix in &stored {
                    matrix.pieces(&mut pieces);
                }
                self.read(bytes(&stored), [(std::mem::take(&mut round), 1)], &pieces);
            }

            let dense = layer.feed_forward.dense();
            let away = dense.filter(|mlp| on_cpu && mlp.is_brought());
            segment += bytes(&[&layer.qkv_proj, &layer.o_proj]);
            segment += dense.filter(|_| away.is_none()).map_or(0, |mlp| bytes(&mlp.matrices()));
            let routed = layer.feed_forward.routed();
            let brings = routed.filter(|routed| routed.slots.is_some());
            self.segments += u64::from(brings.is_some() || away.is_some());
            if let Some(mlp) = away {
                let bytes = bytes(&mlp.matrices());
                self.cpu += bytes;
                self.cpu_all += bytes;
                self.stored += bytes;
                segment = 0;
            }
            let Some(routed) = routed else { continue };
            let (each, all) = (of_one(&routed.experts), u64::from(routed.rule.count));
            let for_token = each * u64::from(routed.rule.chosen);
            let Some(slots) = routed.slots.map(u64::from) else {
                segment += for_token;
                continue;
            };
            let is_copied = routed.experts.gate_proj.is_copied();
            self.stored += if is_copied { 0 } else { each * all };
            if on_cpu {
                self.cpu += each * chosen(routed);
                self.cpu_all += each * all;
                segment = 0;
                continue;
            }
            let chosen = chosen(routed);
            let held = held(slots, brought.experts[&at], chosen).min(all);
            let missing = each * chosen * (all - held) / all.max(1);
            // More may be chosen than there is room for: then the same kernels run for each part.
            let repeats = u64::from(self.tokens) * u64::from(routed.rule.chosen) > slots;
            let rounds = if repeats { chosen.div_ceil(slots.max(1)) } else { 1 };
            self.segments += if repeats { rounds } else { 0 };
            let before = round + std::mem::take(&mut segment);
            (round, segment) = if repeats { (for_token / rounds, 0) } else { (0, for_token) };
            if is_copied {
                self.link += missing;
            } else {
                let known = if expects { before } else { 0 };
                let pieces = routed.experts.expert_pieces(0, 0);
                self.read(missing, [(known, 1), (round, rounds - 1)], &pieces);
            }
            expects = chosen == all && brought.experts.contains_key(&(at + 1)) && !is_copied;
        }
    }

    /// Adds bytes that are read in such pieces, over and over. Each of `meanwhile` is what a token
    /// is multiplied by while as much is read as is read ahead, and how often.
    fn read<const N: usize>(&mut self, bytes: u64, meanwhile: [(u64, u64); N], pieces: &[Piece]) {
        let most: u64 = pieces.iter().cycle().take(MOST_READ).map(Piece::bytes).sum();
        let mut left = bytes;
        for (under, times) in meanwhile.into_iter().filter(|&(under, _)| under > 0) {
            let ahead = left.min(most * times);
            self.ahead += ahead;
            self.under += under * times;
            left -= ahead;
        }
        self.files += left;
    }
}

/// Bytes of matrices.
fn bytes(matrices: &[&Matrix]) -> u64 {
    matrices.iter().map(|matrix| matrix.bytes()).sum()
}

/// Those that move.
fn moving<'a>(matrices: &[&'a Matrix], moves: impl Fn(&Matrix) -> bool) -> Vec<&'a Matrix> {
    matrices.iter().copied().filter(|matrix| moves(matrix)).collect()
}

/// How many experts of a layer are in the slots on average when the layer comes, where `layers`
/// layers share `slots` and each token has `chosen` experts of each: those that were used last
/// stay.
fn held(slots: u64, layers: u64, chosen: u64) -> u64 {
    if slots <= layers * chosen {
        // The other layers have had their turns since.
        slots.saturating_sub(layers.saturating_sub(1) * chosen)
    } else {
        slots / layers.max(1)
    }
}

/// Bytes of one of the experts.
fn of_one(experts: &Mlp) -> u64 {
    experts.matrices().map(Matrix::bytes_of_one).iter().sum()
}

/// How many different experts `tokens` tokens choose on average, if each is as likely as any other.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a number of experts"
)]
fn different(routed: &Routed, tokens: u32) -> u64 {
    let [all, chosen] = [routed.rule.count, routed.rule.chosen].map(f64::from);
    let none = (1.0 - chosen / all.max(1.0)).clamp(0.0, 1.0).powf(tokens.into());
    (all * (1.0 - none)).round() as u64
}

/// What tells a matrix from those in other memory.
fn first(matrix: &Matrix) -> usize {
    matrix.shards.first().map_or(usize::MAX, |shard| shard.tensor.id)
}

/// What of a model is brought.
struct Brought<'a> {
    model: &'a Model,
    on_cpu: bool,
    /// How many layers take turns in the memory of a matrix, by its first tensor.
    turns: HashMap<usize, u64>,
    /// The layers whose experts are brought, each with how many share its slots.
    experts: HashMap<usize, u64>,
}

impl<'a> Brought<'a> {
    fn of(model: &'a Model, on_cpu: bool) -> Self {
        let mut brought = Self { model, on_cpu, turns: HashMap::new(), experts: HashMap::new() };
        let mut pools = HashMap::<usize, u64>::new();
        let mut slots = Vec::new();
        for (at, layer) in model.layers.iter().enumerate() {
            for matrix in brought.whole(at) {
                *brought.turns.entry(first(matrix)).or_default() += 1;
            }
            let routed = layer.feed_forward.routed().filter(|routed| routed.slots.is_some());
            if let Some(routed) = routed {
                let pool = first(&routed.experts.gate_proj);
                *pools.entry(pool).or_default() += 1;
                slots.push((at, pool));
            }
        }
        brought.experts = slots.into_iter().map(|(at, pool)| (at, pools[&pool])).collect();
        brought
    }

    /// The matrices of a layer that are brought whole.
    fn whole(&self, layer: usize) -> Vec<&'a Matrix> {
        let of = &self.model.layers[layer];
        if !self.on_cpu {
            return self.model.brought_whole(layer);
        }
        [&of.qkv_proj, &of.o_proj].into_iter().filter(|matrix| matrix.is_brought()).collect()
    }
}
