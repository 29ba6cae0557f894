//! Finds the fastest way to divide each product of a model on a device, by measuring.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::error::{Error, Result},
    engine::{session::Session, step::Readback},
    machine::gpu::{Caps, Gpu},
    variants::{Class, Matrices, Measured, Tuning, Vectors},
};

/// A way to divide the work of a phase: all of its products are measured with it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Of matrix-vector products, in decode.
    Vectors(Vectors),
    /// Of matrix products, in prefill.
    Matrices(Matrices),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vectors(vectors) => vectors.fmt(f),
            Self::Matrices(matrices) => matrices.fmt(f),
        }
    }
}

/// The ways that a device has, those first that it takes without measuring. Those that round
/// activations to bytes are only among them if `rounding` allows it.
pub fn ways(caps: &Caps, rounding: bool) -> Vec<Way> {
    let mut vectors = vec![caps.tuning().vectors];
    let mut matrices = vec![caps.tuning().matrices];
    for (lanes, rows) in [(32, 4), (32, 1), (64, 1), (64, 4), (128, 1), (16, 8), (8, 16), (1, 16)] {
        vectors.push(Vectors::Lanes { lanes, rows });
    }
    matrices.extend([32, 64, 16].map(|rows| Matrices::Tiles { rows }));
    if rounding {
        matrices.extend([32, 64, 16].map(|rows| Matrices::Packed { rows }));
    }
    if let Some((least, most)) = caps.subgroups {
        if least == most {
            vectors.push(Vectors::Subgroup { lanes: most });
        }
        if least >= 8 {
            for width in [most, (4 * most).min(128).max(most)] {
                vectors.push(Vectors::Spread { width });
                matrices.push(Matrices::Spread { width });
            }
        }
    }
    let mut ways: Vec<Way> = Vec::new();
    let all = vectors.into_iter().map(Way::Vectors);
    for way in all.chain(matrices.into_iter().map(Way::Matrices)) {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways
}

/// What of `measured` a device can do: a file may be old, or somebody may have edited it.
pub fn possible(caps: &Caps, mut measured: Measured) -> Measured {
    let ways = ways(caps, true);
    measured.vectors.retain(|_, vectors| ways.contains(&Way::Vectors(*vectors)));
    measured.matrices.retain(|_, matrices| ways.contains(&Way::Matrices(*matrices)));
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
    let mut measured = Measured::default();
    for of in found {
        let class = of.class.clone();
        match of.best() {
            Some((Way::Vectors(best), _)) => {
                measured.vectors.insert(class, best);
            }
            Some((Way::Matrices(best), _)) => {
                measured.matrices.insert(class, best);
            }
            None => {}
        }
    }
    measured
}

/// Measures the products of a session's model, `rounds` times each way, after a round that does not
/// count. `prompt` goes through the model first, so that experts have real work. The session is left
/// with the fastest ways; `rounding` lets them round activations to bytes. `progress` hears of each way that is done; an error from it stops the work.
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
        let tuning = match way {
            Way::Vectors(vectors) => Tuning { vectors, ..default.clone() },
            Way::Matrices(matrices) => Tuning { matrices, ..default.clone() },
        };
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
    let plan = match way {
        Way::Vectors(_) => {
            session.decode(prompt[0], READ).await?;
            session.decode_plan(READ)?.clone()
        }
        Way::Matrices(_) => session.prefill_plan(READ)?.clone(),
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
    let matrix = |class: &Class| class.kernel.ends_with("matmul");
    least.retain(|class, _| matrix(class) == matches!(way, Way::Matrices(_)));
    Ok(least)
}
