//! Autotuning: measures the variants of each matrix product of a model on a device, and picks the
//! fastest.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::error::{Error, Result},
    engine::{session::Session, step::Readback},
    machine::gpu::{Caps, Gpu},
    variants::{Class, Form, Measured, Refused, Setting, Tuning, VARIANTS, Variant, Why},
};

/// A candidate: one variant with its sizes, used for all products of a phase at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// GEMV, in decode, or GEMM, in prefill.
    pub form: Form,
    /// The variant and its sizes.
    pub setting: Setting,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.setting.fmt(f)
    }
}

/// The candidates that a device can run; for each form the default comes first. Variants that round
/// activations to 8-bit integers are included only if `rounding` is set. Those called `without` are
/// left out.
pub fn ways(caps: &Caps, rounding: bool, without: &[&str]) -> Vec<Way> {
    let (on, default) = (caps.capabilities(), caps.tuning());
    let mut ways: Vec<Way> = Vec::new();
    for form in Form::ALL {
        let mut add = |setting| {
            let way = Way { form, setting };
            if !ways.contains(&way) {
                ways.push(way);
            }
        };
        add(default.default_of(form));
        for &variant in VARIANTS {
            let may = variant.forms().contains(&form) && (rounding || !variant.rounds());
            if may && !without.contains(&variant.name()) && variant.needs(&on).is_ok() {
                for sizes in variant.settings(&on) {
                    add(Setting::new(variant, sizes));
                }
            }
        }
    }
    ways
}

/// The variants that a device cannot run, each with the reason.
pub fn left_out(caps: &Caps) -> Vec<(&'static str, Why)> {
    let on = caps.capabilities();
    let why = |variant: &&'static dyn Variant| Some((variant.name(), variant.needs(&on).err()?));
    VARIANTS.iter().filter_map(why).collect()
}

/// The entries of `measured` that a device can run: the file may be old or edited.
pub fn possible(caps: &Caps, mut measured: Measured) -> Measured {
    let on = caps.capabilities();
    measured.retain(|_, setting| setting.runs_on(&on).is_ok());
    measured
}

/// The measurements of one class of products.
#[derive(Clone, Debug)]
pub struct Found {
    /// The class.
    pub class: Class,
    /// Nanoseconds of one product with each candidate, the minimum over all rounds, in the order of
    /// [`ways`].
    pub times: Vec<(Way, f64)>,
}

impl Found {
    /// The fastest candidate and its time. The default, or the first that the device runs, wins
    /// unless another is at least 3 % faster, since smaller differences may be noise.
    pub fn best(&self) -> Option<(Way, f64)> {
        let best = self.times.iter().copied().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let default = *self.times.first()?;
        Some(if default.1 < 1.03 * best.1 { default } else { best })
    }

    /// The time of the default, or of the first candidate that the device runs.
    pub fn before(&self) -> Option<f64> {
        self.times.first().map(|&(_, time)| time)
    }
}

/// The fastest candidate for each class.
pub fn choose(found: &[Found]) -> Measured {
    found.iter().filter_map(|of| Some((of.class.clone(), of.best()?.0.setting))).collect()
}

/// Measures the products of a session's model: `rounds` times each candidate, after one round of
/// warm-up. `prompt` goes through the model first, so that the router chooses real experts. The
/// session is left with the fastest candidates; `rounding` allows those that round activations to
/// 8-bit integers, and variants called `without` are left out. `progress` is called after each
/// candidate; an error from it stops the work.
///
/// # Errors
///
/// [`Error::Usage`] if the device has no timestamp queries; errors of the device and of `progress`.
/// A candidate that the device fails to compile is left out.
pub async fn measure(
    session: &mut Session<Gpu>,
    prompt: &[u32],
    rounds: u32,
    rounding: bool,
    without: &[&str],
    progress: &mut dyn FnMut(Way) -> Result<()>,
) -> Result<Vec<Found>> {
    let caps = session.machine().caps().clone();
    if !caps.timestamps {
        return Err(Error::Usage(format!("{} cannot time dispatches", caps.describe())));
    }
    let default = caps.tuning();
    let mut found: BTreeMap<Class, Vec<(Way, f64)>> = BTreeMap::new();
    let ways = ways(&caps, rounding, without);
    for &way in &ways {
        let tuning = default.clone().with(way.form, way.setting);
        session.engine().change_machine(|gpu| gpu.set_tuning(tuning));
        match times(session, prompt, rounds, way).await {
            Ok(times) => {
                // Its own time is wanted, not that of a plain variant in its place.
                let refused = &session.machine().tuning().refused;
                let name = way.setting.variant().name();
                for (class, time) in times {
                    let is_it = |refused: &Refused| {
                        (refused.kernel, refused.variant) == (class.kernel.as_str(), name)
                            && refused.dtype == class.dtype
                    };
                    if !refused.iter().any(is_it) {
                        found.entry(class).or_default().push((way, time));
                    }
                }
            }
            Err(Error::Device(_) | Error::Refused { .. }) if way != ways[0] => {}
            Err(error) => {
                session.engine().change_machine(|gpu| gpu.set_tuning(default));
                return Err(error);
            }
        }
        progress(way)?;
    }
    let found: Vec<Found> =
        found.into_iter().map(|(class, times)| Found { class, times }).collect();
    let measured = Some(Arc::new(choose(&found)));
    session.engine().change_machine(|gpu| gpu.set_tuning(Tuning { measured, ..default }));
    Ok(found)
}

/// Nanoseconds of one product of each class, in the phase of `way`.
async fn times(
    session: &mut Session<Gpu>,
    prompt: &[u32],
    rounds: u32,
    way: Way,
) -> Result<BTreeMap<Class, f64>> {
    const READ: Readback = Readback::Top(1);
    session.rewind(0);
    session.prefill(prompt, READ).await?;
    let plan = match way.form {
        Form::Vector => {
            session.decode(prompt[0], READ).await?;
            session.decode_plan(READ)?.clone()
        }
        Form::Matrix => session.prefill_plan(READ)?.clone(),
    };
    let mut least: BTreeMap<Class, f64> = BTreeMap::new();
    for round in 0..=rounds {
        let mut sums: BTreeMap<Class, (f64, f64)> = BTreeMap::new();
        for step in session.machine_mut().time_plan(&plan).await? {
            if let Some(class) = step.class {
                let (sum, count) = sums.entry(class).or_default();
                *sum += step.nanoseconds;
                *count += 1.0;
            }
        }
        if round > 0 {
            for (class, (sum, count)) in sums {
                let mean = sum / count;
                least.entry(class).and_modify(|time| *time = time.min(mean)).or_insert(mean);
            }
        }
    }
    least.retain(|class, _| class.form == way.form);
    Ok(least)
}
