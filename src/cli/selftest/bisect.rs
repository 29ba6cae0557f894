//! `selftest --bisect`: a whole model kernel by kernel beside the references.

use std::path::Path;

use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{SessionOptions, step::Readback},
    machine::counting::DeviceLimits,
    selftest::Bisect,
};
use serde_json::json;

use super::super::{
    adapter::measured_pinning,
    globals::Globals,
    memory::{MemoryOption, Told, place, tell},
    model::{load_on, locate, open, tokenizer},
    signals::check_interrupt,
    terminal::{out, out_json},
};

/// Tokens that are decoded one by one after the prompt.
const DECODED: u32 = 4;

/// Runs a model kernel by kernel beside the oracles.
pub(super) async fn run(
    globals: &Globals,
    prompt: &str,
    model: &Path,
    memory: MemoryOption,
) -> Result<()> {
    let terminal = globals.terminal();
    let opened = open(&locate(Some(model)), globals).await?;
    let ids = tokenizer(globals, &opened).await?.encode_prompt(prompt)?;
    if ids.is_empty() {
        return Err(Error::Usage("the prompt is empty".into()));
    }
    let (mut gpu, _) = measured_pinning(globals, memory.pins()).await?;
    terminal.note(gpu.caps().describe());
    let tokens = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let context = tokens.saturating_add(DECODED);
    let sizes = SessionOptions::new(context, tokens.min(256), DType::F32);
    let config = &opened.config;
    let weights = &opened.weights;
    let limits = DeviceLimits::of(gpu.caps());
    let placed = place(config, weights, limits, sizes, memory.budget(Told::of(&gpu)))?;
    tell(terminal, &placed);
    let machine = Bisect::new(&mut gpu);
    let what = (weights, weights.bytes(), Some(&placed));
    let mut session = load_on(machine, &terminal, config, what, sizes).await?;
    let named = session.model().clone();
    session.machine_mut().name_weights(&named);

    let bar = terminal.bar("bisecting", u64::from(DECODED) + 1, false);
    let mut reply = session.prefill(&ids, Readback::Top(1)).await?;
    bar.inc(1);
    for _ in 0..DECODED {
        check_interrupt()?;
        if session.machine().parted().is_some() {
            break;
        }
        let id = reply.candidates.first().map_or(0, |best| best.id);
        reply = session.decode(id, Readback::Top(1)).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let machine = session.machine();
    let (worst, at) = machine.worst().cloned().unwrap_or_default();
    let parted = machine.parted();
    if globals.json {
        out_json(&json!({
            "kernels": machine.compared(),
            "worst": worst.is_finite().then_some(worst),
            "worst_at": at,
            "parted": parted.map(|p| json!({
                "kernel": p.kernel, "after": p.after, "near": p.near, "failure": p.failure,
            })),
        }))?;
    } else if parted.is_none() {
        out(&format!(
            "{} kernels agree with their references, {} tokens of prompt and {DECODED} decoded\n\
             largest error: {worst:.3} of what is allowed, by {at}\n",
            machine.compared(),
            ids.len()
        ))?;
    }
    match parted {
        None => Ok(()),
        Some(p) => Err(Error::Verification(format!(
            "kernel `{}` parts from its reference, after {} kernels that agree\n  at {}\n  {}\n  \
             its rows: grok-wgpu selftest --kernel {} --tuning all",
            p.kernel, p.after, p.near, p.failure, p.kernel
        ))),
    }
}
