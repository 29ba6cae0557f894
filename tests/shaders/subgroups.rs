//! Subgroup operations: who uses them, and whether a branch around one may differ between the
//! invocations of a workgroup.

use std::collections::HashSet;

use grok_wgpu::lab::variants::Feature;
use naga::{AddressSpace, Block, Expression, Function, Handle, Module, Statement, StorageAccess};

use super::{Parsed, parsed, visit};

/// A program that uses subgroups must declare the feature, so that devices without it never get
/// one. A subgroup operation must be in uniform control flow: here, in no branch with a condition
/// that may differ between the invocations of a workgroup. (Tint checks loops and returns.)
#[test]
fn subgroup_operations_are_declared_and_not_in_branches() {
    let mut users = 0;
    for Parsed { name, dispatch, module, .. } in parsed() {
        let Subgroups { used, branch } = Subgroups::of(&module);
        let declared = dispatch.shader.features.contains(&Feature::Subgroups);
        assert_eq!(declared, used, "{name}: subgroups (left: Rust, right: WGSL)");
        assert_eq!(branch, None, "{name}: a subgroup operation in a branch");
        users += usize::from(used);
    }
    assert!(users > 20, "only {users} programs with subgroups were seen");

    let seen = |body: &str| {
        let text = format!(
            "fn both(x: u32) -> u32 {{ return subgroupShuffleXor(x, 1u); }}
             @compute @workgroup_size(8)
             fn main(@builtin(local_invocation_index) local: u32,
                     @builtin(workgroup_id) group: vec3<u32>) {{ {body} }}"
        );
        Subgroups::of(&naga::front::wgsl::parse_str(&text).expect("good WGSL")).branch
    };
    assert_eq!(seen("let x = both(local);"), None);
    assert_eq!(seen("if 1u < 2u { let x = both(local); }"), None);
    assert_eq!(seen("if group.x + 1u < 2u { let x = both(local); }"), None);
    for body in [
        "if local < 4u { let x = both(local); }",
        "if group.x + local < 2u { let x = both(local); }",
        "if local < 4u { } else { let x = subgroupShuffle(local, 1u); }",
        "for (var i = 0u; i < 3u; i++) { if i > 1u { let x = subgroupAdd(local); } }",
        "switch local { case 1u: { let x = both(local); } default: { } }",
    ] {
        assert_eq!(seen(body).as_deref(), Some("main"), "{body}");
    }
}

/// How a program uses subgroups.
struct Subgroups {
    /// Whether it has a subgroup operation or builtin.
    used: bool,
    /// A function with a subgroup operation in a branch.
    branch: Option<String>,
}

impl Subgroups {
    fn of(module: &Module) -> Self {
        let mut found = Self { used: false, branch: None };
        let mut users = HashSet::new();
        // naga orders functions after those that they call.
        let functions = module.functions.iter().map(|(handle, function)| (Some(handle), function));
        let entries = module.entry_points.iter().map(|entry| (None, &entry.function));
        for (handle, function) in functions.chain(entries) {
            let is_use = |statement: &Statement| match statement {
                Statement::SubgroupBallot { .. }
                | Statement::SubgroupGather { .. }
                | Statement::SubgroupCollectiveOperation { .. } => true,
                Statement::Call { function, .. } => users.contains(function),
                _ => false,
            };
            let uses = |block: &Block| {
                let mut any = false;
                visit(block, &mut |statement| any |= is_use(statement));
                any
            };
            let mut branches = false;
            visit(&function.body, &mut |statement| {
                branches |= match statement {
                    Statement::If { condition, accept, reject } => {
                        !is_uniform(module, function, *condition, false)
                            && (uses(accept) || uses(reject))
                    }
                    Statement::Switch { cases, .. } => cases.iter().any(|case| uses(&case.body)),
                    _ => false,
                };
            });
            if branches {
                found.branch.get_or_insert(function.name.clone().unwrap_or_else(|| "main".into()));
            }
            let builtin = function.arguments.iter().any(|argument| {
                use naga::BuiltIn as B;
                let Some(naga::Binding::BuiltIn(builtin)) = argument.binding else { return false };
                matches!(
                    builtin,
                    B::SubgroupInvocationId | B::SubgroupSize | B::SubgroupId | B::NumSubgroups
                )
            });
            let operates = uses(&function.body);
            found.used |= builtin || operates;
            if let Some(handle) = handle.filter(|_| operates) {
                users.insert(handle);
            }
        }
        found
    }
}

/// Whether an expression is the same in all invocations of a workgroup: it is calculated from
/// constants, uniforms, read-only memory and the workgroup's place alone. `arguments`: whether
/// those of the function are.
fn is_uniform(
    module: &Module,
    function: &Function,
    value: Handle<Expression>,
    arguments: bool,
) -> bool {
    let of = |value: Handle<Expression>| is_uniform(module, function, value, arguments);
    match function.expressions[value] {
        Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => true,
        Expression::Access { base, index } => of(base) && of(index),
        Expression::AccessIndex { base: inner, .. }
        | Expression::Splat { value: inner, .. }
        | Expression::Swizzle { vector: inner, .. }
        | Expression::Load { pointer: inner }
        | Expression::Unary { expr: inner, .. }
        | Expression::As { expr: inner, .. } => of(inner),
        Expression::Compose { ref components, .. } => components.iter().all(|&part| of(part)),
        Expression::Binary { left, right, .. } => of(left) && of(right),
        Expression::Select { condition, accept, reject } => {
            of(condition) && of(accept) && of(reject)
        }
        Expression::Math { arg, arg1, arg2, arg3, .. } => {
            [Some(arg), arg1, arg2, arg3].into_iter().flatten().all(of)
        }
        Expression::GlobalVariable(variable) => match module.global_variables[variable].space {
            AddressSpace::Uniform => true,
            AddressSpace::Storage { access } => !access.contains(StorageAccess::STORE),
            _ => false,
        },
        Expression::FunctionArgument(at) => {
            let binding = &function.arguments[at as usize].binding;
            arguments || matches!(binding, Some(naga::Binding::BuiltIn(naga::BuiltIn::WorkGroupId)))
        }
        Expression::CallResult(called) => {
            let mut given = true;
            visit(&function.body, &mut |statement| {
                if let Statement::Call { arguments, result, .. } = statement
                    && *result == Some(value)
                {
                    given &= arguments.iter().all(|&argument| of(argument));
                }
            });
            let called = &module.functions[called];
            let mut returned = true;
            visit(&called.body, &mut |statement| match statement {
                Statement::Return { value: Some(value) } => {
                    returned &= is_uniform(module, called, *value, true);
                }
                // What is returned may depend on the way to the return.
                Statement::If { .. } | Statement::Switch { .. } | Statement::Loop { .. } => {
                    returned = false;
                }
                _ => {}
            });
            given && returned
        }
        _ => false,
    }
}
