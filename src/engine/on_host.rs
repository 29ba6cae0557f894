//! MLPs that the CPU computes, since their weights are not on the machine.

use std::collections::HashMap;

use super::{pool::Unit, sizes::HostCompute};
use crate::{
    base::{activation::Gelu, error::Result, tensor::DType},
    machine::cpu::{Cpu, MlpRows, Rows},
    model::{Matrix, Mlp, ahead::Ahead, weights::Weights as _},
};

/// The CPU, and the weights that stay in its memory.
#[derive(Debug)]
pub(super) struct OnHost {
    cpu: Cpu,
    /// Bytes of weights that may stay in memory.
    most: u64,
    /// Bytes that do.
    bytes: u64,
    kept: HashMap<Unit, Stored>,
    /// Where weights that do not stay are read to.
    passing: Stored,
}

/// The matrices of an MLP, as they are stored.
#[derive(Debug, Default)]
struct Stored([Rowed; 3]);

#[derive(Debug)]
struct Rowed {
    dtype: DType,
    cols: usize,
    bytes: Vec<u8>,
}

impl Default for Rowed {
    fn default() -> Self {
        Self { dtype: DType::F32, cols: 0, bytes: Vec::new() }
    }
}

impl Rowed {
    fn rows(&self) -> Rows<'_> {
        Rows { dtype: self.dtype, cols: self.cols, bytes: &self.bytes }
    }
}

impl OnHost {
    /// Nothing is in memory yet.
    ///
    /// # Errors
    ///
    /// Those of [`Cpu::new`].
    pub(super) fn new(options: HostCompute) -> Result<Self> {
        Ok(Self::of(Cpu::new(options.threads as usize)?, options.memory))
    }

    /// A CPU that may keep so many bytes of weights.
    fn of(cpu: Cpu, most: u64) -> Self {
        Self { cpu, most, bytes: 0, kept: HashMap::new(), passing: Stored::default() }
    }

    /// Has the weights of an MLP read that are not in memory.
    ///
    /// # Errors
    ///
    /// Those of [`Matrix::reads`].
    pub(super) fn expect(&self, weights: &Ahead, mlp: &Mlp, unit: Unit) -> Result<()> {
        if !self.kept.contains_key(&unit) {
            for matrix in mlp.matrices() {
                weights.expect(matrix.reads(at(unit), dtype(weights, matrix, unit)?));
            }
        }
        Ok(())
    }

    /// The outputs of an MLP for columns `x`, one after another. `heed` is called with the bytes
    /// that were read of it; an error from it ends the work. Returns how many were read.
    ///
    /// # Errors
    ///
    /// Errors of reading and of `heed`; those of [`Cpu::mlp`].
    pub(super) async fn compute(
        &mut self,
        weights: &Ahead,
        (mlp, unit): (&Mlp, Unit),
        gelu: Gelu,
        x: &[f32],
        heed: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(Vec<f32>, u64)> {
        let mut out = Vec::new();
        if let Some(kept) = self.kept.get(&unit) {
            self.cpu.mlp(kept.mlp(), gelu, x, &mut out)?;
            return Ok((out, 0));
        }
        let bytes = mlp.matrices().map(Matrix::bytes_of_one).iter().sum::<u64>();
        let keep = self.bytes.saturating_add(bytes) <= self.most;
        let mut fresh = Stored::default();
        let into = if keep { &mut fresh } else { &mut self.passing };
        let read = into.read(weights, mlp, unit, heed).await?;
        self.cpu.mlp(into.mlp(), gelu, x, &mut out)?;
        if keep {
            self.bytes += read;
            self.kept.insert(unit, fresh);
        }
        Ok((out, read))
    }
}

impl Stored {
    /// Reads the matrices. Returns how many bytes they have.
    async fn read(
        &mut self,
        weights: &Ahead,
        mlp: &Mlp,
        unit: Unit,
        heed: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<u64> {
        let (mut read, mut window) = (0, Vec::new());
        for (stored, matrix) in self.0.iter_mut().zip(mlp.matrices()) {
            stored.dtype = dtype(weights, matrix, unit)?;
            stored.cols = matrix.columns();
            stored.bytes.clear();
            for rows in matrix.reads(at(unit), stored.dtype) {
                weights.read_rows(&rows.name, rows.row0, rows.rows, &mut window).await?;
                stored.bytes.extend_from_slice(&window);
                read += window.len() as u64;
                heed(read)?;
            }
        }
        Ok(read)
    }

    fn mlp(&self) -> MlpRows<'_> {
        let [gate, up, down] = self.0.each_ref().map(Rowed::rows);
        MlpRows { gate, up, down }
    }
}

/// Which of the stacked matrices is a unit's.
fn at(unit: Unit) -> usize {
    if unit.expert == Unit::DENSE { 0 } else { unit.expert as usize }
}

/// The type in which a matrix of an MLP is stored.
fn dtype(weights: &Ahead, matrix: &Matrix, unit: Unit) -> Result<DType> {
    weights.dtype(matrix.source(at(unit)))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::{
        checkpoint::Synthetic,
        engine::{Engine, SessionOptions},
        machine::{Machine as _, cpu::Level, host::Host},
        model::{Placement, Slots, config::Config},
    };

    /// Those of the oldest x86-64 have no fused multiply-add.
    #[test]
    fn an_engine_beside_an_old_cpu_loads_nothing_unless_the_cpu_is_not_wanted() {
        let config = Config::preset("tiny").expect("a preset");
        let weights = Synthetic::new(&config, DType::Q4, 0).expect("weights");
        let placement = Placement::least(Slots::Shared(2));
        let (mut machine, mut read) = (Host::default(), 0);
        let mut load = |host| {
            let old = |options: HostCompute| {
                Ok(OnHost::of(Cpu::at(Level::baseline(), 1)?, options.memory))
            };
            let options = SessionOptions::new(32, 8, DType::F32).with_host_compute(host);
            let mut progress = |done| {
                read = done;
                Ok(())
            };
            let machine = &mut machine;
            let made = Engine::load_beside(
                old,
                &mut *machine,
                &config,
                &weights,
                options,
                placement,
                &mut progress,
            );
            let error = block_on(made).map(drop).err();
            (error, machine.tensor_count(), read)
        };
        let (error, tensors, read) = load(Some(HostCompute::new(0, 0)));
        let error = error.expect("is refused");
        assert_eq!((error.code(), tensors, read), ("usage", 0, 0), "{error}");
        let text = error.to_string();
        for part in ["this CPU has no fused multiply-add", "run without `--host-compute`"] {
            assert!(text.contains(part), "{text}");
        }
        let (error, tensors, read) = load(None);
        assert!(error.is_none() && tensors > 0 && read > 0, "{error:?} {tensors} {read}");
    }
}
