//! Passes that are cut into segments, and runners that act between them.

use crate::{
    base::{
        error::{Error, Result},
        tensor::Tensor,
    },
    machine::{
        Machine, Span, Transfer,
        kernel::{Executor, Kernel, Need},
    },
};

/// A place between two kernels of a pass where a runner may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// These weights must be in place from here on.
    Need(Need),
    /// The rest of the pass does not use these weights.
    Used(Need),
    /// Each rank has a partial sum in this tensor; from here on it must hold their total.
    SumOverRanks(Tensor),
}

/// A piece of a pass.
#[derive(Clone, Debug)]
pub enum Part<P> {
    /// Kernels that are submitted together.
    Segment(P),
    /// A mark at which the runner acts.
    Mark(Mark),
}

/// A recorded pass.
#[derive(Clone, Debug)]
pub struct Segments<P> {
    /// In order. Segments are never adjacent, and none is without kernels unless it is the only
    /// one.
    pub parts: Vec<Part<P>>,
    /// Tensors to receive from the previous pipeline stage, if the pass does not begin here.
    pub received: Option<Vec<Tensor>>,
    /// Tensors to send to the next pipeline stage, if the pass does not end here.
    pub sent: Option<Vec<Tensor>>,
}

impl<P> Segments<P> {
    /// A pass that is not cut.
    pub(super) fn whole(plan: P) -> Self {
        Self { parts: vec![Part::Segment(plan)], received: None, sent: None }
    }

    /// The plan of a pass that is not cut.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it is cut.
    pub fn only(&self) -> Result<&P> {
        match &self.parts[..] {
            [Part::Segment(plan)] => Ok(plan),
            _ => Err(Error::Usage("weights are brought between the parts of this pass".into())),
        }
    }

    /// The segments in order, without the marks.
    pub fn segments(&self) -> impl Iterator<Item = &P> {
        self.parts.iter().filter_map(|part| match part {
            Part::Segment(plan) => Some(plan),
            Part::Mark(_) => None,
        })
    }
}

/// Runs passes, and acts between their segments: loads weights, sums over ranks, receives and sends
/// the tensors of pipeline stages.
#[expect(async_fn_in_trait, reason = "an engine is one thread, and browser futures are not Send")]
pub trait Runner<M: Machine> {
    /// Whether it acts at this mark, so that passes are cut there.
    fn cuts_at(&self, mark: Mark) -> bool {
        let _ = mark;
        false
    }

    /// Whether this is the first pipeline stage.
    fn begins(&self) -> bool {
        true
    }

    /// Whether this is the last pipeline stage.
    fn ends(&self) -> bool {
        true
    }

    /// Runs a pass, then reads whole tensors back. The default runs all segments and does nothing
    /// between them.
    ///
    /// # Errors
    ///
    /// Errors of the machine and of the runner; [`Error::Usage`] for a pass without a segment.
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

/// The runner of a model that is whole on one device: one submission, and nothing between layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole;

impl<M: Machine> Runner<M> for Whole {}

/// A machine whose plans are cut at the marks that a runner asks for, and run by that runner.
#[derive(Debug)]
pub struct Segmented<M, R> {
    machine: M,
    runner: R,
}

impl<M: Machine, R: Runner<M>> Segmented<M, R> {
    /// Wraps `machine`; `runner` runs the recorded passes.
    pub fn new(machine: M, runner: R) -> Self {
        Self { machine, runner }
    }

    /// The machine that runs the segments.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The runner.
    pub fn runner(&self) -> &R {
        &self.runner
    }

    /// The runner, to change its state.
    pub fn runner_mut(&mut self) -> &mut R {
        &mut self.runner
    }

    /// Records the kernels of `program`, cut at the marks that the runner asks for.
    fn cut(&self, program: &mut Program<'_>) -> Result<Kernels> {
        cut(&|mark| self.runner.cuts_at(mark), [self.runner.begins(), self.runner.ends()], program)
    }
}

/// What a machine records.
type Program<'a> = dyn FnMut(&mut dyn Executor) -> Result<()> + 'a;

/// A pass that is cut, as it will be recorded.
type Kernels = Segments<Vec<Step>>;

/// What a segment consists of. Marks stay in it, also those at which the pass is cut, for a machine
/// that acts at them itself.
enum Step {
    Kernel(Box<dyn Kernel>),
    Mark(Mark),
}

impl Step {
    fn run(&self, exec: &mut dyn Executor) -> Result<()> {
        match self {
            Self::Kernel(kernel) => exec.run(kernel.as_ref()),
            Self::Mark(Mark::Need(need)) => exec.need(*need),
            Self::Mark(Mark::Used(need)) => exec.used(*need),
            Self::Mark(Mark::SumOverRanks(part)) => exec.sum_over_ranks(*part),
        }
    }
}

/// The kernels of `program`, cut at these marks. `ends` says whether the pass begins and ends here.
fn cut(
    cuts_at: &dyn Fn(Mark) -> bool,
    [begins, ends]: [bool; 2],
    program: &mut Program<'_>,
) -> Result<Kernels> {
    let pass = Segments { parts: Vec::new(), received: None, sent: None };
    let mut cutter = Cutter { cuts_at, begins, ends, pass, marks: Vec::new() };
    program(&mut cutter)?;
    if cutter.pass.segments().next().is_none() {
        cutter.pass.parts.push(Part::Segment(Vec::new()));
    }
    cutter.keep_marks();
    Ok(cutter.pass)
}

/// Records each segment of a pass.
fn record_each<M: Machine>(machine: &mut M, pass: Kernels) -> Result<Segments<M::Plan>> {
    let Segments { parts, received, sent } = pass;
    let parts = parts
        .into_iter()
        .map(|part| {
            Ok(match part {
                Part::Segment(steps) => Part::Segment(
                    machine.record(&mut |exec| steps.iter().try_for_each(|step| step.run(exec)))?,
                ),
                Part::Mark(mark) => Part::Mark(mark),
            })
        })
        .collect::<Result<_>>()?;
    Ok(Segments { parts, received, sent })
}

/// Records a pass that is cut at these marks.
///
/// # Errors
///
/// Those of [`Machine::record`].
pub(super) fn record_cut<M: Machine>(
    machine: &mut M,
    cuts_at: &dyn Fn(Mark) -> bool,
    program: &mut Program<'_>,
) -> Result<Segments<M::Plan>> {
    let pass = cut(cuts_at, [true, true], program)?;
    record_each(machine, pass)
}

/// Records kernels and cuts them at marks.
struct Cutter<'a> {
    cuts_at: &'a dyn Fn(Mark) -> bool,
    begins: bool,
    ends: bool,
    pass: Kernels,
    /// Marks since the last kernel.
    marks: Vec<Mark>,
}

impl Cutter<'_> {
    /// Has the segment that is being recorded keep the marks since its last kernel.
    fn keep_marks(&mut self) {
        if let Some(Part::Segment(steps)) = self.pass.parts.last_mut() {
            steps.extend(self.marks.drain(..).map(Step::Mark));
        }
    }

    fn mark(&mut self, mark: Mark) {
        if (self.cuts_at)(mark) {
            self.keep_marks();
            self.pass.parts.push(Part::Mark(mark));
        }
        self.marks.push(mark);
    }
}

impl Executor for Cutter<'_> {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        if !matches!(self.pass.parts.last(), Some(Part::Segment(_))) {
            self.pass.parts.push(Part::Segment(Vec::new()));
        }
        self.keep_marks();
        if let Some(Part::Segment(steps)) = self.pass.parts.last_mut() {
            steps.push(Step::Kernel(kernel.boxed()));
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

/// Runs the kernels of all segments.
fn run_all(pass: &Kernels, exec: &mut dyn Executor) -> Result<()> {
    pass.segments().flatten().try_for_each(|step| step.run(exec))
}

impl<M: Machine, R: Runner<M>> Machine for Segmented<M, R> {
    type Plan = Segments<M::Plan>;

    crate::machine::forward_machine!(machine);

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        self.machine.write(tensor, offset, bytes)
    }

    async fn await_room(&mut self, bytes: usize) -> Result<()> {
        self.machine.await_room(bytes).await
    }

    fn pins(&self) -> bool {
        self.machine.pins()
    }

    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        self.machine.copy(copies)
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        let pass = self.cut(program)?;
        record_each(&mut self.machine, pass)
    }

    async fn compile(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()> {
        let pass = self.cut(program)?;
        self.machine.compile(&mut |exec| run_all(&pass, exec)).await
    }

    async fn compile_each(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
        run: bool,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let pass = self.cut(program)?;
        self.machine.compile_each(&mut |exec| run_all(&pass, exec), run, progress).await
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        self.runner.run(&mut self.machine, plan, read).await
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        self.machine.read(spans).await
    }

    fn is_lost(&self) -> bool {
        self.machine.is_lost()
    }

    fn is_discrete(&self) -> bool {
        self.machine.is_discrete()
    }
}
