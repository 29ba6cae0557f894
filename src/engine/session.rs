//! A conversation with a model: what is in the cache, and what comes next.

use std::collections::HashMap;

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Tensor},
    },
    kernels::{CACHES, CHUNK, elements_of_chunk},
    machine::{Machine, Role},
    model::{
        LayerCache, Model, Output, Pass, Phase, SPLIT_LEN, Scratch, TopList, alloc_cache,
        config::Config, forward, rope, weights::Weights,
    },
    text::sampler::{Candidate, Needs},
};

/// Sizes that a session is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Positions of the key-value cache.
    pub context: u32,
    /// Most tokens of a prompt that go through the model at once.
    pub prefill: u32,
    /// Element type of the key-value cache, one of [`CACHES`].
    pub cache: DType,
}

impl Sizes {
    /// Contexts longer than this are made only when asked for: the cache costs memory.
    const DEFAULT_CONTEXT: u32 = 4096;

    /// The model's own context up to 4096, prompts by 256 tokens, and a cache of `f32`.
    pub fn of(config: &Config) -> Self {
        Self {
            context: config.max_position_embeddings.min(Self::DEFAULT_CONTEXT),
            prefill: 256,
            cache: DType::F32,
        }
    }
}

/// Tokens at the most in a pass that gives logits of every row: they are large.
const ALL_ROWS: u32 = 32;

/// What to read back after tokens have gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Nothing.
    Nothing,
    /// This many of the last token's largest logits.
    Top(u32),
    /// All logits of the last token.
    Logits,
    /// All logits of every token.
    AllLogits,
}

impl From<Needs> for Read {
    fn from(needs: Needs) -> Self {
        match needs {
            Needs::Greedy => Self::Top(1),
            Needs::Top(count) => Self::Top(count),
            Needs::All => Self::Logits,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// Candidates for the next token: the largest logits in falling order, or all by id.
    pub candidates: Vec<Candidate>,
    /// Logits of every token, if they were asked for: `[tokens][vocab_size]`.
    pub rows: Vec<Vec<f32>>,
    /// The experts that each layer chose for the last token, if they were asked for.
    pub routes: Vec<Route>,
}

/// The experts that a layer chose for a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// Their numbers, the likeliest first.
    pub experts: Vec<u32>,
    /// Their probabilities, as they weight what the experts give.
    pub probs: Vec<f32>,
}

/// Tokens in, logits out: what the loop that makes text needs of a session. What wraps a session
/// does the same.
#[expect(async_fn_in_trait, reason = "a session is one thread, and browser futures are not Send")]
pub trait Steps {
    /// The model's configuration.
    fn config(&self) -> &Config;

    /// What the session was made for.
    fn sizes(&self) -> Sizes;

    /// Tokens in the cache.
    fn tokens(&self) -> &[u32];

    /// Forgets all tokens after the first `keep`.
    fn rewind(&mut self, keep: usize);

    /// Whether [`Reply::routes`] is wanted of the steps to come.
    fn report_routes(&mut self, wanted: bool);

    /// Sends a prompt through the model, after what is in the cache.
    async fn prefill(&mut self, ids: &[u32], read: Read) -> Result<Reply>;

    /// Sends one generated token through the model.
    async fn decode(&mut self, id: u32, read: Read) -> Result<Reply>;
}

impl<M: Machine> Steps for Session<M> {
    fn config(&self) -> &Config {
        self.config()
    }

    fn sizes(&self) -> Sizes {
        self.sizes()
    }

    fn tokens(&self) -> &[u32] {
        self.tokens()
    }

    fn rewind(&mut self, keep: usize) {
        self.rewind(keep);
    }

    fn report_routes(&mut self, wanted: bool) {
        self.report_routes(wanted);
    }

    async fn prefill(&mut self, ids: &[u32], read: Read) -> Result<Reply> {
        self.prefill(ids, read).await
    }

    async fn decode(&mut self, id: u32, read: Read) -> Result<Reply> {
        self.decode(id, read).await
    }
}

/// A model, its buffers, and the tokens it has seen.
#[derive(Debug)]
pub struct Session<M: Machine> {
    machine: M,
    model: Model,
    sizes: Sizes,
    angles: Vec<rope::Angles>,
    caches: Vec<LayerCache>,
    /// The decode buffers first, then prefill buffers of rising size.
    scratches: Vec<Scratch>,
    all_logits: Tensor,
    lists: HashMap<u32, Vec<TopList>>,
    plans: HashMap<PlanKey, M::Plan>,
    tokens: Vec<u32>,
    report_routes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PlanKey {
    scratch: usize,
    read: Read,
    positions: u32,
}

impl<M: Machine> Session<M> {
    /// Loads a model onto `machine`. `progress` hears how many bytes of the weights are done; an
    /// error from it stops the loading.
    pub async fn load(
        mut machine: M,
        config: &Config,
        weights: &impl Weights,
        sizes: Sizes,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let model = Model::alloc(&mut machine, config, weights)?;
        let session = Self::with_model(machine, model, sizes)?;
        let Self { mut machine, model, .. } = session;
        model.fill(&mut machine, weights, progress).await?;
        Ok(Self { machine, model, ..session })
    }

    /// A session whose weights are still to be filled in: what [`crate::machine::Machine`]s that
    /// only count need.
    pub fn with_model(mut machine: M, model: Model, sizes: Sizes) -> Result<Self> {
        let c = &model.config;
        check_sizes(c, sizes)?;
        let caches = (0..c.num_hidden_layers())
            .map(|_| alloc_cache(&mut machine, c, sizes.context, sizes.cache))
            .collect::<Result<Vec<_>>>()?;
        let mut scratches = vec![Scratch::alloc(&mut machine, c, Phase::Decode, 1, &caches[0])?];
        let mut rows = vec![sizes.prefill.min(ALL_ROWS)];
        rows.extend((sizes.prefill > ALL_ROWS).then_some(sizes.prefill));
        for tokens in rows {
            scratches.push(Scratch::alloc(&mut machine, c, Phase::Prefill, tokens, &caches[0])?);
        }
        let shape = [scratches[1].tokens, c.vocab_size].into();
        let all_logits = machine.alloc(Role::Storage, DType::F32, shape)?;
        Ok(Self {
            angles: rope::Angles::of(c),
            machine,
            model,
            sizes,
            caches,
            scratches,
            all_logits,
            lists: HashMap::new(),
            plans: HashMap::new(),
            tokens: Vec::new(),
            report_routes: false,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to measure with.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Gives the machine back, with its pipelines, for another model.
    pub fn into_machine(self) -> M {
        self.machine
    }

    /// What the session was made for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets all tokens after the first `keep`.
    pub fn rewind(&mut self, keep: usize) {
        self.tokens.truncate(keep);
    }

    /// Whether the experts of the last token are read back with the logits, in the same
    /// submission, from now on.
    pub fn report_routes(&mut self, wanted: bool) {
        self.report_routes = wanted;
    }

    /// Sends a prompt through the model, in chunks, after what is in the cache.
    pub async fn prefill(&mut self, ids: &[u32], read: Read) -> Result<Reply> {
        self.check_ids(ids)?;
        let chunk = match read {
            Read::AllLogits => self.scratches[1].tokens,
            _ => self.sizes.prefill,
        };
        let mut reply = Reply::default();
        let mut chunks = ids.chunks(chunk as usize).peekable();
        while let Some(ids) = chunks.next() {
            let read = match read {
                Read::AllLogits => read,
                _ if chunks.peek().is_some() => Read::Nothing,
                _ => read,
            };
            let part = self.run(self.scratch_for(ids.len()), ids, read).await?;
            reply.candidates = part.candidates;
            reply.rows.extend(part.rows);
            reply.routes = part.routes;
        }
        Ok(reply)
    }

    /// Sends one generated token through the model.
    pub async fn decode(&mut self, id: u32, read: Read) -> Result<Reply> {
        self.check_ids(&[id])?;
        self.run(0, &[id], read).await
    }

    /// Which experts each layer chose for the tokens of the last step, read back now:
    /// `[layers][tokens][chosen]` ids and probabilities. `decoded` says which kind of step it was.
    pub async fn routes(
        &mut self,
        decoded: bool,
        count: usize,
    ) -> Result<Vec<(Vec<u32>, Vec<f32>)>> {
        let scratch = if decoded {
            &self.scratches[0]
        } else {
            self.scratches[1..]
                .iter()
                .find(|scratch| scratch.tokens as usize >= count)
                .ok_or_else(|| Error::Usage("no step had so many tokens".into()))?
        };
        let tensors: Vec<Tensor> =
            scratch.routes.iter().flat_map(|routes| [routes.ids, routes.probs]).collect();
        let nothing = self.machine.record(&mut |_| Ok(()))?;
        let bytes = self.machine.run_plan(&nothing, &tensors).await?;
        let most = count * self.model.config.num_experts_per_tok() as usize;
        Ok(bytes
            .chunks_exact(2)
            .map(|pair| {
                let ids = words(&pair[0]).take(most).collect();
                let probs = words(&pair[1]).take(most).map(f32::from_bits).collect();
                (ids, probs)
            })
            .collect())
    }

    /// Compiles what a prompt of `tokens` and the tokens after it need, all at once, and records
    /// their plans, so that the first token does not wait for compilers.
    ///
    /// # Errors
    ///
    /// What the machine gives, or [`Error::Usage`] if `read` asks for too many candidates.
    pub async fn prepare(&mut self, tokens: usize, read: Read) -> Result<()> {
        let end = (self.tokens.len() + tokens + 1).min(self.sizes.context as usize);
        let rows = tokens.min(self.sizes.prefill as usize);
        let keys = [self.key(self.scratch_for(rows), read, end - 1)?, self.key(0, read, end)?];
        let (model, caches, scratches) = (&self.model, &self.caches, &self.scratches);
        let passes =
            keys.map(|key| (&scratches[key.scratch], pass(key, &self.lists, self.all_logits)));
        self.machine
            .compile(&mut |exec| {
                passes.iter().try_for_each(|&(s, pass)| forward(exec, model, s, caches, pass))
            })
            .await?;
        keys.into_iter().try_for_each(|key| self.record(key))
    }

    /// Changes the machine in a way that recorded plans depend on: they are recorded anew.
    pub fn change_machine(&mut self, change: impl FnOnce(&mut M)) {
        change(&mut self.machine);
        self.plans.clear();
    }

    /// The plan of a decode step at the current length, for measuring.
    pub fn decode_plan(&mut self, read: Read) -> Result<&M::Plan> {
        let key = self.plan(0, read, self.tokens.len() + 1)?;
        Ok(&self.plans[&key])
    }

    /// The plan of a whole prefill chunk at the current length, for measuring.
    pub fn prefill_plan(&mut self, read: Read) -> Result<&M::Plan> {
        let last = self.scratches.len() - 1;
        let end = self.tokens.len() + self.scratches[last].tokens as usize;
        let key = self.plan(last, read, end.min(self.sizes.context as usize))?;
        Ok(&self.plans[&key])
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Err(Error::Usage("there are no tokens to run: the prompt is empty".into()));
        }
        let vocab = self.model.config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
            return Err(Error::Usage(format!("token id {id} is not below vocab_size {vocab}")));
        }
        let context = self.sizes.context as usize;
        if self.tokens.len() + ids.len() > context {
            return Err(Error::ContextLength {
                prompt: self.tokens.len(),
                wanted: ids.len(),
                context,
            });
        }
        Ok(())
    }

    /// One step: stages what changes, runs the plan, and remembers the tokens.
    async fn run(&mut self, scratch: usize, ids: &[u32], read: Read) -> Result<Reply> {
        let end = self.tokens.len() + ids.len();
        let key = self.plan(scratch, read, end)?;
        self.stage(scratch, ids)?;
        let s = &self.scratches[scratch];
        let mut wanted = match read {
            Read::Nothing => vec![],
            Read::Logits => vec![s.logits],
            Read::AllLogits => vec![self.all_logits],
            Read::Top(count) => {
                let list = self.lists[&count].last().expect("a list has levels");
                vec![list.values, list.ids]
            }
        };
        let logits = wanted.len();
        if self.report_routes && read != Read::Nothing {
            wanted.extend(s.routes.iter().flat_map(|routes| [routes.ids, routes.probs]));
        }
        let bytes = self.machine.run_plan(&self.plans[&key], &wanted).await?;
        self.tokens.extend_from_slice(ids);
        let (logits, routes) = bytes.split_at(logits);
        let mut reply = self.reply(read, logits, ids.len())?;
        reply.routes = self.last_routes(routes, ids.len());
        Ok(reply)
    }

    /// The routes of the last of a step's `rows` tokens: ids and probabilities by turns.
    fn last_routes(&self, bytes: &[Vec<u8>], rows: usize) -> Vec<Route> {
        let count = self.model.config.num_experts_per_tok() as usize;
        let before = (rows - 1) * count;
        bytes
            .chunks_exact(2)
            .map(|pair| Route {
                experts: words(&pair[0]).skip(before).take(count).collect(),
                probs: words(&pair[1]).skip(before).take(count).map(f32::from_bits).collect(),
            })
            .collect()
    }

    fn reply(&self, read: Read, bytes: &[Vec<u8>], rows: usize) -> Result<Reply> {
        let mut reply = Reply::default();
        match read {
            Read::Nothing => {}
            Read::Top(_) => {
                let logits = words(&bytes[0]).map(f32::from_bits);
                reply.candidates = words(&bytes[1])
                    .zip(logits)
                    .map(|(id, logit)| Candidate { id, logit })
                    .collect();
                // `top_chunks` shows what is not a number as the largest finite one.
                if reply.candidates.iter().any(|c| !c.logit.is_finite() || c.logit >= f32::MAX) {
                    return Err(self.non_finite());
                }
            }
            Read::Logits => {
                let logits = words(&bytes[0]).map(f32::from_bits);
                reply.candidates =
                    (0..).zip(logits).map(|(id, logit)| Candidate { id, logit }).collect();
                if reply.candidates.iter().any(|c| !c.logit.is_finite()) {
                    return Err(self.non_finite());
                }
            }
            Read::AllLogits => {
                let logits: Vec<f32> = words(&bytes[0]).map(f32::from_bits).collect();
                let vocab = self.model.config.vocab_size as usize;
                reply.rows = logits.chunks_exact(vocab).take(rows).map(<[f32]>::to_vec).collect();
                if reply.rows.iter().flatten().any(|logit| !logit.is_finite()) {
                    return Err(self.non_finite());
                }
            }
        }
        Ok(reply)
    }

    fn non_finite(&self) -> Error {
        Error::NonFinite { what: format!("after token {}", self.tokens.len()) }
    }

    fn stage(&mut self, scratch: usize, ids: &[u32]) -> Result<()> {
        let s = &self.scratches[scratch];
        let pos = u32::try_from(self.tokens.len()).expect("the context is a u32");
        let rows = u32::try_from(ids.len()).expect("a step has few tokens");
        let head_dim = self.model.config.head_dim as usize;
        let mut padded = ids.to_vec();
        padded.resize(s.tokens as usize, 0);
        let mut tables = vec![vec![0.0f32; padded.len() * head_dim]; self.angles.len()];
        for (table, angles) in tables.iter_mut().zip(&self.angles) {
            for (pos, row) in (pos..).zip(table.chunks_exact_mut(head_dim)).take(ids.len()) {
                angles.row(pos, row);
            }
        }
        let temperature_len = self.model.config.attention.temperature_len;
        let temperature: Vec<f32> =
            (pos..).take(padded.len()).map(|pos| rope::temperature(temperature_len, pos)).collect();
        let machine = &mut self.machine;
        machine.write(s.ids, 0, bytemuck::cast_slice(&padded))?;
        machine.write(s.step, 0, bytemuck::cast_slice(&[pos, rows, 0, 0]))?;
        for (cos_sin, table) in s.cos_sin.iter().zip(&tables) {
            machine.write(*cos_sin, 0, bytemuck::cast_slice(table))?;
        }
        machine.write(s.temperature, 0, bytemuck::cast_slice(&temperature))?;
        machine.write(s.last_row, 0, bytemuck::cast_slice(&[rows - 1]))
    }

    /// The smallest prefill buffers for `rows` tokens, or the largest there are.
    fn scratch_for(&self, rows: usize) -> usize {
        let last = self.scratches.len() - 1;
        (1..last).find(|&i| self.scratches[i].tokens as usize >= rows).unwrap_or(last)
    }

    /// Makes sure that there is a plan for a step that ends before position `end`.
    fn plan(&mut self, scratch: usize, read: Read, end: usize) -> Result<PlanKey> {
        let key = self.key(scratch, read, end)?;
        self.record(key)?;
        Ok(key)
    }

    /// The key of such a plan, and the lists that it needs.
    fn key(&mut self, scratch: usize, read: Read, end: usize) -> Result<PlanKey> {
        // Plans are made for lengths that double, so that few are made.
        let end = u32::try_from(end).expect("the context is a u32");
        let positions = end
            .div_ceil(SPLIT_LEN)
            .next_power_of_two()
            .saturating_mul(SPLIT_LEN)
            .min(self.sizes.context);
        if let Read::Top(count) = read
            && !self.lists.contains_key(&count)
        {
            let lists = top_lists(&mut self.machine, self.model.config.vocab_size, count)?;
            self.lists.insert(count, lists);
        }
        Ok(PlanKey { scratch, read, positions })
    }

    fn record(&mut self, key: PlanKey) -> Result<()> {
        if !self.plans.contains_key(&key) {
            let (model, caches, s) = (&self.model, &self.caches, &self.scratches[key.scratch]);
            let pass = pass(key, &self.lists, self.all_logits);
            let plan = self.machine.record(&mut |exec| forward(exec, model, s, caches, pass))?;
            self.plans.insert(key, plan);
        }
        Ok(())
    }
}

/// What the plan of `key` leaves behind.
fn pass(key: PlanKey, lists: &HashMap<u32, Vec<TopList>>, all_logits: Tensor) -> Pass<'_> {
    let output = match key.read {
        Read::Nothing => Output::Nothing,
        Read::Top(count) => Output::Top(&lists[&count]),
        Read::Logits => Output::Last,
        Read::AllLogits => Output::All(all_logits),
    };
    Pass { output, positions: key.positions }
}

fn check_sizes(c: &Config, sizes: Sizes) -> Result<()> {
    let most = c.max_position_embeddings;
    if sizes.context == 0 || sizes.context > most {
        return Err(Error::Usage(format!(
            "the context is {}, expected 1 to max_position_embeddings ({most})",
            sizes.context
        )));
    }
    if sizes.prefill == 0 || sizes.prefill > 4096 {
        return Err(Error::Usage(format!(
            "the prefill chunk is {}, expected 1 to 4096",
            sizes.prefill
        )));
    }
    let dtype = sizes.cache;
    if !CACHES.contains(&dtype) {
        return Err(Error::Usage(format!(
            "the cache's element type is {dtype}, expected one of {CACHES:?}"
        )));
    }
    let width = c.num_key_value_heads * c.head_dim;
    let chunk = elements_of_chunk(dtype);
    if !width.is_multiple_of(dtype.block()) || !c.head_dim.is_multiple_of(chunk) {
        return Err(Error::Usage(format!(
            "a cache of {dtype} needs a head_dim that is a multiple of {chunk} and \
             num_key_value_heads * head_dim a multiple of {}: they are {} and {width}",
            dtype.block(),
            c.head_dim
        )));
    }
    Ok(())
}

/// Lists for each level of the search for the `count` largest of `vocab` logits.
fn top_lists<M: Machine>(machine: &mut M, vocab: u32, count: u32) -> Result<Vec<TopList>> {
    // Each level must at least halve what is left.
    let most = (CHUNK / 2).min(vocab);
    if count == 0 || count > most {
        return Err(Error::Usage(format!("{count} candidates asked for, expected 1 to {most}")));
    }
    let mut lists = Vec::new();
    let mut len = vocab;
    loop {
        let chunks = len.div_ceil(CHUNK);
        len = chunks * count;
        lists.push(TopList {
            values: machine.alloc(Role::Storage, DType::F32, [1, len].into())?,
            ids: machine.alloc(Role::Storage, DType::U32, [1, len].into())?,
        });
        if chunks == 1 {
            return Ok(lists);
        }
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
