//! Host memory, and the executor that runs every kernel by its oracle in `f64`.

mod bound;
mod fill;

use bound::UNWRITTEN;
pub use bound::{Bounded, POISON, is_unwritten, untouched};
pub use fill::Fill;

use crate::{
    base::{
        error::{Error, Result},
        num::round,
        quant,
        tensor::{DType, Shape, Tensor},
    },
    machine::{
        BufferRole, Machine, Span, Transfer,
        kernel::{Executor, Kernel},
        step::{RECORDS, STEP_LEN},
    },
    variants::Tuning,
};

/// Tensors in `f64` (or `u32`) on the host. Stands in for a device wherever correctness is the
/// question.
#[derive(Debug, Default)]
pub struct Host {
    data: Vec<Data>,
    seed: u64,
    /// Whether floats are zeros, whatever the fill.
    only_shapes: bool,
    /// How the device that is being checked divides its work: bounds depend on it.
    pub tuning: Tuning,
    /// Whether a kernel rounded activations, as the tuning's variant does. Then bounds count even
    /// in rows that are exact otherwise.
    pub(crate) rounds: bool,
}

#[derive(Debug)]
enum Data {
    /// `stored`: the bytes, where they do not follow from the values.
    Floats { values: Vec<f64>, bounds: Option<Vec<f64>>, stored: Option<Vec<u8>> },
    /// `also`: other values that each element may have.
    Ints { values: Vec<u32>, also: Option<Vec<Vec<u32>>> },
}

impl Host {
    /// A host whose random tensors follow from `seed`.
    pub fn with_seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// A host for kernels that are inspected but not run: no random numbers, floats are zeros.
    pub fn of_shapes() -> Self {
        Self { only_shapes: true, ..Self::default() }
    }

    /// An `f32` tensor filled as `fill` says.
    pub fn f32(&mut self, shape: impl Into<Shape>, fill: Fill) -> Tensor {
        self.filled(DType::F32, shape, fill)
    }

    /// A tensor of these values, rounded to `dtype`.
    ///
    /// # Panics
    ///
    /// If there are too few or too many values: a bug in a test row.
    pub fn floats_from(
        &mut self,
        dtype: DType,
        shape: impl Into<Shape>,
        values: Vec<f64>,
    ) -> Tensor {
        let shape = shape.into();
        assert_eq!(values.len(), len(shape), "a row gave the wrong number of values");
        if self.only_shapes {
            return self.zeros(dtype, shape);
        }
        if dtype.is_quantized() {
            let mut stored = Vec::new();
            let floats: Vec<f32> = values.into_iter().map(round).collect();
            for row in floats.chunks_exact(cols(shape)) {
                quant::encode_row(dtype, row, &mut stored);
            }
            return self.stored(dtype, shape, stored);
        }
        let values = values.into_iter().map(|v| exact(dtype, v)).collect();
        self.push_floats(dtype, shape, values)
    }

    fn zeros(&mut self, dtype: DType, shape: Shape) -> Tensor {
        let count = len(shape);
        let bytes = usize::try_from(shape.size_bytes(dtype)).expect("host tensors fit in memory");
        self.data.push(match dtype {
            DType::U32 => Data::Ints { values: vec![0; count], also: None },
            _ => Data::Floats {
                values: vec![0.0; count],
                bounds: None,
                stored: dtype.is_quantized().then(|| vec![0; bytes]),
            },
        });
        Tensor { id: self.data.len() - 1, shape, dtype }
    }

    fn stored(&mut self, dtype: DType, shape: Shape, bytes: Vec<u8>) -> Tensor {
        let values = decode_rows(dtype, cols(shape), &bytes);
        self.data.push(Data::Floats { values, bounds: None, stored: Some(bytes) });
        Tensor { id: self.data.len() - 1, shape, dtype }
    }

    fn push_floats(&mut self, dtype: DType, shape: Shape, values: Vec<f64>) -> Tensor {
        self.data.push(Data::Floats { values, bounds: None, stored: None });
        Tensor { id: self.data.len() - 1, shape, dtype }
    }

    /// A tensor of these integers.
    ///
    /// # Panics
    ///
    /// If there are too few or too many values: a bug in a test row.
    pub fn ints_from(&mut self, shape: impl Into<Shape>, values: Vec<u32>) -> Tensor {
        let shape = shape.into();
        assert_eq!(values.len(), len(shape), "a row gave the wrong number of values");
        self.data.push(Data::Ints { values, also: None });
        Tensor { id: self.data.len() - 1, shape, dtype: DType::U32 }
    }

    /// Stores a tensor of another machine under its id there, with the elements in `bytes`: for the
    /// oracle of a kernel that was built for that machine.
    pub fn place(&mut self, tensor: Tensor, bytes: &[u8]) {
        while self.data.len() <= tensor.id {
            self.data.push(Data::Ints { values: Vec::new(), also: None });
        }
        self.data[tensor.id] = match tensor.dtype {
            DType::U32 => {
                let of = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                Data::Ints { values: bytes.chunks_exact(4).map(of).collect(), also: None }
            }
            dtype => Data::Floats {
                values: decode_rows(dtype, cols(tensor.shape), bytes),
                bounds: None,
                stored: dtype.is_quantized().then(|| bytes.to_vec()),
            },
        };
    }

    /// The header of a step with `rows` real rows of one text, for kernels that read nothing else
    /// of the step. The other words depend on `pos`, which no result may.
    pub fn step(&mut self, pos: u32, rows: u32) -> Tensor {
        self.ints_from([STEP_LEN], vec![pos, rows, pos, pos])
    }

    /// A list of a step's rows or tiles.
    ///
    /// # Panics
    ///
    /// If there are more than [`RECORDS`]: a bug in a test row.
    pub fn records<T: bytemuck::Pod>(&mut self, records: &[T]) -> Tensor {
        let mut words: Vec<u32> = bytemuck::cast_slice(records).to_vec();
        assert!(words.len() <= 4 * RECORDS as usize, "a step has too many rows");
        words.resize(4 * RECORDS as usize, POISON);
        self.ints_from([RECORDS, 4], words)
    }

    /// The records in a tensor that [`Host::records`] made, or that a machine was given.
    ///
    /// # Panics
    ///
    /// If `tensor` holds floats: a bug in an oracle.
    pub fn records_of<T: bytemuck::Pod>(&self, tensor: Tensor) -> Vec<T> {
        bytemuck::cast_slice(self.ints(tensor)).to_vec()
    }

    /// An uninitialized `f32` tensor: elements that a kernel fails to write are noticed.
    pub fn unwritten(&mut self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        self.push_floats(DType::F32, shape, vec![UNWRITTEN; len(shape)])
    }

    /// An uninitialized tensor of `dtype`: its bytes are those of [`POISON`].
    ///
    /// # Panics
    ///
    /// If it does not fit in memory: a bug in a test row.
    pub fn unwritten_as(&mut self, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let words = usize::try_from(shape.size_bytes(dtype) / 4).expect("rows are small");
        let tensor = self.push_floats(dtype, shape, vec![UNWRITTEN; len(shape)]);
        if let Data::Floats { stored, .. } = &mut self.data[tensor.id] {
            *stored = Some(bytemuck::cast_slice(&vec![POISON; words]).to_vec());
        }
        tensor
    }

    /// An uninitialized `u32` tensor: every element is [`POISON`].
    pub fn unwritten_ints(&mut self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        self.ints_from(shape, vec![POISON; len(shape)])
    }

    /// The values of a float tensor.
    ///
    /// # Panics
    ///
    /// If `tensor` holds integers: a bug in an oracle.
    pub fn floats(&self, tensor: Tensor) -> &[f64] {
        match &self.data[tensor.id] {
            Data::Floats { values, .. } => first(values, tensor),
            Data::Ints { .. } => panic!("an oracle read integers as floats"),
        }
    }

    /// The values of an integer tensor.
    ///
    /// # Panics
    ///
    /// If `tensor` holds floats: a bug in an oracle.
    pub fn ints(&self, tensor: Tensor) -> &[u32] {
        match &self.data[tensor.id] {
            Data::Ints { values, .. } => first(values, tensor),
            Data::Floats { .. } => panic!("an oracle read floats as integers"),
        }
    }

    /// Largest error of a device in each value of `tensor`; `None` means no error at all.
    pub fn bounds(&self, tensor: Tensor) -> Option<&[f64]> {
        match &self.data[tensor.id] {
            Data::Floats { bounds, .. } => bounds.as_deref(),
            Data::Ints { .. } => None,
        }
    }

    /// Whether a device may give `value` for this element of an integer tensor: it is the value,
    /// or another choice that rounding could make.
    ///
    /// # Panics
    ///
    /// If `tensor` holds floats: a bug in an oracle.
    pub fn allows(&self, tensor: Tensor, index: usize, value: u32) -> bool {
        self.choices(tensor, index).contains(&value)
    }

    /// All values that a device may give for this element of an integer tensor, the oracle's first.
    ///
    /// # Panics
    ///
    /// If `tensor` holds floats: a bug in an oracle.
    pub fn choices(&self, tensor: Tensor, index: usize) -> Vec<u32> {
        match &self.data[tensor.id] {
            Data::Ints { values, also } => {
                let also = also.iter().flat_map(|also| also[index].iter().copied());
                std::iter::once(values[index]).chain(also).collect()
            }
            Data::Floats { .. } => panic!("an oracle read floats as integers"),
        }
    }

    /// Replaces the values of a float tensor by results that a device must reproduce within the
    /// bound beside each.
    ///
    /// # Panics
    ///
    /// If there are too few or too many values: a bug in an oracle.
    pub fn write(&mut self, tensor: Tensor, results: Vec<Bounded>) {
        assert_eq!(results.len(), len(tensor.shape), "an oracle wrote the wrong number of values");
        let (mut values, mut bounds): (Vec<f64>, Vec<f64>) =
            results.into_iter().map(|r| (r.value, r.bound)).unzip();
        if let Data::Floats { values: before, .. } = &self.data[tensor.id] {
            values.extend(before.get(values.len()..).unwrap_or_default());
            bounds.resize(values.len(), 0.0);
        }
        self.data[tensor.id] = Data::Floats { values, bounds: Some(bounds), stored: None };
    }

    /// Replaces the values of an integer tensor.
    ///
    /// # Panics
    ///
    /// If there are too few or too many values: a bug in an oracle.
    pub fn write_ints(&mut self, tensor: Tensor, values: Vec<u32>) {
        assert_eq!(values.len(), len(tensor.shape), "an oracle wrote the wrong number of values");
        let values = self.with_rest(tensor, values);
        self.data[tensor.id] = Data::Ints { values, also: None };
    }

    /// Replaces the values of an integer tensor by choices among close values, with what a device
    /// may choose instead of each.
    ///
    /// # Panics
    ///
    /// If there are too few or too many values: a bug in an oracle.
    pub fn write_choices(&mut self, tensor: Tensor, values: Vec<u32>, also: Vec<Vec<u32>>) {
        assert_eq!(values.len(), len(tensor.shape), "an oracle wrote the wrong number of values");
        assert_eq!(also.len(), values.len(), "an oracle gave the wrong number of alternatives");
        let values = self.with_rest(tensor, values);
        self.data[tensor.id] = Data::Ints { values, also: Some(also) };
    }

    /// These values, and what the memory has after them: a tensor may be the first rows of it.
    fn with_rest(&self, tensor: Tensor, mut values: Vec<u32>) -> Vec<u32> {
        if let Data::Ints { values: before, .. } = &self.data[tensor.id] {
            values.extend(before.get(values.len()..).unwrap_or_default());
        }
        values
    }

    /// Replaces an element by a value that is not finite. In a quantized block it replaces the
    /// scale,
    /// since integers cannot hold it.
    ///
    /// # Panics
    ///
    /// If `tensor` holds integers: a bug in a test row.
    pub(crate) fn spoil(&mut self, tensor: Tensor, index: usize, value: f64) {
        let Data::Floats { values, stored, .. } = &mut self.data[tensor.id] else {
            panic!("integers are always finite")
        };
        if !tensor.dtype.is_quantized() {
            values[index] = value;
            return;
        }
        let stored = stored.as_mut().expect("blocks are stored");
        let cols = cols(tensor.shape);
        let row = usize::try_from(tensor.dtype.row_bytes(cols as u64)).expect("rows are small");
        let row = &mut stored[index / cols * row..][..row];
        quant::set_scale(tensor.dtype, cols, row, index % cols, half::f16::from_f64(value));
        *values = decode_rows(tensor.dtype, cols, stored);
    }

    /// What is in `tensor` now, as results without error: for oracles that write only a part.
    pub fn current(&self, tensor: Tensor) -> Vec<Bounded> {
        self.floats(tensor).iter().map(|&value| Bounded { value, bound: 0.0 }).collect()
    }

    /// The values of `tensor` in its stored form, as they go to a device.
    pub fn bytes(&self, tensor: Tensor) -> Vec<u8> {
        match &self.data[tensor.id] {
            Data::Ints { values, .. } => bytemuck::cast_slice(values).to_vec(),
            Data::Floats { stored: Some(bytes), .. } => bytes.clone(),
            Data::Floats { values, .. } => match tensor.dtype {
                DType::F32 | DType::U32 => {
                    let word = |v| if is_unwritten(v) { POISON } else { round(v).to_bits() };
                    values.iter().flat_map(|&v| word(v).to_le_bytes()).collect()
                }
                DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => {
                    let floats: Vec<f32> = values.iter().map(|&v| round(v)).collect();
                    let mut bytes = Vec::new();
                    for row in floats.chunks_exact(cols(tensor.shape)) {
                        quant::encode_row(tensor.dtype, row, &mut bytes);
                    }
                    bytes
                }
                DType::F16 => {
                    values.iter().flat_map(|&v| half::f16::from_f64(v).to_le_bytes()).collect()
                }
                DType::BF16 => {
                    values.iter().flat_map(|&v| half::bf16::from_f64(v).to_le_bytes()).collect()
                }
            },
        }
    }
}

impl Executor for Host {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        kernel.record(&self.tuning)?;
        kernel.oracle(self);
        Ok(())
    }
}

/// Kernels in the order of their recording.
#[derive(Default)]
pub struct HostPlan(Vec<Box<dyn Kernel>>);

impl Executor for HostPlan {
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()> {
        kernel.record(&Tuning::default())?;
        self.0.push(kernel.boxed());
        Ok(())
    }
}

impl Machine for Host {
    type Plan = HostPlan;

    fn alloc(&mut self, _: BufferRole, dtype: DType, shape: Shape) -> Result<Tensor> {
        Ok(self.zeros(dtype, shape))
    }

    fn write(&mut self, tensor: Tensor, offset: u64, bytes: &[u8]) -> Result<()> {
        let cols = cols(tensor.shape);
        let row_bytes = tensor.dtype.row_bytes(cols as u64);
        // Quantized rows are written whole; elements of other types have bytes of their own.
        let start = if tensor.dtype.is_quantized() {
            offset / row_bytes * cols as u64
        } else {
            offset / tensor.dtype.row_bytes(1)
        };
        let outside = |_| Error::Usage("offset past the host's memory".into());
        let start = usize::try_from(start).map_err(outside)?;
        let offset = usize::try_from(offset).map_err(outside)?;
        match &mut self.data[tensor.id] {
            Data::Ints { values, .. } => {
                for (value, bytes) in values[start..].iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            Data::Floats { values, stored, .. } => {
                let decoded = decode_rows(tensor.dtype, cols, bytes);
                values[start..start + decoded.len()].copy_from_slice(&decoded);
                if let Some(stored) = stored {
                    stored[offset..offset + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }

    fn pins(&self) -> bool {
        true
    }

    fn copy(&mut self, copies: &[Transfer]) -> Result<()> {
        for &Transfer { from: (from, start), to: (to, offset), bytes } in copies {
            let all = self.bytes(from);
            let end = start.checked_add(bytes).and_then(|end| usize::try_from(end).ok());
            let part = usize::try_from(start).ok().zip(end).and_then(|(at, end)| all.get(at..end));
            let part = part.ok_or_else(|| Error::Limit {
                what: format!("the end of bytes that are copied from {}{}", from.dtype, from.shape),
                got: start.saturating_add(bytes),
                limit: all.len() as u64,
            })?;
            let part = part.to_vec();
            Machine::write(self, to, offset, &part)?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        program: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<Self::Plan> {
        let mut plan = HostPlan::default();
        program(&mut plan)?;
        Ok(plan)
    }

    async fn run_plan(&mut self, plan: &Self::Plan, read: &[Tensor]) -> Result<Vec<Vec<u8>>> {
        for kernel in &plan.0 {
            kernel.oracle(self);
        }
        let of = |&tensor: &Tensor| {
            let mut bytes = self.bytes(tensor);
            bytes.truncate(usize::try_from(tensor.size_bytes()).unwrap_or(usize::MAX));
            bytes
        };
        Ok(read.iter().map(of).collect())
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        for &Span { tensor, offset, bytes } in spans {
            let all = self.bytes(tensor);
            let end = offset.saturating_add(bytes);
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let part = range.and_then(|(from, to)| all.get(from..to));
            read.extend(part.ok_or_else(|| tensor.beyond("read of", end, all.len() as u64))?);
        }
        Ok(read)
    }

    fn tensor_count(&self) -> usize {
        self.data.len()
    }

    fn truncate(&mut self, keep: usize) {
        self.data.truncate(keep);
    }

    fn max_binding_bytes(&self) -> u64 {
        u64::from(u32::MAX)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Elements of a row.
fn cols(shape: Shape) -> usize {
    shape.extents().last().map_or(1, |&cols| cols as usize)
}

/// Those of the memory's values that are the tensor's: it may be the first rows.
fn first<T>(values: &[T], tensor: Tensor) -> &[T] {
    &values[..len(tensor.shape).min(values.len())]
}

fn len(shape: Shape) -> usize {
    usize::try_from(shape.len()).expect("host tensors fit in memory")
}

/// Little-endian elements of a float type as `f64`, in whole rows of `cols`.
pub fn decode_rows(dtype: DType, cols: usize, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => {
            quant::decode_rows(dtype, cols, bytes).into_iter().map(f64::from).collect()
        }
        DType::F32 | DType::U32 => bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        DType::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
        }
        DType::BF16 => bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f64())
            .collect(),
    }
}

fn exact(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 | DType::U32 | DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => {
            round(value).into()
        }
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::BF16 => half::bf16::from_f64(value).to_f64(),
    }
}
