//! Weights on a machine: matrices in shards that fit a binding, and those that take turns in the
//! same memory.

use std::{collections::HashMap, sync::Arc};

use super::{Brought, Embedding, FeedForward, Layer, Mlp, Model, Placement, Routed, Slots};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    machine::{BufferRole, Machine},
    model::{
        config::{Config, Experts},
        schema::{EMBEDDING, FINAL_NORM, Key, Part},
        weights::Weights,
    },
};

/// A weight matrix, cut by rows into as many tensors as the machine's bindings need.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// In the order of rows.
    pub shards: Vec<Shard>,
    /// The tensors of the checkpoint that the matrix consists of.
    pub(super) sources: Vec<Source>,
    /// Whether the sources are stacked along a leading axis (experts). Otherwise they are
    /// concatenated along rows.
    pub(super) experts: bool,
    pub(super) cols: u32,
    pub(super) home: Home,
}

/// Where a matrix is, and what its shards are.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// On the machine all the time.
    Device,
    /// In the files. The shards are memory that it shares with others.
    Files,
    /// In pinned memory of the host, where its shards are. Here is memory of the device that it
    /// shares with others, for prompts.
    Host(Vec<Shard>),
    /// In these shards of pinned memory. Its own are memory of the device that it shares.
    Copied(Vec<Shard>),
}

/// Some rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// First row.
    pub row0: u32,
    /// `[rows, cols]`, or `[experts, rows, cols]`.
    pub tensor: Tensor,
}

#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) rows: u32,
}

impl Model {
    /// Allocates the weights of `config`, in the element types of `weights`. Norms and routers are
    /// always F32.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if a single row is larger than a binding, [`Error::Usage`] if a layer has
    /// neither experts nor a dense MLP; errors of `weights` and of the machine's allocation.
    pub fn alloc<M: Machine>(
        machine: &mut M,
        config: &Config,
        weights: &impl Weights,
    ) -> Result<Self> {
        Self::placed(machine, config, weights, Placement::WHOLE)
    }

    /// The same, with only those weights on the machine that `placement` names, and memory for the
    /// others to take turns in.
    ///
    /// # Errors
    ///
    /// Those of [`Model::alloc`]; [`Error::Usage`] if there is not room for the experts of a token,
    /// or if some are to be pinned and the machine pins nothing. If it refuses pinned memory, less
    /// is pinned: see [`Model::refused`].
    pub fn placed<M: Machine>(
        machine: &mut M,
        config: &Config,
        weights: &impl Weights,
        placement: Placement,
    ) -> Result<Self> {
        let c = config;
        let mut alloc =
            Allocator { machine: &mut *machine, weights, placement, shared: HashMap::new() };
        let (embedding, head) = if c.ends.tied {
            (Embedding::Tied, Part::Embedding)
        } else {
            (Embedding::Fetched(weights.dtype(EMBEDDING)?), Part::Head)
        };
        let layers =
            (0..c.num_hidden_layers()).map(|layer| alloc.layer(c, layer)).collect::<Result<_>>()?;
        let norm = alloc.vector(FINAL_NORM, c.hidden_size)?;
        let lm_head = Wanted::one(Key::new(0, head), c.vocab_size, c.hidden_size);
        let lm_head = alloc.matrix(lm_head, 1)?;
        let config = c.clone();
        let refused = None;
        let mut model = Self { config, placement, refused, embedding, layers, norm, lm_head };
        model.pin(machine)?;
        Ok(model)
    }

    /// What buffers of this model's passes have for what is not on the machine.
    pub fn brought(&self) -> Brought {
        let embedded = match self.embedding {
            Embedding::Tied => None,
            Embedding::Fetched(dtype) => Some(dtype),
        };
        let mut routed = self.layers.iter().filter_map(|layer| layer.feed_forward.routed());
        // Pinned experts are brought in prompts.
        let brought = |of: &Routed| !matches!(of.experts.gate_proj.home, Home::Device);
        Brought { embedded, experts: routed.any(brought) }
    }

    /// Bytes of the device's memory for weights, as allocated: what is there all the time, and the
    /// room for what is brought.
    pub fn bytes(&self) -> u64 {
        let shards = self.matrices().into_iter().flat_map(|matrix| match &matrix.home {
            Home::Host(turns) => turns,
            Home::Device | Home::Files | Home::Copied(_) => &matrix.shards,
        });
        let tensors = shards.map(|shard| shard.tensor);
        let tensors = tensors.chain(self.vectors().map(|(_, tensor)| tensor));
        // Layers share memory.
        let sizes: HashMap<_, _> = tensors.map(|tensor| (tensor.id, tensor.size_bytes())).collect();
        sizes.into_values().sum()
    }

    /// Bytes of the weights, wherever they are, without an embedding table that is fetched.
    pub fn all_bytes(&self) -> u64 {
        let matrices: u64 = self.matrices().into_iter().map(Matrix::bytes).sum();
        matrices + self.vectors().map(|(_, tensor)| tensor.size_bytes()).sum::<u64>()
    }

    /// Bytes of the weights that a pass over `tokens` tokens reads at most: as many experts as the
    /// tokens can choose, a row of the embedding table for each token where the table is fetched,
    /// and everything else.
    pub fn needed_bytes(&self, tokens: u32) -> u64 {
        let c = &self.config;
        let experts: u64 = self
            .layers
            .iter()
            .filter_map(|layer| layer.feed_forward.routed())
            .flat_map(|routed| routed.experts.matrices())
            .map(Matrix::bytes)
            .sum();
        let rows = match self.embedding {
            Embedding::Tied => 0,
            Embedding::Fetched(dtype) => {
                u64::from(tokens.min(c.vocab_size)) * dtype.row_bytes(c.hidden_size.into())
            }
        };
        let all = u64::from(c.num_local_experts());
        let chosen = u64::from(tokens) * u64::from(c.num_experts_per_tok());
        let idle_experts = experts / all.max(1) * all.saturating_sub(chosen);
        self.all_bytes() + rows - idle_experts
    }

    /// Number of splits that the binding limit forced: shards minus matrices.
    pub fn cuts(&self) -> usize {
        self.matrices().iter().map(|matrix| matrix.shards.len() - 1).sum()
    }

    /// The tensors of all weights, each with a canonical name. A tensor that fuses several (q, k
    /// and v; experts) has the name of the first.
    pub fn named_tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        let matrices = self.matrices().into_iter().flat_map(|matrix| {
            let name = &matrix.sources[0].name;
            matrix.shards.iter().map(|shard| (name.to_string(), shard.tensor))
        });
        matrices.chain(self.vectors())
    }

    /// Norms and routers, each with its name.
    fn vectors(&self) -> impl Iterator<Item = (String, Tensor)> {
        let vectors = (0..).zip(&self.layers).flat_map(|(i, layer)| {
            let before = [
                (Part::PreAttnNorm, layer.pre_attn_norm),
                (Part::PostAttnNorm, layer.post_attn_norm),
                (Part::PreMoeNorm, layer.pre_moe_norm),
            ];
            let router = layer.feed_forward.routed().map(|routed| (Part::Router, routed.router));
            let after = (Part::PostMoeNorm, layer.post_moe_norm);
            let all = before.into_iter().chain(router).chain([after]);
            all.map(move |(part, tensor)| (Key::new(i, part).name(), tensor))
        });
        vectors.chain([(FINAL_NORM.to_owned(), self.norm)])
    }

    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        let mut all = vec![&self.lm_head];
        for layer in &self.layers {
            all.extend([&layer.qkv_proj, &layer.o_proj]);
            for mlp in layer.feed_forward.mlps() {
                all.extend(mlp.matrices());
            }
        }
        all
    }
}

/// A matrix that is to be allocated.
struct Wanted {
    /// The tensors of the checkpoint that it consists of, each with its rows.
    parts: Vec<(Key, u32)>,
    cols: u32,
    /// Whether these are stacked along a leading axis. Otherwise they are concatenated along rows.
    experts: bool,
}

impl Wanted {
    fn one(key: Key, rows: u32, cols: u32) -> Self {
        Self { parts: vec![(key, rows)], cols, experts: false }
    }

    fn name(&self) -> String {
        self.parts[0].0.name()
    }

    /// Rows of the matrix, or of each of the stacked ones.
    fn rows(&self) -> u32 {
        if self.experts { self.parts[0].1 } else { self.parts.iter().map(|(_, rows)| rows).sum() }
    }
}

/// What tells whether matrices can take turns in the same memory: type, rows and columns of each,
/// and how many are stacked.
type Form = (Vec<(DType, u32, u32)>, Option<u32>);

struct Allocator<'a, M, W> {
    machine: &'a mut M,
    weights: &'a W,
    placement: Placement,
    /// The memory that layers share.
    shared: HashMap<Form, Vec<Vec<Shard>>>,
}

impl<M: Machine, W: Weights> Allocator<'_, M, W> {
    fn layer(&mut self, c: &Config, layer: u32) -> Result<Layer> {
        let [q, kv] = [c.num_attention_heads, c.num_key_value_heads].map(|n| n * c.head_dim);
        let key = |part| Key::new(layer, part);
        let norm = |alloc: &mut Self, part| alloc.vector(&key(part).name(), c.hidden_size);
        let pre_attn_norm = norm(self, Part::PreAttnNorm)?;
        let qkv_proj = Wanted {
            parts: vec![(key(Part::Q), q), (key(Part::K), kv), (key(Part::V), kv)],
            cols: c.hidden_size,
            experts: false,
        };
        let attention = [qkv_proj, Wanted::one(key(Part::O), c.hidden_size, q)];
        let [qkv_proj, o_proj] = self.matrices(attention, layer < self.placement.attention)?;
        Ok(Layer {
            pre_attn_norm,
            qkv_proj,
            o_proj,
            post_attn_norm: norm(self, Part::PostAttnNorm)?,
            pre_moe_norm: norm(self, Part::PreMoeNorm)?,
            feed_forward: self.feed_forward(c, layer)?,
            post_moe_norm: norm(self, Part::PostMoeNorm)?,
        })
    }

    fn feed_forward(&mut self, c: &Config, layer: u32) -> Result<FeedForward> {
        let rule = c.layers[layer as usize];
        let dense = rule.dense.map(|width| self.dense(c, layer, width)).transpose()?;
        match (dense, c.experts.filter(|_| rule.routed)) {
            (dense, Some(rule)) => {
                let shape = [rule.count, c.hidden_size].into();
                let router =
                    self.alloc(&Key::new(layer, Part::Router).name(), DType::F32, shape)?;
                let (experts, slots) = self.experts(c, layer, rule)?;
                let routed = Routed { rule, router, experts, slots, dense };
                Ok(FeedForward::Routed(Box::new(routed)))
            }
            (Some(mlp), None) => Ok(FeedForward::Dense(Box::new(mlp))),
            (None, None) => {
                Err(Error::Usage(format!("layer {layer} has neither experts nor a dense MLP")))
            }
        }
    }

    fn dense(&mut self, c: &Config, layer: u32, width: u32) -> Result<Mlp> {
        let wanted = |part, rows, cols| Wanted::one(Key::new(layer, part), rows, cols);
        let matrices = [
            wanted(Part::DenseGate, width, c.hidden_size),
            wanted(Part::DenseUp, width, c.hidden_size),
            wanted(Part::DenseDown, c.hidden_size, width),
        ];
        self.matrices(matrices, layer < self.placement.dense).map(Mlp::from)
    }

    /// The experts of a layer, and for how many of them there is room if not for all.
    fn experts(&mut self, c: &Config, layer: u32, rule: Experts) -> Result<(Mlp, Option<u32>)> {
        let wanted = |part, rows, cols| {
            let parts = (0..rule.count).map(|expert| (Key { part, layer, expert }, rows));
            Wanted { parts: parts.collect(), cols, experts: true }
        };
        let matrices = [
            wanted(Part::ExpertGate, rule.width, c.hidden_size),
            wanted(Part::ExpertUp, rule.width, c.hidden_size),
            wanted(Part::ExpertDown, c.hidden_size, rule.width),
        ];
        if layer < self.placement.experts {
            let made = matrices.map(|wanted| self.matrix(wanted, rule.count));
            return Ok((all(made)?.into(), None));
        }
        // More than there are experts would be cut otherwise than all of them are.
        let slots = self.placement.slots.count().min(rule.count);
        if slots < rule.chosen {
            return Err(Error::Usage(format!(
                "room for {slots} experts, and a token chooses {}",
                rule.chosen
            )));
        }
        let made = match self.placement.slots {
            Slots::Each(_) => all(matrices.map(|wanted| self.in_turn(wanted, slots))),
            Slots::Shared(_) => self.taking_turns(matrices, Some(slots)),
        };
        Ok((made?.into(), Some(slots)))
    }

    fn vector(&mut self, name: &str, len: u32) -> Result<Tensor> {
        self.alloc(name, DType::F32, [len].into())
    }

    /// Allocates a tensor for the weights called `name`.
    fn alloc(&mut self, name: &str, dtype: DType, shape: Shape) -> Result<Tensor> {
        let alloc = self.machine.alloc(BufferRole::Storage, dtype, shape);
        alloc.map_err(|error| error.storing(|| format!("weights of `{name}`")))
    }

    /// Allocates matrices for one layer, or for all of their form that are brought.
    fn matrices<const N: usize>(
        &mut self,
        matrices: [Wanted; N],
        there: bool,
    ) -> Result<[Matrix; N]> {
        if there {
            all(matrices.map(|wanted| self.matrix(wanted, 1)))
        } else {
            self.taking_turns(matrices, None)
        }
    }

    /// Matrices in memory that they share with those of other layers that have the same form: room
    /// for one, or for so many experts.
    fn taking_turns<const N: usize>(
        &mut self,
        matrices: [Wanted; N],
        slots: Option<u32>,
    ) -> Result<[Matrix; N]> {
        let form = |wanted: &Wanted| Ok((self.dtype(&wanted.parts)?, wanted.rows(), wanted.cols));
        let form = (matrices.iter().map(form).collect::<Result<_>>()?, slots);
        let Some(shards) = self.shared.get(&form).cloned() else {
            let made = all(matrices.map(|wanted| self.in_turn(wanted, slots.unwrap_or(1))))?;
            let shards = made.iter().map(|matrix: &Matrix| matrix.shards.clone()).collect();
            self.shared.insert(form, shards);
            return Ok(made);
        };
        let mut shards = shards.into_iter();
        let made = |wanted| Matrix::new(wanted, shards.next().unwrap_or_default(), Home::Files);
        Ok(matrices.map(made))
    }

    /// The same as [`Allocator::matrix`], of a matrix that is brought.
    fn in_turn(&mut self, wanted: Wanted, count: u32) -> Result<Matrix> {
        Ok(Matrix { home: Home::Files, ..self.matrix(wanted, count)? })
    }

    /// Allocates a matrix; if it is one of experts, each shard has the same rows of `count` of
    /// them. Where it is cut depends on how many the layer has, not on `count`, since the tuning of
    /// a product follows from the rows of a shard.
    fn matrix(&mut self, wanted: Wanted, count: u32) -> Result<Matrix> {
        let stacked = if wanted.experts { wanted.parts.len() } else { 1 };
        let stacked =
            u32::try_from(stacked).map_err(|_| Error::Usage("too many experts".into()))?;
        let (rows, cols) = (wanted.rows(), wanted.cols);
        let shard_rows = self.shard_rows(&wanted.parts, stacked, cols)?;
        let dtype = self.dtype(&wanted.parts)?;
        let name = wanted.name();
        let shards = (0..rows)
            .step_by(shard_rows as usize)
            .map(|row0| {
                let rows = shard_rows.min(rows - row0);
                let shape =
                    if wanted.experts { [count, rows, cols].into() } else { [rows, cols].into() };
                Ok(Shard { row0, tensor: self.alloc(&name, dtype, shape)? })
            })
            .collect::<Result<_>>()?;
        Ok(Matrix::new(wanted, shards, Home::Device))
    }

    /// Most rows of `count` stacked matrices that fit in one binding, rounded down to whole tiles
    /// where there is more than one.
    fn shard_rows(&self, parts: &[(Key, u32)], count: u32, cols: u32) -> Result<u32> {
        const TILE: u64 = 32;
        let limit = self.machine.max_binding_bytes();
        let row_bytes = u64::from(count) * self.dtype(parts)?.row_bytes(cols.into());
        let fit = limit / row_bytes;
        if fit == 0 {
            return Err(Error::Limit {
                what: format!("one row of `{}`, in bytes", parts[0].0.name()),
                got: row_bytes,
                limit,
            });
        }
        let fit = if fit > TILE { fit / TILE * TILE } else { fit };
        Ok(u32::try_from(fit).unwrap_or(u32::MAX / 2))
    }

    /// The element type that all parts have, or F32 if they differ.
    fn dtype(&self, parts: &[(Key, u32)]) -> Result<DType> {
        let first = self.weights.dtype(&parts[0].0.name())?;
        for (key, _) in parts {
            if self.weights.dtype(&key.name())? != first {
                return Ok(DType::F32);
            }
        }
        Ok(first)
    }
}

/// The matrices, if all were made.
fn all<const N: usize>(made: [Result<Matrix>; N]) -> Result<[Matrix; N]> {
    let made: Vec<Matrix> = made.into_iter().collect::<Result<_>>()?;
    Ok(made.try_into().unwrap_or_else(|_| unreachable!("as many as there were")))
}

impl From<[Matrix; 3]> for Mlp {
    fn from([gate_proj, up_proj, down_proj]: [Matrix; 3]) -> Self {
        Self { gate_proj, up_proj, down_proj }
    }
}

impl Matrix {
    fn new(wanted: Wanted, shards: Vec<Shard>, home: Home) -> Self {
        let Wanted { parts, cols, experts } = wanted;
        let source = |(key, rows): (Key, u32)| Source { name: key.name().into(), rows };
        Self { shards, sources: parts.into_iter().map(source).collect(), experts, cols, home }
    }

    /// Whether it comes to memory that it shares before it is used.
    pub fn is_brought(&self) -> bool {
        matches!(self.home, Home::Files | Home::Copied(_))
    }

    /// Canonical name of one of the tensors that it consists of.
    pub fn source(&self, at: usize) -> &str {
        self.sources.get(at).map_or("", |source| &source.name)
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.cols as usize
    }

    /// Bytes of one of the stacked matrices.
    pub fn bytes_of_one(&self) -> u64 {
        self.bytes() / (self.sources.len() as u64).max(1)
    }

    /// Bytes of the whole matrix, wherever it is.
    pub fn bytes(&self) -> u64 {
        let rows: u64 = self.sources.iter().map(|source| u64::from(source.rows)).sum();
        let dtype = self.shards.first().map_or(DType::F32, |shard| shard.tensor.dtype);
        rows * dtype.row_bytes(self.cols.into())
    }
}
