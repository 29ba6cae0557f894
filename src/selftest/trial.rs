//! Variants on trial: `tune` measures them only where all their rows pass.

use super::{Profile, run, ways};
use crate::{
    base::error::{Error, Result},
    kernels::Case,
    machine::{gpu::Gpu, host::Host},
    variants::{Setting, Tuning, VARIANTS, Variant},
};

/// The variants on trial that a device has the features for and computes wrong, each with the first
/// of the rows that fails. `progress` is called before each row; an error from it stops the work.
///
/// # Errors
///
/// Errors of the device other than that it refuses a program, and of `progress`.
pub async fn failed_trials(
    gpu: &mut Gpu,
    cases: &[Case],
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<(&'static str, String)>> {
    let on = gpu.caps().capabilities();
    let mut failed = Vec::new();
    for &variant in VARIANTS {
        if variant.is_on_trial()
            && variant.needs(&on).is_ok()
            && let Some(failure) = trial(gpu, variant, cases, progress).await?
        {
            failed.push((variant.name(), failure));
        }
    }
    Ok(failed)
}

/// The first of these rows that fails with a variant, and how; `None` if all pass.
///
/// # Errors
///
/// Those of [`failed_trials`].
pub async fn trial(
    gpu: &mut Gpu,
    variant: &'static dyn Variant,
    cases: &[Case],
    progress: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<String>> {
    let on = gpu.caps().capabilities();
    let tuning = |sizes| {
        let setting = Setting::new(variant, sizes);
        (setting.to_string(), Tuning::by(&on, setting))
    };
    let tunings: Vec<(String, Tuning)> = variant.checked(&on).into_iter().map(tuning).collect();
    for case in cases {
        for (name, tuning) in ways(case, &tunings)? {
            // What it does not implement has the plain variant.
            let shader = case.build(&mut Host::of_shapes()).shader(&tuning);
            if shader.variant != Some(variant.name()) {
                continue;
            }
            progress()?;
            let failure = match run(gpu, case, &tuning, Profile::Full).await {
                Ok(report) => report.failure,
                Err(error @ (Error::Device(_) | Error::Refused { .. })) => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            if let Some(failure) = failure {
                return Ok(Some(format!("{} [{name}]: {failure}", case.full_name())));
            }
        }
    }
    Ok(None)
}
