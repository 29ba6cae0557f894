//! Finds the fastest way to divide each product of a model on a device, by measuring.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::error::{Error, Result},
    engine::{session::Session, step::Readback},
    machine::gpu::{Caps, Gpu},
    variants::{Class, Form, Measured, Setting, Tuning, VARIANTS, Variant, Why},
};

/// A way to divide the work of a phase: all of its products are measured with it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Matrix-vector products, in decode, or matrix products, in prefill.
    pub form: Form,
    /// The variant and its sizes.
    pub setting: Setting,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.setting.fmt(f)
    }
}

/// The ways that a device has, of each form that first which it takes without measuring. Those that
/// round activations to bytes are only among them if `rounding` allows it.
pub fn ways(caps: &Caps, rounding: bool) -> Vec<Way> {
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
            if may && variant.needs(&on).is_ok() {
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

/// What of `measured` a device can do: a file may be old, or somebody may have edited it.
pub fn possible(caps: &Caps, mut measured: Measured) -> Measured {
    let on = caps.capabilities();
    measured.retain(|_, setting| setting.runs_on(&on).is_ok());
    measured
}

/// What was measured of one class of products.
#[derive(Clone, Debug)]
pub struct Found {
    /// The products.
    pub class: Class,
    /// Nanoseconds of one of them by each way, the least of all rounds, in the order of [`ways`].
    pub times: Vec<(Way, f64)>,
}

impl Found {
    /// The fastest way, and its time. What is hardly faster than the default may be so by chance.
    pub fn best(&self) -> Option<(Way, f64)> {
        let best = self.times.iter().copied().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let default = *self.times.first()?;
        Some(if default.1 < 1.03 * best.1 { default } else { best })
    }

    /// The time of the way that a device takes without measuring.
    pub fn before(&self) -> Option<f64> {
        self.times.first().map(|&(_, time)| time)
    }
}

/// What a device takes from measurements: for each class the fastest way.
pub fn choose(found: &[Found]) -> Measured {
    found.iter().filter_map(|of| Some((of.class.clone(), of.best()?.0.setting))).collect()
}

/// Measures the products of a session's model, `rounds` times each way, after a round that does not
/// count. `prompt` goes through the model first, so that experts have real work. The session is left
/// with the fastest ways; `rounding` lets them round activations to bytes. `progress` hears of each way
/// that is done; an error from it stops the work.
///
/// # Errors
///
/// [`Error::Usage`] if the device cannot time dispatches; what the device or `progress` gives. A way
/// that the device refuses to compile is left out.
pub async fn measure(
    session: &mut Session<Gpu>,
    prompt: &[u32],
    rounds: u32,
    rounding: bool,
    progress: &mut dyn FnMut(Way) -> Result<()>,
) -> Result<Vec<Found>> {
    let caps = session.machine().caps().clone();
    if !caps.timestamps {
        return Err(Error::Usage(format!("{} cannot time dispatches", caps.describe())));
    }
    let default = caps.tuning();
    let mut found: BTreeMap<Class, Vec<(Way, f64)>> = BTreeMap::new();
    let ways = ways(&caps, rounding);
    for &way in &ways {
        let tuning = default.clone().with(way.form, way.setting);
        session.engine().change_machine(|gpu| gpu.set_tuning(tuning));
        match times(session, prompt, rounds, way).await {
            Ok(times) => {
                for (class, time) in times {
                    found.entry(class).or_default().push((way, time));
                }
            }
            Err(Error::Device(_)) if way != ways[0] => {}
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

/// Nanoseconds of one product of each class, in the phase that `way` is for.
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
