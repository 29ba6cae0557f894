//! Buffers of passes, and the plans recorded over them.

use std::collections::HashMap;

use super::{
    SessionOptions,
    segments::{Segments, record_cut},
    sequence::Kind,
    step::Readback,
    streamer::cuts_at,
    views::Views,
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Tensor},
    },
    kernels::CHUNK,
    machine::{BufferRole, Machine, kernel::Executor},
    model::{LayerCache, Model, Output, Pass, Phase, Scratch, TopList, forward},
};

/// The pass that a step needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Whether its tokens are of a prompt or generated.
    pub(super) kind: Kind,
    /// How many tokens.
    pub(super) rows: usize,
    /// The position after the last of them.
    pub(super) end: usize,
    /// What is read back.
    pub(super) read: Readback,
}

/// Identifies a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    scratch: usize,
    read: Readback,
    positions: u32,
}

impl Key {
    /// Whether its tokens are of a prompt or generated.
    fn kind(self) -> Kind {
        if self.scratch == 0 { Kind::Generated } else { Kind::Prompt }
    }
}

/// Buffers, and the plans over them, which are recorded on first use.
#[derive(Debug)]
pub(super) struct Plans<P> {
    context: u32,
    /// Positions that every plan covers at the least.
    least: u32,
    vocab: u32,
    /// The decode buffers, then the prefill buffers by rising number of rows. They share memory.
    scratches: Vec<Scratch>,
    all_logits: Tensor,
    lists: HashMap<u32, Vec<TopList>>,
    /// Passes, cut where weights are brought.
    recorded: HashMap<Key, Segments<P>>,
}

impl<P> Plans<P> {
    /// Allocates the buffers.
    pub(super) fn alloc<M: Machine<Plan = P>>(
        machine: &mut M,
        model: &Model,
        options: SessionOptions,
        cache: &LayerCache,
    ) -> Result<Self> {
        let split = options.split;
        let c = &model.config;
        let of = (c, model.brought());
        let mut scratches = vec![Scratch::alloc(machine, of, Phase::Decode, 1, cache, split)?];
        let lengths = lengths(options.prefill);
        let prefill = Scratch::alloc_shared(machine, of, Phase::Prefill, &lengths, cache, split)?;
        scratches.extend(prefill);
        let shape = [scratches[1].tokens, c.vocab_size];
        Ok(Self {
            context: options.context,
            least: 0,
            vocab: c.vocab_size,
            all_logits: machine
                .alloc(BufferRole::Storage, DType::F32, shape.into())
                .map_err(|error| error.storing(|| format!("the logits of {} tokens", shape[0])))?,
            scratches,
            lists: HashMap::new(),
            recorded: HashMap::new(),
        })
    }

    /// The key of the plan for a pass. Allocates the top-k lists that the plan needs.
    pub(super) fn key<M: Machine<Plan = P>>(
        &mut self,
        machine: &mut M,
        Wanted { kind, rows, end, read }: Wanted,
    ) -> Result<Key> {
        // The number of splits is rounded up to a power of two, so that there are few plans.
        let end = u32::try_from(end).expect("the context is a u32");
        let split = self.scratches[0].least_split;
        let splits = end.div_ceil(split).next_power_of_two();
        let positions = splits.saturating_mul(split).max(self.least).min(self.context);
        if let Readback::Top(count) = read
            && !self.lists.contains_key(&count)
        {
            let keep = machine.tensor_count();
            let lists = top_lists(machine, self.vocab, count);
            let lists = lists.inspect_err(|_| machine.truncate(keep));
            self.lists.insert(count, lists?);
        }
        let scratch = match kind {
            Kind::Generated => 0,
            Kind::Prompt => self.scratch_for(rows),
        };
        Ok(Key { scratch, read, positions })
    }

    /// Compiles the pipelines of the plans of `keys` together.
    pub(super) async fn compile<M: Machine<Plan = P>>(
        &self,
        machine: &mut M,
        views: &Views,
        caches: &[LayerCache],
        keys: &[Key],
    ) -> Result<()> {
        machine.compile(&mut |exec| self.run_all(exec, views, caches, keys)).await
    }

    /// Compiles them one by one: see [`Machine::compile_each`].
    pub(super) async fn compile_each<M: Machine<Plan = P>>(
        &self,
        machine: &mut M,
        (views, caches): (&Views, &[LayerCache]),
        keys: &[Key],
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut program = |exec: &mut dyn Executor| self.run_all(exec, views, caches, keys);
        machine.compile_each(&mut program, run, progress).await
    }

    /// Has `exec` run the passes of `keys`.
    fn run_all(
        &self,
        exec: &mut dyn Executor,
        views: &Views,
        caches: &[LayerCache],
        keys: &[Key],
    ) -> Result<()> {
        keys.iter().try_for_each(|&key| {
            forward(exec, views.of(key.kind()), self.scratch(key), caches, self.pass(key))
        })
    }

    /// Whether the plan was recorded.
    pub(super) fn has(&self, key: Key) -> bool {
        self.recorded.contains_key(&key)
    }

    /// Records the plan if there is none yet. With `cut` it is divided where weights are brought,
    /// or where the CPU computes with them if `cut` says that it does.
    pub(super) fn record<M: Machine<Plan = P>>(
        &mut self,
        machine: &mut M,
        (views, caches): (&Views, &[LayerCache]),
        key: Key,
        cut: Option<bool>,
    ) -> Result<&Segments<P>> {
        if !self.has(key) {
            let (s, pass, model) = (self.scratch(key), self.pass(key), views.of(key.kind()));
            let mut program = |exec: &mut dyn Executor| forward(exec, model, s, caches, pass);
            let plan = if let Some(computes) = cut {
                let host = computes && s.phase == Phase::Decode;
                record_cut(machine, &|mark| cuts_at(model, mark, host), &mut program)?
            } else {
                Segments::whole(machine.record(&mut program)?)
            };
            self.recorded.insert(key, plan);
        }
        Ok(&self.recorded[&key])
    }

    /// A plan that was recorded before.
    pub(super) fn recorded(&self, key: Key) -> &Segments<P> {
        &self.recorded[&key]
    }

    /// Has every plan cover at least so many positions.
    pub(super) fn cover(&mut self, least: u32) {
        self.least = least;
    }

    /// Drops all plans, and keeps the buffers.
    pub(super) fn forget(&mut self) {
        self.recorded.clear();
    }

    /// The buffers of a pass.
    pub(super) fn scratch(&self, key: Key) -> &Scratch {
        &self.scratches[key.scratch]
    }

    /// The buffers of the longest chunk of a prompt, in whose first rows shorter ones are.
    pub(super) fn largest(&self) -> &Scratch {
        &self.scratches[self.scratches.len() - 1]
    }

    /// The tensors that hold its logits.
    pub(super) fn logits(&self, key: Key) -> Vec<Tensor> {
        match key.read {
            Readback::Nothing => vec![],
            Readback::Logits => vec![self.scratch(key).logits],
            Readback::AllLogits => vec![self.all_logits],
            Readback::Top(count) => {
                let list = self.lists[&count].last().expect("a list has levels");
                vec![list.values, list.ids]
            }
        }
    }

    /// The tensors that hold its routes: ids and probabilities of each layer, alternating.
    pub(super) fn routes(&self, key: Key) -> impl Iterator<Item = Tensor> + '_ {
        self.scratch(key).routes.iter().flat_map(|routes| [routes.ids, routes.probs])
    }

    /// The smallest prefill buffers for `rows` tokens, or the largest there are.
    fn scratch_for(&self, rows: usize) -> usize {
        let last = self.scratches.len() - 1;
        (1..last).find(|&i| self.scratches[i].tokens as usize >= rows).unwrap_or(last)
    }

    /// The parameters of the forward pass of a plan.
    fn pass(&self, key: Key) -> Pass<'_> {
        let output = match key.read {
            Readback::Nothing => Output::Nothing,
            Readback::Top(count) => Output::Top(&self.lists[&count]),
            Readback::Logits => Output::Last,
            Readback::AllLogits => Output::All(self.all_logits),
        };
        Pass { output, positions: key.positions }
    }
}

/// Rows of the plans of prompts: a short prompt must not cost what a whole chunk does. The first is
/// that of passes which return the logits of every token.
fn lengths(chunk: u32) -> Vec<u32> {
    const SHORTER: [u32; 4] = [SessionOptions::ALL_LOGITS_ROWS, 256, 512, 1024];
    SHORTER.into_iter().filter(|&rows| rows < chunk).chain([chunk]).collect()
}

/// Allocates the lists of each level of the top-k search: the `count` largest of `vocab` logits.
pub(crate) fn top_lists<M: Machine>(
    machine: &mut M,
    vocab: u32,
    count: u32,
) -> Result<Vec<TopList>> {
    // Each level must at least halve what is left.
    let most = (CHUNK / 2).min(vocab);
    if count == 0 || count > most {
        return Err(Error::Usage(format!("{count} candidates asked for, expected 1 to {most}")));
    }
    let mut alloc = |dtype, len| {
        let alloc = machine.alloc(BufferRole::Storage, dtype, [1, len].into());
        alloc.map_err(|error| error.storing(|| format!("the {count} largest logits")))
    };
    let mut lists = Vec::new();
    let mut len = vocab;
    loop {
        let chunks = len.div_ceil(CHUNK);
        len = chunks * count;
        lists.push(TopList { values: alloc(DType::F32, len)?, ids: alloc(DType::U32, len)? });
        if chunks == 1 {
            return Ok(lists);
        }
    }
}
