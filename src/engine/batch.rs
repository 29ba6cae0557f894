//! Runs a step: tokens of several texts, the generated ones in one pass and those of prompts in
//! another, in one submission.

use super::{
    Engine,
    plans::{Key, Wanted, check_top},
    sequence::{Kind, Sequence},
    step::{Answer, Input, Part, Readback, Run, Staged, StepOutput, Text, stage},
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::Tensor,
    },
    machine::{Machine, step::PAGE},
};

/// The runs of a step that go through the model together.
#[derive(Debug)]
struct Batch {
    kind: Kind,
    /// Their numbers in the step.
    runs: Vec<usize>,
    /// What is computed for all of them.
    read: Readback,
    /// Whether all logits of their last tokens are read, beside the largest.
    logits: bool,
    routes: bool,
    /// How many tokens.
    rows: usize,
    /// How many of the runs read logits.
    picked: usize,
    /// The longest text's length after the pass.
    end: usize,
    /// Slots of the cache that their pages are in.
    slots: u32,
}

impl Batch {
    fn of(kind: Kind, runs: &[Run<'_>], numbers: Vec<usize>) -> Self {
        let of = || numbers.iter().map(|&number| &runs[number]);
        let reads = || of().map(|run| run.input.read);
        let top = reads().filter_map(|read| match read {
            Readback::Top(count) => Some(count),
            _ => None,
        });
        let all = reads().any(|read| read == Readback::AllLogits);
        let logits = reads().any(|read| read == Readback::Logits);
        let read = match top.max() {
            // A list begins with every shorter one.
            Some(count) => Readback::Top(count),
            None if all => Readback::AllLogits,
            None if logits => Readback::Logits,
            None => Readback::Nothing,
        };
        let end = |run: &Run<'_>| run.sequence.tokens().len() + run.input.ids.len();
        let pages = of().flat_map(|run| run.sequence.pages());
        Self {
            kind,
            read,
            logits: logits || all,
            routes: of().any(|run| run.input.routes && run.input.read != Readback::Nothing),
            rows: of().map(|run| run.input.ids.len()).sum(),
            picked: match kind {
                Kind::Generated => numbers.len(),
                Kind::Prompt => reads().filter(|&read| read != Readback::Nothing).count(),
            },
            end: of().map(end).max().unwrap_or_default(),
            slots: pages.map(|page| (page + 1) * PAGE).max().unwrap_or_default(),
            runs: numbers,
        }
    }

    /// The tokens of its runs.
    fn texts<'a>(&self, runs: &'a [Run<'_>]) -> Vec<Text<'a>> {
        let text = |&number: &usize| {
            let Run { sequence, input } = &runs[number];
            Text {
                ids: input.ids,
                position: u32::try_from(sequence.tokens().len()).expect("the context is a u32"),
                pages: sequence.pages(),
                wanted: self.kind == Kind::Generated || input.read != Readback::Nothing,
            }
        };
        self.runs.iter().map(text).collect()
    }

    fn wanted(&self) -> Wanted {
        let &Self { kind, rows, picked, end, slots, read, .. } = self;
        Wanted { kind, rows, picked, end, slots, read }
    }

    /// The outputs of its runs, of what was read back for it.
    fn outputs(
        &self,
        runs: &[Run<'_>],
        read: &[Vec<u8>],
        decode: impl Fn(Answer<'_>, Part) -> Result<StepOutput>,
    ) -> Vec<Result<StepOutput>> {
        let (top, read) = match read {
            [values, ids, rest @ ..] if matches!(self.read, Readback::Top(_)) => {
                (Some([&values[..], &ids[..]]), rest)
            }
            _ => (None, read),
        };
        let (logits, routes) = read.split_at(usize::from(self.logits));
        let logits = logits.first().map(|logits| &logits[..]);
        let answer = Answer { top, logits, routes, wanted: self.picked };
        let (mut first, mut picked) = (0, 0);
        let texts = self.texts(runs);
        let output = |(text, &number): (&Text<'_>, &usize)| {
            let Input { read, routes, .. } = runs[number].input;
            let (rows, end) = (first..first + text.ids.len(), text.end() as usize);
            first = rows.end;
            let routes = routes && read != Readback::Nothing;
            let part = Part { read, rows, picked, routes, end };
            picked += usize::from(text.wanted);
            decode(answer, part)
        };
        texts.iter().zip(&self.runs).map(output).collect()
    }
}

impl<M: Machine> Engine<M> {
    /// Runs one step: tokens of up to [`SessionOptions::rows`](super::SessionOptions::rows)
    /// sequences, one of each that is being generated, and chunks of prompts of at most
    /// [`SessionOptions::prefill`](super::SessionOptions::prefill) together. The device gets them
    /// in one submission, and results are read back once; only runs that read
    /// [`Readback::AllLogits`] have submissions of their own, and passes for which weights are
    /// brought are cut.
    ///
    /// Returns the results in the order of `runs`. No bit of a result depends on the other runs. A
    /// run that fails leaves its sequence as it was, and the others go on.
    ///
    /// The result of a run is an error if its tokens cannot follow its sequence
    /// ([`Engine::check`]), if they are more than a step takes or nothing can be read of them as it
    /// says, if the sequence is not in the cache or the cache has no pages for it, each
    /// [`Error::Usage`]; and [`Error::NonFinite`] if a logit that was read is not finite.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there are more runs, or more tokens of prompts, than a step takes;
    /// errors of the machine. No sequence has changed then.
    pub async fn step(&mut self, runs: &mut [Run<'_>]) -> Result<Vec<Result<StepOutput>>> {
        self.check_step(runs)?;
        let mut outputs: Vec<Option<Result<StepOutput>>> =
            runs.iter_mut().map(|run| self.admit(run).err().map(Err)).collect();
        let admitted: Vec<usize> =
            (0..runs.len()).filter(|&number| outputs[number].is_none()).collect();
        let mut ran = Ok(());
        for batches in divided(runs, &admitted) {
            match self.submit(runs, &batches).await {
                Ok(made) => {
                    for (number, output) in batches.iter().flat_map(|of| &of.runs).zip(made) {
                        outputs[*number] = Some(output);
                    }
                }
                Err(error) => {
                    ran = Err(error);
                    break;
                }
            }
        }
        for (run, output) in runs.iter_mut().zip(&outputs) {
            if ran.is_ok() && matches!(output, Some(Ok(_))) {
                run.sequence.extend(run.input.ids, run.input.kind);
            } else {
                run.sequence.trim();
            }
        }
        ran?;
        Ok(outputs.into_iter().flatten().collect())
    }

    /// A step of one sequence.
    pub(super) async fn run(
        &mut self,
        sequence: &mut Sequence,
        input: Input<'_>,
    ) -> Result<StepOutput> {
        let mut outputs = self.step(&mut [Run { sequence, input }]).await?;
        outputs.pop().expect("a run has a result")
    }

    /// Checks that a step may have so many runs and tokens.
    fn check_step(&self, runs: &[Run<'_>]) -> Result<()> {
        let most = self.options.rows as usize;
        if runs.len() > most {
            return Err(Error::Usage(format!(
                "{} texts in a step, expected at most {most}",
                runs.len()
            )));
        }
        let together = |run: &&Run<'_>| {
            run.input.kind == Kind::Prompt && run.input.read != Readback::AllLogits
        };
        let lengths: Vec<usize> =
            runs.iter().filter(together).map(|run| run.input.ids.len()).collect();
        let (tokens, most) = (lengths.iter().sum::<usize>(), self.options.prefill as usize);
        // A single run that is too long is an error of its own.
        if lengths.len() > 1 && tokens > most {
            return Err(Error::Usage(format!(
                "{tokens} tokens of prompts in a step, expected at most {most}"
            )));
        }
        Ok(())
    }

    /// Checks a run, and gives its sequence pages for its tokens.
    fn admit(&self, run: &mut Run<'_>) -> Result<()> {
        let Input { ids, kind, read, .. } = run.input;
        self.check(run.sequence, ids)?;
        let most = match (kind, read) {
            (Kind::Prompt, _) => self.options.chunk(read),
            (Kind::Generated, Readback::AllLogits) => {
                return Err(Error::Usage(
                    "logits of every token are read of prompts, not of generated tokens".into(),
                ));
            }
            (Kind::Generated, _) => 1,
        };
        if ids.len() > most {
            return Err(Error::Usage(format!(
                "{} tokens of a text in a step, expected at most {most}",
                ids.len()
            )));
        }
        if let Readback::Top(count) = read {
            check_top(self.config().vocab_size, count)?;
        }
        let tokens = run.sequence.tokens().len();
        if tokens > 0 && !run.sequence.is_on(&self.pool) {
            return Err(Error::Usage(format!(
                "{tokens} tokens are not in the cache: restore the sequence first"
            )));
        }
        run.sequence.take(&self.pool, tokens + ids.len())
    }

    /// Runs batches that have buffers of their own in one submission. Returns the results of all
    /// their runs, in order.
    async fn submit(
        &mut self,
        runs: &[Run<'_>],
        batches: &[Batch],
    ) -> Result<Vec<Result<StepOutput>>> {
        let mut keys = Vec::with_capacity(batches.len());
        for batch in batches {
            keys.push(self.key(batch.wanted())?);
        }
        let missing: Vec<Key> = keys.iter().copied().filter(|&key| !self.plans.has(key)).collect();
        if !missing.is_empty() {
            // Not all machines learn of a refused pipeline while they record.
            self.plans.compile(&mut self.machine, &self.views, &self.caches, &missing).await?;
        }
        for &key in &keys {
            self.record(key)?;
        }
        let mut reads = Vec::with_capacity(batches.len());
        for (batch, &key) in batches.iter().zip(&keys) {
            self.stage(runs, batch, key).await?;
            reads.push(self.reads(batch, key)?);
        }
        let read = if let Some(streamer) = &mut self.streamer {
            let mut all = Vec::with_capacity(batches.len());
            for ((batch, &key), read) in batches.iter().zip(&keys).zip(&reads) {
                let of = (self.plans.recorded(key), self.plans.scratch(key));
                let view = self.views.of(batch.kind);
                let run = streamer.run(view, &mut self.machine, of, batch.rows, read);
                all.push(Box::pin(run).await?);
            }
            all
        } else {
            let plan = |&key: &Key| self.plans.recorded(key).only();
            let plans = keys.iter().map(plan).collect::<Result<Vec<_>>>()?;
            let together: Vec<_> = plans.into_iter().zip(reads.iter().map(|r| &r[..])).collect();
            match together[..] {
                [(plan, read)] => vec![self.machine.run_plan(plan, read).await?],
                _ => self.machine.run_plans(&together).await?,
            }
        };
        let config = self.config();
        let outputs = batches.iter().zip(&read).flat_map(|(batch, read)| {
            batch.outputs(runs, read, |answer, part| answer.decode(part, config))
        });
        Ok(outputs.collect())
    }

    /// Writes the inputs of a pass.
    async fn stage(&mut self, runs: &[Run<'_>], batch: &Batch, key: Key) -> Result<()> {
        let texts = batch.texts(runs);
        let ids: Vec<u32> = texts.iter().flat_map(|text| text.ids).copied().collect();
        let embedded = self.table.rows(&ids).await?;
        let (config, scratch) = (&self.views.model().config, self.plans.scratch(key));
        let staged = Staged { texts: &texts, embedded: &embedded };
        stage(&mut self.machine, config, &self.angles, scratch, staged)
    }

    /// What is read back after a pass.
    fn reads(&self, batch: &Batch, key: Key) -> Result<Vec<Tensor>> {
        let picked = u32::try_from(batch.picked).expect("a step has few texts");
        let mut read: Vec<Tensor> = self.plans.top(key, picked)?.into_iter().flatten().collect();
        if batch.logits {
            read.push(self.plans.logits(key, picked)?);
        }
        if batch.routes {
            read.extend(self.plans.routes(key));
        }
        Ok(read)
    }
}

/// The batches of each submission of a step.
fn divided(runs: &[Run<'_>], admitted: &[usize]) -> Vec<Vec<Batch>> {
    let together = |kind| {
        let of_kind = |&&number: &&usize| {
            let Input { kind: own, read, .. } = runs[number].input;
            own == kind && read != Readback::AllLogits
        };
        let numbers: Vec<usize> = admitted.iter().filter(of_kind).copied().collect();
        (!numbers.is_empty()).then(|| Batch::of(kind, runs, numbers))
    };
    let first: Vec<Batch> =
        [Kind::Generated, Kind::Prompt].into_iter().filter_map(together).collect();
    // Logits of all tokens are made by other products than those of the last ones.
    let all = |&&number: &&usize| runs[number].input.read == Readback::AllLogits;
    let alone = admitted.iter().filter(all);
    let alone = alone.map(|&number| vec![Batch::of(Kind::Prompt, runs, vec![number])]);
    std::iter::once(first).filter(|first| !first.is_empty()).chain(alone).collect()
}
