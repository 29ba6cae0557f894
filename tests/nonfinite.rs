//! What is not a finite number must show: in rows of every kernel and each of its operands, and in what
//! a session says of a model that has such a weight.

use std::collections::BTreeSet;

use grok_wgpu::{
    base::tensor::DType,
    kernels::{self, Case, holds_floats, spoiled_name},
    machine::host::{Host, is_unwritten},
    selftest::{CaseData, Expected, OperandData, ways},
    variants::Tuning,
};

/// What the rows have in place of a number.
const VALUES: [&str; 3] = ["NaN", "Inf", "-Inf"];

/// Program, operand and its type, value.
type Spoiled = (String, &'static str, DType, &'static str);

/// The operands of each of a row's programs that hold floats.
fn float_operands(case: &Case) -> Vec<(String, &'static str, DType)> {
    let mut host = Host::of_shapes();
    let kernel = case.build(&mut host);
    let mut found = Vec::new();
    for (_, tuning) in Tuning::all(Some((8, 8))) {
        let dispatch = kernel.record(&tuning).expect("rows are sound");
        let floats = dispatch.operands.iter().filter(|operand| holds_floats(&host, operand));
        found.extend(floats.map(|o| (dispatch.shader.label(), o.name, o.tensor.dtype)));
    }
    found
}

#[test]
fn every_float_operand_of_every_program_has_its_rows() {
    let (mut wanted, mut there) = (BTreeSet::<Spoiled>::new(), BTreeSet::<Spoiled>::new());
    for case in kernels::cases() {
        for (program, operand, dtype) in float_operands(&case) {
            for value in VALUES {
                let row = (program.clone(), operand, dtype, value);
                if case.name.ends_with(&spoiled_name(operand, value)) {
                    there.insert(row.clone());
                }
                wanted.insert(row);
            }
        }
    }
    let missing: Vec<_> = wanted.difference(&there).collect();
    assert!(missing.is_empty(), "{} rows are missing: {missing:#?}", missing.len());
    // Kernels without any: what they calculate with are integers.
    let with: BTreeSet<&str> =
        wanted.iter().map(|row| row.0.split(['.', '/']).next().expect("a name")).collect();
    let without: Vec<&str> = kernels::cases()
        .iter()
        .map(|case| case.kernel)
        .filter(|kernel| !with.contains(kernel))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(without, ["expert_groups"]);
}

/// Whether an output must have something that whoever reads it takes for no number.
fn shows(case: &Case, data: &OperandData) -> bool {
    match &data.expected {
        Some(Expected::Floats { values, .. }) => values.iter().any(|&value| {
            // Lists of the largest logits have the largest finite number instead.
            let flag = case.kernel.starts_with("top_") && value >= f32::MAX.into();
            flag || !value.is_finite() && !is_unwritten(value)
        }),
        _ => false,
    }
}

#[test]
fn what_is_not_finite_shows_in_the_oracle_of_its_row() {
    let mut count = 0;
    let spoiled =
        |case: &Case| VALUES.iter().any(|value| case.name.ends_with(&format!(" {value}")));
    for case in kernels::cases().into_iter().filter(spoiled) {
        for (_, tuning) in ways(&case, &Tuning::all(Some((8, 8)))).expect("rows are sound") {
            let row = CaseData::of(&case, &tuning).expect("rows are sound");
            let shown = row.data.iter().any(|data| shows(&case, data));
            assert!(shown, "{}: nothing shows", case.full_name());
            count += 1;
        }
    }
    assert!(count > 1000, "only {count} rows");
}
