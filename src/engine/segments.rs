//! Passes that are cut into segments, and who acts between them.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    machine::{
        Machine, Role,
        kernel::{Executor, Kernel, Need},
    },
};

/// A place between two kernels of a pass where something may have to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// These weights must be in place from here on.
    Need(Need),
    /// They are not used any more.
    Used(Need),
    /// Each rank has a part of this tensor, and from here on it is their sum.
    SumOverRanks(Tensor),
}

/// A piece of a pass.
#[derive(Clone, Debug)]
pub enum Part<P> {
    /// Kernels that run in one submission.
    Segment(P),
    /// Between two of those, a mark that the runner asked for.
    Mark(Mark),
}

/// A recorded pass.
#[derive(Clone, Debug)]
pub struct Segments<P> {
    /// In order. No two segments follow each other, and none is empty but for an only one.
    pub parts: Vec<Part<P>>,
    /// What the stage before hands over, if the pass does not begin here.
    pub received: Option<Vec<Tensor>>,
    /// What the stage after is handed, if the pass does not end here.
    pub sent: Option<Vec<Tensor>>,
}

impl<P> Segments<P> {
    /// The segments in order, without the marks.
    pub fn segments(&self) -> impl Iterator<Item = &P> {
        self.parts.iter().filter_map(|part| match part {
            Part::Segment(plan) => Some(plan),
            Part::Mark(_) => None,
        })
    }
}

/// Runs passes, and acts between their segments: brings weights, sums over ranks, receives and
/// sends what stages hand over.
#[expect(async_fn_in_trait, reason = "an engine is one thread, and browser futures are not Send")]
pub trait Runner<M: Machine> {
    /// Whether it acts at this mark, so that passes must be cut there.
    fn cuts_at(&self, mark: Mark) -> bool {
        let _ = mark;
        false
    }

    /// Whether passes begin here, and not in a stage before.
    fn begins(&self) -> bool {
        true
    }

    /// Whether passes end here, and not in a stage after.
    fn ends(&self) -> bool {
        true
    }

    /// Runs a pass, then reads whole tensors back. Without another word it runs segment after
    /// segment, and nothing is done in between.
    async fn run(
        &mut self,
        machine: &mut M,
        pass: &Segments<M::Plan>,
        read: &[Tensor],
    ) -> Result<Vec<Vec<u8>>> {
        let mut segments = pass.segments().peekable();
        while let Some(segment) = segments.next() {
            if segments.peek().is_none() {
                return machine.run_plan(segment, read).await;
            }
            machine.run_plan(segment, &[]).await?;
        }
        Err(Error::Usage("a pass without a segment".into()))
    }
}

/// Runs passes whole: a model that lies on one device. One submission, and nothing between layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole;

impl<M: Machine> Runner<M> for Whole {}

/// A machine whose plans are cut at the marks of a runner, which then runs them.
#[derive(Debug)]
pub struct Segmented<M, R> {
    machine: M,
    runner: R,
}

impl<M: Machine, R: Runner<M>> Segmented<M, R> {
    /// Lets `runner` run what is recorded.
    pub fn new(machine: M, runner: R) -> Self {
        Self { machine, runner }
    }

    /// The machine that runs the segments.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Who acts between them.
    pub fn runner(&self) -> &R {
        &self.runner
    }

    /// Who acts between them, to be told more.
    pub fn runner_mut(&mut self) -> &mut R {
        &mut self.runner
    }

    /// Keeps what `program` runs, cut where the runner asks for it.
    fn cut(
        &self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Segments<Vec<Box<dyn Kernel>>>> {
        let mut cutter = Cutter {
            cuts_at: &|mark| self.runner.cuts_at(mark),
            begins: self.runner.begins(),
            ends: self.runner.ends(),
            pass: Segments { parts: Vec::new(), received: None, sent: None },
        };
        program(&mut cutter)?;
        if cutter.pass.segments().next().is_none() {
            cutter.pass.parts.push(Part::Segment(Vec::new()));
        }
        Ok(cutter.pass)
    }
}

/// The executor that keeps kernels, cut at marks.
struct Cutter<'a> {
    cuts_at: &'a dyn Fn(Mark) -> bool,
    begins: bool,
    ends: bool,
    pass: Segments<Vec<Box<dyn Kernel>>>,
}

impl Cutter<'_> {
    fn mark(&mut self, mark: Mark) {
        if (self.cuts_at)(mark) {
            self.pass.parts.push(Part::Mark(mark));
        }
    }
}

impl Executor for Cutter<'_> {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        if let Some(Part::Segment(kernels)) = self.pass.parts.last_mut() {
            kernels.push(kernel.boxed());
        } else {
            self.pass.parts.push(Part::Segment(vec![kernel.boxed()]));
        }
        Ok(())
    }

    fn need(&mut self, need: Need) -> Result<()> {
        self.mark(Mark::Need(need));
        Ok(())
    }

    fn used(&mut self, need: Need) -> Result<()> {
        self.mark(Mark::Used(need));
        Ok(())
    }

    fn sum_over_ranks(&mut self, part: Tensor) -> Result<()> {
        self.mark(Mark::SumOverRanks(part));
        Ok(())
    }

    fn begins(&mut self, handed: &[Tensor]) -> bool {
        self.pass.received = (!self.begins).then(|| handed.to_vec());
        self.begins
    }

    fn ends(&mut self, handed: &[Tensor]) -> bool {
        self.pass.sent = (!self.ends).then(|| handed.to_vec());
        self.ends
    }
}

impl<M: Machine, R: Runner<M>> Machine for Segmented<M, R> {
    type Plan = Segments<M::Plan>;

    fn alloc(&mut self, role: Role, dtype: DType, shape: Shape) -> Result<Tensor> {
        self.machine.alloc(role, dtype, shape)
    }

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.machine.write(tensor, offset, bytes)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        let Segments { parts, received, sent } = self.cut(program)?;
        let parts = parts
            .into_iter()
            .map(|part| {
                Ok(match part {
                    Part::Segment(kernels) => Part::Segment(self.machine.record(&mut |exec| {
                        kernels.iter().try_for_each(|kernel| exec.run(kernel.as_ref()))
                    })?),
                    Part::Mark(mark) => Part::Mark(mark),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Segments { parts, received, sent })
    }

    async fn compile(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()> {
        let pass = self.cut(program)?;
        let mut kernels = |exec: &mut dyn Executor| {
            pass.segments().flatten().try_for_each(|kernel| exec.run(kernel.as_ref()))
        };
        self.machine.compile(&mut kernels).await
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        self.runner.run(&mut self.machine, plan, read).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.machine.flush().await
    }

    fn max_binding_bytes(&self) -> u64 {
        self.machine.max_binding_bytes()
    }
}
