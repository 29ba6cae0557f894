//! Autotuning of attention: measures the variants that divide it over a model's heads.

use std::sync::Arc;

use super::{
    autotune::{Found, Way},
    stage_last,
};
use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::SessionOptions,
    machine::{
        Machine as _,
        gpu::{Caps, Gpu, RecordedPass},
    },
    model::{Brought, LayerCache, Phase, Reach, Scratch, alloc_cache, attend, config::Config},
    variants::{Class, Form, Heads, Setting, Tuning, VARIANTS},
};

/// Positions that attention covers, if the model has so many.
const POSITIONS: u32 = 4096;

/// The heads of a model, in each form.
pub fn heads(c: &Config, cache: DType) -> [Heads; 2] {
    Form::ALL.map(|form| Heads { head_dim: c.head_dim, cache, form })
}

/// The candidates for attention over such heads that a device can run; the default comes first. Of
/// settings that divide it alike there is one.
pub fn ways(caps: &Caps, heads: Heads) -> Vec<Way> {
    let on = caps.capabilities();
    let default = caps.tuning().attention_setting(heads);
    let all = VARIANTS.iter().filter(|variant| variant.needs(&on).is_ok()).flat_map(|&variant| {
        variant.settings(&on).into_iter().map(move |sizes| Setting::new(variant, sizes))
    });
    let (mut known, mut ways) = (Vec::new(), Vec::new());
    for setting in std::iter::once(default).chain(all) {
        let Some(divided) = setting.attention(heads) else { continue };
        let division = (divided.variant, divided.program.constants);
        if !known.contains(&division) {
            known.push(division);
            ways.push(Way { form: heads.form, setting });
        }
    }
    ways
}

/// Measures attention over the last of 4096 positions, or of all that the model has: of a generated
/// token, in splits of [`SessionOptions::SPLIT`] positions, and of `tokens` tokens of a prompt.
/// `rounds` times each candidate, after one round of warm-up. The device's tensors and tuning are
/// those from before. `progress` is called after each candidate; an error from it stops the work.
///
/// # Errors
///
/// Errors of the device and of `progress`. A candidate that the device fails to compile is left
/// out.
pub async fn measure(
    gpu: &mut Gpu,
    c: &Config,
    cache: DType,
    tokens: u32,
    rounds: u32,
    progress: &mut dyn FnMut(Way) -> Result<()>,
) -> Result<Vec<Found>> {
    let (keep, before) = (gpu.tensor_count(), gpu.tuning().clone());
    let mut found = Vec::new();
    let mut measured = Ok(());
    for heads in heads(c, cache) {
        match measured_of(gpu, c, heads, tokens, rounds, progress).await {
            Ok(of) => found.push(of),
            Err(error) => measured = measured.and(Err(error)),
        }
        gpu.truncate(keep);
        gpu.set_tuning(before.clone());
    }
    measured.map(|()| found)
}

async fn measured_of(
    gpu: &mut Gpu,
    c: &Config,
    heads: Heads,
    tokens: u32,
    rounds: u32,
    progress: &mut dyn FnMut(Way) -> Result<()>,
) -> Result<Found> {
    let positions = c.max_position_embeddings.min(POSITIONS);
    let (phase, tokens) = match heads.form {
        Form::Vector => (Phase::Decode, 1),
        Form::Matrix => (Phase::Prefill, tokens.min(positions)),
    };
    let caps = gpu.caps().clone();
    let one = c.clone().with_layers(1);
    let kv = alloc_cache(gpu, &one, positions, heads.cache)?;
    let s =
        Scratch::alloc(gpu, (&one, Brought::default()), phase, tokens, &kv, SessionOptions::SPLIT)?;
    stage_last(gpu, &one, &s, &vec![0; tokens as usize], positions)?;

    let class = Class::of_attention(heads);
    let mut times = Vec::new();
    for way in ways(&caps, heads) {
        let measured = Some(Arc::new([(class.clone(), way.setting)].into()));
        // Its own time is wanted, not that of a plain variant in its place.
        gpu.set_tuning(Tuning { measured, strict: true, ..caps.tuning() });
        match time(gpu, &one, &s, &kv, positions, rounds).await {
            Ok(time) => times.push((way, time)),
            Err(Error::Device(_) | Error::Refused { .. }) if !times.is_empty() => {}
            Err(error) => return Err(error),
        }
        progress(way)?;
    }
    Ok(Found { class, times })
}

/// Nanoseconds of attention in a layer, with the merge of its splits: the least of all rounds.
async fn time(
    gpu: &mut Gpu,
    c: &Config,
    s: &Scratch,
    kv: &LayerCache,
    positions: u32,
    rounds: u32,
) -> Result<f64> {
    let plan: RecordedPass =
        gpu.record(&mut |exec| attend(exec, c, s, kv, Reach::of_one(positions)))?;
    gpu.flush().await?;
    let mut least = f64::INFINITY;
    for round in 0..=rounds {
        let steps = gpu.time_plan(&plan).await?;
        if round > 0 {
            least = least.min(steps.iter().map(|step| step.nanoseconds).sum());
        }
    }
    Ok(least)
}
