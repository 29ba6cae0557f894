//! Measures how fast a device reads and writes weights, and what its calls cost, by the clock: the
//! rates of [`super::rates`] that are the device's; and how fast the CPU multiplies weights.

use crate::{
    base::{
        error::{Error, Result},
        tensor::{DType, Tensor},
    },
    kernels::MatMul,
    machine::{
        BufferRole, Machine as _,
        gpu::{Gpu, RecordedPass, wait::now},
        kernel::Kernel,
        step::{STEP_LEN, header},
    },
    measure::{
        device::{in_turns, round_trip},
        rates::Rate,
    },
    variants::Form,
};

/// Bytes of the matrix that is read: more than caches hold.
const MATRIX: u64 = 256 << 20;
/// The same where the device is a program.
const MATRIX_OF_CPU: u64 = 32 << 20;
/// Columns of the matrix, and of the activations.
const COLS: u32 = 4096;
/// Tokens of a prompt, and rows of the matrix that they are multiplied by.
const PROMPT: [u32; 2] = [256, 4096];
/// The same where the device is a program.
const PROMPT_OF_CPU: [u32; 2] = [64, 512];
/// Bytes of a write, as weights are brought.
const WINDOW: usize = 8 << 20;
/// Bytes of the tensor that is written to.
const WRITTEN: u64 = 64 << 20;
/// How often the result of hardly any work is waited for.
const TRIPS: usize = 100;
/// Seconds before each.
const PAUSE: f64 = 1e-3;
/// Workgroups of kernels with hardly any work: software drivers hand one alone to no other thread,
/// and the kernels of a token have many.
const GROUPS: u32 = 64;
/// Dispatches that are submitted together.
const DISPATCHES: usize = 256;
/// What is measured is repeated until it takes so long, in seconds.
const LONG: f64 = 0.1;
/// The most repetitions in a submission, however short they are.
const MOST: usize = 1 << 10;

/// The rates that [`measure`] measures, in its order.
pub const RATES: [Rate; 6] =
    [Rate::Segment, Rate::Dispatch, Rate::Upload, Rate::Device, Rate::Link, Rate::Operations];

/// Measures the rates that are the device's, with weights of type `dtype`. `progress` is called
/// before each; an error from it ends the work. The device's tensors are those from before.
///
/// What the device has no memory for is left out, and so is pinned memory where it pins none.
///
/// # Errors
///
/// Errors of the device other than for want of memory; those of `progress`.
pub async fn measure(
    gpu: &mut Gpu,
    dtype: DType,
    progress: &mut dyn FnMut(Rate) -> Result<()>,
) -> Result<Vec<(Rate, f64)>> {
    let mut found = Vec::new();
    let keep = gpu.tensor_count();
    for rate in RATES {
        progress(rate)?;
        if rate == Rate::Link && !gpu.caps().pins() {
            continue;
        }
        let value = match rate {
            Rate::Segment => segment(gpu).await,
            Rate::Dispatch => dispatch(gpu).await,
            Rate::Upload => upload(gpu).await,
            Rate::Link => read(gpu, dtype, BufferRole::Host).await,
            Rate::Operations => operations(gpu, dtype).await,
            _ => read(gpu, dtype, BufferRole::Storage).await,
        };
        gpu.truncate(keep);
        match value {
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => {}
            value => found.push((rate, value?)),
        }
    }
    Ok(found)
}

/// Seconds from a submission until its result is on the host: the median of many, each after the
/// device had nothing to do for a while, as it has while weights are read.
async fn segment(gpu: &mut Gpu) -> Result<f64> {
    let [kernel, _] = in_turns(gpu, GROUPS)?;
    let plan = gpu.record(&mut |exec| exec.run(&kernel))?;
    // The first compiles.
    gpu.run_plan(&plan, &[kernel.out]).await?;
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let done = now();
        while now() - done < PAUSE {
            std::hint::spin_loop();
        }
        trips.push(round_trip(gpu, &plan, kernel.out, 1).await?);
    }
    trips.sort_by(f64::total_cmp);
    Ok(trips[TRIPS / 2])
}

/// Seconds of a dispatch that needs the result of the one before it.
async fn dispatch(gpu: &mut Gpu) -> Result<f64> {
    let kernels = in_turns(gpu, GROUPS)?;
    let [one, many] = [1, DISPATCHES].map(|count| {
        gpu.record(&mut |exec| (0..count).try_for_each(|i| exec.run(&kernels[i % 2])))
    });
    let between = beyond(gpu, [&one?, &many?], kernels[0].out).await?;
    // A clock may be too coarse to see them.
    Ok((between / (DISPATCHES - 1) as f64).max(1e-9))
}

/// Bytes a second that are written, in windows, until they are in the device's memory.
async fn upload(gpu: &mut Gpu) -> Result<f64> {
    let bytes = WRITTEN.min(gpu.max_binding_bytes());
    let words = u32::try_from(bytes / 4).expect("a binding is less than 4 GiB");
    let tensor = gpu.alloc(BufferRole::Storage, DType::U32, [words].into())?;
    let window = numbers(WINDOW);
    let mut written = 0;
    // The first round makes the memory of drivers.
    write(gpu, tensor, &window).await?;
    let start = now();
    while written == 0 || now() - start < LONG {
        written += write(gpu, tensor, &window).await?;
    }
    Ok(written as f64 / (now() - start))
}

/// Writes a window again and again to all of a tensor. Returns how many bytes.
async fn write(gpu: &mut Gpu, tensor: Tensor, window: &[u8]) -> Result<u64> {
    let (all, mut at) = (tensor.size_bytes(), 0);
    while at < all {
        let len = (all - at).min(window.len() as u64);
        let part = &window[..usize::try_from(len).expect("at most the window")];
        gpu.await_room(part.len()).await?;
        gpu.write(tensor, at, part)?;
        at += len;
    }
    gpu.flush().await?;
    Ok(all)
}

/// Bytes a second that the product of a generated token reads of a matrix that lies there.
async fn read(gpu: &mut Gpu, dtype: DType, home: BufferRole) -> Result<f64> {
    let wanted = if gpu.caps().is_cpu { MATRIX_OF_CPU } else { MATRIX };
    let rows = wanted.min(gpu.max_binding_bytes()) / dtype.row_bytes(COLS.into());
    let rows = u32::try_from(rows).expect("a binding is less than 4 GiB");
    let kernel = product(gpu, dtype, (Form::Vector, home), [1, rows]).await?;
    let seconds = each(gpu, &kernel, kernel.out).await?;
    Ok(kernel.weight.size_bytes() as f64 / seconds)
}

/// Floating-point operations a second of the product of a prompt.
async fn operations(gpu: &mut Gpu, dtype: DType) -> Result<f64> {
    let [tokens, rows] = if gpu.caps().is_cpu { PROMPT_OF_CPU } else { PROMPT };
    let kernel = product(gpu, dtype, (Form::Matrix, BufferRole::Storage), [tokens, rows]).await?;
    let seconds = each(gpu, &kernel, kernel.out).await?;
    Ok(2.0 * f64::from(tokens) * f64::from(rows) * f64::from(COLS) / seconds)
}

/// A product of `tokens` tokens with a matrix of so many rows.
async fn product(
    gpu: &mut Gpu,
    dtype: DType,
    (form, home): (Form, BufferRole),
    [tokens, rows]: [u32; 2],
) -> Result<MatMul> {
    let x = gpu.alloc(BufferRole::Storage, DType::F32, [tokens, COLS].into())?;
    let weight = gpu.alloc(home, dtype, [rows, COLS].into())?;
    let out = gpu.alloc(BufferRole::Storage, DType::F32, [tokens, rows].into())?;
    let step = gpu.alloc(BufferRole::Uniform, DType::U32, [STEP_LEN].into())?;
    gpu.write(step, 0, bytemuck::cast_slice(&header(0, tokens as usize)))?;
    let row = usize::try_from(dtype.row_bytes(COLS.into())).expect("a row fits into memory");
    write(gpu, weight, &numbers((WINDOW / row).max(1) * row)).await?;
    Ok(MatMul { form, step, x, weight, row0: 0, scale: 1.0, cap: 0.0, out })
}

/// Seconds of a kernel apart from what its submission takes.
async fn each(gpu: &mut Gpu, kernel: &dyn Kernel, out: Tensor) -> Result<f64> {
    let of = |gpu: &mut Gpu, count: usize| {
        gpu.record(&mut |exec| (0..count).try_for_each(|_| exec.run(kernel)))
    };
    let one = of(gpu, 1)?;
    let mut count = 2;
    loop {
        let many = of(gpu, count)?;
        let between = beyond(gpu, [&one, &many], out).await?;
        let each = between / (count - 1) as f64;
        if between >= LONG || (count >= MOST && between > 0.0) {
            return Ok(each);
        }
        if count >= MOST {
            return Err(Error::Device("more work took no longer than less".into()));
        }
        // As many as it takes, from what is known by now.
        let enough = |count: usize| each > 0.0 && each * count as f64 >= LONG;
        count *= 2;
        while count < MOST && !enough(count) {
            count *= 2;
        }
    }
}

/// Seconds by which the second plan takes longer than the first, which noise may make negative: the
/// least of three runs of either, after one that compiles.
async fn beyond(gpu: &mut Gpu, plans: [&RecordedPass; 2], out: Tensor) -> Result<f64> {
    let last = Tensor { shape: [1, 1].into(), ..out };
    let mut least = [f64::INFINITY; 2];
    for round in 0..4 {
        for (plan, least) in plans.iter().zip(&mut least) {
            let start = now();
            gpu.run_plan(plan, &[last]).await?;
            if round > 0 {
                *least = least.min(now() - start);
            }
        }
    }
    Ok(least[1] - least[0])
}

/// Bytes a second that the products of a generated token read of weights in the CPU's memory, on
/// all cores.
///
/// # Errors
///
/// Those of [`Cpu::new`](crate::machine::cpu::Cpu::new), and if it has no products for the type.
#[cfg(feature = "host-compute")]
pub fn cpu(dtype: DType) -> Result<f64> {
    use crate::machine::cpu::{Cpu, Rows};

    /// Bytes of the matrix: more than caches hold.
    const MATRIX: usize = 128 << 20;

    let cpu = Cpu::new(0)?;
    let cols = COLS as usize;
    let row = usize::try_from(dtype.row_bytes(COLS.into())).unwrap_or(MATRIX);
    let bytes = numbers(MATRIX / row * row);
    let weight = Rows { dtype, cols, bytes: &bytes };
    let (x, mut out) = (vec![0.5; cols], Vec::new());
    cpu.product(weight, &x, &mut out)?;
    let (start, mut read) = (now(), 0);
    while read == 0 || now() - start < LONG {
        cpu.product(weight, &x, &mut out)?;
        read += bytes.len();
    }
    Ok(read as f64 / (now() - start))
}

/// Bytes that are the numbers of some matrix of any type: exponents of floats and scales are small.
pub(super) fn numbers(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3f
    };
    let mut bytes: Vec<u8> = (0..len.min(1 << 20)).map(|_| next()).collect();
    while bytes.len() < len {
        let more = bytes.len().min(len - bytes.len());
        bytes.extend_from_within(..more);
    }
    bytes
}
