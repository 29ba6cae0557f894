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
    model::{LayerCache, Model, Output, Pass, Phase, Reach, Scratch, TopList, forward},
};

/// The pass that a step needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Whether its tokens are of a prompt or generated.
    pub(super) kind: Kind,
    /// How many tokens.
    pub(super) rows: usize,
    /// How many of them have their logits wanted.
    pub(super) picked: usize,
    /// The position after the last of each text's, at the most.
    pub(super) end: usize,
    /// Slots of the cache that the pages of their texts are in; 0 if there are none yet.
    pub(super) slots: u32,
    /// What is computed to be read back.
    pub(super) read: Readback,
}

impl Wanted {
    /// Tokens of one text, of which it is not known where it is.
    pub(super) fn of_one(kind: Kind, rows: usize, end: usize, read: Readback) -> Self {
        Self { kind, rows, picked: 1, end, slots: 0, read }
    }
}

/// Identifies a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    kind: Kind,
    scratch: usize,
    read: Readback,
    reach: Reach,
    /// Rows whose logits are computed, at the least.
    picked: u32,
}

/// Buffers, and the plans over them, which are recorded on first use.
#[derive(Debug)]
pub(super) struct Plans<P> {
    context: u32,
    /// Slots of the cache, and those of a shard.
    slots: [u32; 2],
    vocab: u32,
    /// Buffers for generated tokens by rising number of rows. They share memory.
    decode: Vec<Scratch>,
    /// The same for prompts.
    prefill: Vec<Scratch>,
    all_logits: Tensor,
    /// Lists of so many of the largest logits of so many rows. Prompts and generated tokens have
    /// lists of their own, unless a step has one text.
    lists: HashMap<(Kind, u32, u32), Vec<TopList>>,
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
        let mut alloc = |phase, numbers: &[u32]| {
            Scratch::alloc_shared(machine, of, phase, (numbers, options.rows), cache, split)
        };
        let decode = alloc(Phase::Decode, &numbers_of_rows(options.rows))?;
        let prefill = alloc(Phase::Prefill, &lengths(options.prefill))?;
        let shape = [prefill[0].tokens, c.vocab_size];
        Ok(Self {
            context: options.context,
            slots: [cache.shards.iter().map(|shard| shard.len).sum(), cache.segment],
            vocab: c.vocab_size,
            all_logits: machine
                .alloc(BufferRole::Storage, DType::F32, shape.into())
                .map_err(|error| error.storing(|| format!("the logits of {} tokens", shape[0])))?,
            decode,
            prefill,
            lists: HashMap::new(),
            recorded: HashMap::new(),
        })
    }

    /// The key of the plan for a pass. Allocates the top-k lists that the plan needs.
    pub(super) fn key<M: Machine<Plan = P>>(
        &mut self,
        machine: &mut M,
        Wanted { kind, rows, picked, end, slots, read }: Wanted,
    ) -> Result<Key> {
        // The number of splits is rounded up to a power of two, so that there are few plans.
        let end = u32::try_from(end).expect("the context is a u32");
        let split = self.decode[0].least_split;
        let splits = end.div_ceil(split).next_power_of_two();
        let positions = splits.saturating_mul(split).min(self.context);
        // The same for the number of shards in which pages are.
        let [all, shard] = self.slots;
        let shards = slots.div_ceil(shard).next_power_of_two().max(positions.div_ceil(shard));
        let slots = shards.saturating_mul(shard).min(all);
        if let Readback::Top(count) = read {
            self.make_lists(machine, kind, count)?;
        }
        let of = self.of(kind);
        let scratch = of.iter().position(|s| s.tokens as usize >= rows).unwrap_or(of.len() - 1);
        let picked = match kind {
            Kind::Generated => of[scratch].tokens,
            Kind::Prompt => at_least(self.decode.iter().map(|s| s.tokens), picked),
        };
        Ok(Key { kind, scratch, read, reach: Reach { positions, slots }, picked })
    }

    /// Allocates lists of the `count` largest logits, if there are none.
    fn make_lists<M: Machine<Plan = P>>(
        &mut self,
        machine: &mut M,
        kind: Kind,
        count: u32,
    ) -> Result<()> {
        let numbers: Vec<u32> = self.decode.iter().map(|s| s.tokens).collect();
        let most = numbers[numbers.len() - 1];
        let kind = self.has_lists(kind);
        if self.lists.contains_key(&(kind, count, most)) {
            return Ok(());
        }
        let keep = machine.tensor_count();
        let all = top_lists(machine, self.vocab, count, most);
        let all = all.inspect_err(|_| machine.truncate(keep))?;
        for rows in numbers {
            let first = |list: &TopList| {
                let TopList { values, ids } = *list;
                Ok(TopList { values: values.first_rows(rows)?, ids: ids.first_rows(rows)? })
            };
            let of_rows = all.iter().map(first).collect::<Result<_>>()?;
            self.lists.insert((kind, count, rows), of_rows);
        }
        Ok(())
    }

    /// The kind of tokens whose lists these have.
    fn has_lists(&self, kind: Kind) -> Kind {
        if self.decode.len() == 1 { Kind::Generated } else { kind }
    }

    /// The lists of a plan with them.
    fn lists(&self, key: Key, count: u32) -> &[TopList] {
        &self.lists[&(self.has_lists(key.kind), count, key.picked)]
    }

    /// The buffers for such tokens.
    fn of(&self, kind: Kind) -> &[Scratch] {
        match kind {
            Kind::Generated => &self.decode,
            Kind::Prompt => &self.prefill,
        }
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
            forward(exec, views.of(key.kind), self.scratch(key), caches, self.pass(key))
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
            let (s, pass, model) = (self.scratch(key), self.pass(key), views.of(key.kind));
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

    /// Drops all plans, and keeps the buffers.
    pub(super) fn forget(&mut self) {
        self.recorded.clear();
    }

    /// The buffers of a pass.
    pub(super) fn scratch(&self, key: Key) -> &Scratch {
        &self.of(key.kind)[key.scratch]
    }

    /// The buffers of the longest chunk of a prompt, in whose first rows shorter ones are.
    pub(super) fn largest(&self) -> &Scratch {
        &self.prefill[self.prefill.len() - 1]
    }

    /// The tensors with the values and ids of the largest logits of its first `wanted` rows, if it
    /// finds them.
    pub(super) fn top(&self, key: Key, wanted: u32) -> Result<Option<[Tensor; 2]>> {
        let Readback::Top(count) = key.read else { return Ok(None) };
        let list = self.lists(key, count).last().expect("a list has levels");
        Ok(Some([list.values.first_rows(wanted)?, list.ids.first_rows(wanted)?]))
    }

    /// The tensor with the logits of its first `wanted` rows, or of all rows if it has them all.
    pub(super) fn logits(&self, key: Key, wanted: u32) -> Result<Tensor> {
        match key.read {
            Readback::AllLogits => Ok(self.all_logits),
            _ => self.scratch(key).logits.first_rows(wanted),
        }
    }

    /// The tensors that hold its routes: ids and probabilities of each layer, alternating.
    pub(super) fn routes(&self, key: Key) -> impl Iterator<Item = Tensor> + '_ {
        self.scratch(key).routes.iter().flat_map(|routes| [routes.ids, routes.probs])
    }

    /// The parameters of the forward pass of a plan.
    fn pass(&self, key: Key) -> Pass<'_> {
        let output = match key.read {
            Readback::Nothing => Output::Nothing,
            Readback::Top(count) => Output::Top(self.lists(key, count)),
            Readback::Logits => Output::Last,
            Readback::AllLogits => Output::All(self.all_logits),
        };
        Pass { output, reach: key.reach, picked: key.picked }
    }
}

/// The first of rising numbers that is not less than `wanted`, or the last.
fn at_least(mut numbers: impl DoubleEndedIterator<Item = u32> + Clone, wanted: usize) -> u32 {
    let enough = numbers.clone().find(|&number| number as usize >= wanted);
    enough.or_else(|| numbers.next_back()).unwrap_or(1)
}

/// Rows of the plans of generated tokens: a step of few texts must not cost what one of many does.
/// Products take four rows at once.
fn numbers_of_rows(most: u32) -> Vec<u32> {
    const FEWER: [u32; 5] = [1, 4, 8, 16, 32];
    FEWER.into_iter().filter(|&rows| rows < most).chain([most]).collect()
}

/// Rows of the plans of prompts: a short prompt must not cost what a whole chunk does. The first is
/// that of passes which return the logits of every token.
fn lengths(chunk: u32) -> Vec<u32> {
    const SHORTER: [u32; 4] = [SessionOptions::ALL_LOGITS_ROWS, 256, 512, 1024];
    SHORTER.into_iter().filter(|&rows| rows < chunk).chain([chunk]).collect()
}

/// Checks that the `count` largest of `vocab` logits can be found.
///
/// # Errors
///
/// [`Error::Usage`] if they cannot.
pub(super) fn check_top(vocab: u32, count: u32) -> Result<()> {
    // Each level must at least halve what is left.
    let most = (CHUNK / 2).min(vocab);
    if count == 0 || count > most {
        return Err(Error::Usage(format!("{count} candidates asked for, expected 1 to {most}")));
    }
    Ok(())
}

/// Allocates the lists of each level of the top-k search: the `count` largest of `vocab` logits of
/// each of some rows.
pub(crate) fn top_lists<M: Machine>(
    machine: &mut M,
    vocab: u32,
    count: u32,
    rows: u32,
) -> Result<Vec<TopList>> {
    check_top(vocab, count)?;
    let mut alloc = |dtype, len| {
        let alloc = machine.alloc(BufferRole::Storage, dtype, [rows, len].into());
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
