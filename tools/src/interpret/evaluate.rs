//! Evaluation of expressions, loads and stores.

use naga::{BinaryOperator, Expression, Handle, MathFunction, Scalar, ScalarKind, TypeInner};

use super::{
    machine::{Frame, LOCAL, Machine, Value},
    mask::Mask,
    math,
    memory::Stamp,
    program::column_words,
};

impl<'a, const W: usize> Machine<'a, W> {
    /// Evaluates an expression for the invocations in `mask`.
    pub(crate) fn emit(
        &mut self,
        frame: &mut Frame<'a, W>,
        handle: Handle<Expression>,
        mask: Mask,
    ) -> Result<(), String> {
        self.count(mask)?;
        // Invocations outside of the mask keep their earlier values.
        let mut values = std::mem::take(&mut frame.values[handle.index()]);
        values.resize(self.lanes, [0; W]);
        match frame.function.expressions[handle] {
            Expression::Load { pointer } => self.load(frame, pointer, mask, &mut values)?,
            Expression::Access { base, index } => {
                let index = |machine: &Self, frame: &Frame<'a, W>, lane| {
                    Ok(machine.get(frame, index, lane)?[0])
                };
                self.access(frame, (handle, base), mask, &mut values, index)?;
            }
            Expression::AccessIndex { base, index } => {
                self.access(frame, (handle, base), mask, &mut values, |_, _, _| Ok(index))?;
            }
            _ if self.matrix(frame, handle, mask, &mut values)? => {}
            _ => self.calculate(frame, handle, mask, &mut values)?,
        }
        frame.values[handle.index()] = values;
        Ok(())
    }

    /// Expressions that compose and take apart values.
    fn assemble(
        &self,
        frame: &Frame<'a, W>,
        handle: Handle<Expression>,
        mask: Mask,
        values: &mut [Value<W>],
    ) -> Result<(), String> {
        match frame.function.expressions[handle] {
            Expression::Compose { ty, ref components } => {
                let words: Vec<usize> = components
                    .iter()
                    .map(|&part| self.value_words(frame, part))
                    .collect::<Result<_, _>>()?;
                for lane in mask.lanes() {
                    let mut sizes = words.iter();
                    values[lane] = self.compose(ty, components, |part| {
                        let words = sizes.next().copied().unwrap_or_default();
                        Ok((self.get(frame, part, lane)?, words))
                    })?;
                }
            }
            Expression::Splat { size, value } => {
                for lane in mask.lanes() {
                    values[lane][..size as usize].fill(self.get(frame, value, lane)?[0]);
                }
            }
            Expression::Swizzle { size, vector, pattern } => {
                for lane in mask.lanes() {
                    let from = self.get(frame, vector, lane)?;
                    for (to, component) in pattern.iter().take(size as usize).enumerate() {
                        values[lane][to] = from[*component as usize];
                    }
                }
            }
            Expression::Select { condition, accept, reject } => {
                let (_, conditions) = self.components(frame, condition)?;
                let (_, len) = self.components(frame, accept)?;
                for lane in mask.lanes() {
                    let c = self.get(frame, condition, lane)?;
                    let a = self.get(frame, accept, lane)?;
                    let b = self.get(frame, reject, lane)?;
                    for i in 0..len {
                        let yes = c[if conditions == 1 { 0 } else { i }] != 0;
                        values[lane][i] = if yes { a[i] } else { b[i] };
                    }
                }
            }
            ref other => return Err(format!("the expression {other:?}")),
        }
        Ok(())
    }

    /// Arithmetic expressions.
    fn calculate(
        &mut self,
        frame: &Frame<'a, W>,
        handle: Handle<Expression>,
        mask: Mask,
        values: &mut [Value<W>],
    ) -> Result<(), String> {
        if let Expression::Binary { left: operand, .. }
        | Expression::Math { arg: operand, .. }
        | Expression::Unary { expr: operand, .. } = frame.function.expressions[handle]
            && self.inner(frame, operand).scalar() == Some(Scalar::F16)
        {
            return Err("arithmetic of halves".into());
        }
        let mut undefined = None;
        let mut word = |result: math::Word| {
            result.unwrap_or_else(|why| {
                undefined = Some(why);
                0
            })
        };
        match frame.function.expressions[handle] {
            Expression::Unary { op, expr } => {
                let (kind, len) = self.components(frame, expr)?;
                for lane in mask.lanes() {
                    let a = self.get(frame, expr, lane)?;
                    (0..len).for_each(|i| values[lane][i] = word(math::unary(op, kind, a[i])));
                }
            }
            Expression::Binary { op, left, right } => {
                let (kind, left_len) = self.components(frame, left)?;
                let (_, right_len) = self.components(frame, right)?;
                if op == BinaryOperator::Multiply && left_len.min(right_len) > 1 {
                    match (self.inner(frame, left), self.inner(frame, right)) {
                        (TypeInner::Vector { .. }, &TypeInner::Matrix { columns, rows, .. }) => {
                            for lane in mask.lanes() {
                                let a = self.get(frame, left, lane)?;
                                let b = self.get(frame, right, lane)?;
                                let columns = b.chunks(column_words(rows)).take(columns as usize);
                                for (i, column) in columns.enumerate() {
                                    values[lane][i] = math::dot(&a[..left_len], column);
                                }
                            }
                            return Ok(());
                        }
                        (TypeInner::Matrix { .. }, _) => {
                            return Err("a product with a matrix on the left".into());
                        }
                        _ => {}
                    }
                }
                // A scalar operand is combined with each component of the other.
                let at = |len: usize, i: usize| if len == 1 { 0 } else { i };
                for lane in mask.lanes() {
                    let a = self.get(frame, left, lane)?;
                    let b = self.get(frame, right, lane)?;
                    for i in 0..left_len.max(right_len) {
                        let (a, b) = (a[at(left_len, i)], b[at(right_len, i)]);
                        values[lane][i] = word(math::binary(op, kind, a, b));
                    }
                }
            }
            Expression::Math { fun, arg, arg1, arg2, .. } => {
                let (kind, len) = self.components(frame, arg)?;
                for lane in mask.lanes() {
                    let argument = |e: Option<_>| match e {
                        Some(e) => self.get(frame, e, lane),
                        None => Ok([0; W]),
                    };
                    let [a, b, c] = [argument(Some(arg))?, argument(arg1)?, argument(arg2)?];
                    match fun {
                        MathFunction::Dot if kind == ScalarKind::Float => {
                            values[lane][0] = math::dot(&a[..len], &b[..len]);
                        }
                        MathFunction::Dot4I8Packed => {
                            values[lane][0] = math::dot_bytes(a[0], b[0]);
                        }
                        MathFunction::Pack4xI8 => {
                            values[lane][0] = math::pack_bytes(&a[..4]);
                        }
                        MathFunction::Unpack2x16float => {
                            values[lane][..2].copy_from_slice(&math::unpack_halves(a[0]));
                        }
                        _ => (0..len).for_each(|i| {
                            values[lane][i] = word(math::math(fun, kind, [a[i], b[i], c[i]]));
                        }),
                    }
                }
            }
            Expression::As { expr, kind: to, convert } => {
                let (from, len) = self.components(frame, expr)?;
                for lane in mask.lanes() {
                    let a = self.get(frame, expr, lane)?;
                    (0..len).for_each(|i| {
                        let converted = convert.map_or(Ok(a[i]), |_| math::convert(from, to, a[i]));
                        let converted = word(converted);
                        let is_half = convert == Some(2);
                        values[lane][i] = if is_half { math::half(converted) } else { converted };
                    });
                }
            }
            _ => return self.assemble(frame, handle, mask, values),
        }
        if let Some(why) = undefined {
            self.fault(frame, handle, why);
        }
        Ok(())
    }

    /// An element or member of a value, or of what a pointer points to.
    fn access(
        &mut self,
        frame: &Frame<'a, W>,
        (handle, base): (Handle<Expression>, Handle<Expression>),
        mask: Mask,
        values: &mut [Value<W>],
        index: impl Fn(&Self, &Frame<'a, W>, usize) -> Result<u32, String>,
    ) -> Result<(), String> {
        let types = &self.program.module.types;
        let (target, is_pointer) = match *self.inner(frame, base) {
            TypeInner::Pointer { base, .. } => (&types[base].inner, true),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
                (&TypeInner::Vector { size, scalar }, true)
            }
            ref other => (other, false),
        };
        for lane in mask.lanes() {
            let base = self.get(frame, base, lane)?;
            let index = index(self, frame, lane)?;
            let (stride, len) = match *target {
                TypeInner::Array { base: element, size, stride } => {
                    let stride = self.program.stride_words(element, stride);
                    let len = self.program.len(size)?.unwrap_or_else(|| {
                        let words = self.memories[base[1] as usize].words().len();
                        u32::try_from(words).expect("rows are small") / stride
                    });
                    (stride, len)
                }
                TypeInner::Vector { size, .. } => (1, size as u32),
                TypeInner::Matrix { columns, rows, .. } => {
                    (u32::try_from(column_words(rows)).expect("at most 4"), columns as u32)
                }
                TypeInner::Struct { ref members, .. } => {
                    let offset = members[index as usize].offset / 4;
                    values[lane] = step(base, offset, is_pointer);
                    continue;
                }
                ref other => return Err(format!("an element of {other:?}")),
            };
            let within = if index < len {
                index
            } else {
                self.beyond(frame, handle, index, len);
                // The fault is reported; go on like a device that clamps indices.
                len.saturating_sub(1)
            };
            values[lane] = step(base, within * stride, is_pointer);
        }
        Ok(())
    }

    /// Size of an expression's value in words.
    fn value_words(
        &self,
        frame: &Frame<'a, W>,
        expression: Handle<Expression>,
    ) -> Result<usize, String> {
        match *self.inner(frame, expression) {
            TypeInner::Struct { span, .. } => Ok(span as usize / 4),
            _ => Ok(self.components(frame, expression)?.1),
        }
    }

    /// Size in words of what a pointer points to.
    pub(crate) fn pointee_words(
        &self,
        frame: &Frame<'a, W>,
        pointer: Handle<Expression>,
    ) -> Result<usize, String> {
        let words = match *self.inner(frame, pointer) {
            TypeInner::Pointer { base, .. } => self.program.words(base),
            TypeInner::ValuePointer { size, .. } => size.map_or(1, |size| size as usize),
            ref other => return Err(format!("a pointer of type {other:?}")),
        };
        if words > W { Err("a value wider than any here".into()) } else { Ok(words) }
    }

    /// Decodes a pointer: address space, variable, and word.
    pub(crate) fn target(
        &self,
        frame: &Frame<'a, W>,
        pointer: Handle<Expression>,
        lane: usize,
    ) -> Result<[u32; 3], String> {
        let value = self.get(frame, pointer, lane)?;
        Ok([value[0], value[1], value[2]])
    }

    pub(crate) fn load(
        &mut self,
        frame: &Frame<'a, W>,
        pointer: Handle<Expression>,
        mask: Mask,
        values: &mut [Value<W>],
    ) -> Result<(), String> {
        let words = self.pointee_words(frame, pointer)?;
        for lane in mask.lanes() {
            let [space, variable, at] = self.target(frame, pointer, lane)?;
            let at = at as usize;
            if space == LOCAL {
                let start = lane * frame.local_words + at;
                values[lane][..words].copy_from_slice(&frame.locals[start..start + words]);
                continue;
            }
            let by = self.stamp(frame, pointer, variable, lane);
            for (i, value) in values[lane][..words].iter_mut().enumerate() {
                let memory = &mut self.memories[variable as usize];
                if at + i >= memory.words().len() {
                    self.fault(frame, pointer, "a load past the end of a binding");
                    break;
                }
                let (word, conflict) = memory.read(at + i, by);
                *value = word;
                if let Some(conflict) = conflict {
                    self.conflict(frame, pointer, variable, by, conflict, false);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn store(
        &mut self,
        frame: &mut Frame<'a, W>,
        pointer: Handle<Expression>,
        value: Handle<Expression>,
        mask: Mask,
    ) -> Result<(), String> {
        let words = self.pointee_words(frame, pointer)?;
        for lane in mask.lanes() {
            let value = self.get(frame, value, lane)?;
            let [space, variable, at] = self.target(frame, pointer, lane)?;
            let at = at as usize;
            if space == LOCAL {
                let start = lane * frame.local_words + at;
                frame.locals[start..start + words].copy_from_slice(&value[..words]);
                continue;
            }
            let by = self.stamp(frame, pointer, variable, lane);
            for (i, &word) in value[..words].iter().enumerate() {
                let memory = &mut self.memories[variable as usize];
                if at + i >= memory.words().len() {
                    self.fault(frame, pointer, "a store past the end of a binding");
                    break;
                }
                if let Some(conflict) = memory.write(at + i, word, by) {
                    self.conflict(frame, pointer, variable, by, conflict, true);
                }
            }
        }
        Ok(())
    }

    /// The invocation, source line and phase of an access. No barrier orders workgroups, and
    /// `workgroupBarrier` does not order storage, so all accesses to storage are in one phase.
    pub(crate) fn stamp(
        &self,
        frame: &Frame<'a, W>,
        pointer: Handle<Expression>,
        variable: u32,
        lane: usize,
    ) -> Stamp {
        Stamp {
            phase: if self.in_workgroup[variable as usize] { self.phase } else { 1 },
            who: self.first + u32::try_from(lane).expect("at most 256"),
            line: frame.lines[pointer.index()],
        }
    }
}

/// The member of a value, or the pointer to it, at an offset in words.
fn step<const W: usize>(base: Value<W>, offset: u32, is_pointer: bool) -> Value<W> {
    let mut value = base;
    if is_pointer {
        value[2] += offset;
    } else {
        let from = offset as usize;
        value = [0; W];
        value[..W - from].copy_from_slice(&base[from..]);
    }
    value
}
