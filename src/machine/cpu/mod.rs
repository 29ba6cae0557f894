//! Products with stored weights on the CPU, for weights that are not on the device: with SIMD, on
//! all cores, and with the same bits on every CPU and for every number of threads.

mod dot;
mod lanes;

pub use fearless_simd::Level;
use fearless_simd::{Simd, dispatch, f32x16, prelude::*};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use crate::base::{
    activation::Gelu,
    error::{Error, Result},
    num::round,
    tensor::DType,
};

/// Bytes of weights that a thread takes at a time, at least.
const PIECE: usize = 64 << 10;

/// The cores of this computer.
#[derive(Debug)]
pub struct Cpu {
    level: Level,
    pool: ThreadPool,
}

/// A matrix as it is stored: row after row, each of [`DType::row_bytes`].
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Element type.
    pub dtype: DType,
    /// Elements of a row.
    pub cols: usize,
    /// The rows.
    pub bytes: &'a [u8],
}

/// The matrices of a gated MLP.
#[derive(Clone, Copy, Debug)]
pub struct MlpRows<'a> {
    /// `[width, hidden]`
    pub gate: Rows<'a>,
    /// `[width, hidden]`
    pub up: Rows<'a>,
    /// `[hidden, width]`
    pub down: Rows<'a>,
}

impl Cpu {
    /// The best instructions that this CPU has, on `threads` threads: as many as there are cores
    /// if that is 0.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the CPU has no fused multiply-add, or the system gives no threads.
    pub fn new(threads: usize) -> Result<Self> {
        Self::at(Level::new(), threads)
    }

    /// The same with instructions of this level, which all give the same bits.
    ///
    /// # Errors
    ///
    /// Those of [`Cpu::new`].
    pub fn at(level: Level, threads: usize) -> Result<Self> {
        if !dispatch!(level, simd => is_fused(simd)) {
            return Err(Error::Usage(format!(
                "this CPU has no fused multiply-add ({level:?}), which results on the CPU need to \
                 be the same on all computers: run without `--host-compute`"
            )));
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| {
            Error::Usage(format!("the system gives no threads to compute with: {error}"))
        })?;
        Ok(Self { level, pool })
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Name of the instructions.
    pub fn instructions(&self) -> String {
        let name = format!("{:?}", self.level);
        name.split('(').next().unwrap_or_default().to_owned()
    }

    /// `out[c, r] = dot(x[c, :], weight[r, :])` for columns `x`: `[n, cols]`. Replaces `out`:
    /// `[n, rows]`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the bytes are not whole rows of a type of weights, or `x` is not whole
    /// columns.
    pub fn product(&self, weight: Rows<'_>, x: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let columns = weight.columns(x)?;
        let by_row = self.by_row(weight, &columns, |_| ());
        by_column(&by_row, columns.count, out);
        Ok(())
    }

    /// `out[c, r] = gelu(dot(x[c, :], gate[r, :])) * dot(x[c, :], up[r, :])`, as
    /// [`Cpu::product`].
    ///
    /// # Errors
    ///
    /// Those of [`Cpu::product`], and if the two have other numbers of rows.
    pub fn gated(
        &self,
        [gate, up]: [Rows<'_>; 2],
        gelu: Gelu,
        x: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let (of_gate, of_up) = (gate.columns(x)?, up.columns(x)?);
        if gate.count()? != up.count()? {
            return Err(Error::Usage(format!(
                "gate and up of an MLP have {} and {} rows, expected as many of both",
                gate.count()?,
                up.count()?
            )));
        }
        let mut product = self.by_row(gate, &of_gate, |sums| {
            for sum in sums {
                *sum = activated(*sum, gelu);
            }
        });
        let up = self.by_row(up, &of_up, |_| ());
        product.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
        by_column(&product, of_gate.count, out);
        Ok(())
    }

    /// A gated MLP: `out[c, :] = down (gelu(gate x[c, :]) * up x[c, :])`.
    ///
    /// # Errors
    ///
    /// Those of [`Cpu::gated`].
    pub fn mlp(&self, mlp: MlpRows<'_>, gelu: Gelu, x: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let mut inner = Vec::new();
        self.gated([mlp.gate, mlp.up], gelu, x, &mut inner)?;
        self.product(mlp.down, &inner, out)
    }

    /// The sums of all rows with all columns, `[rows, columns]`, each piece of rows through `end`.
    fn by_row(
        &self,
        weight: Rows<'_>,
        columns: &Columns,
        end: impl Fn(&mut [f32]) + Sync,
    ) -> Vec<f32> {
        let row_bytes = weight.row_bytes();
        let rows = weight.bytes.len() / row_bytes.max(1);
        let piece = (PIECE / row_bytes.max(1)).max(1);
        let mut sums = vec![0.0; rows * columns.count];
        let (level, of) = (self.level, (weight.dtype, weight.cols));
        self.pool.install(|| {
            let pieces = sums.par_chunks_mut(piece * columns.count.max(1));
            pieces.zip(weight.bytes.par_chunks(piece * row_bytes.max(1))).for_each(
                |(sums, bytes)| {
                    dots(level, of, bytes, &columns.x, sums);
                    end(sums);
                },
            );
        });
        sums
    }
}

/// [`dot::rows`] with instructions of this level. Those without a fused multiply-add are refused
/// before, and code for them would be half of all.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn dots(level: Level, of: (DType, usize), bytes: &[u8], columns: &[f32], out: &mut [f32]) {
    if let Some(simd) = level.as_avx512() {
        simd.vectorize(
            #[inline(always)]
            || dot::rows(simd, of, bytes, columns, out),
        );
    } else if let Some(simd) = level.as_avx2() {
        simd.vectorize(
            #[inline(always)]
            || dot::rows(simd, of, bytes, columns, out),
        );
    } else {
        unreachable!("{level:?} has no fused multiply-add and was refused");
    }
}

/// [`dot::rows`] with instructions of this level.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn dots(level: Level, of: (DType, usize), bytes: &[u8], columns: &[f32], out: &mut [f32]) {
    dispatch!(level, simd => dot::rows(simd, of, bytes, columns, out));
}

/// Columns as rows of a type want them.
struct Columns {
    x: Vec<f32>,
    count: usize,
}

impl Rows<'_> {
    fn row_bytes(self) -> usize {
        usize::try_from(self.dtype.row_bytes(self.cols as u64)).unwrap_or(usize::MAX)
    }

    /// How many rows there are.
    fn count(self) -> Result<usize> {
        let Self { dtype, cols, bytes } = self;
        let row = self.row_bytes();
        let whole = cols.is_multiple_of(dtype.block() as usize);
        if dtype == DType::U32 || cols == 0 || !whole || !bytes.len().is_multiple_of(row) {
            return Err(Error::Usage(format!(
                "{} bytes of weights of {dtype}, expected whole rows of {cols} columns, {row} \
                 bytes each",
                bytes.len()
            )));
        }
        Ok(bytes.len() / row)
    }

    /// Lays out columns for these rows.
    fn columns(self, x: &[f32]) -> Result<Columns> {
        self.count()?;
        if !x.len().is_multiple_of(self.cols) {
            return Err(Error::Usage(format!(
                "{} activations, expected whole columns of {}",
                x.len(),
                self.cols
            )));
        }
        let count = x.len() / self.cols;
        let mut prepared = Vec::with_capacity(count * dot::prepared_len(self.dtype, self.cols));
        for column in x.chunks_exact(self.cols) {
            dot::prepare(self.dtype, column, &mut prepared);
        }
        Ok(Columns { x: prepared, count })
    }

    /// The most roundings that a product with an element of a row goes through.
    pub fn depth(self) -> usize {
        dot::depth(self.dtype, self.cols)
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn by_column(by_row: &[f32], columns: usize, out: &mut Vec<f32>) {
    out.clear();
    for column in 0..columns {
        out.extend(by_row.iter().skip(column).step_by(columns));
    }
}

/// The activation, in f64 and rounded once.
fn activated(x: f32, gelu: Gelu) -> f32 {
    let x = f64::from(x);
    round(match gelu {
        Gelu::Erf => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Gelu::Tanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + libm::tanh(inner))
        }
    })
}

/// Whether a multiply-add rounds once.
#[expect(clippy::inline_always, reason = "SIMD code must be in the caller that has the features")]
#[inline(always)]
fn is_fused<S: Simd>(simd: S) -> bool {
    // The square of 1 + 2^-12 is 1 + 2^-11 + 2^-24, whose last bit a product of floats loses.
    let x = f32x16::splat(simd, 1.0 + 1.0 / 4096.0);
    let rest: [f32; 16] = x.mul_add(x, f32x16::splat(simd, -(1.0 + 1.0 / 2048.0))).into();
    rest.iter().all(|rest| rest.to_bits() == (1.0_f32 / 16_777_216.0).to_bits())
}
