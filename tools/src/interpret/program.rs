//! Programs for the interpreter: parsed, with pipeline constants filled in and types laid out.

use naga::{
    ArraySize, Function, Handle, Module, Scalar, Type, TypeInner, VectorSize,
    proc::{IndexableLength, Layouter},
    valid::ModuleInfo,
};

/// A parsed program with its pipeline constants filled in.
pub struct Program {
    pub(crate) module: Module,
    pub(crate) info: ModuleInfo,
    layouter: Layouter,
    source: String,
    /// Source lines of expressions, by function.
    pub(crate) function_lines: Vec<Vec<u32>>,
    /// Source lines of expressions, by entry point.
    pub(crate) entry_lines: Vec<Vec<u32>>,
}

impl Program {
    /// Parses WGSL and fills in its pipeline constants.
    ///
    /// # Errors
    ///
    /// If naga refuses the program or a constant; the message quotes the source where it can.
    pub fn parse(source: &str, constants: &[(&str, u32)]) -> Result<Self, String> {
        use naga::valid::{Capabilities, ValidationFlags, Validator};
        let module =
            naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
        let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | Capabilities::SUBGROUP
            | Capabilities::SHADER_FLOAT16
            | Capabilities::COOPERATIVE_MATRIX;
        let info = Validator::new(ValidationFlags::all(), core)
            .validate(&module)
            .map_err(|error| error.emit_to_string(source))?;
        let constants = constants.iter().map(|&(key, value)| (key.to_owned(), value.into()));
        let (module, info) = naga::back::pipeline_constants::process_overrides(
            &module,
            &info,
            None,
            &constants.collect(),
        )
        .map_err(|error| error.to_string())?;
        let (module, info) = (module.into_owned(), info.into_owned());
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
        let lines_of = |function| lines(function, source);
        let function_lines = module.functions.iter().map(|(_, f)| lines_of(f)).collect();
        let entry_lines = module.entry_points.iter().map(|e| lines_of(&e.function)).collect();
        let source = source.to_owned();
        Ok(Self { module, info, layouter, source, function_lines, entry_lines })
    }

    /// Words of a value. A half is kept as an f32, and of a matrix that a subgroup has, its number.
    pub(crate) fn words(&self, ty: Handle<Type>) -> usize {
        match self.module.types[ty].inner {
            TypeInner::CooperativeMatrix { .. } => 1,
            TypeInner::Vector { size, scalar: Scalar::F16 } => size as usize,
            TypeInner::Array { base, size, .. } if self.is_half(base) => {
                let len = self.len(size).ok().flatten().expect("only workgroups have halves");
                len as usize * self.words(base)
            }
            // A bool is one byte in naga's layout.
            _ => (self.layouter[ty].size as usize).div_ceil(4),
        }
    }

    /// Words from one element of an array to the next.
    pub(crate) fn stride_words(&self, base: Handle<Type>, stride: u32) -> u32 {
        if self.is_half(base) {
            u32::try_from(self.words(base)).expect("at most 4")
        } else {
            stride / 4
        }
    }

    /// Whether it is a half or a vector of halves.
    fn is_half(&self, ty: Handle<Type>) -> bool {
        self.module.types[ty].inner.scalar() == Some(Scalar::F16)
    }

    /// Words of the widest value of an expression.
    pub(crate) fn widest(&self) -> usize {
        let functions = self.module.functions.iter();
        let functions = functions.map(|(handle, function)| (function, &self.info[handle]));
        let entries = self.module.entry_points.iter().enumerate();
        let entries = entries.map(|(i, entry)| (&entry.function, self.info.get_entry_point(i)));
        let words = functions.chain(entries).flat_map(|(function, info)| {
            let types = function.expressions.iter().map(|(handle, _)| info[handle].ty.handle());
            types.map(|ty| ty.map_or(0, |ty| self.words(ty)))
        });
        words.max().unwrap_or(0)
    }

    /// The length of an array; `None` if it is that of the binding.
    pub(crate) fn len(&self, size: ArraySize) -> Result<Option<u32>, String> {
        match size.resolve(self.module.to_ctx()) {
            Ok(IndexableLength::Known(len)) => Ok(Some(len)),
            Ok(IndexableLength::Dynamic) => Ok(None),
            Err(error) => Err(format!("the length of an array: {error}")),
        }
    }

    /// A source line, quoted for messages.
    pub(crate) fn quote(&self, line: u32) -> String {
        let text = self.source.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default();
        format!("`{}`", text.trim())
    }
}

/// Source lines of a function's expressions.
fn lines(function: &Function, source: &str) -> Vec<u32> {
    let arena = &function.expressions;
    arena.iter().map(|(handle, _)| arena.get_span(handle).location(source).line_number).collect()
}

/// Stride of a matrix's columns in words.
pub(crate) fn column_words(rows: VectorSize) -> usize {
    if rows == VectorSize::Bi { 2 } else { 4 }
}
