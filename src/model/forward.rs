//! The forward pass, in the order of the mathematics.
//!
//! Order and constants are `SGLang`'s `grok.py` for Grok-2 and xai-org's `model.py` for Grok-1.

use super::{
    CacheShard, Embedding, FeedForward, Layer, LayerCache, Matrix, Mlp, Model, Phase, Routed,
    Routes, Scratch, TopList,
};
use crate::{
    base::{
        error::{Error, Result},
        num::round,
        tensor::Tensor,
    },
    kernels::{
        Attention, AttentionMerge, CombineNorm, Embed, ExpertGatedMatMul, ExpertGroups,
        ExpertMatMul, GatedMatMul, Gather, MatMul, NormRoute, RmsNorm, RmsNormAdd, RopeCache, TopK,
        TopKMerge,
    },
    machine::kernel::{Executor, Need},
    model::config::{Config, Norms},
    variants::Form,
};

/// What a pass computes besides the new entries of the KV cache.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// Nothing: for chunks of a prompt before its last.
    Nothing,
    /// Logits of the rows that are wanted, in the first rows of `s.logits`.
    Last,
    /// The same, and the largest of them, in the last of these lists.
    Top(&'a [TopList]),
    /// Logits of every row, in this tensor: `[tokens, vocab_size]`.
    All(Tensor),
}

/// Parameters of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What it computes.
    pub output: Output<'a>,
    /// How far attention must reach.
    pub reach: Reach,
    /// In prefill, how many rows' logits are wanted.
    pub picked: u32,
}

impl<'a> Pass<'a> {
    /// A pass over tokens of one text that is on the first pages of the cache, whose first
    /// `positions` attention must cover.
    pub fn of_one(output: Output<'a>, positions: u32) -> Self {
        Self { output, reach: Reach::of_one(positions), picked: 1 }
    }
}

/// How far attention must reach at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reach {
    /// Positions of each text.
    pub positions: u32,
    /// Slots of the cache that the texts' pages are in.
    pub slots: u32,
}

impl Reach {
    /// To so many positions of a text that is on the first pages of the cache.
    pub fn of_one(positions: u32) -> Self {
        Self { positions, slots: positions }
    }
}

/// Runs the tokens staged in `s` through the model: embedding, all layers, and the head as
/// `pass.output` asks.
///
/// # Errors
///
/// [`Error::Usage`] if `s` was allocated for another model; errors of the executor, such as
/// [`Error::Operand`] for shapes that do not fit.
pub fn forward(
    exec: &mut dyn Executor,
    m: &Model,
    s: &Scratch,
    kv: &[LayerCache],
    pass: Pass<'_>,
) -> Result<()> {
    let c = &m.config;
    let eps = round(c.rms_norm_eps);

    // `s.x` is the residual stream. Each block reads it normalized, in `s.h`, and adds back its own
    // normalized output.
    let Norms::Sandwich = c.norms;
    if exec.begins(&[s.x, s.h]) {
        embed(exec, m, s)?;
        exec.run(&RmsNorm { x: s.x, weight: m.layers[0].pre_attn_norm, eps, out: s.h })?;
    }

    let mut routes = s.routes.iter();
    for (i, layer) in m.layers.iter().enumerate() {
        exec.need(Need::Layer(i))?;
        let cos_sin = s.cos_sin[usize::from(c.layers[i].rope)];
        attention(exec, c, layer, s, cos_sin, &kv[i], pass.reach)?;
        exec.sum_over_ranks(s.block)?;

        let (sum, out) = (s.x, s.h);
        let next = m.layers.get(i + 1).map_or(m.norm, |next| next.pre_attn_norm);
        let add =
            |weight, next_weight| RmsNormAdd { h: s.block, weight, next_weight, eps, sum, out };
        match &layer.feed_forward {
            FeedForward::Dense(mlp) => {
                exec.run(&add(layer.post_attn_norm, layer.pre_moe_norm))?;
                dense(exec, c, mlp, s, Need::Dense { layer: i, out: s.block })?;
                exec.sum_over_ranks(s.block)?;
                exec.run(&add(layer.post_moe_norm, next))?;
            }
            FeedForward::Routed(routed) => {
                let &Routes { ids, probs } = routes.next().ok_or_else(others)?;
                exec.run(&NormRoute {
                    h: s.block,
                    weight: layer.post_attn_norm,
                    next_weight: layer.pre_moe_norm,
                    eps,
                    router: routed.router,
                    cap: round(routed.rule.softcap),
                    renormalize: routed.rule.renormalize,
                    sum,
                    out,
                    ids,
                    probs,
                })?;
                experts(exec, c, routed, s, i, ids)?;
                // `CombineNorm` sums the experts and normalizes in one kernel, so the sum over
                // ranks must come before it, on its inputs.
                if routed.dense.is_some() {
                    exec.sum_over_ranks(s.dense)?;
                }
                exec.sum_over_ranks(s.routed)?;
                exec.run(&CombineNorm {
                    step: s.step,
                    dense: beside(routed, s),
                    routed: s.routed,
                    probs,
                    scale: round(routed.rule.joint_scale),
                    weight: layer.post_moe_norm,
                    next_weight: next,
                    eps,
                    sum,
                    out,
                })?;
            }
        }
        exec.used(Need::Layer(i))?;
    }
    if exec.ends(&[s.x, s.h]) {
        head(exec, m, s, pass)?;
    }
    Ok(())
}

/// The error for buffers that lack what a pass of this model uses.
fn others() -> Error {
    Error::Usage("the buffers are another model's".into())
}

fn embed(exec: &mut dyn Executor, m: &Model, s: &Scratch) -> Result<()> {
    let scale = round(m.config.ends.embed_scale);
    let embed = |table, row0| Embed { ids: s.ids, table, row0, scale, out: s.x };
    match m.embedding {
        Embedding::Tied => {
            m.lm_head.shards.iter().try_for_each(|shard| exec.run(&embed(shard.tensor, shard.row0)))
        }
        Embedding::Fetched(_) => exec.run(&embed(s.embedded.ok_or_else(others)?, 0)),
    }
}

/// Grouped-query attention over the cache: `s.h` in, `s.block` out.
fn attention(
    exec: &mut dyn Executor,
    c: &Config,
    w: &Layer,
    s: &Scratch,
    cos_sin: Tensor,
    kv: &LayerCache,
    reach: Reach,
) -> Result<()> {
    matmul(exec, s, s.h, &w.qkv_proj, s.qkv)?;
    for shard in shards(kv, reach) {
        exec.run(&RopeCache {
            step: s.step,
            rows: s.rows,
            table: s.table,
            qkv: s.qkv,
            cos_sin,
            q: s.q,
            k: shard.k,
            v: shard.v,
            slot0: shard.slot0,
        })?;
    }
    attend(exec, c, s, kv, reach)?;
    matmul(exec, s, s.heads, &w.o_proj, s.block)
}

/// The attention of the rows of `s.q` to the positions in a layer's cache: `s.heads`.
pub(crate) fn attend(
    exec: &mut dyn Executor,
    c: &Config,
    s: &Scratch,
    kv: &LayerCache,
    reach: Reach,
) -> Result<()> {
    for shard in shards(kv, reach) {
        exec.run(&Attention {
            form: s.phase.form(),
            step: s.step,
            tiles: s.row_tiles,
            table: s.table,
            q: s.q,
            k: shard.k,
            v: shard.v,
            temperature: s.temperature,
            tile: s.tile_rows,
            texts: s.texts,
            positions: reach.positions,
            slot0: shard.slot0,
            least: s.least_split,
            scale: round(c.attention.scale),
            cap: round(c.attention.softcap),
            acc: s.split_acc,
            stats: s.split_stats,
        })?;
    }
    exec.run(&AttentionMerge {
        step: s.step,
        rows: s.rows,
        acc: s.split_acc,
        stats: s.split_stats,
        least: s.least_split,
        out: s.heads,
    })
}

/// The shards of a cache in which pages of the texts may be.
fn shards(kv: &LayerCache, reach: Reach) -> impl Iterator<Item = &CacheShard> {
    kv.shards.iter().filter(move |shard| shard.slot0 < reach.slots)
}

/// The routed experts, and the dense MLP beside them if there is one: `s.h` in, `s.dense` and
/// `s.routed` out.
///
/// Routing never leaves the device: tokens are grouped by expert there. The outputs of the experts
/// are summed later, by [`CombineNorm`], so a runner may load some experts at a time and repeat
/// this part. Slots whose id is not that of an expert are skipped.
fn experts(
    exec: &mut dyn Executor,
    c: &Config,
    w: &Routed,
    s: &Scratch,
    layer: usize,
    ids: Tensor,
) -> Result<()> {
    let form = s.phase.form();
    if let Some(mlp) = &w.dense {
        dense(exec, c, mlp, s, Need::Dense { layer, out: s.dense })?;
    }
    // Where experts are brought, they are not at the places of their ids.
    let (at, count) = match w.slots {
        None => (ids, w.rule.count),
        Some(slots) => (s.at.ok_or_else(others)?, slots),
    };
    let need = Need::Experts { layer, ids, at };
    let (order, tiles) = (s.order, s.tiles_of(count));
    exec.need(need)?;
    exec.run(&ExpertGroups {
        step: s.step,
        ids: at,
        experts: count,
        height: form.tile(),
        order,
        tiles,
    })?;
    for (gate, up) in w.experts.gate_proj.shards.iter().zip(&w.experts.up_proj.shards) {
        exec.run(&ExpertGatedMatMul {
            form,
            x: s.h,
            order,
            tiles,
            gate: gate.tensor,
            up: up.tensor,
            row0: gate.row0,
            gelu: c.hidden_act,
            out: s.expert_act,
        })?;
    }
    for down in &w.experts.down_proj.shards {
        exec.run(&ExpertMatMul {
            form,
            x: s.expert_act,
            order,
            tiles,
            weight: down.tensor,
            row0: down.row0,
            out: s.routed,
        })?;
    }
    exec.used(need)
}

/// The output of the dense MLP, or zeros where the layer has none.
fn beside(w: &Routed, s: &Scratch) -> Tensor {
    if w.dense.is_some() { s.dense } else { s.no_dense }
}

/// The dense MLP of a layer: `s.h` in, the tensor that `need` names out.
fn dense(exec: &mut dyn Executor, c: &Config, mlp: &Mlp, s: &Scratch, need: Need) -> Result<()> {
    let Need::Dense { out, .. } = need else { return Err(others()) };
    exec.need(need)?;
    gated(exec, c, mlp, s)?;
    matmul(exec, s, s.dense_act, &mlp.down_proj, out)?;
    exec.used(need)
}

/// `s.dense_act = gelu(gate x) * up x`
fn gated(exec: &mut dyn Executor, c: &Config, mlp: &Mlp, s: &Scratch) -> Result<()> {
    for (gate, up) in mlp.gate_proj.shards.iter().zip(&mlp.up_proj.shards) {
        exec.run(&GatedMatMul {
            form: s.phase.form(),
            step: s.step,
            x: s.h,
            gate: gate.tensor,
            up: up.tensor,
            row0: gate.row0,
            gelu: c.hidden_act,
            out: s.dense_act,
        })?;
    }
    Ok(())
}

/// Logits of the rows in `s.h` that are wanted: `softcap(scale * dot)`.
fn head(exec: &mut dyn Executor, m: &Model, s: &Scratch, pass: Pass<'_>) -> Result<()> {
    let end = End { scale: round(m.config.ends.output_scale), cap: round(m.config.ends.softcap) };
    let lists = match pass.output {
        Output::Nothing => return Ok(()),
        Output::All(out) => {
            return product(exec, s.phase.form(), s.step, s.h, &m.lm_head, out, end);
        }
        Output::Last => &[],
        Output::Top(lists) => lists,
    };
    let (x, logits) = match s.phase {
        Phase::Decode => (s.h, s.logits),
        Phase::Prefill => {
            let rows = Tensor { shape: [pass.picked].into(), ..s.last_row };
            let out = s.last.first_rows(pass.picked)?;
            exec.run(&Gather { x: s.h, rows, out })?;
            (out, s.logits.first_rows(pass.picked)?)
        }
    };
    product(exec, Form::Vector, s.head_step, x, &m.lm_head, logits, end)?;
    if let Some(first) = lists.first() {
        let [_, len] = lists[lists.len() - 1].values.dims()?;
        exec.run(&TopK { logits, count: len, values: first.values, ids: first.ids })?;
        for pair in lists.windows(2) {
            exec.run(&TopKMerge {
                values: pair[0].values,
                ids: pair[0].ids,
                count: len,
                out_values: pair[1].values,
                out_ids: pair[1].ids,
            })?;
        }
    }
    Ok(())
}

/// `out = x weightᵀ`: GEMV in decode, GEMM in prefill.
fn matmul(
    exec: &mut dyn Executor,
    s: &Scratch,
    x: Tensor,
    weight: &Matrix,
    out: Tensor,
) -> Result<()> {
    product(exec, s.phase.form(), s.step, x, weight, out, PLAIN)
}

/// What follows a product: `softcap(scale * dot, cap)`.
#[derive(Clone, Copy)]
struct End {
    scale: f32,
    cap: f32,
}

/// Nothing follows.
const PLAIN: End = End { scale: 1.0, cap: 0.0 };

/// One dispatch for each shard of the matrix.
fn product(
    exec: &mut dyn Executor,
    form: Form,
    step: Tensor,
    x: Tensor,
    weight: &Matrix,
    out: Tensor,
    End { scale, cap }: End,
) -> Result<()> {
    for shard in &weight.shards {
        let (weight, row0) = (shard.tensor, shard.row0);
        exec.run(&MatMul { form, step, x, weight, row0, scale, cap, out })?;
    }
    Ok(())
}
