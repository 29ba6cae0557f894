//! Large writes to a device: the bytes arrive whichever way they go, in the order of the calls,
//! through a bounded amount of memory; and what happens where that memory or the device is gone.

#![expect(clippy::cast_possible_truncation, reason = "what is written here is small")]

mod common;

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::{DType, Tensor},
    },
    kernels::Gather,
    machine::{
        BufferRole, Machine as _,
        gpu::{Counters, Gpu, LimitProfile, Refusal},
    },
};
use pollster::block_on;

const MOST: usize = Gpu::MOST_STAGED_BYTES as usize;

/// Columns of the matrices that passes copy rows of.
const COLS: u32 = 1 << 10;

fn open() -> Gpu {
    common::open(LimitProfile::Baseline)
}

/// Different bytes for each seed, which are finite numbers as f32 too.
fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    let word = |i: u32| i.wrapping_mul(0x9E37_79B9).wrapping_add(seed) % 8_000_000;
    let words: Vec<f32> = (0..bytes as u32 / 4).map(|i| word(i) as f32).collect();
    bytemuck::cast_slice(&words).to_vec()
}

fn tensor(gpu: &mut Gpu, bytes: usize) -> Result<Tensor> {
    gpu.alloc(BufferRole::Storage, DType::F32, [bytes as u32 / 4].into())
}

fn read(gpu: &mut Gpu, tensor: Tensor) -> Result<Vec<u8>> {
    let bytes = block_on(gpu.read_buffers(&[tensor]))?.remove(0);
    Ok(bytes[..tensor.size_bytes() as usize].to_vec())
}

/// Whether they are the same. Their difference would fill the terminal.
#[track_caller]
fn assert_same(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let first = got.iter().zip(want).position(|(got, want)| got != want);
    assert_eq!(first, None, "{what}: the first byte that differs");
}

#[test]
fn bytes_arrive_at_their_places_whichever_way_they_go() -> Result<()> {
    const STAGED: usize = MOST / 4;
    const LARGE: usize = 64 << 10;
    for on in [true, false] {
        let mut gpu = open();
        gpu.stage_uploads(on);
        let mut want = vec![0; 3 * MOST];
        let all = tensor(&mut gpu, want.len())?;
        // Others in the same step of the list lie beside it, and later ones on top.
        let writes = [
            (0, LARGE),
            (LARGE, LARGE - 4),
            (4 * LARGE, LARGE + 4),
            (12, STAGED),
            (STAGED + 12, STAGED + 4),
            (MOST - 8, STAGED - 4),
            (20, 2 * STAGED + 36),
            (MOST, MOST),
            (4, 2 * MOST + 12),
            (3 * MOST - 4, 4),
            (3 * MOST - LARGE, LARGE),
            (MOST + 40, 0),
        ];
        for (seed, (at, size)) in (1..).zip(writes) {
            let bytes = pattern(seed, size);
            gpu.write(all, at as u64, &bytes)?;
            want[at..at + size].copy_from_slice(&bytes);
            if seed % 4 == 0 {
                assert_same(&read(&mut gpu, all)?, &want, &format!("write {seed}, {on}"));
            }
        }
        block_on(gpu.flush())?;
        assert_same(&read(&mut gpu, all)?, &want, "all");
        assert_eq!(gpu.staged_bytes(), if on { MOST as u64 } else { 0 });
        assert_eq!(gpu.counters(), Counters::default(), "an upload is no pass");
        // Beyond the end nothing is written.
        let bytes = pattern(99, LARGE);
        let error = gpu.write(all, 3 * MOST as u64 - 4, &bytes).expect_err("it is too long");
        assert_eq!(error.code(), "limit");
        assert_same(&read(&mut gpu, all)?, &want, "after an error");
    }
    Ok(())
}

/// A matrix, and a plan that copies its first and its last row.
struct Copied {
    x: Tensor,
    out: Tensor,
    rows: usize,
}

impl Copied {
    const ROW: usize = COLS as usize * 4;

    fn new(gpu: &mut Gpu, rows: usize) -> Result<(Self, Gather)> {
        let mut alloc =
            |dtype, shape: [u32; 2]| gpu.alloc(BufferRole::Storage, dtype, shape.into());
        let x = alloc(DType::F32, [rows as u32, COLS])?;
        let out = alloc(DType::F32, [2, COLS])?;
        let picked = gpu.alloc(BufferRole::Storage, DType::U32, [2].into())?;
        gpu.write(picked, 0, bytemuck::cast_slice(&[0, rows as u32 - 1]))?;
        Ok((Self { x, out, rows }, Gather { x, rows: picked, out }))
    }

    /// What the plan copies of a matrix with this content.
    fn of(&self, content: &[u8]) -> Vec<u8> {
        let last = (self.rows - 1) * Self::ROW;
        [&content[..Self::ROW], &content[last..]].concat()
    }
}

/// A pass sees what was written before it and nothing that is written after it, and of writes to
/// one place the last one stays.
#[test]
fn writes_and_passes_keep_their_order() -> Result<()> {
    const SMALL: usize = 4 << 10;
    let mut gpu = open();
    let rows = (MOST + (1 << 20)) / Copied::ROW;
    let (copied, kernel) = Copied::new(&mut gpu, rows)?;
    let plan = gpu.record(&mut |exec| exec.run(&kernel))?;
    let size = rows * Copied::ROW;
    let mut content = vec![0; size];
    for round in 0..6 {
        let seed = 10 * round;
        let large = pattern(seed, size);
        let [before, after] = [1, 2].map(|more| pattern(seed + more, SMALL));
        // A small write that a large one covers, and one that covers it; each is in the row that
        // the pass copies.
        gpu.write(copied.x, 0, &before)?;
        gpu.write(copied.x, (size - SMALL) as u64, &before)?;
        if round % 2 == 0 {
            gpu.write(copied.x, 0, &large)?;
            content.copy_from_slice(&large);
        } else {
            // Only the last row.
            let tail = size - (128 << 10);
            gpu.write(copied.x, tail as u64, &large[tail..])?;
            content[tail..].copy_from_slice(&large[tail..]);
            content[..SMALL].copy_from_slice(&before);
        }
        gpu.write(copied.x, 8, &after[..SMALL - 8])?;
        content[8..SMALL].copy_from_slice(&after[..SMALL - 8]);
        // A run without results waits for nothing, so that what follows is written beside it.
        block_on(gpu.run_plan(&plan, &[]))?;
        let want = copied.of(&content);
        let next = pattern(seed + 3, size);
        gpu.write(copied.x, 0, &next)?;
        gpu.write(copied.x, 0, &before[..4])?;
        content.copy_from_slice(&next);
        content[..4].copy_from_slice(&before[..4]);
        assert_same(&read(&mut gpu, copied.out)?, &want, &format!("the pass of round {round}"));
        assert_same(&read(&mut gpu, copied.x)?, &content, &format!("round {round}"));
    }
    Ok(())
}

#[test]
fn staging_is_bounded_and_freed_when_it_is_not_used() -> Result<()> {
    let mut gpu = open();
    let (copied, kernel) = Copied::new(&mut gpu, 256)?;
    let all = tensor(&mut gpu, 2 * MOST)?;
    gpu.write(copied.x, 0, &pattern(1, 60 << 10))?;
    assert_eq!(gpu.staged_bytes(), 0, "a small write needs none");
    gpu.refuse(None);
    let mut want = Vec::new();
    for seed in 0..8 {
        want = pattern(seed, 2 * MOST);
        gpu.write(all, 0, &want)?;
        assert_eq!(gpu.staged_bytes(), MOST as u64);
    }
    assert_eq!(gpu.made()[0], 4, "the same buffers again and again");
    assert_same(&read(&mut gpu, all)?, &want, "the last");
    // Loading ends with the first plan, even if nobody has waited for the last write.
    gpu.write(all, 0, &pattern(77, 2 * MOST))?;
    let plan = gpu.record(&mut |exec| exec.run(&kernel))?;
    assert_eq!(gpu.staged_bytes(), 0);
    assert_same(&read(&mut gpu, all)?, &pattern(77, 2 * MOST), "freed while it was copied");
    // Passes leave it to those who write between them.
    let first = pattern(78, 80 << 10);
    for _ in 0..3 {
        gpu.write(copied.x, 0, &first)?;
        block_on(gpu.run_plan(&plan, &[copied.out]))?;
    }
    assert_eq!(gpu.staged_bytes(), 3 * MOST as u64 / 4, "one for each of three writes");
    gpu.truncate(1);
    assert!(gpu.staged_bytes() > 0, "a tensor is left");
    gpu.truncate(0);
    assert_eq!((gpu.staged_bytes(), gpu.allocated_bytes()), (0, 0));
    Ok(())
}

#[test]
fn staging_that_is_refused_is_an_error_with_its_size_and_the_device_goes_on() -> Result<()> {
    let mut gpu = open();
    let all = tensor(&mut gpu, 2 * MOST)?;
    let want = pattern(5, 2 * MOST);
    for n in 0..4 {
        gpu.stage_uploads(true);
        gpu.refuse(Some(Refusal::Buffer(n)));
        let error = gpu.write(all, 0, &want).expect_err("a buffer is refused");
        let Error::OutOfMemory { what, bytes, held, .. } = &error else { panic!("{error}") };
        assert!(what.contains("uploads"), "{error}");
        assert_eq!((*bytes, *held), (Some(MOST as u64 / 4), gpu.allocated_bytes()), "{error}");
        assert_eq!(gpu.staged_bytes(), n * MOST as u64 / 4, "{n}");
        gpu.write(all, 0, &want)?;
        assert_same(&read(&mut gpu, all)?, &want, &format!("after {n}"));
    }
    for n in 0..4 {
        let mut gpu = open();
        let all = tensor(&mut gpu, 2 * MOST)?;
        gpu.refuse(Some(Refusal::BufferAndDevice(n)));
        let error = gpu.write(all, 0, &want).expect_err("the device is lost");
        assert_eq!(error.code(), "out_of_memory", "{n}: {error}");
        assert!(gpu.is_lost(), "{n}");
    }
    Ok(())
}

#[test]
fn a_device_that_is_lost_among_uploads_is_lost() -> Result<()> {
    let bytes = pattern(3, 2 * MOST);
    // With nothing in the ring, with a part of it in use, and with all of it.
    for before in [0, MOST / 2, 2 * MOST] {
        for waited in [false, true] {
            let mut gpu = open();
            let all = tensor(&mut gpu, 2 * MOST)?;
            gpu.write(all, 0, &bytes[..before])?;
            if waited {
                block_on(gpu.flush())?;
            }
            gpu.destroyer()();
            for _ in 0..3 {
                // Small writes do not tell either; whoever waits is told.
                if let Err(error) = gpu.write(all, 0, &bytes) {
                    assert_eq!(error.code(), "device_lost", "{before}, {waited}: {error}");
                }
                let error = block_on(gpu.flush()).expect_err("it is lost");
                assert_eq!(error.code(), "device_lost", "{before}, {waited}: {error}");
            }
            assert!(gpu.is_lost());
        }
    }
    Ok(())
}
