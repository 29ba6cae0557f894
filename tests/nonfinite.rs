//! NaN and infinity must not be lost: every operand of every kernel has rows with them, and a
//! session reports a model with such a weight.

mod common;

use std::collections::BTreeSet;

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{
        SessionOptions,
        session::Session,
        step::{Readback, StepOutput},
    },
    kernels::{self, CACHES, Case, holds_floats, spoiled_name},
    machine::{
        Machine,
        gpu::LimitProfile,
        host::{Host, is_unwritten},
    },
    model::{config::Config, schema, weights::Weights},
    selftest::{CaseData, Expected, OperandData, ways},
    variants::{Capabilities, Tuning},
};
use pollster::block_on;

/// Subgroups of eight invocations, and of 32 that multiply matrices: the smallest sizes with which
/// every variant runs on one of the two.
const EACH: [Capabilities; 2] = [
    Capabilities { is_cpu: false, subgroups: Some((8, 8)), matrices: false },
    Capabilities { is_cpu: false, subgroups: Some((32, 32)), matrices: true },
];

/// The values that rows contain; rows of softmaxes have -Inf as well.
const VALUES: [&str; 2] = ["NaN", "Inf"];

/// Program, operand and its type, value.
type SpoiledRow = (String, &'static str, DType, &'static str);

/// The float operands of each program that a row runs under some tuning.
fn float_operands(case: &Case) -> Vec<(String, &'static str, DType)> {
    let mut host = Host::of_shapes();
    let kernel = case.build(&mut host);
    let mut found = Vec::new();
    for (_, tuning) in EACH.iter().flat_map(Tuning::all) {
        let dispatch = kernel.record(&tuning).expect("rows are sound");
        let floats = dispatch.operands.iter().filter(|operand| holds_floats(&host, operand));
        found.extend(floats.map(|o| (dispatch.shader.label(), o.name, o.tensor.dtype)));
    }
    found
}

#[test]
fn every_float_operand_of_every_program_has_its_rows() {
    let (mut wanted, mut there) = (BTreeSet::<SpoiledRow>::new(), BTreeSet::<SpoiledRow>::new());
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
    // Kernels without float operands compute with integers.
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

/// Whether an output contains a value that its reader treats as non-finite.
fn shows(case: &Case, data: &OperandData) -> bool {
    match &data.expected {
        Some(Expected::Floats { values, .. }) => values.iter().any(|&value| {
            // The kernels for the largest logits mark a non-finite logit by the largest finite
            // number.
            let flag = case.kernel.starts_with("topk") && value >= f32::MAX.into();
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
    let tunings: Vec<_> = EACH.iter().flat_map(Tuning::all).collect();
    for case in kernels::cases().into_iter().filter(spoiled) {
        for (_, tuning) in ways(&case, &tunings).expect("rows are sound") {
            let row = CaseData::of(&case, &tuning).expect("rows are sound");
            let shown = row.data.iter().any(|data| shows(&case, data));
            assert!(shown, "{}: nothing shows", case.full_name());
            count += 1;
        }
    }
    assert!(count > 800, "only {count} rows");
}

/// A model with one non-finite element in a tensor; for experts, in the tensor of each.
#[derive(Clone)]
struct Spoiled {
    weights: Synthetic,
    /// Prefix and suffix of the tensor's name.
    name: (String, String),
    /// The element's row.
    row: u64,
    value: f32,
}

impl Weights for Spoiled {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.weights.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.weights.read_rows(name, row0, rows, into).await?;
        let (begin, end) = &self.name;
        if name.starts_with(begin) && name.ends_with(end) && (row0..row0 + rows).contains(&self.row)
        {
            let bytes = half::bf16::from_f32(self.value).to_le_bytes();
            let at = into.len() / usize::try_from(rows).expect("few rows");
            let at = at * usize::try_from(self.row - row0).expect("few rows");
            into[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

const IDS: [u32; 7] = [11, 48, 85, 122, 159, 196, 233];

/// Tensors of the last layer and those outside the layers, by prefix and suffix of their names.
fn kinds(config: &Config) -> BTreeSet<(String, String)> {
    let last = format!("model.layers.{}.", config.num_hidden_layers() - 1);
    let of = |name: String| match name.split_once(".experts.") {
        _ if name.starts_with("model.layers.") && !name.starts_with(&last) => None,
        Some((before, rest)) => {
            let (_, end) = rest.split_once('.').expect("a number");
            Some((format!("{before}.experts."), format!(".{end}")))
        }
        None => Some((name, String::new())),
    };
    schema::tensors(config).into_iter().filter_map(|want| of(want.name)).collect()
}

/// Runs the ids as a prompt and one by one; both must report a non-finite value.
fn is_told<M: Machine>(
    machine: M,
    config: &Config,
    cache: DType,
    name: &(String, String),
    value: f32,
) -> M {
    let what = format!("{value} in {}{}, cache {cache}", name.0, name.1);
    let weights = Spoiled {
        weights: Synthetic::new(config, DType::BF16, 7).expect("weights"),
        name: name.clone(),
        row: if name.0 == schema::EMBEDDING { IDS[0].into() } else { 3 },
        value,
    };
    let sizes = SessionOptions::new(16, 8, cache);
    let mut session =
        block_on(Session::load(machine, config, &weights, sizes, &mut |_| Ok(()))).expect("loads");
    let told = |output: Result<StepOutput>, how| match output {
        Err(error) => assert_eq!(error.code(), "non_finite", "{what}, {how}: {error}"),
        Ok(reply) => panic!("{what}, {how}: {:?}", reply.candidates),
    };
    told(block_on(session.prefill(&IDS, Readback::Top(1))), "a prompt");
    session.rewind(0);
    for &id in &IDS[..IDS.len() - 1] {
        block_on(session.decode(id, Readback::Nothing)).expect("nothing is read");
    }
    told(block_on(session.decode(IDS[IDS.len() - 1], Readback::Top(1))), "single tokens");
    session.into_machine()
}

/// The small models, one of them also without soft caps.
fn models() -> [Config; 3] {
    let [grok_2, grok_1] = ["tiny", "tiny-grok-1"].map(|name| Config::preset(name).expect("there"));
    let mut uncapped = grok_2.clone();
    uncapped.attention.softcap = 0.0;
    uncapped.ends.softcap = 0.0;
    if let Some(experts) = &mut uncapped.experts {
        experts.softcap = 0.0;
    }
    [grok_2, grok_1, uncapped]
}

#[test]
fn a_model_with_one_such_weight_says_so() {
    let mut gpu = common::open(LimitProfile::Baseline);
    for config in models() {
        let kinds = kinds(&config);
        assert!(kinds.len() >= 12, "{kinds:?}");
        for name in kinds {
            for cache in CACHES {
                let both = [f32::NAN, f32::INFINITY];
                for value in both.into_iter().take(if cache == DType::F32 { 2 } else { 1 }) {
                    gpu = is_told(gpu, &config, cache, &name, value);
                    gpu.truncate(0);
                }
            }
        }
    }
}

#[test]
fn the_host_says_so_too() {
    for config in models() {
        for name in kinds(&config) {
            is_told(Host::default(), &config, DType::F32, &name, f32::NAN);
        }
    }
}
