//! Operands of a dispatch, checked in the order of WGSL's bindings.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape, Tensor},
    },
    machine::{
        shader::Shader,
        step::{RECORDS, STEP_LEN},
    },
    variants::{Class, MAX_WORKGROUPS, Product, Tuning},
};

/// How a kernel touches an operand. Mirrors the WGSL address space and access mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
    /// `var<uniform>`: small, and uniform to WGSL's uniformity analysis, so that loops with
    /// barriers may depend on it.
    Uniform,
}

/// One bound tensor, under the name it has in WGSL.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// Declared access.
    pub access: Access,
    /// The memory behind it.
    pub tensor: Tensor,
    /// Upper bound on the bytes that the dispatch reads or writes, each counted once.
    pub touched: u64,
}

/// Name, WGSL type and byte offset of a field of a uniform struct.
pub type Field = (&'static str, &'static str, usize);

/// The host side of a WGSL `struct Params`. Implemented by [`params!`](crate::params).
pub trait Params: bytemuck::Pod {
    /// The fields, in order.
    const FIELDS: &'static [Field];
}

/// Declares the `Params` of a kernel. Fields are `u32`, `i32` or `f32`, so that the Rust and the
/// WGSL layout coincide without padding rules.
#[macro_export]
macro_rules! params {
    ($($field:ident: $ty:ident),+ $(,)?) => {
        #[repr(C)]
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        struct Params { $($field: $ty),+ }

        impl $crate::machine::binder::Params for Params {
            const FIELDS: &'static [$crate::machine::binder::Field] = &[
                $((stringify!($field), stringify!($ty), std::mem::offset_of!(Params, $field))),+
            ];
        }
    };
}

/// A checked dispatch, ready for an executor.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The program.
    pub shader: Shader,
    /// Tensors in binding order, starting at `@binding(1)`.
    pub operands: Vec<Operand>,
    /// Bytes of the uniform at `@binding(0)`.
    pub params: Vec<u8>,
    /// Layout of those bytes.
    pub fields: &'static [Field],
    /// Values of the shader's `override` declarations.
    pub constants: Vec<(&'static str, u32)>,
    /// Workgroups along x, y, z.
    pub workgroups: [u32; 3],
    /// The class of the product, if it is one.
    pub class: Option<Class>,
    /// About how many floating-point operations it takes, where they may be what takes the time.
    pub operations: u64,
}

impl Dispatch {
    /// Bytes of all tensors bound.
    pub fn bytes_bound(&self) -> u64 {
        self.operands.iter().map(|operand| operand.tensor.size_bytes()).sum()
    }

    /// Upper bound on the bytes of them that it reads or writes, each counted once.
    pub fn bytes_touched(&self) -> u64 {
        self.operands.iter().map(|operand| operand.touched).sum()
    }
}

/// Collects and checks operands, in WGSL binding order.
#[derive(Debug)]
pub struct Binder<'a> {
    shader: Shader,
    tuning: &'a Tuning,
    operands: Vec<Operand>,
    constants: Vec<(&'static str, u32)>,
}

impl<'a> Binder<'a> {
    /// An empty binder that reports errors in the name of `shader` and dispatches for `tuning`.
    pub fn new(shader: Shader, tuning: &'a Tuning) -> Self {
        Self { shader, tuning, operands: Vec::new(), constants: Vec::new() }
    }

    /// How work is divided on this device.
    pub fn tuning(&self) -> &'a Tuning {
        self.tuning
    }

    /// Binds a tensor the kernel reads.
    ///
    /// # Errors
    ///
    /// [`Error::Operand`] if it has another type or shape, [`Error::Aliased`] if the kernel also
    /// writes it.
    pub fn read(
        self,
        name: &'static str,
        tensor: Tensor,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        self.bind(Access::Read, name, tensor, dtype, shape.into())
    }

    /// Binds a weight the kernel reads, of the type that the shader was linked for.
    ///
    /// # Errors
    ///
    /// Those of [`Binder::read`], and [`Error::Usage`] if its rows are not made of whole blocks.
    pub fn weight(
        self,
        name: &'static str,
        tensor: Tensor,
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        let dtype = self.shader.weight.unwrap_or(DType::F32);
        let shape = shape.into();
        let cols = shape.extents().last().copied().unwrap_or(0);
        if !cols.is_multiple_of(dtype.block()) {
            return Err(Error::Usage(format!(
                "{}: rows of `{name}` have {cols} elements, which {dtype} cannot divide into \
                 blocks of {}",
                self.shader.own.kernel,
                dtype.block()
            )));
        }
        self.bind(Access::Read, name, tensor, dtype, shape)
    }

    /// Binds a tensor the kernel writes.
    ///
    /// # Errors
    ///
    /// [`Error::Operand`] if it has another type or shape, [`Error::Aliased`] if it is already
    /// bound.
    pub fn write(
        self,
        name: &'static str,
        tensor: Tensor,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        self.bind(Access::Write, name, tensor, dtype, shape.into())
    }

    /// Declares that the dispatch reads or writes at most `some` of `all` equal parts of the
    /// operand bound last. Without this, all of it counts.
    #[must_use]
    pub fn touching(mut self, some: u32, all: u32) -> Self {
        if let Some(operand) = self.operands.last_mut() {
            let parts = u64::from(all.max(1));
            operand.touched = operand.tensor.size_bytes() / parts * u64::from(some).min(parts);
        }
        self
    }

    /// Binds the header of the current step's record: see [`STEP_LEN`].
    ///
    /// # Errors
    ///
    /// Those of [`Binder::read`].
    pub fn step(self, tensor: Tensor) -> Result<Self> {
        self.bind(Access::Uniform, "step", tensor, DType::U32, [STEP_LEN].into())
    }

    /// Binds the list of the step's rows or of its tiles, of which there are at most `count`.
    ///
    /// # Errors
    ///
    /// Those of [`Binder::read`].
    pub fn records(self, name: &'static str, tensor: Tensor, count: u32) -> Result<Self> {
        let bound = self.bind(Access::Uniform, name, tensor, DType::U32, [RECORDS, 4].into())?;
        Ok(bound.touching(count, RECORDS))
    }

    /// Sets several `override`s of the shader.
    #[must_use]
    pub fn constants(mut self, constants: Vec<(&'static str, u32)>) -> Self {
        self.constants.extend(constants);
        self
    }

    /// Sets an `override` of the shader.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, value));
        self
    }

    /// Completes the dispatch, with its uniform and its workgroups.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if there are more than [`MAX_WORKGROUPS`] along an axis.
    pub fn dispatch<P: Params>(self, params: P, workgroups: [u32; 3]) -> Result<Dispatch> {
        for count in workgroups {
            if count > MAX_WORKGROUPS {
                return Err(Error::Limit {
                    what: format!("{}: workgroups along one axis", self.shader.own.kernel),
                    got: count.into(),
                    limit: MAX_WORKGROUPS.into(),
                });
            }
        }
        Ok(Dispatch {
            shader: self.shader,
            operands: self.operands,
            params: bytemuck::bytes_of(&params).to_vec(),
            fields: P::FIELDS,
            constants: self.constants,
            workgroups,
            class: None,
            operations: 0,
        })
    }

    /// Completes the dispatch, with its uniform, and the workgroups that the tuning has for `count`
    /// tokens, choices or tiles of the product.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if there are more than [`MAX_WORKGROUPS`] along an axis.
    pub fn product<P: Params>(self, params: P, product: &Product, count: u32) -> Result<Dispatch> {
        let setting = self.tuning.setting(product);
        let constants = setting.program(product).constants;
        let dispatch = self.constants(constants).dispatch(params, setting.grid(product, count))?;
        let operations = product.operations(count);
        Ok(Dispatch { class: Some(Class::of(product)), operations, ..dispatch })
    }

    fn bind(
        mut self,
        access: Access,
        name: &'static str,
        tensor: Tensor,
        dtype: DType,
        shape: Shape,
    ) -> Result<Self> {
        let kernel = self.shader.own.kernel;
        if (tensor.dtype, tensor.shape) != (dtype, shape) {
            return Err(Error::Operand {
                kernel,
                operand: name,
                got_dtype: tensor.dtype,
                got: tensor.shape,
                want_dtype: dtype,
                want: shape,
            });
        }
        // WebGPU tracks usage per buffer and per dispatch: a buffer that is written may not also be
        // bound for reading, so a kernel that works in place takes one operand, not two.
        if let Some(other) = self.operands.iter().find(|other| other.tensor.id == tensor.id)
            && (access == Access::Write || other.access == Access::Write)
        {
            return Err(Error::Aliased { kernel, first: other.name, second: name });
        }
        self.operands.push(Operand { name, access, tensor, touched: tensor.size_bytes() });
        Ok(self)
    }
}
