//! Weights on a machine: allocation in shards that fit a binding, then upload in bounded windows.

use super::{FeedForward, Layer, Mlp, Model, Routed};
use crate::{
    base::{
        error::{Error, Result},
        num::round,
        tensor::{DType, Shape, Tensor},
    },
    machine::{BufferRole, Machine, host},
    model::{
        config::{Config, Experts},
        schema::{FINAL_NORM, Key, Part},
        weights::Weights,
    },
};

/// Bytes read from a checkpoint at a time.
const WINDOW_BYTES: u64 = 8 << 20;

/// Bytes written to the machine between two flushes; bounds what waits in staging buffers.
const FLUSH_BYTES: u64 = 64 << 20;

/// A weight matrix, cut by rows into as many tensors as the machine's bindings need.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// In the order of rows.
    pub shards: Vec<Shard>,
    /// The tensors of the checkpoint that the matrix consists of.
    sources: Vec<Source>,
    /// Whether the sources are stacked along a leading axis (experts). Otherwise they are
    /// concatenated along rows.
    experts: bool,
    cols: u32,
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
struct Source {
    name: String,
    rows: u32,
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
        let c = config;
        let mut alloc = Allocator { machine, weights };
        let table = |part| [(Key::new(0, part), c.vocab_size)];
        let embed_tokens = alloc.matrix(&table(Part::Embedding), c.hidden_size)?;
        let layers =
            (0..c.num_hidden_layers()).map(|layer| alloc.layer(c, layer)).collect::<Result<_>>()?;
        let norm = alloc.vector(FINAL_NORM, c.hidden_size)?;
        let lm_head = if c.ends.tied {
            embed_tokens.clone()
        } else {
            alloc.matrix(&table(Part::Head), c.hidden_size)?
        };
        Ok(Self { config: c.clone(), embed_tokens, layers, norm, lm_head })
    }

    /// Uploads every weight. `progress` is called with the number of bytes read so far; an error
    /// from it stops the upload.
    ///
    /// # Errors
    ///
    /// Errors of reading `weights`, of the machine, and of `progress`.
    pub async fn fill<M: Machine>(
        &self,
        machine: &mut M,
        weights: &impl Weights,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut upload =
            Upload { machine, weights, progress, buffer: Vec::new(), done: 0, unflushed: 0 };
        upload.matrix(&self.embed_tokens).await?;
        for (i, layer) in (0..).zip(&self.layers) {
            let at = |part| Key::new(i, part).name();
            upload.whole(layer.pre_attn_norm, &at(Part::PreAttnNorm)).await?;
            upload.matrix(&layer.qkv_proj).await?;
            upload.matrix(&layer.o_proj).await?;
            upload.whole(layer.post_attn_norm, &at(Part::PostAttnNorm)).await?;
            upload.whole(layer.pre_moe_norm, &at(Part::PreMoeNorm)).await?;
            if let Some(routed) = layer.feed_forward.routed() {
                upload.whole(routed.router, &at(Part::Router)).await?;
            }
            for mlp in layer.feed_forward.mlps() {
                upload.matrix(&mlp.gate_proj).await?;
                upload.matrix(&mlp.up_proj).await?;
                upload.matrix(&mlp.down_proj).await?;
            }
            upload.whole(layer.post_moe_norm, &at(Part::PostMoeNorm)).await?;
        }
        upload.whole(self.norm, FINAL_NORM).await?;
        if !self.config.ends.tied {
            upload.matrix(&self.lm_head).await?;
        }
        upload.machine.flush().await
    }

    /// Bytes of all weights as allocated. A tied table counts once.
    pub fn bytes(&self) -> u64 {
        let mut tensors = self.tensors();
        tensors.sort_by_key(|tensor| tensor.id);
        tensors.dedup_by_key(|tensor| tensor.id);
        tensors.iter().map(Tensor::size_bytes).sum()
    }

    /// Bytes of the weights that a pass over `tokens` tokens reads at most: as many experts as the
    /// tokens can choose, one row of the embedding table for each token (all of it where it is the
    /// head), and everything else.
    pub fn needed_bytes(&self, tokens: u32) -> u64 {
        let c = &self.config;
        let of = |matrix: &Matrix| -> u64 {
            matrix.shards.iter().map(|shard| shard.tensor.size_bytes()).sum()
        };
        let experts: u64 = self
            .layers
            .iter()
            .filter_map(|layer| layer.feed_forward.routed())
            .map(|routed| &routed.experts)
            .flat_map(|experts| [&experts.gate_proj, &experts.up_proj, &experts.down_proj])
            .map(of)
            .sum();
        let table = of(&self.embed_tokens);
        let rows = u64::from(c.vocab_size);
        let idle_rows = if c.ends.tied { 0 } else { rows.saturating_sub(u64::from(tokens)) };
        let all = u64::from(c.num_local_experts());
        let chosen = u64::from(tokens) * u64::from(c.num_experts_per_tok());
        let idle_experts = experts / all.max(1) * all.saturating_sub(chosen);
        self.bytes() - table / rows * idle_rows - idle_experts
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
            matrix.shards.iter().map(|shard| (name.clone(), shard.tensor))
        });
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
        matrices.chain(vectors).chain([(FINAL_NORM.to_owned(), self.norm)])
    }

    fn matrices(&self) -> Vec<&Matrix> {
        let mut all = vec![&self.embed_tokens, &self.lm_head];
        for layer in &self.layers {
            all.extend([&layer.qkv_proj, &layer.o_proj]);
            for mlp in layer.feed_forward.mlps() {
                all.extend([&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj]);
            }
        }
        all
    }

    fn tensors(&self) -> Vec<Tensor> {
        self.named_tensors().map(|(_, tensor)| tensor).collect()
    }
}

struct Allocator<'a, M, W> {
    machine: &'a mut M,
    weights: &'a W,
}

impl<M: Machine, W: Weights> Allocator<'_, M, W> {
    fn layer(&mut self, c: &Config, layer: u32) -> Result<Layer> {
        let [q, kv] = [c.num_attention_heads, c.num_key_value_heads].map(|n| n * c.head_dim);
        let rows = |part, rows| (Key::new(layer, part), rows);
        let norm =
            |alloc: &mut Self, part| alloc.vector(&Key::new(layer, part).name(), c.hidden_size);
        Ok(Layer {
            pre_attn_norm: norm(self, Part::PreAttnNorm)?,
            qkv_proj: self
                .matrix(&[rows(Part::Q, q), rows(Part::K, kv), rows(Part::V, kv)], c.hidden_size)?,
            o_proj: self.matrix(&[rows(Part::O, c.hidden_size)], q)?,
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
                let experts = self.experts(c, layer, rule)?;
                let routed = Routed { rule, router, experts, dense };
                Ok(FeedForward::Routed(Box::new(routed)))
            }
            (Some(mlp), None) => Ok(FeedForward::Dense(mlp)),
            (None, None) => {
                Err(Error::Usage(format!("layer {layer} has neither experts nor a dense MLP")))
            }
        }
    }

    fn dense(&mut self, c: &Config, layer: u32, width: u32) -> Result<Mlp> {
        let mut matrix = |part, rows, cols| self.matrix(&[(Key::new(layer, part), rows)], cols);
        Ok(Mlp {
            gate_proj: matrix(Part::DenseGate, width, c.hidden_size)?,
            up_proj: matrix(Part::DenseUp, width, c.hidden_size)?,
            down_proj: matrix(Part::DenseDown, c.hidden_size, width)?,
        })
    }

    fn experts(&mut self, c: &Config, layer: u32, rule: Experts) -> Result<Mlp> {
        let mut matrix = |part, rows, cols| {
            let parts: Vec<_> =
                (0..rule.count).map(|expert| (Key { part, layer, expert }, rows)).collect();
            self.side_by_side(&parts, cols)
        };
        Ok(Mlp {
            gate_proj: matrix(Part::ExpertGate, rule.width, c.hidden_size)?,
            up_proj: matrix(Part::ExpertUp, rule.width, c.hidden_size)?,
            down_proj: matrix(Part::ExpertDown, c.hidden_size, rule.width)?,
        })
    }

    fn vector(&mut self, name: &str, len: u32) -> Result<Tensor> {
        self.alloc(name, DType::F32, [len].into())
    }

    /// Allocates a tensor for the weights called `name`.
    fn alloc(&mut self, name: &str, dtype: DType, shape: Shape) -> Result<Tensor> {
        let alloc = self.machine.alloc(BufferRole::Storage, dtype, shape);
        alloc.map_err(|error| error.storing(|| format!("weights of `{name}`")))
    }

    /// Allocates a matrix that concatenates `parts` along rows.
    fn matrix(&mut self, parts: &[(Key, u32)], cols: u32) -> Result<Matrix> {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let shard_rows = self.shard_rows(parts, 1, cols)?;
        let name = parts[0].0.name();
        let dtype = self.dtype(parts)?;
        let shards = (0..rows)
            .step_by(shard_rows as usize)
            .map(|row0| {
                let shape = [shard_rows.min(rows - row0), cols].into();
                let tensor = self.alloc(&name, dtype, shape)?;
                Ok(Shard { row0, tensor })
            })
            .collect::<Result<_>>()?;
        Ok(Matrix { shards, sources: sources(parts), experts: false, cols })
    }

    /// Allocates matrices of one shape, stacked along a leading axis; each shard holds the same
    /// rows of all of them.
    fn side_by_side(&mut self, parts: &[(Key, u32)], cols: u32) -> Result<Matrix> {
        let count =
            u32::try_from(parts.len()).map_err(|_| Error::Usage("too many experts".into()))?;
        let rows = parts[0].1;
        let shard_rows = self.shard_rows(parts, count, cols)?;
        let name = parts[0].0.name();
        let dtype = self.dtype(parts)?;
        let shards = (0..rows)
            .step_by(shard_rows as usize)
            .map(|row0| {
                let shape = [count, shard_rows.min(rows - row0), cols].into();
                let tensor = self.alloc(&name, dtype, shape)?;
                Ok(Shard { row0, tensor })
            })
            .collect::<Result<_>>()?;
        Ok(Matrix { shards, sources: sources(parts), experts: true, cols })
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

fn sources(parts: &[(Key, u32)]) -> Vec<Source> {
    parts.iter().map(|(key, rows)| Source { name: key.name(), rows: *rows }).collect()
}

struct Upload<'a, M, W> {
    machine: &'a mut M,
    weights: &'a W,
    progress: &'a mut dyn FnMut(u64) -> Result<()>,
    buffer: Vec<u8>,
    done: u64,
    unflushed: u64,
}

impl<M: Machine, W: Weights> Upload<'_, M, W> {
    async fn matrix(&mut self, matrix: &Matrix) -> Result<()> {
        for shard in &matrix.shards {
            let extents = shard.tensor.shape.extents();
            let rows = extents[extents.len() - 2];
            let row_bytes = shard.tensor.dtype.row_bytes(matrix.cols.into());
            let mut first = 0; // first row of the source within the matrix
            for (i, source) in (0u64..).zip(&matrix.sources) {
                let (begin, end, offset) = if matrix.experts {
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
                self.rows(shard.tensor, offset, &source.name, begin..end, matrix.cols).await?;
            }
        }
        Ok(())
    }

    /// Uploads rows of one tensor of the checkpoint to `tensor`, from byte `offset` on.
    async fn rows(
        &mut self,
        tensor: Tensor,
        mut offset: u64,
        name: &str,
        rows: std::ops::Range<u32>,
        cols: u32,
    ) -> Result<()> {
        let window = (WINDOW_BYTES / (u64::from(cols) * 4)).max(1);
        let mut row = u64::from(rows.start);
        while row < u64::from(rows.end) {
            let count = window.min(u64::from(rows.end) - row);
            self.weights.read_rows(name, row, count, &mut self.buffer).await?;
            offset += self.upload(tensor, offset, name).await?;
            row += count;
        }
        Ok(())
    }

    /// Uploads a whole tensor of the checkpoint.
    async fn whole(&mut self, tensor: Tensor, name: &str) -> Result<()> {
        let rows = u64::from(tensor.shape.extents()[0]);
        self.weights.read_rows(name, 0, rows, &mut self.buffer).await?;
        self.upload(tensor, 0, name).await.map(|_| ())
    }

    /// Writes the rows in `buffer` at byte `offset` of `tensor`, converted to F32 if the types
    /// differ. Returns the number of bytes written.
    async fn upload(&mut self, tensor: Tensor, offset: u64, name: &str) -> Result<u64> {
        let stored = self.weights.dtype(name)?;
        let read = self.buffer.len() as u64;
        let written = if stored == tensor.dtype {
            self.machine.write(tensor, offset, &self.buffer)?;
            read
        } else {
            let cols = tensor.shape.extents().last().map_or(1, |&cols| cols as usize);
            let values = host::decode_rows(stored, cols, &self.buffer);
            let values: Vec<f32> = values.into_iter().map(round).collect();
            let bytes = bytemuck::cast_slice(&values);
            self.machine.write(tensor, offset, bytes)?;
            bytes.len() as u64
        };
        self.done += read;
        (self.progress)(self.done)?;
        self.unflushed += written;
        if self.unflushed >= FLUSH_BYTES {
            let flushed = self.machine.flush().await;
            flushed.map_err(|error| error.storing(|| format!("the upload of `{name}`")))?;
            self.unflushed = 0;
        }
        Ok(written)
    }
}
