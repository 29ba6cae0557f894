//! Runs rows to the end, whatever the device does: what it refuses fails a row, and after a loss there
//! is another device.

use std::collections::HashMap;

use super::{Profile, Report, Row, prepare, ways};
use crate::{Error, Gpu, Host, Result, Tuning, gpu::Caps, kernels::Case};

/// Devices that the rows of one kernel may lose before its other rows are left out. A driver that
/// hangs takes seconds to come back.
pub const LOSSES: usize = 3;

/// A device under test, and what became of those before it.
#[derive(Debug)]
pub struct Runner {
    /// Nothing while a lost device has not been replaced.
    gpu: Option<Gpu>,
    caps: Caps,
    profile: Profile,
    /// By kernel.
    losses: HashMap<&'static str, usize>,
}

impl Runner {
    /// Begins with a device.
    pub fn new(gpu: Gpu, profile: Profile) -> Self {
        let caps = gpu.caps().clone();
        Self { gpu: Some(gpu), caps, profile, losses: HashMap::new() }
    }

    /// The adapter and what it granted.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The device; another one, which `open` opens, if it was lost.
    pub async fn gpu(&mut self, open: impl AsyncFn() -> Result<Gpu>) -> Result<&mut Gpu> {
        let gpu = match self.gpu.take().filter(|gpu| gpu.lost().is_none()) {
            Some(gpu) => gpu,
            None => open().await?,
        };
        Ok(self.gpu.insert(gpu))
    }

    /// Begins to build the pipelines of all that will run, in this order, while rows run. Compilers take
    /// longer than most rows.
    pub async fn prepare_ahead(
        &mut self,
        cases: &[Case],
        tunings: &[(&'static str, Tuning)],
        open: impl AsyncFn() -> Result<Gpu>,
    ) -> Result<()> {
        let mut dispatches = Vec::new();
        for case in cases {
            for (_, tuning) in ways(case, tunings)? {
                dispatches.push(case.build(&mut Host::of_shapes()).record(&tuning)?);
            }
        }
        self.gpu(open).await?.prepare_ahead(&dispatches);
        Ok(())
    }

    /// Runs a row, with its work divided as `value` says, which is called `tuning`.
    ///
    /// What the device refuses, or is lost by, fails the row.
    ///
    /// # Errors
    ///
    /// If a lost device cannot be replaced, or the row itself makes no sense.
    pub async fn row(
        &mut self,
        case: &Case,
        tuning: &'static str,
        value: &Tuning,
        open: impl AsyncFn() -> Result<Gpu>,
    ) -> Result<Row> {
        let lost = self.losses.get(case.kernel).copied().unwrap_or_default();
        if lost >= LOSSES {
            let why = format!("not run: rows of this kernel lost the device {lost} times");
            return failed(case, tuning, value, why);
        }
        let profile = self.profile;
        let gpu = self.gpu(open).await?;
        match Row::run(gpu, profile, case, tuning, value).await {
            Err(error) if error.is_of_device() => {
                let error = gpu.lost().map_or(error, Error::Lost);
                let loss = usize::from(matches!(error, Error::Lost(_)));
                *self.losses.entry(case.kernel).or_default() += loss;
                failed(case, tuning, value, error.to_string())
            }
            result => result,
        }
    }

    /// Gives the device's memory back.
    pub fn close(self) {
        if let Some(gpu) = self.gpu {
            gpu.destroyer()();
        }
    }
}

/// A row that has no values to compare.
fn failed(case: &Case, tuning: &'static str, value: &Tuning, why: String) -> Result<Row> {
    let (_, _, dispatch) = prepare(case, value)?;
    Ok(Row {
        kernel: case.kernel,
        case: case.name.clone(),
        tuning,
        shader: dispatch.shader,
        exact: case.exact,
        report: Report { elements: 0, worst: f64::INFINITY, failure: Some(why) },
    })
}
