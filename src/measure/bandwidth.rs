//! How fast a device reads its memory, which bounds the speed of generated tokens.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Shape},
    },
    kernels::MatMul,
    machine::{BufferRole, Machine as _, gpu::Gpu, step::STEP_LEN},
    measure::autotune::ways,
    variants::{Form, Tuning},
};

/// Bytes of the matrix that is read: more than caches hold.
const MATRIX: u64 = 256 << 20;
/// The same where the memory is the computer's.
const MATRIX_OF_CPU: u64 = 64 << 20;
/// Columns of the matrix, which is BF16.
const COLS: u32 = 4096;

/// Bytes a second at which the fastest variant of a matrix-vector product reads a large matrix, the
/// most in `rounds` rounds. The device's tensors and tuning are those from before. Needs timestamp
/// queries.
///
/// # Errors
///
/// [`Error::Usage`] if the device has no timestamps, [`Error::OutOfMemory`] if there is no room for
/// the matrix; errors of the device.
pub async fn bandwidth(gpu: &mut Gpu, rounds: u32) -> Result<f64> {
    let (keep, before) = (gpu.tensor_count(), gpu.tuning().clone());
    let found = fastest(gpu, rounds).await;
    gpu.truncate(keep);
    gpu.set_tuning(before);
    found
}

async fn fastest(gpu: &mut Gpu, rounds: u32) -> Result<f64> {
    let wanted = if gpu.caps().is_cpu { MATRIX_OF_CPU } else { MATRIX };
    let row = DType::BF16.row_bytes(COLS.into());
    let rows = wanted.min(gpu.max_binding_bytes()) / row;
    let rows = u32::try_from(rows).expect("a binding is less than 4 GiB");
    let mut alloc =
        |dtype, shape: [u32; 2]| gpu.alloc(BufferRole::Storage, dtype, Shape::from(shape));
    let x = alloc(DType::F32, [1, COLS])?;
    let weight = alloc(DType::BF16, [rows, COLS])?;
    let out = alloc(DType::F32, [1, rows])?;
    let step = gpu.alloc(BufferRole::Uniform, DType::U32, [STEP_LEN].into())?;
    gpu.write(step, 0, bytemuck::cast_slice(&[0_u32, 1, 0, 0]))?;
    // Memory that compresses zeros would seem faster. These are numbers near one.
    let window: Vec<u8> = (0..1_u32 << 19)
        .flat_map(|i| (0x3F00 | (i.wrapping_mul(0x9E37_79B9) >> 25) as u16).to_le_bytes())
        .collect();
    let all = u64::from(rows) * row;
    let mut at = 0;
    while at < all {
        let len = (all - at).min(window.len() as u64);
        gpu.write(weight, at, &window[..usize::try_from(len).expect("at most the window")])?;
        at += len;
    }
    gpu.flush().await?;
    let mut least: Option<f64> = None;
    for way in ways(gpu.caps(), false, &[]).into_iter().filter(|way| way.form == Form::Vector) {
        let tuning = Tuning { strict: true, ..gpu.caps().tuning() };
        gpu.set_tuning(tuning.with(way.form, way.setting));
        let (row0, scale, cap) = (0, 1.0, 0.0);
        let kernel = MatMul { form: Form::Vector, step, x, weight, row0, scale, cap, out };
        let plan = match gpu.record(&mut |exec| exec.run(&kernel)) {
            Err(Error::Device(_) | Error::Refused { .. }) => continue,
            plan => plan?,
        };
        for round in 0..=rounds {
            let time: f64 = gpu.time_plan(&plan).await?.iter().map(|step| step.nanoseconds).sum();
            if round > 0 && time > 0.0 {
                least = Some(least.map_or(time, |least: f64| least.min(time)));
            }
        }
    }
    let least = least.ok_or_else(|| Error::Device("no product could be timed".into()))?;
    Ok(all as f64 / (least * 1e-9))
}
