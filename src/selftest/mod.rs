//! Checks kernels on a device against their oracles, row by row and element by element, and whole
//! models against the logits of an independent program.

mod bisect;
mod compare;
mod data;
mod golden;
mod page;
mod place;
mod report;
mod runner;
mod trial;

use std::collections::HashMap;

pub use bisect::{Bisect, Parted};
pub use compare::{Element, Number, Wrong};
use compare::{Untouched, compare};
pub use data::{CaseData, Expected, OperandData, outputs};
pub use golden::{Golden, ModelReport, SMALL_MODELS, SmallModel, check_logits, check_models};
pub use place::{Field, Place};
pub use report::{
    FORMAT, Replay, Row, Summary, Suspect, Totals, VERSION, adapter, build, describe,
};
pub use runner::{LOSSES, Runner};
pub use trial::{failed_trials, trial};

use crate::{
    base::{
        error::{Error, Result},
        tensor::Tensor,
    },
    checkpoint::synthetic::fnv_1a,
    kernels::{self, Case, LETTERS},
    machine::{
        BufferRole, Machine,
        binder::{Access, Binder, Dispatch},
        gpu::Gpu,
        host::{Host, POISON},
        kernel::Kernel,
        shader::Shader,
    },
    variants::Tuning,
};

/// Largest absolute difference of a logit that is attributed to f32 arithmetic.
pub const MOST: f64 = 1e-4;

/// Which rows a self-test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The fixed rows, with the device's own tuning.
    Quick,
    /// The fixed rows and many random ones, with every tuning that the device supports.
    Full,
}

impl Profile {
    /// Number of random rows of each kernel.
    pub fn random(self) -> u32 {
        match self {
            Self::Quick => 0,
            Self::Full => 600,
        }
    }

    /// For each run of a row, the number of guard bytes. Every run has another poison pattern.
    fn runs(self) -> &'static [u64] {
        match self {
            Self::Quick => &[GUARD, 0],
            Self::Full => &[GUARD, GUARD, 0],
        }
    }

    /// The rows.
    pub fn cases(self) -> Vec<Case> {
        let mut cases = kernels::cases();
        cases.extend(kernels::random_cases(self.random()));
        // Groups rows by kernel, fixed rows first: the sort is stable.
        cases.sort_by_key(|case| case.kernel);
        cases
    }

    /// The tunings to test on a device, with their names.
    pub fn tunings(self, gpu: &Gpu) -> Vec<(String, Tuning)> {
        let mut all = Tuning::all(&gpu.caps().capabilities());
        let own = gpu.tuning();
        if !all.iter().any(|(_, tuning)| tuning == own) {
            all.push(("tuned".to_owned(), own.clone()));
        }
        all.retain(|(_, tuning)| self == Self::Full || tuning == own);
        all
    }
}

/// The dispatches of all `cases` with these tunings, in order. Combinations that cannot be
/// dispatched are left out.
pub fn dispatches(cases: &[Case], tunings: &[(String, Tuning)]) -> impl Iterator<Item = Dispatch> {
    cases.iter().flat_map(|case| {
        let kernel = case.build(&mut Host::of_shapes());
        tunings.iter().filter_map(move |(_, tuning)| kernel.record(tuning).ok())
    })
}

/// The tunings that give different dispatches for this row, with their names.
///
/// # Errors
///
/// If the row cannot be dispatched with one of the tunings.
pub fn ways(case: &Case, tunings: &[(String, Tuning)]) -> Result<Vec<(String, Tuning)>> {
    let kernel = case.build(&mut Host::of_shapes());
    let mut seen = Vec::new();
    let mut ways = Vec::new();
    for (name, tuning) in tunings {
        let dispatch = kernel.record(tuning)?;
        let way =
            (dispatch.shader.label(), dispatch.constants, dispatch.params, dispatch.workgroups);
        if !seen.contains(&way) {
            seen.push(way);
            ways.push((name.clone(), tuning.clone()));
        }
    }
    Ok(ways)
}

/// Largest difference of two lists of logits; an error if one is larger than [`MOST`] or NaN.
///
/// # Errors
///
/// A sentence with the first logit that is off, or with the lengths if they differ.
pub fn compare_logits(got: &[f32], want: &[f64]) -> Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("there are {} logits, expected {}", got.len(), want.len()));
    }
    let mut worst: f64 = 0.0;
    for (id, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        let within = error <= MOST;
        if !within {
            return Err(format!("token {id}: got {got}, expected {want} within {MOST:e}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

/// The result of one row on a device.
#[derive(Clone, Debug)]
pub struct Report {
    /// Number of elements compared.
    pub elements: usize,
    /// Largest error, as a fraction of the bound. What is stored in a type coarser than f32 has no
    /// part in it unless it is wrong: see [`Report::rounded`].
    pub worst: f64,
    /// Number of elements that are stored in a coarser type than f32, and are the other neighbour
    /// of the exact value than the nearest: right, as the f32 before was near the middle.
    pub rounded: usize,
    /// The first failure, if there was one.
    pub failure: Option<String>,
    /// The wrong elements of the output that failed, if the failure is in values.
    pub wrong: Option<Wrong>,
}

impl Report {
    /// One of nothing yet.
    fn new() -> Self {
        Self { elements: 0, worst: 0.0, rounded: 0, failure: None, wrong: None }
    }
}

/// Guard bytes before each binding and after its elements, which no kernel may touch.
const GUARD: u64 = 256;

/// Runs one row on `gpu` with a tuning.
///
/// The row runs three times: twice with guard bytes around every operand and another poison pattern
/// in them and in every output, once with bindings that end at their last element. Each run must
/// stay within the oracle's bounds, leave guards and inputs unchanged, and give the same bits.
///
/// # Errors
///
/// If the row cannot be dispatched, or an error of the device. A wrong result is not an error but a
/// [`Report::failure`].
pub async fn check(gpu: &mut Gpu, case: &Case, tuning: &Tuning) -> Result<Report> {
    run(gpu, case, tuning, Profile::Full).await
}

/// The same for a profile; the quick one has only one of the runs with guard bytes.
async fn run(gpu: &mut Gpu, case: &Case, tuning: &Tuning, profile: Profile) -> Result<Report> {
    let (mut host, kernel, dispatch) = prepare(case, tuning)?;
    let inputs: HashMap<usize, Vec<u8>> =
        dispatch.operands.iter().map(|o| (o.tensor.id, host.bytes(o.tensor))).collect();
    kernel.oracle(&mut host);

    let keep = gpu.tensor_count();
    let before = gpu.tuning().clone();
    gpu.set_tuning(Tuning { strict: true, ..tuning.clone() });
    let mut report = Report::new();
    let mut bits: Option<Vec<Vec<u8>>> = None;
    for (run, &guard) in (0u32..).zip(profile.runs()) {
        let poison = POISON ^ (run << 4);
        let result = run_once(gpu, kernel.as_ref(), &inputs, poison, guard).await;
        gpu.truncate(keep);
        let outputs = match result {
            Ok(outputs) => outputs,
            Err(error @ Error::Verification(_)) => {
                report.failure.get_or_insert(error.to_string());
                break;
            }
            Err(error) => {
                gpu.set_tuning(before);
                return Err(error);
            }
        };
        let written = dispatch.operands.iter().filter(|o| o.access == Access::Write);
        if case.alike {
            let mut named = written.clone().map(|o| o.name).zip(&outputs);
            if let Some(failure) = named.find_map(|(name, bytes)| unlike(name, bytes)) {
                report.failure.get_or_insert(failure);
            }
        }
        for (operand, bytes) in written.clone().zip(&outputs) {
            let untouched = Untouched { poison, before: &inputs[&operand.tensor.id] };
            let found =
                compare(&host, *operand, dispatch.workgroups, bytes, case.exact, Some(untouched));
            if run == 0 {
                report.elements += found.elements;
                report.rounded += found.rounded;
            }
            report.worst = report.worst.max(found.worst);
            if let (Some(wrong), None) = (found.wrong, &report.failure) {
                report.failure = Some(wrong.to_string());
                report.wrong = Some(wrong);
            }
        }
        // Written elements must have the same bits in every run. Others hold the poison, which
        // differs, and are masked.
        let settled = |outputs: &[Vec<u8>]| -> Vec<Vec<u8>> {
            outputs.iter().map(|bytes| masked(bytes, poison)).collect()
        };
        let now = settled(&outputs);
        match &bits {
            Some(first) if *first != now => {
                let names = written.clone().map(|operand| operand.name);
                report.failure.get_or_insert_with(|| other_bits(run, names, first, &now));
            }
            Some(_) => {}
            None => bits = Some(now),
        }
    }
    gpu.set_tuning(before);
    Ok(report)
}

/// Builds a row's operands on a new host, its kernel and its dispatch. The row's name seeds its
/// random tensors, so that a row gives the same data when it is run alone.
fn prepare(case: &Case, tuning: &Tuning) -> Result<(Host, Box<dyn Kernel>, Dispatch)> {
    let mut host = Host::with_seed(fnv_1a(&case.full_name()));
    host.tuning = tuning.clone();
    let kernel = case.build(&mut host);
    let dispatch = kernel.record(tuning)?;
    Ok((host, kernel, dispatch))
}

/// A kernel that was built on the host, with operands that were copied to a device.
struct Moved {
    kernel: Box<dyn Kernel>,
    ids: HashMap<usize, usize>,
}

impl Kernel for Moved {
    fn shader(&self, tuning: &Tuning) -> Shader {
        self.kernel.shader(tuning)
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let mut dispatch = self.kernel.dispatch(binder)?;
        for operand in &mut dispatch.operands {
            operand.tensor.id = self.ids[&operand.tensor.id];
        }
        Ok(dispatch)
    }

    fn oracle(&self, host: &mut Host) {
        self.kernel.oracle(host);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(Self { kernel: self.kernel.boxed(), ids: self.ids.clone() })
    }
}

/// Uploads the operands, runs the kernel, checks guards and inputs. Returns the bytes of each
/// output.
async fn run_once(
    gpu: &mut Gpu,
    kernel: &dyn Kernel,
    inputs: &HashMap<usize, Vec<u8>>,
    poison: u32,
    guard: u64,
) -> Result<Vec<Vec<u8>>> {
    let dispatch = kernel.record(gpu.tuning())?;
    let mut ids = HashMap::new();
    let mut placed = Vec::new();
    for operand in &dispatch.operands {
        if ids.contains_key(&operand.tensor.id) {
            continue;
        }
        let role = if operand.access == Access::Uniform {
            BufferRole::Uniform
        } else {
            BufferRole::Storage
        };
        let Tensor { dtype, shape, .. } = operand.tensor;
        // A uniform may be as large as a device can bind, and no kernel can write to one.
        let tail = if role == BufferRole::Uniform { 0 } else { guard };
        let tensor = gpu.alloc_guarded(role, dtype, shape, guard, tail)?;
        gpu.poison(tensor, poison);
        let bytes = &inputs[&operand.tensor.id];
        if operand.access == Access::Write {
            // Elements that are poisoned on the host get this run's poison; the others are values
            // that the kernel may read.
            let own: Vec<u8> = bytes
                .chunks(4)
                .flat_map(|word| {
                    if is_poison(word) { poison.to_le_bytes().to_vec() } else { word.to_vec() }
                })
                .collect();
            gpu.write(tensor, 0, &own)?;
        } else {
            let mut padded = bytes.clone();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            gpu.write(tensor, 0, &padded)?;
        }
        ids.insert(operand.tensor.id, tensor.id);
        placed.push((*operand, tensor));
    }
    let moved = Moved { kernel: kernel.boxed(), ids };
    let plan = gpu.record(&mut |exec| exec.run(&moved))?;
    gpu.run_plan(&plan, &[]).await?;

    let tensors: Vec<Tensor> = placed.iter().map(|&(_, tensor)| tensor).collect();
    let buffers = gpu.read_buffers(&tensors).await?;
    let mut outputs = Vec::new();
    for ((operand, _), bytes) in placed.into_iter().zip(buffers) {
        let start = usize::try_from(guard).expect("small");
        let len = usize::try_from(operand.tensor.size_bytes()).expect("rows are small");
        let padded = len.next_multiple_of(4);
        let guards = bytes[..start].iter().chain(&bytes[start + padded..]);
        let word = poison.to_le_bytes();
        for (i, &byte) in guards.enumerate() {
            if byte != word[i % 4] {
                return Err(Error::Verification(format!(
                    "a byte outside `{}` was overwritten (guard byte {i})",
                    operand.name
                )));
            }
        }
        let elements = bytes[start..start + len].to_vec();
        if operand.access == Access::Write {
            outputs.push(elements);
        } else if elements != inputs[&operand.tensor.id] {
            return Err(Error::Verification(format!("the input `{}` was changed", operand.name)));
        }
    }
    Ok(outputs)
}

fn is_poison(word: &[u8]) -> bool {
    word == POISON.to_le_bytes()
}

fn masked(bytes: &[u8], poison: u32) -> Vec<u8> {
    let word = poison.to_le_bytes();
    bytes.chunks(4).flat_map(|w| if w == word { vec![0xff; 4] } else { w.to_vec() }).collect()
}

/// What is wrong where tokens of one kind, as [`LETTERS`] has them, got other bits.
fn unlike(name: &str, bytes: &[u8]) -> Option<String> {
    let tokens: Vec<&[u8]> = bytes.chunks_exact(bytes.len() / LETTERS.len()).collect();
    (0..tokens.len()).find_map(|t| {
        let first = LETTERS.iter().position(|&kind| kind == LETTERS[t])?;
        let mut words = tokens[first].chunks(4).zip(tokens[t].chunks(4)).enumerate();
        let (at, (before, after)) = words.find(|(_, (before, after))| before != after)?;
        Some(format!(
            "equal tokens have other bits: in `{name}`, element [{at}] of token {first} is \
             {:#010x}, and of token {t} {:#010x}",
            word(before),
            word(after)
        ))
    })
}

/// What differs between the outputs of a run and those of the first.
fn other_bits<'a>(
    run: u32,
    names: impl Iterator<Item = &'a str>,
    first: &[Vec<u8>],
    now: &[Vec<u8>],
) -> String {
    let told = format!("run {run} gave other bits than the first");
    for (name, (first, now)) in names.zip(first.iter().zip(now)) {
        let words = || first.chunks(4).zip(now.chunks(4)).enumerate();
        let differ = words().filter(|(_, (before, after))| before != after);
        let mut differ = differ.map(|(at, (before, after))| (at, word(before), word(after)));
        if let Some((at, before, after)) = differ.next() {
            let count = 1 + differ.count();
            return format!(
                "{told}: `{name}` differs in {count} of {} words, the first is word {at}, \
                 {before:#010x} and then {after:#010x}",
                words().count()
            );
        }
    }
    told
}

/// The word of up to four bytes.
fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}
