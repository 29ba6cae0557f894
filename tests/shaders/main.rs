//! Shaders: Rust and WGSL agree, and every program keeps to WebGPU's default limits. Needs no
//! device.

mod subgroups;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use grok_wgpu::lab::{
    machine::binder::{Access, Dispatch},
    variants::{COLUMNS, Feature, TILE},
};
use grok_wgpu_tools::programs;
use naga::{
    AddressSpace, BinaryOperator as B, Block, Expression, Function, Handle, Literal, LocalVariable,
    MathFunction, Module, ScalarKind, Statement, StorageAccess, TypeInner,
    back::pipeline_constants::process_overrides,
    proc::GlobalCtx,
    valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator},
};

/// A program as naga sees it, with its constants filled in.
struct Parsed {
    name: String,
    dispatch: Dispatch,
    module: Module,
    info: ModuleInfo,
}

fn parsed() -> Vec<Parsed> {
    programs::all().into_iter().map(|(name, dispatch)| parse(name, dispatch)).collect()
}

fn parse(name: String, dispatch: Dispatch) -> Parsed {
    let source = dispatch.shader.source();
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    // No optional feature. naga has a capability for `unpack2x16float`, which is core WGSL.
    let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    // A program may use only the features that it declares.
    let own = dispatch.shader.features.iter().map(|feature| match feature {
        Feature::Subgroups => Capabilities::SUBGROUP,
        Feature::Halves => Capabilities::SHADER_FLOAT16,
        Feature::Matrices => Capabilities::COOPERATIVE_MATRIX,
    });
    let mut validator =
        Validator::new(ValidationFlags::all(), own.fold(core, |all, one| all | one));
    let info = validator
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    for &(constant, _) in &dispatch.constants {
        let declared = module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some(constant));
        assert!(declared, "{name}: no override is called {constant}");
    }
    let constants: HashMap<String, f64> =
        dispatch.constants.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
    let (module, info) = process_overrides(&module, &info, None, &constants.into_iter().collect())
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let (module, info) = (module.into_owned(), info.into_owned());
    Parsed { name, dispatch, module, info }
}

/// Variables with a binding, in the order of bindings.
fn bindings(module: &Module) -> Vec<(u32, String, Access)> {
    let mut found: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let binding = variable.binding.as_ref()?;
            assert_eq!(binding.group, 0, "all bindings are in group 0");
            let access = match variable.space {
                AddressSpace::Uniform => Access::Uniform,
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                    Access::Write
                }
                AddressSpace::Storage { .. } => Access::Read,
                space => panic!("a binding in address space {space:?}"),
            };
            Some((binding.binding, variable.name.clone().unwrap_or_default(), access))
        })
        .collect();
    found.sort_by_key(|&(binding, ..)| binding);
    found
}

#[test]
fn operands_agree() {
    for Parsed { name, dispatch, module, .. } in parsed() {
        let params = (0, "params".to_owned(), Access::Uniform);
        let operands = (1u32..).zip(&dispatch.operands);
        let rust: Vec<_> = std::iter::once(params)
            .chain(operands.map(|(i, operand)| (i, operand.name.to_owned(), operand.access)))
            .collect();
        assert_eq!(rust, bindings(&module), "{name}: operands differ (left: Rust, right: WGSL)");
    }
}

#[test]
fn params_agree() {
    for Parsed { name, dispatch, module, .. } in parsed() {
        let (_, params) = module
            .global_variables
            .iter()
            .find(|(_, variable)| variable.name.as_deref() == Some("params"))
            .expect("operands_agree checks that there are params");
        let ty = &module.types[params.ty];
        assert_eq!(ty.name.as_deref(), Some("Params"), "{name}");
        let TypeInner::Struct { members, .. } = &ty.inner else {
            panic!("{name}: Params is not a struct")
        };
        let wgsl: Vec<(&str, &str, usize)> = members
            .iter()
            .map(|member| {
                let ty = match &module.types[member.ty].inner {
                    TypeInner::Scalar(scalar) => match (scalar.kind, scalar.width) {
                        (ScalarKind::Uint, 4) => "u32",
                        (ScalarKind::Sint, 4) => "i32",
                        (ScalarKind::Float, 4) => "f32",
                        _ => "another scalar",
                    },
                    _ => "no scalar",
                };
                (member.name.as_deref().unwrap_or_default(), ty, member.offset as usize)
            })
            .collect();
        assert_eq!(dispatch.fields, wgsl, "{name}: Params differ (left: Rust, right: WGSL)");
    }
}

#[test]
fn default_limits_hold() {
    let limits = wgpu::Limits::defaults();
    for Parsed { name, dispatch, module, .. } in parsed() {
        let context = GlobalCtx {
            types: &module.types,
            constants: &module.constants,
            overrides: &module.overrides,
            global_expressions: &module.global_expressions,
        };
        let size = |variable: &naga::GlobalVariable| {
            u64::from(module.types[variable.ty].inner.size(context)).next_multiple_of(16)
        };
        let workgroup: u64 = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
            .map(|(_, variable)| size(variable))
            .sum();
        let most = u64::from(limits.max_compute_workgroup_storage_size);
        assert!(workgroup <= most, "{name}: {workgroup} bytes of workgroup memory, {most} allowed");
        for (_, variable) in module.global_variables.iter() {
            if variable.space == AddressSpace::Uniform {
                let size = size(variable);
                assert!(
                    size <= limits.max_uniform_buffer_binding_size,
                    "{name}: uniform of {size}"
                );
            }
        }

        let [entry] = &module.entry_points[..] else { panic!("{name}: one entry point, please") };
        assert_eq!(entry.name, "main", "{name}");
        let [x, y, z] = entry.workgroup_size;
        let invocations = x * y * z;
        assert!(
            (1..=limits.max_compute_invocations_per_workgroup).contains(&invocations)
                && x <= limits.max_compute_workgroup_size_x
                && y <= limits.max_compute_workgroup_size_y
                && z <= limits.max_compute_workgroup_size_z,
            "{name}: workgroups of {x} x {y} x {z}"
        );

        let count = |uniform: bool| {
            let operands = dispatch.operands.iter();
            operands.filter(|o| (o.access == Access::Uniform) == uniform).count()
        };
        let storage = limits.max_storage_buffers_per_shader_stage as usize;
        assert!(count(false) <= storage, "{name}: {} storage buffers", count(false));
        let uniforms = limits.max_uniform_buffers_per_shader_stage as usize;
        assert!(count(true) < uniforms, "{name}: {} uniform buffers", count(true) + 1);
    }
}

/// Implicit pipeline layouts drop a binding that is declared and not used. `read_write` in place
/// of `read` hides conflicts from WebGPU's validation.
#[test]
fn every_operand_is_used_as_declared() {
    for Parsed { name, module, info, .. } in parsed() {
        let entry = info.get_entry_point(0);
        for (handle, variable) in module.global_variables.iter() {
            let used = entry[handle];
            let variable_name = variable.name.as_deref().unwrap_or_default();
            assert!(!used.is_empty(), "{name}: `{variable_name}` is never used");
            if let AddressSpace::Storage { access } = variable.space {
                assert_eq!(
                    access.contains(StorageAccess::STORE),
                    used.contains(GlobalUse::WRITE),
                    "{name}: `{variable_name}` is declared {access:?} and used {used:?}"
                );
            }
        }
    }
}

/// Functions whose error WGSL leaves large or unbounded: `tanh` may overflow to NaN, `pow` is
/// undefined below zero, trigonometric functions are wrong at large angles. `lib/math.wgsl` and
/// tables made on the host replace them.
#[test]
fn no_loose_functions_and_no_infinities() {
    use MathFunction as M;
    const LOOSE: &[MathFunction] = &[
        M::Tanh,
        M::Sinh,
        M::Cosh,
        M::Pow,
        M::Sin,
        M::Cos,
        M::Tan,
        M::Asin,
        M::Acos,
        M::Atan,
        M::Atan2,
        M::Asinh,
        M::Acosh,
        M::Atanh,
    ];
    for Parsed { name, module, .. } in parsed() {
        let functions = module.functions.iter().map(|(_, function)| function);
        let entries = module.entry_points.iter().map(|entry| &entry.function);
        let arenas = functions.chain(entries).map(|function| &function.expressions);
        for arena in arenas.chain([&module.global_expressions]) {
            for (_, expression) in arena.iter() {
                match *expression {
                    Expression::Math { fun, .. } => {
                        assert!(!LOOSE.contains(&fun), "{name}: calls {fun:?}");
                    }
                    Expression::Literal(Literal::F32(value)) => {
                        assert!(value.is_finite(), "{name}: the literal {value}");
                    }
                    Expression::As { expr, kind: ScalarKind::Float, convert: None } => assert!(
                        !matches!(arena[expr], Expression::Literal(_)),
                        "{name}: a float made of literal bits"
                    ),
                    _ => {}
                }
            }
        }
    }
}

/// An endless loop hangs the device, and the page or desktop with it. Each loop must begin with a
/// test of a counter and change that counter only at its end.
#[test]
fn loops_are_bounded() {
    let mut loops = 0;
    for Parsed { name, module, .. } in parsed() {
        let (count, endless) = endless_loops(&module);
        loops += count;
        assert!(endless.is_empty(), "{name}: {endless:?}");
    }
    assert!(loops > 50, "only {loops} loops were seen");

    for (body, problem) in [
        ("loop { if x > 3u { break; } x += 1u; }", "no test at its head"),
        ("while x < 3u { }", "does not move"),
        ("for (var i = 0u; i < 3u; i += x) { i = 0u; }", "in its body"),
        ("for (var i = 0u; i < 3u; x += 1u) { }", "does not move"),
    ] {
        let text = format!("@compute @workgroup_size(1) fn main() {{ var x = 0u; {body} }}");
        let module = naga::front::wgsl::parse_str(&text).expect("good WGSL");
        let (_, endless) = endless_loops(&module);
        assert!(endless.iter().any(|e| e.contains(problem)), "{body}: {endless:?}");
    }
}

/// The number of loops, and those that might not end.
fn endless_loops(module: &Module) -> (usize, Vec<String>) {
    let (mut loops, mut endless) = (0, Vec::new());
    let functions = module.functions.iter().map(|(_, function)| function);
    for function in functions.chain(module.entry_points.iter().map(|entry| &entry.function)) {
        visit(&function.body, &mut |statement| {
            let Statement::Loop { body, continuing, break_if } = statement else { return };
            loops += 1;
            let counters = tested(body, function);
            let moved: Vec<_> = counters
                .iter()
                .filter(|&&counter| {
                    let values = stores(continuing, counter, function);
                    values.iter().any(|&value| moves(value, counter, function))
                })
                .collect();
            let problem = if break_if.is_some() || counters.is_empty() {
                "no test at its head"
            } else if moved.is_empty() {
                "a counter that does not move"
            } else if !moved.iter().any(|&&c| stores(body, c, function).is_empty()) {
                "a counter that changes in its body"
            } else {
                return;
            };
            let place = function.name.as_deref().unwrap_or("main");
            endless.push(format!("a loop of `{place}` has {problem}"));
        });
    }
    (loops, endless)
}

/// Calls `see` for every statement, nested ones included.
fn visit(block: &Block, see: &mut dyn FnMut(&Statement)) {
    for statement in block {
        see(statement);
        match statement {
            Statement::Block(inner) => visit(inner, see),
            Statement::If { accept, reject, .. } => {
                visit(accept, see);
                visit(reject, see);
            }
            Statement::Loop { body, continuing, .. } => {
                visit(body, see);
                visit(continuing, see);
            }
            Statement::Switch { cases, .. } => {
                for case in cases {
                    visit(&case.body, see);
                }
            }
            _ => {}
        }
    }
}

/// Variables in the comparison at the head of a loop.
fn tested(body: &Block, function: &Function) -> Vec<Handle<LocalVariable>> {
    let head = body.iter().find(|statement| !matches!(statement, Statement::Emit(_)));
    let Some(Statement::If { condition, accept, reject }) = head else { return Vec::new() };
    if !accept.is_empty() || !matches!(reject.first(), Some(Statement::Break)) {
        return Vec::new();
    }
    let Expression::Binary { op, left, right } = function.expressions[*condition] else {
        return Vec::new();
    };
    if !matches!(op, B::Less | B::LessEqual | B::Greater | B::GreaterEqual) {
        return Vec::new();
    }
    [left, right].into_iter().filter_map(|side| loaded(side, function)).collect()
}

/// The local variable that an expression loads.
fn loaded(value: Handle<Expression>, function: &Function) -> Option<Handle<LocalVariable>> {
    let Expression::Load { pointer } = function.expressions[value] else { return None };
    let Expression::LocalVariable(variable) = function.expressions[pointer] else { return None };
    Some(variable)
}

/// Values that a block stores to a variable.
fn stores(
    block: &Block,
    variable: Handle<LocalVariable>,
    function: &Function,
) -> Vec<Handle<Expression>> {
    let mut found = Vec::new();
    visit(block, &mut |statement| {
        if let Statement::Store { pointer, value } = *statement
            && let Expression::LocalVariable(to) = function.expressions[pointer]
            && to == variable
        {
            found.push(value);
        }
    });
    found
}

/// Whether a value is the variable plus, minus or shifted by something.
fn moves(value: Handle<Expression>, variable: Handle<LocalVariable>, function: &Function) -> bool {
    matches!(
        function.expressions[value],
        Expression::Binary { op: B::Add | B::Subtract | B::ShiftLeft | B::ShiftRight, left, .. }
            if loaded(left, function) == Some(variable)
    )
}

/// The `.wgsl` files of a folder, with their text.
fn wgsl(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("shaders are in the source tree")
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).expect("shaders are text")))
        .collect()
}

#[test]
fn every_file_is_linked_by_a_program() {
    let linked: BTreeSet<String> =
        programs::all().iter().map(|(_, dispatch)| dispatch.shader.source()).collect();
    let files = ["kernels", "variants", "lib"].map(|folder| wgsl(&format!("shaders/{folder}")));
    for (path, text) in files.into_iter().flatten() {
        assert!(
            linked.iter().any(|source| source.contains(&text)),
            "{} is in no program that a row dispatches",
            path.display()
        );
    }
}

#[test]
fn files_keep_to_their_form() {
    let count = |text: &str, word: &str| text.lines().filter(|l| l.starts_with(word)).count();
    for (path, text) in wgsl("shaders/lib") {
        let path = path.display();
        assert!(text.starts_with("//") || text.starts_with('\n'), "{path}: say what it is for");
        assert!(
            !text.contains("@binding") && !text.contains("@compute"),
            "{path}: only kernels bind"
        );
    }
    for (path, text) in wgsl("shaders/variants") {
        let path = path.display();
        assert!(text.starts_with("//"), "{path}: say how work is divided");
        assert!(text.contains("\n// Links: "), "{path}: name its links");
        assert_eq!(count(&text, "fn main("), 1, "{path}: one entry point");
        assert!(!text.contains("@binding"), "{path}: only kernels bind");
    }
    for (path, text) in wgsl("shaders/kernels") {
        let path = path.display();
        assert!(text.starts_with("//"), "{path}: open with the formula");
        assert!(
            text.contains("\n// Links: ") || !text.contains(" Links"),
            "{path}: name its links"
        );
        assert_eq!(count(&text, "struct Params {"), 1, "{path}: one Params");
        assert!(count(&text, "fn main(") <= 1, "{path}: one entry point, or that of a variant");
        for directive in ["enable ", "requires ", "diagnostic("] {
            assert_eq!(count(&text, directive), 0, "{path}: a directive cannot be linked");
        }
        for line in text.lines().filter(|l| l.contains("@binding") && l.contains("storage")) {
            let shape = line.split_once("//").map_or("", |(_, comment)| comment);
            assert!(shape.contains('['), "{path}: no shape beside `{line}`");
        }
    }
}

/// Text that two files share belongs in a library that both link. `Params` and bindings are exempt.
#[test]
fn no_eight_lines_are_in_two_files() {
    const RUN: usize = 8;
    let files = ["kernels", "variants", "lib"].map(|folder| wgsl(&format!("shaders/{folder}")));
    let mut places: HashMap<Vec<&str>, &Path> = HashMap::new();
    let mut twice = Vec::new();
    for (path, text) in files.iter().flatten() {
        let mut lines = own_lines(text);
        lines.retain(|line| !line.is_empty());
        for run in lines.windows(RUN) {
            match places.get(run) {
                Some(other) if other != path => twice.push(format!(
                    "{} and {} both have the lines from `{}` on",
                    other.display(),
                    path.display(),
                    run[0]
                )),
                Some(_) => {}
                None => drop(places.insert(run.to_vec(), path)),
            }
        }
    }
    assert!(twice.is_empty(), "{}", twice.join("\n"));
    assert!(places.len() > 1000, "only {} runs of lines were seen", places.len());
}

/// The lines of a file without `struct Params`, bindings, comments and indentation.
fn own_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut in_params = false;
    for line in text.lines() {
        let line = line.split_once("//").map_or(line, |(code, _)| code).trim();
        in_params |= line.starts_with("struct Params");
        if !in_params && !line.contains("@binding") {
            lines.push(line);
        }
        in_params &= line != "}";
    }
    lines
}

/// The height of a tile is a constant both in WGSL and in Rust.
#[test]
fn tiles_are_as_high_as_rust_says() {
    let mut seen = 0;
    for Parsed { name, dispatch, module, .. } in parsed() {
        let links = |file: &str| dispatch.shader.linked().any(|one| one.path.ends_with(file));
        let wanted = if links("tile_height.wgsl") {
            ("TILE", TILE)
        } else if links("columns.wgsl") {
            ("COLUMNS", COLUMNS)
        } else {
            continue;
        };
        for (_, constant) in module.constants.iter() {
            if constant.name.as_deref() == Some(wanted.0) {
                let value = &module.global_expressions[constant.init];
                assert_eq!(*value, Expression::Literal(Literal::U32(wanted.1)), "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} programs with tiles were seen");
}

/// Tint, the compiler of Chromium's WebGPU, is stricter than naga, above all about barriers in
/// non-uniform control flow. `scripts/test` also runs Tint through Dawn, for machines without the
/// `tint` program.
#[test]
fn tint_accepts_every_program() {
    let given = std::env::var_os("TINT");
    let tint = given.clone().unwrap_or_else(|| "tint".into());
    let folder = tempfile::tempdir().expect("a scratch folder");
    let run = |file: &Path| {
        let arguments = ["--format", "wgsl", "-o"];
        Command::new(&tint).args(arguments).arg(folder.path().join("out")).arg(file).output()
    };
    let probe = folder.path().join("probe.wgsl");
    fs::write(&probe, "const probe = 1;\n").expect("a file in the scratch folder");
    match run(&probe) {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("tint refuses a constant: {output:?}"),
        Err(error) => {
            let excused = std::env::var_os("GROK_WGPU_NO_TINT").is_some_and(|v| v == "1");
            let required = given.is_some() || (std::env::var_os("CI").is_some() && !excused);
            assert!(!required, "there is no tint ({error}); GROK_WGPU_NO_TINT=1 does without");
            eprintln!("SKIPPED: there is no tint; set TINT to its path");
            return;
        }
    }
    let mut refused = Vec::new();
    for (name, dispatch) in programs::all() {
        if !programs::is_for_browsers(&dispatch) {
            continue;
        }
        let file = folder.path().join(format!("{name}.wgsl"));
        fs::write(&file, programs::expanded(&dispatch)).expect("a file in the scratch folder");
        let output = run(&file).expect("tint ran a moment ago");
        if !output.status.success() {
            refused.push(format!("{name}:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(refused.is_empty(), "tint refuses {}:\n{}", refused.len(), refused.join("\n"));
}
