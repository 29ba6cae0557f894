//! Runs test rows even if a device fails: a row that the device refuses fails, and a lost device is
//! replaced.

use std::collections::HashMap;

use super::{Profile, Report, Row, run};
use crate::{
    base::error::Result,
    kernels::Case,
    machine::{
        Machine as _,
        gpu::{Caps, Gpu, wait},
        host::Host,
    },
    variants::Tuning,
};

/// Most devices that the rows of one kernel may lose before its other rows are skipped. A driver
/// that hangs takes seconds to recover.
pub const LOSSES: usize = 3;

/// The device under test, and a count of the devices lost before it.
#[derive(Debug)]
pub struct Runner {
    /// `None` until a lost device is replaced.
    gpu: Option<Gpu>,
    caps: Caps,
    profile: Profile,
    /// Number of losses by kernel.
    losses: HashMap<&'static str, usize>,
}

impl Runner {
    /// Starts with this device.
    pub fn new(gpu: Gpu, profile: Profile) -> Self {
        let caps = gpu.caps().clone();
        Self { gpu: Some(gpu), caps, profile, losses: HashMap::new() }
    }

    /// The capabilities and limits of the device.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The device; if it was lost, a new one from `open`.
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub async fn gpu(&mut self, open: impl AsyncFn() -> Result<Gpu>) -> Result<&mut Gpu> {
        let gpu = match self.gpu.take().filter(|gpu| !gpu.is_lost()) {
            Some(gpu) => gpu,
            None => open().await?,
        };
        Ok(self.gpu.insert(gpu))
    }

    /// Runs a row with the tuning `value`, whose name is `tuning`.
    ///
    /// If the device refuses the row or is lost, the row fails.
    ///
    /// # Errors
    ///
    /// If a lost device cannot be replaced, or the row cannot be dispatched.
    pub async fn row(
        &mut self,
        case: &Case,
        tuning: &str,
        value: &Tuning,
        open: impl AsyncFn() -> Result<Gpu>,
    ) -> Result<Row> {
        let started = wait::now();
        let shader = case.build(&mut Host::of_shapes()).record(value)?.shader;
        let lost = self.losses.get(case.kernel).copied().unwrap_or_default();
        let report = if lost >= LOSSES {
            nothing(format!("not run: rows of this kernel lost the device {lost} times"))
        } else {
            let profile = self.profile;
            let result = run(self.gpu(open).await?, case, value, profile).await;
            if result.is_err() && self.gpu.as_ref().is_some_and(Gpu::is_lost) {
                self.losses.insert(case.kernel, lost + 1);
            }
            match result {
                Err(error) if error.is_of_device() => nothing(error.to_string()),
                result => result?,
            }
        };
        let Case { kernel, exact, .. } = *case;
        let (case, tuning) = (case.name.clone(), tuning.to_owned());
        let seconds = wait::now() - started;
        Ok(Row { kernel, case, tuning, shader, exact, seconds, known: false, report })
    }

    /// Destroys the device, which frees its memory.
    pub fn close(self) {
        if let Some(gpu) = self.gpu {
            gpu.destroyer()();
        }
    }
}

/// A failed report without values to compare.
fn nothing(why: String) -> Report {
    Report { worst: f64::INFINITY, failure: Some(why), ..Report::new() }
}
