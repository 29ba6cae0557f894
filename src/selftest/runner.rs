//! Runs rows to the end, whatever the device does: what it refuses fails a row, and after a loss there
//! is another device.

use std::collections::HashMap;

use super::{Profile, Report, Row, run};
use crate::{
    base::error::{Error, Result},
    kernels::Case,
    machine::{
        gpu::{Caps, Gpu},
        host::Host,
    },
    variants::Tuning,
};

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
        let gpu = match self.gpu.take().filter(|gpu| !gpu.is_lost()) {
            Some(gpu) => gpu,
            None => open().await?,
        };
        Ok(self.gpu.insert(gpu))
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
        tuning: &str,
        value: &Tuning,
        open: impl AsyncFn() -> Result<Gpu>,
    ) -> Result<Row> {
        let shader = case.build(&mut Host::of_shapes()).record(value)?.shader;
        let lost = self.losses.get(case.kernel).copied().unwrap_or_default();
        let report = if lost >= LOSSES {
            nothing(format!("not run: rows of this kernel lost the device {lost} times"))
        } else {
            let profile = self.profile;
            let result = run(self.gpu(open).await?, case, value, profile).await;
            if matches!(result, Err(Error::Lost(_))) {
                self.losses.insert(case.kernel, lost + 1);
            }
            match result {
                Err(error) if error.is_of_device() => nothing(error.to_string()),
                result => result?,
            }
        };
        let Case { kernel, exact, .. } = *case;
        let (case, tuning) = (case.name.clone(), tuning.to_owned());
        Ok(Row { kernel, case, tuning, shader, exact, report })
    }

    /// Gives the device's memory back.
    pub fn close(self) {
        if let Some(gpu) = self.gpu {
            gpu.destroyer()();
        }
    }
}

/// A failure without values to compare.
fn nothing(why: String) -> Report {
    Report { elements: 0, worst: f64::INFINITY, failure: Some(why) }
}
