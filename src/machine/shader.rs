//! WGSL programs, and the files that they are linked from.

use crate::{
    base::tensor::DType,
    variants::{Feature, Product, Program, ShaderFile, Source, Tuning},
    wgsl,
};

/// The libraries of a weight type.
macro_rules! weight_files {
    ($($lib:literal),+) => {
        const { &[$(wgsl!(concat!("lib/", $lib))),+] }
    };
}

/// A named WGSL program. A WGSL module may declare things in any order, so linking is
/// concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shader {
    /// The kernel's own file, after the libraries that it links.
    pub own: Source,
    /// Name of the variant, which tells it from other programs of the kernel.
    pub variant: Option<&'static str>,
    /// The files that the variant adds.
    pub added: &'static [ShaderFile],
    /// Element type of the weights it reads, if it reads any: picks `lib/weight_*.wgsl`.
    pub weight: Option<DType>,
    /// The optional features that it uses.
    pub features: &'static [Feature],
}

impl Shader {
    /// The program of a kernel that has no variants.
    pub const fn new(source: Source) -> Self {
        Self { own: source, variant: None, added: &[], weight: None, features: &[] }
    }

    /// The program of a product under this tuning.
    pub fn of(product: &Product, tuning: &Tuning) -> Self {
        let setting = tuning.setting(product);
        let (variant, program) = (setting.variant().name(), setting.program(product));
        Self::new(product.source).divided(variant, &program).with_weight(product.dtype())
    }

    /// The program of a kernel's files with those of a variant.
    #[must_use]
    pub fn divided(self, variant: &'static str, program: &Program) -> Self {
        let Program { files, features, .. } = *program;
        Self { variant: Some(variant), added: files, features, ..self }
    }

    /// The same program, reading weights of type `dtype`.
    #[must_use]
    pub fn with_weight(self, dtype: DType) -> Self {
        Self { weight: Some(dtype), ..self }
    }

    /// The kernel and, after a dot, the variant: the label seen in GPU tools.
    pub fn name(self) -> String {
        match self.variant {
            None => self.own.kernel.to_owned(),
            Some(variant) => format!("{}.{variant}", self.own.kernel),
        }
    }

    /// The file with `main`.
    pub fn main(self) -> &'static str {
        self.added.last().or(self.own.files.last()).map_or("", |file| file.path)
    }

    /// The linked source, without the `enable` directives that only browsers require above it.
    pub fn source(self) -> String {
        let files = self.linked().map(|file| file.text);
        std::iter::once(self.enabled(true).as_str()).chain(files).collect()
    }

    /// The `enable` directives that only compilers other than wgpu's own require.
    pub fn enables(self) -> String {
        self.enabled(false)
    }

    fn enabled(self, everywhere: bool) -> String {
        let features = self.features.iter();
        let those = features.filter(|feature| feature.is_enabled_everywhere() == everywhere);
        those.flat_map(|feature| ["enable ", feature.name(), ";\n"]).collect()
    }

    /// All files in link order.
    pub fn linked(self) -> impl Iterator<Item = ShaderFile> {
        let weight: &[ShaderFile] = match self.weight {
            None => &[],
            Some(DType::BF16) => weight_files!("weight_one_scale", "weight_whole", "weight_bf16"),
            Some(DType::F16) => weight_files!("weight_one_scale", "weight_whole", "weight_f16"),
            Some(DType::Q8) => weight_files!("weight_one_scale", "weight_quantized", "weight_q8"),
            Some(DType::Q4) => weight_files!("weight_one_scale", "weight_quantized", "weight_q4"),
            Some(DType::Q3) => weight_files!("weight_two_scales", "weight_q3"),
            Some(DType::Q2) => weight_files!("weight_two_scales", "weight_q2"),
            Some(DType::F32 | DType::U32) => {
                weight_files!("weight_one_scale", "weight_whole", "weight_f32")
            }
        };
        self.own.files.iter().chain(self.added).chain(weight).copied()
    }

    /// Name and weight type, as reports show it.
    pub fn label(self) -> String {
        match self.weight {
            None => self.name(),
            Some(dtype) => format!("{}/{}", self.name(), dtype.name().to_lowercase()),
        }
    }
}

/// The [`Shader`] of a kernel: its own file after the named library files.
#[macro_export]
macro_rules! shader {
    ($name:literal $(, $lib:literal)*) => {
        $crate::machine::shader::Shader::new($crate::source!($name $(, $lib)*))
    };
    // A variant of a kernel that differs in the files it links.
    ($variant:literal of $name:literal $(, $lib:literal)*) => {
        $crate::machine::shader::Shader {
            variant: Some($variant),
            ..$crate::shader!($name $(, $lib)*)
        }
    };
}
