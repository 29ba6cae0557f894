//! WGSL programs by their files: what a kernel links, and what a variant adds.

/// A file of WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShaderFile {
    /// Where it is in the repository.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
}

/// The files of a kernel: the libraries that all its variants link, then its own file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Stem of the kernel's files; of a product for generated tokens, its name in that form.
    pub kernel: &'static str,
    /// The files in link order.
    pub files: &'static [ShaderFile],
}

impl Source {
    /// Stem of the kernel's own file, and of its Rust file.
    pub fn stem(&self) -> &'static str {
        let path = self.files.last().map_or("", |file| file.path);
        path.rsplit('/').next().and_then(|name| name.strip_suffix(".wgsl")).unwrap_or(path)
    }
}

/// An optional feature that a program uses. WGSL turns each on by an `enable` directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Operations between the invocations of a subgroup.
    Subgroups,
    /// The type `f16`.
    Halves,
    /// Matrices that the invocations of a subgroup hold and multiply together. Only wgpu has them
    /// under this name, so no browser gets such a program.
    Matrices,
}

impl Feature {
    /// Whether wgpu's own compiler wants its `enable` directive too. It takes subgroups without.
    pub const fn is_enabled_everywhere(self) -> bool {
        !matches!(self, Self::Subgroups)
    }

    /// Its name in WGSL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subgroups => "subgroups",
            Self::Halves => "f16",
            Self::Matrices => "wgpu_cooperative_matrix",
        }
    }
}

/// What a variant adds to a kernel's files.
#[derive(Clone, Debug)]
pub struct Program {
    /// Libraries, then the file with `main`.
    pub files: &'static [ShaderFile],
    /// Optional features that these files use.
    pub features: &'static [Feature],
    /// Values of their `override` declarations.
    pub constants: Vec<(&'static str, u32)>,
}

/// The [`ShaderFile`] of this path below `shaders/`, without its extension.
#[macro_export]
macro_rules! wgsl {
    ($stem:expr) => {
        $crate::variants::ShaderFile {
            path: concat!("shaders/", $stem, ".wgsl"),
            text: include_str!(concat!("../../shaders/", $stem, ".wgsl")),
        }
    };
}

/// The [`Source`] of a kernel: its own file after the named library files.
#[macro_export]
macro_rules! source {
    ($name:literal $(, $lib:literal)*) => {
        $crate::variants::Source {
            kernel: $name,
            files: &[
                $($crate::wgsl!(concat!("lib/", $lib)),)*
                $crate::wgsl!(concat!("kernels/", $name)),
            ],
        }
    };
}
