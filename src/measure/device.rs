//! What a device can do at the most, and what a dispatch costs on it: the limits that times of
//! kernels are compared with.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Tensor},
    },
    kernels::{Gather, MultiplyAdds},
    machine::{
        BufferRole, Machine as _,
        gpu::{Gpu, RecordedPass, wait::now},
    },
    measure::bandwidth::bandwidth,
};

/// Bytes of the matrix that is copied: more than caches hold.
const MATRIX: u64 = 256 << 20;
/// The same where the memory is the computer's.
const MATRIX_OF_CPU: u64 = 32 << 20;
/// Columns of the matrix, which is F32.
const COLS: u32 = 4096;
/// Elements that multiply-adds begin with: enough for every device to be full.
const CHAINS: u32 = 1 << 24;
/// The same on a CPU.
const CHAINS_OF_CPU: u32 = 1 << 18;
/// Multiply-adds take at least so long, in seconds: then it hardly counts what else a dispatch
/// takes.
const LONG: f64 = 10e-3;
/// The most rounds of multiply-adds, where a device's clock tells no time.
const MOST_ROUNDS: u32 = 1 << 14;

/// What a device can do at the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes a second that the fastest matrix-vector product reads: see [`bandwidth`].
    pub read: f64,
    /// Bytes a second of a copy by a kernel, those that it reads and those that it writes.
    pub copy: f64,
    /// Floating-point operations a second of multiply-adds in F32, two for each.
    pub flops: f64,
}

impl Ceilings {
    /// The least seconds in which a device reads or writes so many bytes and does so many
    /// floating-point operations.
    pub fn least_seconds(&self, bytes: u64, operations: u64) -> f64 {
        self.of_bytes(bytes).max(self.of_operations(operations))
    }

    /// Whether the operations take longer than the bytes.
    pub fn is_computing(&self, bytes: u64, operations: u64) -> bool {
        self.of_operations(operations) > self.of_bytes(bytes)
    }

    fn of_bytes(&self, bytes: u64) -> f64 {
        bytes as f64 / self.read
    }

    fn of_operations(&self, operations: u64) -> f64 {
        operations as f64 / self.flops
    }
}

/// Seconds that a dispatch with hardly any work takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of the host, to encode and submit it.
    pub host: f64,
    /// Of the device, from the beginning of one to the beginning of the next.
    pub device: f64,
}

/// What dispatches and submissions cost, apart from their work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Seconds from the submission of one dispatch until its result is on the host.
    pub round_trip: f64,
    /// A dispatch that needs the result of the one before it.
    pub dependent: Cost,
    /// One that needs no other's.
    pub independent: Cost,
    /// One that needs the result of the one before it, in a compute pass of its own.
    pub apart: Cost,
}

/// Measures what a device can do at the most: the best of `rounds` rounds, after one that does not
/// count. Tensors and tuning are those from before. Needs timestamp queries.
///
/// # Errors
///
/// [`Error::Usage`] if the device has no timestamps, [`Error::OutOfMemory`] if there is no room;
/// errors of the device.
pub async fn ceilings(gpu: &mut Gpu, rounds: u32) -> Result<Ceilings> {
    let keep = gpu.tensor_count();
    let read = bandwidth(gpu, rounds).await?;
    let copy = copy(gpu, rounds).await;
    gpu.truncate(keep);
    let flops = multiply_adds(gpu, rounds).await;
    gpu.truncate(keep);
    Ok(Ceilings { read, copy: copy?, flops: flops? })
}

/// Measures what `count` dispatches cost: the best of `rounds` rounds, after one that does not
/// count; of the round trips, the median of as many as `count`. Tensors are those from before.
/// Needs timestamp queries.
///
/// # Errors
///
/// [`Error::Usage`] if the device has no timestamps or `count` is 0; errors of the device.
pub async fn costs(gpu: &mut Gpu, count: u32, rounds: u32) -> Result<Costs> {
    let keep = gpu.tensor_count();
    let costs = costs_of(gpu, count, rounds).await;
    gpu.truncate(keep);
    costs
}

/// A copy of a large matrix, row by row.
async fn copy(gpu: &mut Gpu, rounds: u32) -> Result<f64> {
    let wanted = if gpu.caps().is_cpu { MATRIX_OF_CPU } else { MATRIX };
    let row = DType::F32.row_bytes(COLS.into());
    let rows = wanted.min(gpu.max_binding_bytes()) / row;
    let rows = u32::try_from(rows).expect("a binding is less than 4 GiB");
    let x = gpu.alloc(BufferRole::Storage, DType::F32, [rows, COLS].into())?;
    let out = gpu.alloc(BufferRole::Storage, DType::F32, [rows, COLS].into())?;
    let of_row = gpu.alloc(BufferRole::Storage, DType::U32, [rows].into())?;
    gpu.write(of_row, 0, bytemuck::cast_slice(&(0..rows).collect::<Vec<u32>>()))?;
    fill(gpu, x)?;
    gpu.flush().await?;
    let kernel = Gather { x, rows: of_row, out };
    let plan = gpu.record(&mut |exec| exec.run(&kernel))?;
    let least = least_seconds(gpu, &plan, rounds).await?;
    Ok((x.size_bytes() + out.size_bytes()) as f64 / least)
}

/// Chains of multiply-adds, of doubled length until they take long enough.
async fn multiply_adds(gpu: &mut Gpu, rounds: u32) -> Result<f64> {
    let len = if gpu.caps().is_cpu { CHAINS_OF_CPU } else { CHAINS };
    let x = gpu.alloc(BufferRole::Storage, DType::F32, [len].into())?;
    let out = gpu.alloc(BufferRole::Storage, DType::F32, [len].into())?;
    fill(gpu, x)?;
    gpu.flush().await?;
    let mut kernel = MultiplyAdds { x, rounds: 64, factor: 0.5, addend: 1.0, out };
    loop {
        let plan = gpu.record(&mut |exec| exec.run(&kernel))?;
        let least = least_seconds(gpu, &plan, rounds).await?;
        if least >= LONG || kernel.rounds >= MOST_ROUNDS {
            return Ok(kernel.operations() as f64 / least);
        }
        kernel.rounds *= 2;
    }
}

/// The least time of a plan on the device in `rounds` rounds, after one that does not count.
async fn least_seconds(gpu: &mut Gpu, plan: &RecordedPass, rounds: u32) -> Result<f64> {
    let mut least = f64::INFINITY;
    for round in 0..=rounds {
        let seconds = gpu.time_whole(plan, false).await?.device_seconds;
        if round > 0 && seconds > 0.0 {
            least = least.min(seconds);
        }
    }
    if least.is_finite() {
        return Ok(least);
    }
    Err(Error::Device("the device's clock did not advance".into()))
}

async fn costs_of(gpu: &mut Gpu, count: u32, rounds: u32) -> Result<Costs> {
    let kernels = in_turns(gpu, 1)?;
    let Gather { x, rows, out } = kernels[0];
    let others = (0..count).map(|_| small_row(gpu)).collect::<Result<Vec<_>>>()?;
    let one = gpu.record(&mut |exec| exec.run(&kernels[0]))?;
    let dependent = gpu.record(&mut |exec| {
        kernels.iter().cycle().take(count as usize).try_for_each(|kernel| exec.run(kernel))
    })?;
    let independent = gpu.record(&mut |exec| {
        others.iter().try_for_each(|&out| exec.run(&Gather { x, rows, out }))
    })?;
    Ok(Costs {
        round_trip: round_trip(gpu, &one, out, count as usize).await?,
        dependent: cost(gpu, &dependent, false, rounds).await?,
        independent: cost(gpu, &independent, false, rounds).await?,
        apart: cost(gpu, &dependent, true, rounds).await?,
    })
}

fn small_row(gpu: &mut Gpu) -> Result<Tensor> {
    gpu.alloc(BufferRole::Storage, DType::F32, [1, 4].into())
}

/// Two kernels of so many workgroups with hardly any work, each of which needs the result of the
/// other.
pub(super) fn in_turns(gpu: &mut Gpu, groups: u32) -> Result<[Gather; 2]> {
    let mut small = || gpu.alloc(BufferRole::Storage, DType::F32, [groups, 4].into());
    let (a, b) = (small()?, small()?);
    let rows = gpu.alloc(BufferRole::Storage, DType::U32, [groups].into())?;
    Ok([Gather { x: a, rows, out: b }, Gather { x: b, rows, out: a }])
}

/// Seconds from a submission until its result is on the host: the median of `count`.
pub(super) async fn round_trip(
    gpu: &mut Gpu,
    plan: &RecordedPass,
    out: Tensor,
    count: usize,
) -> Result<f64> {
    let mut trips = Vec::with_capacity(count);
    for _ in 0..count {
        let start = now();
        gpu.run_plan(plan, &[out]).await?;
        trips.push(now() - start);
    }
    trips.sort_by(f64::total_cmp);
    Ok(trips.get(count / 2).copied().unwrap_or_default())
}

/// The cost of one dispatch of a plan of equal ones.
async fn cost(gpu: &mut Gpu, plan: &RecordedPass, apart: bool, rounds: u32) -> Result<Cost> {
    let mut least = Cost { host: f64::INFINITY, device: f64::INFINITY };
    for round in 0..=rounds {
        let time = gpu.time_whole(plan, apart).await?;
        if round > 0 {
            least.host = least.host.min(time.host_seconds);
            least.device = least.device.min(time.device_seconds);
        }
    }
    let count = plan.dispatches() as f64;
    Ok(Cost { host: least.host / count, device: least.device / count })
}

/// Fills a tensor of floats with numbers near one. Memory that compresses zeros would seem faster.
fn fill(gpu: &mut Gpu, tensor: Tensor) -> Result<()> {
    let window: Vec<f32> = (0..1_u32 << 18)
        .map(|i| f32::from_bits(0x3F00_0000 | (i.wrapping_mul(0x9E37_79B9) >> 9)))
        .collect();
    let window: &[u8] = bytemuck::cast_slice(&window);
    let (all, mut at) = (tensor.size_bytes(), 0);
    while at < all {
        let len = (all - at).min(window.len() as u64);
        gpu.write(tensor, at, &window[..usize::try_from(len).expect("at most the window")])?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_is_the_least_time() {
        let ceilings = Ceilings { read: 100.0, copy: 80.0, flops: 1000.0 };
        assert!(ceilings.least_seconds(200, 100).total_cmp(&2.0).is_eq());
        assert!(ceilings.least_seconds(200, 5000).total_cmp(&5.0).is_eq());
        assert!(!ceilings.is_computing(200, 2000));
        assert!(ceilings.is_computing(200, 2001));
    }
}
