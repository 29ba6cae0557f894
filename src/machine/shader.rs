//! WGSL programs: which files they are linked of.

use crate::base::tensor::DType;

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
            text: include_str!(concat!("../../shaders/lib/weight_", $name, ".wgsl")),
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

/// The [`Shader`] of a kernel: its own file after the named library files.
#[macro_export]
macro_rules! shader {
    (@file $stem:expr) => {
        $crate::machine::shader::ShaderFile {
            path: concat!("shaders/", $stem, ".wgsl"),
            text: include_str!(concat!("../../shaders/", $stem, ".wgsl")),
        }
    };
    ($name:literal $(, $lib:literal)*) => {
        $crate::machine::shader::Shader {
            name: $name,
            files: &[
                $($crate::shader!(@file concat!("lib/", $lib)),)*
                $crate::shader!(@file concat!("kernels/", $name)),
            ],
            weight: None,
            subgroups: false,
        }
    };
    // A variant of a kernel that differs in the files it links.
    ($variant:literal of $name:literal $(, $lib:literal)*) => {
        $crate::machine::shader::Shader { name: $variant, ..$crate::shader!($name $(, $lib)*) }
    };
}
