//! What a kernel is: WGSL source, a dispatch, and a scalar reference.

use crate::{DType, Error, Host, Result, Shape, Tensor, Tuning, tuning::Class};

/// One GPU operation, described by its operands. Building the value does nothing; an
/// [`Executor`] runs it.
pub trait Kernel {
    /// The WGSL that implements it where work is divided like this.
    fn shader(&self, tuning: &Tuning) -> Shader;

    /// Checks the operands and says what to dispatch.
    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch>;

    /// Computes the same thing on the host, slowly and plainly, with a bound on what a correct
    /// device may add as error.
    fn oracle(&self, host: &mut Host);

    /// The same kernel in a box, for executors that keep what they record.
    fn boxed(&self) -> Box<dyn Kernel>;
}

impl dyn Kernel + '_ {
    /// What to dispatch where work is divided like this.
    pub fn record(&self, tuning: &Tuning) -> Result<Dispatch> {
        self.dispatch(Binder::new(self.shader(tuning), tuning))
    }
}

/// Something that can run kernels: a device, the host oracle, or a wrapper around either.
pub trait Executor {
    /// Runs one kernel after all the kernels run before it.
    fn run(&mut self, kernel: &dyn Kernel) -> Result<()>;
}

/// A file of WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShaderFile {
    /// Where it is in the repository.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
}

/// A file that decodes weights.
macro_rules! weight {
    ($name:literal) => {
        ShaderFile {
            path: concat!("shaders/lib/weight_", $name, ".wgsl"),
            text: include_str!(concat!("../shaders/lib/weight_", $name, ".wgsl")),
        }
    };
}

/// A named WGSL program: library files first, then the kernel's own file.
///
/// WGSL lets a module declare things in any order, so linking is concatenation.
#[derive(Clone, Copy, Debug)]
pub struct Shader {
    /// The kernel and, after a dot, its variant: the label seen in GPU tools.
    pub name: &'static str,
    /// Source files in link order, but for those that `weight` picks.
    pub files: &'static [ShaderFile],
    /// Element type of the weights it reads, if it reads any: picks `lib/weight_*.wgsl`.
    pub weight: Option<DType>,
    /// Whether it uses subgroup operations, which not every device has.
    pub subgroups: bool,
}

impl Shader {
    /// The same program, reading weights of type `dtype`.
    #[must_use]
    pub fn with_weight(self, dtype: DType) -> Self {
        Self { weight: Some(dtype), ..self }
    }

    /// The same program, which uses subgroup operations.
    #[must_use]
    pub fn with_subgroups(self) -> Self {
        Self { subgroups: true, ..self }
    }

    /// Stem of the kernel's files: the name without its variant.
    pub fn kernel(self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(kernel, _)| kernel)
    }

    /// The linked source, without the line that browsers want above subgroup operations.
    pub fn source(self) -> String {
        self.linked().map(|file| file.text).collect()
    }

    /// All files in link order.
    pub fn linked(self) -> impl Iterator<Item = ShaderFile> {
        let weight: &[ShaderFile] = match self.weight {
            None => &[],
            Some(DType::BF16) => const { &[weight!("whole"), weight!("bf16")] },
            Some(DType::F16) => const { &[weight!("whole"), weight!("f16")] },
            Some(DType::Q8) => const { &[weight!("q8")] },
            Some(DType::Q4) => const { &[weight!("q4")] },
            Some(DType::F32 | DType::U32) => const { &[weight!("whole"), weight!("f32")] },
        };
        self.files.iter().chain(weight).copied()
    }

    /// Name and weight type, as reports show it.
    pub fn label(self) -> String {
        match self.weight {
            None => self.name.to_owned(),
            Some(dtype) => format!("{}/{}", self.name, dtype.name().to_lowercase()),
        }
    }
}

/// How a kernel touches an operand. Mirrors the WGSL address space and access mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
    /// `var<uniform>`: small, and uniform in the language's sense, so that loops over barriers may
    /// depend on it.
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
    /// Bytes that the dispatch reads or writes at the most, each counted once.
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

        impl $crate::kernel::Params for Params {
            const FIELDS: &'static [$crate::kernel::Field] = &[
                $((stringify!($field), stringify!($ty), std::mem::offset_of!(Params, $field))),+
            ];
        }
    };
}

/// The [`Shader`] of a kernel: its own file after the named library files.
#[macro_export]
macro_rules! shader {
    (@file $stem:expr) => {
        $crate::kernel::ShaderFile {
            path: concat!("shaders/", $stem, ".wgsl"),
            text: include_str!(concat!("../../shaders/", $stem, ".wgsl")),
        }
    };
    ($name:literal $(, $lib:literal)*) => {
        $crate::kernel::Shader {
            name: $name,
            files: &[
                $($crate::shader!(@file concat!("lib/", $lib)),)*
                $crate::shader!(@file $name),
            ],
            weight: None,
            subgroups: false,
        }
    };
    // A variant of a kernel that differs in the files it links.
    ($variant:literal of $name:literal $(, $lib:literal)*) => {
        $crate::kernel::Shader { name: $variant, ..$crate::shader!($name $(, $lib)*) }
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
}

impl Dispatch {
    /// Bytes of all tensors bound.
    pub fn bytes_bound(&self) -> u64 {
        self.operands.iter().map(|operand| operand.tensor.size_bytes()).sum()
    }

    /// Bytes of them that it reads or writes at the most, each counted once.
    pub fn bytes_touched(&self) -> u64 {
        self.operands.iter().map(|operand| operand.touched).sum()
    }

    /// Which products it is one of, if its weights are what [`Tuning`] asks about.
    pub fn class(&self) -> Option<Class> {
        let weight = |operand: &&Operand| matches!(operand.name, "weight" | "gate");
        let found = self.operands.iter().find(weight)?;
        let many = found.tensor.shape.extents().len() > 1;
        many.then(|| Class::of(self.shader.kernel(), found.tensor))
    }
}

/// WebGPU's limit on workgroups along each axis, and the only one a device is asked for.
pub const MAX_WORKGROUPS: u32 = 65_535;

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
    pub fn read(
        self,
        name: &'static str,
        tensor: Tensor,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        self.bind(Access::Read, name, tensor, dtype, shape.into())
    }

    /// Binds a weight the kernel reads, stored as the shader was linked for.
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
                self.shader.name,
                dtype.block()
            )));
        }
        self.bind(Access::Read, name, tensor, dtype, shape)
    }

    /// Binds a tensor the kernel writes.
    pub fn write(
        self,
        name: &'static str,
        tensor: Tensor,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Self> {
        self.bind(Access::Write, name, tensor, dtype, shape.into())
    }

    /// Says of the operand bound last that the dispatch touches at most `some` of `all` equal parts
    /// of it. Without this it counts as whole.
    #[must_use]
    pub fn touching(mut self, some: u32, all: u32) -> Self {
        if let Some(operand) = self.operands.last_mut() {
            let parts = u64::from(all.max(1));
            operand.touched = operand.tensor.size_bytes() / parts * u64::from(some).min(parts);
        }
        self
    }

    /// Binds the record of the current step: see [`STEP_LEN`].
    pub fn step(self, tensor: Tensor) -> Result<Self> {
        self.bind(Access::Uniform, "step", tensor, DType::U32, [STEP_LEN].into())
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

    /// Ends the list with the uniform and the workgroups.
    pub fn dispatch<P: Params>(self, params: P, workgroups: [u32; 3]) -> Result<Dispatch> {
        for count in workgroups {
            if count > MAX_WORKGROUPS {
                return Err(Error::Limit {
                    what: format!("{}: workgroups along one axis", self.shader.name),
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
        })
    }

    fn bind(
        mut self,
        access: Access,
        name: &'static str,
        tensor: Tensor,
        dtype: DType,
        shape: Shape,
    ) -> Result<Self> {
        let kernel = self.shader.name;
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

/// Words of the step record: position of the first row, and how many rows are real.
///
/// A plan is recorded for a fixed number of rows; a step may fill fewer. Rows beyond are padding:
/// kernels with side effects (the cache) or data-dependent work (experts) skip them.
pub const STEP_LEN: u32 = 4;
