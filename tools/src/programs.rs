//! Every program that is ever dispatched: each shader with each set of pipeline constants.

use std::collections::BTreeMap;

use grok_wgpu::lab::{
    kernels,
    machine::{binder::Dispatch, host::Host},
    variants::{Capabilities, Feature, Tuning},
};

/// Devices that together run every variant: with subgroups of eight invocations, the smallest size
/// of the others, and with matrices of halves, which need subgroups of 32.
const EACH: [Capabilities; 2] = [
    Capabilities { is_cpu: false, subgroups: Some((8, 8)), matrices: false },
    Capabilities { is_cpu: false, subgroups: Some((32, 32)), matrices: true },
];

/// The tunings that only devices with matrices of halves have. No software driver is one.
pub fn tunings_with_matrices() -> Vec<(String, Tuning)> {
    let without = Capabilities { matrices: false, ..EACH[1] };
    let mut all = Tuning::all(&EACH[1]);
    all.retain(|(_, tuning)| tuning.matrices.variant().needs(&without).is_err());
    all
}

/// Whether a compiler for browsers takes the program. Matrices have another name there, and no
/// browser has them: such a program is for wgpu alone.
pub fn is_for_browsers(dispatch: &Dispatch) -> bool {
    !dispatch.shader.features.contains(&Feature::Matrices)
}

/// One dispatch for each program, sorted by name.
///
/// # Panics
///
/// If two rows of a program bind different operands, as pipelines are cached by program.
pub fn all() -> Vec<(String, Dispatch)> {
    let mut found: BTreeMap<String, Dispatch> = BTreeMap::new();
    let tunings = [Tuning::all(&EACH[0]), tunings_with_matrices()].concat();
    for case in kernels::cases() {
        let mut host = Host::of_shapes();
        let kernel = case.build(&mut host);
        for (_, tuning) in &tunings {
            let dispatch = kernel
                .record(tuning)
                .unwrap_or_else(|error| panic!("{}: {error}", case.full_name()));
            let name = name(&dispatch);
            match found.get(&name) {
                None => drop(found.insert(name, dispatch)),
                Some(first) => assert_eq!(
                    (signature(first), first.fields),
                    (signature(&dispatch), dispatch.fields),
                    "{name}: rows of one program differ"
                ),
            }
        }
    }
    found.into_iter().collect()
}

fn signature(dispatch: &Dispatch) -> Vec<(&'static str, grok_wgpu::lab::machine::binder::Access)> {
    dispatch.operands.iter().map(|operand| (operand.name, operand.access)).collect()
}

/// Shader, weight type and constants, as one word that can be a file name.
fn name(dispatch: &Dispatch) -> String {
    let label = dispatch.shader.label().replace('/', "-");
    dispatch.constants.iter().fold(label, |name, (key, value)| format!("{name}-{key}{value}"))
}

/// The linked source with each `override` replaced by a `const` of the dispatched value, for tools
/// without pipeline constants. Has the `enable` lines that Tint requires.
///
/// # Panics
///
/// If a constant is not declared as `override NAME: u32 = ...;`, or an override has no constant.
pub fn expanded(dispatch: &Dispatch) -> String {
    let mut left = dispatch.constants.clone();
    let mut lines = Vec::new();
    for line in dispatch.shader.source().lines() {
        let declared = line.strip_prefix("override ").and_then(|rest| rest.split_once(": u32 = "));
        if let Some((name, _)) = declared {
            let at = left.iter().position(|(constant, _)| *constant == name).unwrap_or_else(|| {
                panic!("{}: nothing is dispatched for `{line}`", dispatch.shader.label())
            });
            let (_, value) = left.swap_remove(at);
            lines.push(format!("const {name}: u32 = {value}u;"));
        } else {
            lines.push(line.to_owned());
        }
    }
    assert!(left.is_empty(), "{}: no override is called {left:?}", dispatch.shader.label());
    dispatch.shader.enables() + &lines.join("\n") + "\n"
}
