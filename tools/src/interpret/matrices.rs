//! Matrices that the invocations of a subgroup hold together (cooperative matrices): load, product
//! and sum, store. A value of such a type is the number of the matrix in a list of the workgroup.

use naga::{CooperativeData, CooperativeRole, Expression, Handle, Scalar, TypeInner};

use super::{
    machine::{Frame, GLOBAL, Machine, Value},
    mask::Mask,
    memory::Stamp,
};

/// Rows and columns. Other sizes are not known here.
const SIDE: usize = 16;

/// The elements by row. Those of halves are kept as f32.
type Matrix = [f32; SIDE * SIDE];

/// Matrices of a workgroup: the first is that of zeros.
pub(crate) struct Matrices {
    all: Vec<Matrix>,
    /// Stores so far. Which invocation stores which element is up to the device, so each store
    /// counts as an invocation by itself.
    stores: u32,
}

impl Matrices {
    pub(crate) fn new() -> Self {
        Self { all: vec![[0.0; SIDE * SIDE]], stores: 0 }
    }

    /// Forgets those of a workgroup.
    pub(crate) fn clear(&mut self) {
        self.all.truncate(1);
    }

    fn add(&mut self, matrix: &Matrix) -> u32 {
        self.all.push(*matrix);
        u32::try_from(self.all.len() - 1).expect("shaders are small")
    }

    fn get(&self, number: u32) -> &Matrix {
        &self.all[number as usize]
    }
}

impl<'a, const W: usize> Machine<'a, W> {
    /// Evaluates an expression of matrices for the subgroups in `mask`. False if it is another one.
    pub(crate) fn matrix(
        &mut self,
        frame: &Frame<'a, W>,
        handle: Handle<Expression>,
        mask: Mask,
        values: &mut [Value<W>],
    ) -> Result<bool, String> {
        let TypeInner::CooperativeMatrix { columns, rows, .. } = *self.inner(frame, handle) else {
            return Ok(false);
        };
        if (columns as usize, rows as usize) != (SIDE, SIDE) {
            return Err(format!("matrices of {rows:?} x {columns:?}"));
        }
        let expression = &frame.function.expressions[handle];
        if let Expression::Load { .. } = expression {
            return Ok(false);
        }
        for subgroup in self.whole(frame, handle, mask) {
            let of = |machine: &Self, operand| -> Result<u32, String> {
                Ok(machine.get(frame, operand, subgroup[0])?[0])
            };
            let matrix = match *expression {
                Expression::CooperativeLoad { ref data, role, .. } => {
                    if role == CooperativeRole::C {
                        return Err("a load of sums".into());
                    }
                    self.gathered(frame, handle, data, &subgroup)?
                }
                Expression::CooperativeMultiplyAdd { a, b, c } => {
                    let [a, b, c] = [of(self, a)?, of(self, b)?, of(self, c)?];
                    let [a, b, c] = [a, b, c].map(|number| self.matrices.get(number));
                    product(a, b, c)
                }
                Expression::Binary { op: naga::BinaryOperator::Add, left, right } => {
                    let (left, right) = (of(self, left)?, of(self, right)?);
                    let (left, right) = (self.matrices.get(left), self.matrices.get(right));
                    std::array::from_fn(|i| left[i] + right[i])
                }
                ref other => return Err(format!("the expression {other:?} of matrices")),
            };
            let number = self.matrices.add(&matrix);
            for lane in subgroup {
                values[lane][0] = number;
            }
        }
        Ok(true)
    }

    /// Executes a store for the subgroups in `mask`.
    pub(crate) fn store_matrix(
        &mut self,
        frame: &Frame<'a, W>,
        target: Handle<Expression>,
        data: &CooperativeData,
        mask: Mask,
    ) -> Result<(), String> {
        self.count(mask)?;
        for subgroup in self.whole(frame, target, mask) {
            let number = self.get(frame, target, subgroup[0])?[0];
            let matrix = *self.matrices.get(number);
            self.matrices.stores += 1;
            let who = Stamp::matrix(self.matrices.stores);
            let Some((variable, places)) = self.places(frame, data, &subgroup)? else { continue };
            let by = Stamp { who, ..self.stamp(frame, data.pointer, variable, 0) };
            for (at, value) in places.into_iter().zip(matrix) {
                let conflict = self.memories[variable as usize].write(at, value.to_bits(), by);
                if let Some(conflict) = conflict {
                    self.conflict(frame, data.pointer, variable, by, conflict, true);
                }
            }
        }
        Ok(())
    }

    /// The subgroups of the invocations in `mask`, all of whose invocations must be there.
    fn whole(
        &mut self,
        frame: &Frame<'a, W>,
        at: Handle<Expression>,
        mask: Mask,
    ) -> Vec<Vec<usize>> {
        let here = |subgroup: &&Vec<usize>| subgroup.iter().any(|&lane| mask.has(lane));
        let subgroups: Vec<Vec<usize>> = self.members.iter().filter(here).cloned().collect();
        let is_whole = |subgroup: &Vec<usize>| {
            subgroup.len() == self.subgroups.size() && subgroup.iter().all(|&lane| mask.has(lane))
        };
        if !subgroups.iter().all(is_whole) {
            self.fault(frame, at, "matrices that not all invocations of a subgroup reach");
        }
        subgroups
    }

    /// Loads a matrix. Any invocation of the subgroup may read any element.
    fn gathered(
        &mut self,
        frame: &Frame<'a, W>,
        handle: Handle<Expression>,
        data: &CooperativeData,
        subgroup: &[usize],
    ) -> Result<Matrix, String> {
        let mut matrix = [0.0; SIDE * SIDE];
        let Some((variable, places)) = self.places(frame, data, subgroup)? else {
            return Ok(matrix);
        };
        let by = Stamp::several(self.stamp(frame, handle, variable, 0));
        for (value, at) in matrix.iter_mut().zip(places) {
            let (word, conflict) = self.memories[variable as usize].read(at, by);
            *value = f32::from_bits(word);
            if let Some(conflict) = conflict {
                self.conflict(frame, handle, variable, by, conflict, false);
            }
        }
        Ok(matrix)
    }

    /// The variable that a matrix is in, and the words of its elements, by row; `None` if it is not
    /// where it may be. A stride counts elements of the array, as the pointer's place does.
    fn places(
        &mut self,
        frame: &Frame<'a, W>,
        data: &CooperativeData,
        subgroup: &[usize],
    ) -> Result<Option<(u32, Vec<usize>)>, String> {
        let at = data.pointer;
        let words = self.pointee_words(frame, at)?;
        let mut all = Vec::new();
        for &lane in subgroup {
            let [space, variable, first] = self.target(frame, at, lane)?;
            all.push((space, variable, first, self.get(frame, data.stride, lane)?[0]));
        }
        let (space, variable, first, stride) = all[0];
        if all.iter().any(|one| *one != all[0]) {
            self.fault(frame, at, "a matrix at places that differ in a subgroup");
        }
        if space != GLOBAL || !self.in_workgroup[variable as usize] {
            return Err("matrices outside of workgroup memory".into());
        }
        let inner = self.inner(frame, at).pointer_base_type();
        let scalar = inner.and_then(|ty| ty.inner_with(&self.program.module.types).scalar());
        let bytes = if scalar == Some(Scalar::F16) { 2 } else { 4 };
        let (first, stride) = (first as usize, stride as usize * words);
        // Vulkan's rule for rows of 16 bytes and more.
        if !(first * bytes).is_multiple_of(16) || !(stride * bytes).is_multiple_of(16) {
            self.fault(frame, at, "a matrix with rows at no multiple of 16 bytes");
        }
        let len = self.memories[variable as usize].words().len();
        let last = first + (SIDE - 1) * (stride + 1);
        if last >= len {
            self.fault(frame, at, "a matrix past the end of its array");
            return Ok(None);
        }
        let place = |i: usize| {
            let (row, column) = (i / SIDE, i % SIDE);
            let (line, along) = if data.row_major { (row, column) } else { (column, row) };
            first + line * stride + along
        };
        Ok(Some((variable, (0..SIDE * SIDE).map(place).collect())))
    }
}

/// `a b + c`, in one of many orders.
fn product(a: &Matrix, b: &Matrix, c: &Matrix) -> Matrix {
    let mut sums = *c;
    for (row, sums) in sums.chunks_exact_mut(SIDE).enumerate() {
        for (&a, b) in a[row * SIDE..][..SIDE].iter().zip(b.chunks_exact(SIDE)) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    sums
}
