//! Every kernel in the interpreter at small shapes: no races, divergent barriers, accesses out of
//! bounds or reads of unwritten memory. Needs no device.

mod bugs;
mod matrices;
mod planted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use grok_wgpu::lab::{
    files::threads::map_on_all_cores,
    kernels::{self, Case},
    machine::host::{self, Host, POISON},
    selftest::{CaseData, Expected, OperandData, ways},
    variants::{Capabilities, Feature, Tuning},
};
use grok_wgpu_tools::interpret::{Outcome, Program, SMALL, Subgroups, run, storage_bytes};
use grok_wgpu_tools::programs::tunings_with_matrices;

/// Barriers that can be dropped without a race: program, tuning, index in the program, reason.
const REDUNDANT: &[(&str, &str, usize, &str)] = &[
    ("matvec.lanes", "cpu", 0, ONE_LANE),
    ("matvec.lanes", "cpu", 1, ONE_LANE),
    ("gated_matvec.lanes", "cpu", 0, ONE_LANE),
    ("gated_matvec.lanes", "cpu", 1, ONE_LANE),
    ("expert_matvec.lanes", "cpu", 0, ONE_LANE),
    ("expert_matvec.lanes", "cpu", 1, ONE_LANE),
    ("expert_gated_matvec.lanes", "cpu", 0, ONE_LANE),
    ("expert_gated_matvec.lanes", "cpu", 1, ONE_LANE),
    ("rms_norm", "gpu", 0, ONE_SUM),
    ("rms_norm", "cpu", 0, ONE_SUM),
];
/// Clamps that can be dropped without an index out of bounds: program, index in it, reason.
const REDUNDANT_CLAMPS: &[(&str, usize, &str)] = &[
    ("matvec.lanes", 0, NO_SUCH_COLUMN),
    ("gated_matvec.lanes", 0, NO_SUCH_COLUMN),
    ("matvec.subgroup", 0, NO_SUCH_COLUMN),
    ("matvec.spread", 0, NO_SUCH_COLUMN),
    ("gated_matvec.subgroup", 0, NO_SUCH_COLUMN),
    ("gated_matvec.spread", 0, NO_SUCH_COLUMN),
];
const NO_SUCH_COLUMN: &str =
    "columns that are not there are not read; only slots of experts are looked up before that";
const ONE_LANE: &str = "with LANES = 1 an invocation reads back only its own word";
const ONE_SUM: &str = "it lets `reduce_sum` be called again, which `norm_add` does and this not";

/// A row with its data.
struct Prepared {
    case: Arc<Case>,
    tuning: String,
    row: CaseData,
    subgroups: Subgroups,
    bytes: usize,
}

impl Prepared {
    fn name(&self) -> String {
        format!("{} [{}]", self.case.full_name(), self.tuning)
    }

    fn source(&self) -> String {
        self.row.dispatch.shader.source()
    }

    /// Runs the row with `source` as its program.
    fn run(&self, source: &str) -> Outcome {
        let program = Program::parse(source, &self.row.dispatch.constants)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        run(&program, &self.row, self.subgroups)
            .unwrap_or_else(|error| panic!("{}: cannot be interpreted: {error}", self.name()))
    }
}

/// Rows with at most `largest` bytes of storage operands, sorted by size.
fn rows(largest: usize) -> Vec<Prepared> {
    let mut rows = Vec::new();
    let with =
        |subgroups| Capabilities { is_cpu: true, subgroups: Some(subgroups), matrices: false };
    let in_order = Tuning::all(&with((8, 8)));
    // Several subgroups in a workgroup, and subgroups larger than a quantized block needs.
    let scattered = Tuning::all(&with((8, 32)));
    let matrices = tunings_with_matrices();
    // Infinity takes the same paths as NaN, and in products all numbers take the same, so small
    // sets leave the others out.
    let twice = |case: &Case| {
        let is_product = case.kernel.contains("matvec") || case.kernel.contains("matmul");
        let is_other = |fill: &str| is_product && case.name.ends_with(fill);
        let ends = ["outliers", "tiny", "cancelling"];
        largest == SMALL && (case.name.ends_with("Inf") || ends.iter().any(|fill| is_other(fill)))
    };
    // Types of few bits are decoded without branches: one fill and one order of lanes show what
    // there is to see.
    let few_bits = |case: &Case| {
        largest == SMALL && ["Q3 ", "Q2 "].iter().any(|name| case.name.starts_with(name))
    };
    let ends = ["integers", "one-hot", "NaN"];
    let few_twice = |case: &Case| few_bits(case) && ends.iter().any(|end| case.name.ends_with(end));
    let left_out = |case: &Case| twice(case) || few_twice(case);
    for case in kernels::cases().into_iter().filter(|case| !left_out(case)) {
        let case = Arc::new(case);
        let mut add = |tuning: String, value: &Tuning, subgroups| {
            let row =
                CaseData::of(&case, value).unwrap_or_else(|error| panic!("{case:?}: {error}"));
            let bytes = storage_bytes(&row);
            let case = case.clone();
            if bytes <= largest {
                rows.push(Prepared { case, tuning, row, subgroups, bytes });
            }
        };
        for (tuning, value) in ways(&case, &in_order).expect("rows are sound") {
            add(tuning, &value, Subgroups::InOrder(8));
        }
        let scattered = if few_bits(&case) { &[][..] } else { &scattered[..] };
        for (tuning, value) in ways(&case, scattered).expect("rows are sound") {
            let shader = case.build(&mut Host::of_shapes()).shader(&value);
            if shader.features.contains(&Feature::Subgroups) {
                add(format!("{tuning}, scattered"), &value, Subgroups::Scattered(16));
            }
        }
        for (tuning, value) in ways(&case, &matrices).expect("rows are sound") {
            let shader = case.build(&mut Host::of_shapes()).shader(&value);
            if shader.features.contains(&Feature::Matrices) {
                add(tuning.clone(), &value, Subgroups::InOrder(32));
                // Two subgroups, which take turns: what one leaves out shows in any numbers.
                if case.exact {
                    add(format!("{tuning}, scattered"), &value, Subgroups::Scattered(64));
                }
            }
        }
    }
    rows.sort_by_key(|row| row.bytes);
    rows
}

/// Those with few bytes, of which several tests make use: their oracles take long.
static SMALL_ROWS: LazyLock<Vec<Prepared>> = LazyLock::new(|| rows(SMALL));

/// Runs a check on all items in parallel and returns its findings.
fn wrong<T: Sync>(items: &[T], check: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    map_on_all_cores(items, check).into_iter().flatten().collect()
}

/// Compares an output with its oracle by the rules for devices.
fn differs(data: &OperandData, words: &[u32]) -> Option<String> {
    let at = match data.expected.as_ref()? {
        Expected::Ints(ints) => {
            let allows = |(got, allowed): (&u32, &Vec<u32>)| {
                allowed.contains(got) || allowed.is_empty() && *got == POISON
            };
            words.iter().zip(ints).position(|pair| !allows(pair))
        }
        Expected::Floats { values, bounds } => {
            let tensor = data.operand.tensor;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let bytes = &bytes[..usize::try_from(tensor.size_bytes()).expect("rows are small")];
            let cols = tensor.shape.extents().last().map_or(1, |&cols| cols as usize);
            let got = host::decode_rows(tensor.dtype, cols, bytes);
            let kept = host::untouched(tensor, bytes, POISON);
            let within = |i: usize| match values[i] {
                value if host::is_unwritten(value) => kept[i],
                value if !value.is_finite() => !got[i].is_finite() && !kept[i],
                value => (got[i] - value).abs() <= bounds[i],
            };
            (0..values.len()).find(|&i| !within(i))
        }
    };
    at.map(|at| format!("`{}` differs from its oracle at {at}", data.operand.name))
}

fn keep_to_the_rules(rows: &[&Prepared]) {
    let wrong = wrong(rows, |row| {
        let Outcome { mut faults, operands } = row.run(&row.source());
        let outputs = row.row.data.iter().zip(&operands);
        faults.extend(outputs.filter_map(|(data, words)| differs(data, words)));
        (!faults.is_empty()).then(|| format!("{}: {faults:#?}", row.name()))
    });
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn small_rows_keep_to_the_rules() {
    let rows = &*SMALL_ROWS;
    let small: BTreeSet<&str> = rows.iter().map(|row| row.case.kernel).collect();
    let all: BTreeSet<&str> = kernels::cases().iter().map(|case| case.kernel).collect();
    assert_eq!(small, all, "every kernel has small rows");
    keep_to_the_rules(&some_of_each_program(rows));
}

/// With `GROK_WGPU_EVERY=N`, every Nth row of each program in each tuning, from the smallest on.
fn some_of_each_program(rows: &[Prepared]) -> Vec<&Prepared> {
    let every = std::env::var("GROK_WGPU_EVERY").map_or(1, |text| match text.parse::<usize>() {
        Ok(every) if every > 0 => every,
        _ => panic!("GROK_WGPU_EVERY is {text:?}, expected a whole number from 1 on"),
    });
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut chosen = |row: &&Prepared| {
        let name = row.row.dispatch.shader.name();
        let count = counts.entry((name, row.tuning.clone())).or_default();
        *count += 1;
        (*count - 1).is_multiple_of(every)
    };
    rows.iter().filter(|row| chosen(row)).collect()
}

#[test]
#[ignore = "takes some minutes"]
fn all_rows_keep_to_the_rules() {
    keep_to_the_rules(&rows(usize::MAX).iter().collect::<Vec<_>>());
}

const BARRIER: &str = "workgroupBarrier();";

/// Proves that the interpreter would see a race: dropping any barrier must show one in some row.
#[test]
fn every_barrier_is_missed() {
    let rows = &*SMALL_ROWS;
    let mut programs: BTreeMap<(String, &str), Vec<&Prepared>> = BTreeMap::new();
    for row in rows {
        if row.source().contains("var<workgroup>") {
            let name = row.row.dispatch.shader.name();
            programs.entry((name, &row.tuning)).or_default().push(row);
        }
    }
    let barriers: Vec<_> = programs
        .iter()
        .flat_map(|((kernel, tuning), rows)| {
            let count = rows[0].source().matches(BARRIER).count();
            assert!(count > 0, "{kernel} has workgroup memory and no barrier");
            (0..count).map(move |which| (kernel, tuning, which, rows))
        })
        .collect();
    assert!(barriers.len() >= 50, "only {} barriers were found", barriers.len());
    let wrong = wrong(&barriers, |&(kernel, tuning, which, rows)| {
        let missed = rows.iter().any(|row| {
            let source = row.source();
            let (at, _) = source.match_indices(BARRIER).nth(which).expect("counted above");
            let without = source[..at].to_owned() + &source[at + BARRIER.len()..];
            row.run(&without).faults.iter().any(|fault| fault.starts_with("a race"))
        });
        let excused =
            REDUNDANT.iter().any(|&(k, t, w, _)| (k, t, w) == (kernel.as_str(), *tuning, which));
        let name = format!("{kernel} [{tuning}]: barrier {which}");
        match (missed, excused) {
            (true, true) => Some(format!("{name} is listed as redundant, and is not")),
            (false, false) => Some(format!("{name} is not missed by {} rows", rows.len())),
            _ => None,
        }
    });
    eprintln!("{} barriers, {} of them redundant", barriers.len(), REDUNDANT.len());
    assert!(wrong.is_empty(), "{} barriers:\n{}", wrong.len(), wrong.join("\n"));
}

/// Dropping any clamp must show an index out of bounds in some row. Devices that clamp indices hide
/// this, so no row on a device can show it. Products, and variants with optional features, read
/// past their rows by design.
#[test]
fn every_clamp_of_a_variant_is_missed() {
    let rows = &*SMALL_ROWS;
    let mut programs: BTreeMap<(String, &str), Vec<&Prepared>> = BTreeMap::new();
    let reads_past = |row: &&Prepared| {
        let dispatch = &row.row.dispatch;
        dispatch.class.is_some() || !dispatch.shader.features.is_empty()
    };
    for row in rows.iter().filter(reads_past).filter(|row| !unclamped(&row.source()).is_empty()) {
        let name = row.row.dispatch.shader.name();
        programs.entry((name, &row.tuning)).or_default().push(row);
    }
    let clamps: Vec<_> = programs
        .iter()
        .flat_map(|((kernel, _), rows)| {
            let count = unclamped(&rows[0].source()).len();
            (0..count).map(move |which| (kernel, which, rows))
        })
        .collect();
    assert!(clamps.len() >= 30, "only {} clamps were found", clamps.len());
    let wrong = wrong(&clamps, |&(kernel, which, rows)| {
        let missed = rows.iter().any(|row| {
            let faults = row.run(&unclamped(&row.source())[which]).faults;
            faults.iter().any(|fault| fault.starts_with("index "))
        });
        let excused = REDUNDANT_CLAMPS.iter().any(|&(k, w, _)| (k, w) == (kernel.as_str(), which));
        let name = format!("{kernel}: clamp {which}");
        match (missed, excused) {
            (true, true) => Some(format!("{name} is listed as redundant, and is not")),
            (false, false) => Some(format!("{name} is not missed by {} rows", rows.len())),
            _ => None,
        }
    });
    assert!(wrong.is_empty(), "{} clamps:\n{}", wrong.len(), wrong.join("\n"));
}

/// The source with each clamp, `min(a, ... - 1u)`, replaced in turn by `(a)`. Other uses of `min`
/// are no clamps.
fn unclamped(text: &str) -> Vec<String> {
    let without = |(at, call): (usize, &str)| {
        let rest = &text[at + call.len()..];
        let mut depth = 0;
        let mut comma = None;
        for (i, letter) in rest.char_indices() {
            match letter {
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                ',' if depth == 0 => comma = Some(i),
                ')' => {
                    let (first, last) = rest[..i].split_at(comma.expect("two arguments"));
                    let text = format!("{}({first}){}", &text[..at], &rest[i + 1..]);
                    return last.contains("- 1u").then_some(text);
                }
                _ => {}
            }
        }
        panic!("`min(` is not closed")
    };
    text.match_indices("min(").filter_map(without).collect()
}
