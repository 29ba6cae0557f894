//! An interpreter of naga's IR that runs the invocations of a workgroup in lockstep. It reports
//! results that depend on the order of invocations, and accesses out of bounds.
//!
//! All invocations execute a statement together; those in other branches are masked out. This is
//! one of many possible orders, and enough: two accesses conflict if no barrier is between them,
//! whichever came first.

use std::collections::{BTreeSet, HashSet};

use grok_wgpu::lab::{
    machine::{binder::Access, host::POISON},
    selftest::CaseData,
};
use naga::{
    AddressSpace, Barrier, Binding, Block, BuiltIn, Expression, Function, Handle, Literal,
    ScalarKind, Statement, Type, TypeInner, valid::FunctionInfo,
};

use super::{
    mask::Mask,
    matrices::Matrices,
    memory::{Conflict, Memory, Stamp},
    program::{Program, column_words},
    subgroups::Subgroups,
};

/// Words of the widest value of an expression: four chunks of f32 with their scales.
const WIDEST: usize = 48;

/// Words of the widest value in most programs: a matrix of 4 x 4. Smaller values are faster.
const USUAL: usize = 16;

/// Words of the widest value in programs with 32 sums in a structure.
const WIDE: usize = 32;

/// A value of any type, in its memory layout.
pub(crate) type Value<const W: usize> = [u32; W];

/// Limit on evaluations, summed over invocations, to stop endless loops. No row comes near.
const MOST_STEPS: u64 = 2_000_000_000;

/// Address spaces in a pointer: a global variable, or a local one of the current function.
pub(crate) const GLOBAL: u32 = 0;
pub(crate) const LOCAL: u32 = 1;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is wrong, once for each place.
    pub faults: BTreeSet<String>,
    /// The words of each operand after the run.
    pub operands: Vec<Vec<u32>>,
}

/// Runs a row's dispatch.
///
/// # Errors
///
/// If the program has something that the interpreter does not support, or does not end.
pub fn run(program: &Program, row: &CaseData, subgroups: Subgroups) -> Result<Outcome, String> {
    let words = |bytes: &[u8]| -> Vec<u32> {
        bytes.chunks(4).map(|b| b.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b))).collect()
    };
    let mut bindings = vec![Memory::constant(words(&row.dispatch.params))];
    for data in &row.data {
        let initial = words(&data.initial);
        bindings.push(match data.operand.access {
            Access::Write => Memory::shadowed(initial, POISON),
            Access::Read | Access::Uniform => Memory::constant(initial),
        });
    }
    let (faults, memories) = dispatch(program, bindings, row.dispatch.workgroups, subgroups)?;
    let operands = memories.iter().skip(1).map(|memory| memory.words().to_vec()).collect();
    Ok(Outcome { faults, operands })
}

/// Runs a dispatch over memories, one for each binding in order.
///
/// # Errors
///
/// Those of [`run`], and if a binding has no memory.
pub fn dispatch(
    program: &Program,
    bindings: Vec<Memory>,
    workgroups: [u32; 3],
    subgroups: Subgroups,
) -> Result<(BTreeSet<String>, Vec<Memory>), String> {
    let widest = program.widest();
    let dispatch = if widest <= USUAL {
        in_words::<USUAL>
    } else if widest <= WIDE {
        in_words::<WIDE>
    } else {
        in_words::<WIDEST>
    };
    dispatch(program, bindings, workgroups, subgroups)
}

/// Runs a dispatch with values of at most `W` words.
fn in_words<const W: usize>(
    program: &Program,
    bindings: Vec<Memory>,
    workgroups: [u32; 3],
    subgroups: Subgroups,
) -> Result<(BTreeSet<String>, Vec<Memory>), String> {
    let module = &program.module;
    let [entry] = &module.entry_points[..] else { return Err("not one entry point".into()) };
    let [x, y, z] = entry.workgroup_size;
    let mut bindings: Vec<Option<Memory>> = bindings.into_iter().map(Some).collect();
    let mut memories = Vec::new();
    let mut order = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let memory = match (variable.space, &variable.binding) {
            (AddressSpace::WorkGroup, _) => Memory::workgroup(program.words(variable.ty)),
            (AddressSpace::Uniform | AddressSpace::Storage { .. }, Some(binding)) => {
                let at = binding.binding as usize;
                order.push((at, memories.len()));
                let memory = bindings.get_mut(at).and_then(Option::take);
                memory.ok_or_else(|| format!("nothing is bound at {at}"))?
            }
            (space, _) => return Err(format!("a variable in {space:?}")),
        };
        memories.push(memory);
    }
    let variables = module.global_variables.iter();
    let in_workgroup = variables.map(|(_, v)| v.space == AddressSpace::WorkGroup).collect();
    let lanes = (x * y * z) as usize;
    if lanes > Mask::MOST || y != 1 || z != 1 {
        return Err(format!("workgroups of {x} x {y} x {z}"));
    }
    let mut machine = Machine::<W> {
        program,
        memories,
        in_workgroup,
        lanes,
        full: Mask::first(lanes),
        subgroups,
        members: subgroups.members(lanes),
        matrices: Matrices::new(),
        group: [0; 3],
        first: 0,
        phase: 0,
        steps: 0,
        faults: BTreeSet::new(),
        seen: HashSet::new(),
    };
    for group_z in 0..workgroups[2] {
        for group_y in 0..workgroups[1] {
            for group_x in 0..workgroups[0] {
                machine.group = [group_x, group_y, group_z];
                machine.workgroup()?;
            }
        }
    }
    order.sort_unstable();
    let mut memories: Vec<Option<Memory>> = machine.memories.into_iter().map(Some).collect();
    let bound = order.iter().filter_map(|&(_, at)| memories[at].take()).collect();
    Ok((machine.faults, bound))
}

/// A call frame, for all invocations that called the function.
pub(crate) struct Frame<'a, const W: usize> {
    pub(crate) function: &'a Function,
    pub(crate) info: &'a FunctionInfo,
    /// Source line of each expression.
    pub(crate) lines: &'a [u32],
    pub(crate) arguments: Vec<Vec<Value<W>>>,
    /// Local variables of each invocation in turn.
    pub(crate) locals: Vec<u32>,
    pub(crate) local_words: usize,
    pub(crate) local_at: Vec<usize>,
    /// Values of evaluated expressions, by expression and invocation.
    pub(crate) values: Vec<Vec<Value<W>>>,
    pub(crate) result: Vec<Value<W>>,
    pub(crate) breaks: Mask,
    pub(crate) continues: Mask,
}

pub(crate) struct Machine<'a, const W: usize> {
    pub(crate) program: &'a Program,
    /// Memories of global variables.
    pub(crate) memories: Vec<Memory>,
    /// Whether a variable is in the workgroup address space, by variable.
    pub(crate) in_workgroup: Vec<bool>,
    pub(crate) lanes: usize,
    pub(crate) full: Mask,
    pub(crate) subgroups: Subgroups,
    /// Invocations of each subgroup, by `subgroup_invocation_id`.
    pub(crate) members: Vec<Vec<usize>>,
    pub(crate) matrices: Matrices,
    pub(crate) group: [u32; 3],
    /// Index in the dispatch of this workgroup's first invocation.
    pub(crate) first: u32,
    /// Number of barriers so far, over all workgroups: a phase belongs to one workgroup.
    pub(crate) phase: u32,
    pub(crate) steps: u64,
    pub(crate) faults: BTreeSet<String>,
    /// Faults that were reported: variable, lines, which of the two wrote.
    seen: HashSet<(u32, u32, u32, bool, bool)>,
}

impl<'a, const W: usize> Machine<'a, W> {
    fn workgroup(&mut self) -> Result<(), String> {
        let program = self.program;
        let variables = program.module.global_variables.iter();
        for (memory, (_, variable)) in self.memories.iter_mut().zip(variables) {
            if variable.space == AddressSpace::WorkGroup {
                *memory = Memory::workgroup(program.words(variable.ty));
            }
        }
        self.phase += 1;
        self.matrices.clear();
        let entry = &program.module.entry_points[0];
        let lanes = index(self.lanes);
        let arguments = entry.function.arguments.iter().map(|argument| {
            let Some(Binding::BuiltIn(builtin)) = argument.binding else {
                return Err("an argument that is no builtin".to_owned());
            };
            let value = |lane: u32| {
                let mut value = [0; W];
                let [x, y, z] = self.group;
                let words = match builtin {
                    BuiltIn::WorkGroupId => [x, y, z],
                    BuiltIn::LocalInvocationIndex | BuiltIn::LocalInvocationId => [lane, 0, 0],
                    BuiltIn::GlobalInvocationId => [x * lanes + lane, y, z],
                    BuiltIn::SubgroupSize => [index(self.subgroups.size()), 0, 0],
                    BuiltIn::NumSubgroups => [index(self.members.len()), 0, 0],
                    BuiltIn::SubgroupId | BuiltIn::SubgroupInvocationId => {
                        let (which, number) = self.subgroups.place(self.lanes, lane as usize);
                        let is_id = builtin == BuiltIn::SubgroupId;
                        [index(if is_id { which } else { number }), 0, 0]
                    }
                    _ => return Err(format!("the builtin {builtin:?}")),
                };
                value[..3].copy_from_slice(&words);
                Ok(value)
            };
            (0..lanes).map(value).collect()
        });
        let arguments = arguments.collect::<Result<_, _>>()?;
        self.call(None, arguments, self.full)?;
        self.first += lanes;
        Ok(())
    }

    /// Runs a function or the entry point, and returns its results.
    fn call(
        &mut self,
        function: Option<Handle<Function>>,
        arguments: Vec<Vec<Value<W>>>,
        mask: Mask,
    ) -> Result<Vec<Value<W>>, String> {
        let program = self.program;
        let (function, info, lines): (_, _, &[u32]) = match function {
            Some(handle) => (
                &program.module.functions[handle],
                &program.info[handle],
                &program.function_lines[handle.index()],
            ),
            None => (
                &program.module.entry_points[0].function,
                program.info.get_entry_point(0),
                &program.entry_lines[0],
            ),
        };
        let mut local_words = 0;
        let local_at = function.local_variables.iter().map(|(_, local)| {
            local_words += self.program.words(local.ty);
            local_words - self.program.words(local.ty)
        });
        let local_at = local_at.collect();
        let mut frame = Frame {
            function,
            info,
            lines,
            arguments,
            locals: vec![0; local_words * self.lanes],
            local_words,
            local_at,
            values: vec![Vec::new(); function.expressions.len()],
            result: vec![[0; W]; self.lanes],
            breaks: Mask::default(),
            continues: Mask::default(),
        };
        for (at, (_, local)) in function.local_variables.iter().enumerate() {
            let words = self.program.words(local.ty);
            let Some(init) = local.init else { continue };
            for lane in mask.lanes() {
                let value = self.get(&frame, init, lane)?;
                let start = lane * local_words + frame.local_at[at];
                frame.locals[start..start + words].copy_from_slice(&value[..words]);
            }
        }
        self.block(&mut frame, &function.body, mask)?;
        Ok(frame.result)
    }

    /// Executes statements; returns the invocations that reach the end.
    fn block(
        &mut self,
        frame: &mut Frame<'a, W>,
        block: &'a Block,
        mask: Mask,
    ) -> Result<Mask, String> {
        let mut mask = mask;
        for statement in block {
            if mask.is_empty() {
                break;
            }
            match *statement {
                Statement::Emit(ref range) => {
                    for handle in range.clone() {
                        self.emit(frame, handle, mask)?;
                    }
                }
                Statement::Block(ref block) => mask = self.block(frame, block, mask)?,
                Statement::If { condition, ref accept, ref reject } => {
                    let chosen = self.chosen(frame, condition, mask)?;
                    let accepted = self.block(frame, accept, chosen)?;
                    let rejected = self.block(frame, reject, mask.without(chosen))?;
                    mask = accepted.or(rejected);
                }
                Statement::Loop { ref body, ref continuing, break_if } => {
                    let outer = (frame.breaks, frame.continues);
                    let (mut active, mut left) = (mask, Mask::default());
                    while !active.is_empty() {
                        self.count(active)?;
                        (frame.breaks, frame.continues) = Default::default();
                        let fallen = self.block(frame, body, active)?;
                        let next = fallen.or(frame.continues);
                        left = left.or(frame.breaks);
                        active = self.block(frame, continuing, next)?;
                        if let Some(condition) = break_if {
                            let broken = self.chosen(frame, condition, active)?;
                            left = left.or(broken);
                            active = active.without(broken);
                        }
                    }
                    (frame.breaks, frame.continues) = outer;
                    mask = left;
                }
                Statement::Break => {
                    frame.breaks = frame.breaks.or(mask);
                    mask = Mask::default();
                }
                Statement::Continue => {
                    frame.continues = frame.continues.or(mask);
                    mask = Mask::default();
                }
                Statement::Return { value } => {
                    for lane in mask.lanes() {
                        if let Some(value) = value {
                            frame.result[lane] = self.get(frame, value, lane)?;
                        }
                    }
                    mask = Mask::default();
                }
                Statement::ControlBarrier(Barrier::WORK_GROUP) => self.barrier(mask),
                Statement::WorkGroupUniformLoad { pointer, result } => {
                    self.barrier(mask);
                    let mut values = vec![[0; W]; self.lanes];
                    self.load(frame, pointer, mask, &mut values)?;
                    frame.values[result.index()] = values;
                    self.barrier(mask);
                }
                Statement::Store { pointer, value } => self.store(frame, pointer, value, mask)?,
                Statement::Call { function, ref arguments, result } => {
                    let gather = |&argument| {
                        let value = |lane| self.get(frame, argument, lane);
                        (0..self.lanes).map(value).collect::<Result<Vec<_>, _>>()
                    };
                    let arguments = arguments.iter().map(gather).collect::<Result<_, _>>()?;
                    let values = self.call(Some(function), arguments, mask)?;
                    if let Some(result) = result {
                        frame.values[result.index()] = values;
                    }
                }
                Statement::SubgroupGather { mode, argument, result } => {
                    self.gather(frame, mode, argument, result, mask)?;
                }
                Statement::CooperativeStore { target, ref data } => {
                    self.store_matrix(frame, target, data, mask)?;
                }
                ref other => return Err(format!("the statement {other:?}")),
            }
        }
        Ok(mask)
    }

    /// Counts evaluations, to give up on programs that do not end.
    pub(crate) fn count(&mut self, mask: Mask) -> Result<(), String> {
        self.steps += u64::from(mask.count());
        if self.steps > MOST_STEPS { Err("it does not end".into()) } else { Ok(()) }
    }

    fn barrier(&mut self, mask: Mask) {
        if mask != self.full {
            self.faults.insert("a barrier that not all invocations of a workgroup reach".into());
        }
        self.phase += 1;
    }

    /// The invocations for which a condition holds.
    fn chosen(
        &self,
        frame: &Frame<'a, W>,
        condition: Handle<Expression>,
        mask: Mask,
    ) -> Result<Mask, String> {
        let mut chosen = Mask::default();
        for lane in mask.lanes() {
            if self.get(frame, condition, lane)?[0] != 0 {
                chosen.add(lane);
            }
        }
        Ok(chosen)
    }

    pub(crate) fn inner(
        &self,
        frame: &Frame<'a, W>,
        expression: Handle<Expression>,
    ) -> &'a TypeInner {
        frame.info[expression].ty.inner_with(&self.program.module.types)
    }

    /// Kind and number of components of a scalar, vector or matrix.
    pub(crate) fn components(
        &self,
        frame: &Frame<'a, W>,
        expression: Handle<Expression>,
    ) -> Result<(ScalarKind, usize), String> {
        match *self.inner(frame, expression) {
            TypeInner::Scalar(scalar) => Ok((scalar.kind, 1)),
            TypeInner::Vector { size, scalar } => Ok((scalar.kind, size as usize)),
            TypeInner::Matrix { columns, rows, scalar } => {
                Ok((scalar.kind, columns as usize * column_words(rows)))
            }
            ref other => Err(format!("arithmetic on {other:?}")),
        }
    }

    /// The value of an expression that was evaluated, or that needs no evaluation.
    pub(crate) fn get(
        &self,
        frame: &Frame<'a, W>,
        handle: Handle<Expression>,
        lane: usize,
    ) -> Result<Value<W>, String> {
        let mut value = [0; W];
        match frame.function.expressions[handle] {
            Expression::FunctionArgument(at) => return Ok(frame.arguments[at as usize][lane]),
            Expression::GlobalVariable(variable) => {
                value[..2].copy_from_slice(&[GLOBAL, index(variable.index())]);
            }
            Expression::LocalVariable(local) => {
                let at = frame.local_at[local.index()];
                value[..3].copy_from_slice(&[LOCAL, 0, index(at)]);
            }
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => {
                return self.constant(&frame.function.expressions, handle);
            }
            Expression::Compose { .. } | Expression::Splat { .. }
                if frame.values[handle.index()].is_empty() =>
            {
                return self.constant(&frame.function.expressions, handle);
            }
            ref other => {
                let known = frame.values[handle.index()].get(lane).copied();
                return known.ok_or_else(|| format!("{other:?} is used before it is evaluated"));
            }
        }
        Ok(value)
    }

    /// The value of a constant expression.
    fn constant(
        &self,
        arena: &naga::Arena<Expression>,
        handle: Handle<Expression>,
    ) -> Result<Value<W>, String> {
        let mut value = [0; W];
        match arena[handle] {
            Expression::Literal(literal) => {
                value[0] = match literal {
                    Literal::F32(number) => number.to_bits(),
                    Literal::F16(number) => number.to_f32().to_bits(),
                    Literal::U32(number) => number,
                    Literal::I32(number) => number.cast_unsigned(),
                    Literal::Bool(truth) => truth.into(),
                    other => return Err(format!("the literal {other:?}")),
                }
            }
            Expression::ZeroValue(_) => {}
            Expression::Constant(constant) => {
                let module = &self.program.module;
                let init = module.constants[constant].init;
                return self.constant(&module.global_expressions, init);
            }
            Expression::Splat { size, value: scalar } => {
                value[..size as usize].fill(self.constant(arena, scalar)?[0]);
            }
            Expression::Compose { ty, ref components } => {
                return self.compose(ty, components, |part| {
                    let words = match arena[part] {
                        Expression::Literal(_) => 1,
                        ref other => return Err(format!("a constant with {other:?}")),
                    };
                    Ok((self.constant(arena, part)?, words))
                });
            }
            ref other => return Err(format!("the constant {other:?}")),
        }
        Ok(value)
    }

    pub(crate) fn compose(
        &self,
        ty: Handle<Type>,
        components: &[Handle<Expression>],
        mut part: impl FnMut(Handle<Expression>) -> Result<(Value<W>, usize), String>,
    ) -> Result<Value<W>, String> {
        if self.program.words(ty) > W {
            return Err("a value wider than any here".into());
        }
        let mut value = [0; W];
        let mut at = 0;
        for (i, &component) in components.iter().enumerate() {
            let (words, len) = part(component)?;
            match self.program.module.types[ty].inner {
                TypeInner::Struct { ref members, .. } => at = members[i].offset as usize / 4,
                TypeInner::Matrix { rows, .. } => at = i * column_words(rows),
                TypeInner::Array { stride, .. } => at = i * stride as usize / 4,
                _ => {}
            }
            value[at..at + len].copy_from_slice(&words[..len]);
            at += len;
        }
        Ok(value)
    }

    /// Reports a fault at an expression.
    pub(crate) fn fault(&mut self, frame: &Frame<'a, W>, at: Handle<Expression>, what: &str) {
        let line = frame.lines[at.index()];
        self.faults.insert(format!("{what}: {}", self.program.quote(line)));
    }

    /// Reports a fault whose text differs between invocations, once for each place.
    pub(crate) fn fault_once(&mut self, frame: &Frame<'a, W>, at: Handle<Expression>, what: &str) {
        if self.seen.insert((u32::MAX, frame.lines[at.index()], 0, false, false)) {
            self.fault(frame, at, what);
        }
    }

    /// Reports an index out of bounds.
    pub(crate) fn beyond(
        &mut self,
        frame: &Frame<'a, W>,
        at: Handle<Expression>,
        index: u32,
        len: u32,
    ) {
        self.fault_once(frame, at, &format!("index {index} of {len} elements"));
    }

    pub(crate) fn conflict(
        &mut self,
        frame: &Frame<'a, W>,
        at: Handle<Expression>,
        variable: u32,
        by: Stamp,
        conflict: Conflict,
        wrote: bool,
    ) {
        let mut variables = self.program.module.global_variables.iter();
        let (_, declared) = variables.nth(variable as usize).expect("pointers point somewhere");
        let name = declared.name.clone().unwrap_or_default();
        let (other, other_wrote) = match conflict {
            Conflict::Unwritten => {
                return self.fault(frame, at, &format!("a read of `{name}` where nobody wrote"));
            }
            Conflict::Race { other, other_wrote } => (other, other_wrote),
        };
        // A pair of lines is reported as one race, for however many invocations.
        if !self.seen.insert((variable, other.line, by.line, other_wrote, wrote)) {
            return;
        }
        let verb = |wrote| if wrote { "writes" } else { "reads" };
        self.faults.insert(format!(
            "a race on `{name}`: {} {} in {}; {} {} in {}",
            other.name(),
            verb(other_wrote),
            self.program.quote(other.line),
            by.name(),
            verb(wrote),
            self.program.quote(by.line),
        ));
    }
}

/// An index of the shader as a word.
fn index(number: usize) -> u32 {
    u32::try_from(number).expect("shaders are small")
}
