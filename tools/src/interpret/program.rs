//! Programs as the interpreter takes them: parsed, with their constants filled in, and measured.

use naga::{
    ArraySize, Function, Handle, Module, Type, VectorSize,
    proc::{IndexableLength, Layouter},
    valid::ModuleInfo,
};

/// A parsed program with its constants filled in.
pub struct Program {
    pub(crate) module: Module,
    pub(crate) info: ModuleInfo,
    layouter: Layouter,
    source: String,
    /// Lines of expressions, by function.
    pub(crate) function_lines: Vec<Vec<u32>>,
    /// The same, by entry point.
    pub(crate) entry_lines: Vec<Vec<u32>>,
}

impl Program {
    /// Parses WGSL and fills in `constants`. Errors say where.
    pub fn parse(source: &str, constants: &[(&str, u32)]) -> Result<Self, String> {
        use naga::valid::{Capabilities, ValidationFlags, Validator};
        let module =
            naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
        let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP;
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

    pub(crate) fn words(&self, ty: Handle<Type>) -> usize {
        // A bool has one byte.
        (self.layouter[ty].size as usize).div_ceil(4)
    }

    /// Words of the widest value that an expression has.
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

    /// Elements of an array; of those that end with their binding, none are known.
    pub(crate) fn len(&self, size: ArraySize) -> Result<Option<u32>, String> {
        match size.resolve(self.module.to_ctx()) {
            Ok(IndexableLength::Known(len)) => Ok(Some(len)),
            Ok(IndexableLength::Dynamic) => Ok(None),
            Err(error) => Err(format!("the length of an array: {error}")),
        }
    }

    /// A line of the program, as reports show it.
    pub(crate) fn quote(&self, line: u32) -> String {
        let text = self.source.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default();
        format!("`{}`", text.trim())
    }
}

/// Lines of a function's expressions.
fn lines(function: &Function, source: &str) -> Vec<u32> {
    let arena = &function.expressions;
    arena.iter().map(|(handle, _)| arena.get_span(handle).location(source).line_number).collect()
}

/// Words from one column of a matrix to the next.
pub(crate) fn column_words(rows: VectorSize) -> usize {
    if rows == VectorSize::Bi { 2 } else { 4 }
}
