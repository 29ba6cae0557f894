//! A test row as data, for programs that run it without this crate's executors.

use crate::{
    base::{error::Result, tensor::DType},
    kernels::Case,
    machine::{
        Machine as _,
        binder::{Access, Dispatch, Operand},
        gpu::Gpu,
        host::{Host, POISON},
    },
    variants::Tuning,
};

/// A row's dispatch, the bytes of its operands, and the expected results.
#[derive(Clone, Debug)]
pub struct CaseData {
    /// Program, constants, `Params` and workgroups.
    pub dispatch: Dispatch,
    /// The operands of `dispatch`, in the same order.
    pub data: Vec<OperandData>,
}

/// One operand before and after the dispatch.
#[derive(Clone, Debug)]
pub struct OperandData {
    /// Name, access, type and shape.
    pub operand: Operand,
    /// Little-endian elements, padded to whole words. Elements that the kernel must not read hold
    /// [`POISON`].
    pub initial: Vec<u8>,
    /// The expected elements of an operand that is written; `None` for one that must not change.
    pub expected: Option<Expected>,
}

/// The oracle's values, with marks for elements that the kernel must not write.
#[derive(Clone, Debug)]
pub enum Expected {
    /// The allowed values of each element, the oracle's own first. There are several where rounding
    /// may decide a choice, and none where the poison must stay.
    Ints(Vec<Vec<u32>>),
    /// Each value with the largest error allowed, which is 0 in exact rows. [`is_unwritten`]
    /// recognizes values of elements that must keep their poison. For any other value that is not
    /// finite, a device must give NaN or an infinity.
    ///
    /// [`is_unwritten`]: crate::machine::host::is_unwritten
    Floats {
        /// Exact results.
        values: Vec<f64>,
        /// Absolute errors allowed.
        bounds: Vec<f64>,
    },
}

impl CaseData {
    /// Builds a row on the host and runs its oracle.
    ///
    /// # Errors
    ///
    /// If the row cannot be dispatched with this tuning.
    pub fn of(case: &Case, tuning: &Tuning) -> Result<Self> {
        let (mut host, kernel, dispatch) = super::prepare(case, tuning)?;
        let initial: Vec<Vec<u8>> =
            dispatch.operands.iter().map(|operand| initial(&host, *operand)).collect();
        kernel.oracle(&mut host);
        let data = dispatch.operands.iter().zip(initial).map(|(&operand, initial)| {
            let written = operand.access == Access::Write;
            let expected = written.then(|| expected(&host, operand, &initial, case.exact));
            OperandData { operand, initial, expected }
        });
        Ok(Self { data: data.collect(), dispatch })
    }
}

/// What a device writes in a run of the row without guards: the bytes of each output, in the order
/// of the dispatch's operands. Elements that it does not write hold [`POISON`].
///
/// # Errors
///
/// [`Error::Verification`](crate::base::error::Error::Verification) if it changes an input; what
/// the device reports, such as a program that it refuses.
pub async fn outputs(gpu: &mut Gpu, case: &Case, tuning: &Tuning) -> Result<Vec<Vec<u8>>> {
    let (host, kernel, dispatch) = super::prepare(case, tuning)?;
    let inputs = dispatch.operands.iter().map(|o| (o.tensor.id, host.bytes(o.tensor))).collect();
    let (keep, before) = (gpu.tensor_count(), gpu.tuning().clone());
    gpu.set_tuning(Tuning { strict: true, ..tuning.clone() });
    let result = super::run_once(gpu, kernel.as_ref(), &inputs, POISON, 0).await;
    gpu.truncate(keep);
    gpu.set_tuning(before);
    result
}

fn initial(host: &Host, operand: Operand) -> Vec<u8> {
    let mut bytes = host.bytes(operand.tensor);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn expected(host: &Host, operand: Operand, initial: &[u8], exact: bool) -> Expected {
    let tensor = operand.tensor;
    if tensor.dtype == DType::U32 {
        let allowed = |(index, word)| {
            let choices = host.choices(tensor, index);
            let kept = super::is_poison(word) && choices == [POISON];
            if kept { Vec::new() } else { choices }
        };
        return Expected::Ints(initial.chunks_exact(4).enumerate().map(allowed).collect());
    }
    let values = host.floats(tensor).to_vec();
    let bounds = match host.bounds(tensor) {
        Some(bounds) if !exact || host.rounds => bounds.to_vec(),
        _ => vec![0.0; values.len()],
    };
    Expected::Floats { values, bounds }
}
