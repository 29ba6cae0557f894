//! How many tokens a second are expected of a placement, by rates that were measured where there
//! are some, and what would be faster.

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::requantize::Choices,
    engine::{HostCompute, SessionOptions},
    machine::{counting::DeviceLimits, gpu::Gpu},
    measure::{
        capacity::Planner,
        fit::Typed,
        placement::{Budget, Placed},
        rates::{Expected, Kind, Outlook, Rate, Rates, Room, fastest},
        traffic::Traffic,
    },
    model::{config::Config, weights::Weights},
    variants::Kept,
};
use serde_json::{Map, Value, json};

use super::{
    memory::{MemoryOption, free, place},
    sizes::Sizes,
    terminal::Terminal,
    units::{self, rounded, short_size, whole},
};

/// What measures the rates.
const TO_MEASURE: &str = "not measured: grok-wgpu tune --rates";

/// How fast a computer is, and the memory that it has for weights which are not on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speeds {
    pub(crate) rates: Rates,
    /// Bytes of the host's memory for weights, pinned or not; `None` if another computer is meant.
    pub(crate) free: Option<u64>,
    /// Of these, what the CPU may keep.
    pub(crate) kept: u64,
}

/// The kind of an adapter; without one, what people plan for.
pub(crate) fn kind(gpu: Option<&Gpu>) -> Kind {
    match gpu.map(Gpu::caps) {
        Some(caps) if caps.is_cpu => Kind::Software,
        Some(caps) if !caps.is_discrete() => Kind::Integrated,
        _ => Kind::Discrete,
    }
}

impl Speeds {
    /// As measured on an adapter, as far as something was, for weights of a type in a folder.
    /// `kept` is what the CPU may keep.
    ///
    /// # Errors
    ///
    /// Those of [`Rates::heeding`].
    pub(crate) fn of(
        gpu: &Gpu,
        measured: &Kept,
        (dtype, folder): (DType, Option<&str>),
        kept: u64,
    ) -> Result<Self> {
        let rates = Rates::assumed(kind(Some(gpu))).heeding(measured, dtype, folder)?;
        Ok(Self { rates, free: Some(free().unwrap_or_default()), kept })
    }

    /// What is expected of a placement.
    pub(crate) fn outlook(&self, placed: &Placed) -> Outlook {
        Outlook::of(placed, &self.rates, self.room(placed.bytes.host))
    }

    /// Memory for weights, if so many bytes are pinned.
    fn room(&self, pinned: u64) -> Room {
        match self.free.map(|free| free.saturating_sub(pinned)) {
            Some(free) => Room { cached: free, kept: self.kept.min(free) },
            None => Room { cached: 0, kept: self.kept },
        }
    }

    /// What is expected of a pass, with so many bytes in pinned memory.
    pub(crate) fn expected(&self, traffic: &Traffic, pinned: u64) -> Expected {
        Expected::of(traffic, &self.rates, self.room(pinned))
    }

    /// The rates as an object.
    pub(crate) fn to_json(self) -> Value {
        let one = |rate: Rate| {
            let (value, measured) = (self.rates.get(rate), self.rates.is_measured(rate));
            (rate.name().to_owned(), json!({ "value": value, "measured": measured }))
        };
        Rate::ALL.into_iter().map(one).collect::<Map<_, _>>().into()
    }
}

/// What may be where, and what the CPU computes.
#[derive(Clone, Copy)]
pub(crate) struct Settled {
    /// What may be where.
    pub(crate) budget: Budget,
    /// What the CPU computes, for [`SessionOptions::with_host_compute`]; `None` if nothing.
    pub(crate) host: Option<HostCompute>,
    /// Whether measured rates say so, and not only who asked.
    pub(crate) by_rates: bool,
}

/// Settles what the CPU computes of a model: what was asked for; or, if that is left to measured
/// rates, the fastest by them. `within` is what may be where, of memory as it was asked for;
/// `place` lays the model out.
///
/// # Errors
///
/// Those of `place`.
pub(crate) fn settle(
    asked: &Sizes,
    speeds: &Speeds,
    within: impl Fn(MemoryOption) -> Budget,
    place: impl Fn(Budget) -> Result<Placed>,
) -> Result<Settled> {
    let (budget, host) = (within(asked.memory), asked.host_compute);
    let as_asked = Settled { budget, host, by_rates: false };
    match asked.to_choose.filter(|_| budget.device < u64::MAX) {
        Some(memory) => Ok(choose(speeds, within(memory), place)?.unwrap_or(as_asked)),
        None => Ok(as_asked),
    }
}

/// Chooses whether the CPU computes what is not on the device, and whether some of that is pinned
/// for the device instead: the fastest by what was measured. `None` as long as not all was that
/// counts. `pinning` is what may be pinned if the CPU does not need the memory; `place` lays the
/// model out.
///
/// # Errors
///
/// Those of `place`.
fn choose(
    speeds: &Speeds,
    pinning: Budget,
    place: impl Fn(Budget) -> Result<Placed>,
) -> Result<Option<Settled>> {
    let alone = Budget { host: 0, ..pinning };
    let [pinned, none] = [place(pinning)?, place(alone)?];
    let [with, without] = [&pinned, &none].map(|placed| speeds.outlook(placed));
    let mut ways = vec![(pinning, None, with.token)];
    ways.extend(with.on_cpu.map(|on_cpu| (pinning, Some(&pinned), on_cpu)));
    ways.extend(without.on_cpu.map(|on_cpu| (alone, Some(&none), on_cpu)));
    if ways.len() == 1 {
        // There is nothing to compute: all is on the device.
        return Ok(None);
    }
    let expected: Vec<Expected> = ways.iter().map(|&(.., expected)| expected).collect();
    let Some(&(budget, on_cpu, _)) = fastest(&expected).and_then(|at| ways.get(at)) else {
        return Ok(None);
    };
    let host = on_cpu.map(|placed| HostCompute::new(0, speeds.room(placed.bytes.host).kept));
    Ok(Some(Settled { budget, host, by_rates: true }))
}

/// Why the CPU computes nothing though that was asked for, and what to do.
pub(crate) const NOT_ON_CPU: &str = "by the measured rates the CPU would make it slower, so it \
                                     computes nothing; with a size (--host-compute=40GiB) it does";

/// Says it if the CPU computes less than was asked for.
pub(crate) fn tell_choice(terminal: Terminal, settled: &Settled) {
    if settled.by_rates && settled.host.is_none() {
        terminal.note(format!("--host-compute: {NOT_ON_CPU}"));
    }
}

/// A rate as people read it.
pub(crate) fn amount(rate: Rate, value: f64) -> String {
    match rate {
        rate if rate.is_seconds() => format!("{} us", rounded(1e6 * value)),
        Rate::Operations => format!("{} GFLOP/s", rounded(1e-9 * value)),
        _ => units::rate(whole(value)),
    }
}

/// A rate of tokens as people read it.
fn tokens(expected: &Expected) -> String {
    format!("{} tokens/s", rounded(expected.tokens_per_second()))
}

/// Whether all that counts was measured, in brackets if not.
fn unless_measured(measured: bool) -> String {
    if measured { String::new() } else { format!(" ({TO_MEASURE})") }
}

/// The expected rates in a few words for people who wait for a model to load.
pub(crate) fn in_short(outlook: &Outlook, on_cpu: bool) -> String {
    let token = outlook.token(on_cpu);
    format!("{} are expected{}", tokens(&token), unless_measured(token.measured))
}

/// What people should know of `--host-compute`, if it is faster by what was measured.
pub(crate) fn hint(outlook: &Outlook) -> Option<String> {
    let on_cpu = outlook.on_cpu.filter(|_| outlook.is_faster_on_cpu())?;
    Some(format!("--host-compute would be faster: {} are expected then", tokens(&on_cpu)))
}

/// The lines of `inspect`: the expected rates, and what `--host-compute` would make of them.
pub(crate) fn lines(outlook: &Outlook, settled: &Settled) -> Vec<String> {
    let Outlook { token, prompt, .. } = outlook;
    let on_cpu = settled.host.is_some();
    let now = outlook.token(on_cpu);
    let line = format!("expected         {}, {} of a prompt", tokens(&now), tokens(prompt));
    let other = outlook.on_cpu.map_or_else(String::new, |other| {
        let (other, option) = match (on_cpu, settled.by_rates) {
            (true, _) => (*token, "without --host-compute"),
            (false, false) => (other, "with --host-compute"),
            (false, true) => (other, "with --host-compute=SIZE"),
        };
        format!("; {option} {}", tokens(&other))
    });
    let mut lines = vec![line + &other];
    let measured = now.measured && prompt.measured;
    if !measured {
        lines.push(format!("                 {TO_MEASURE}"));
    }
    lines
}

/// A model with weights of fewer bits.
pub(crate) struct Smaller {
    dtype: DType,
    /// Bytes of all of it on a device; `None` if a buffer is larger than the device allows.
    whole: Option<u64>,
    /// Whether that fits.
    fits: bool,
    /// What is expected of it in the same memory, if it runs there.
    outlook: Option<Outlook>,
}

/// What copies of fewer bits would take, and what is expected of them in the same memory.
///
/// # Errors
///
/// Those of [`place`] other than limits.
pub(crate) fn smaller(
    (config, own): (&Config, DType),
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
    budget: Budget,
    speeds: &Speeds,
) -> Result<Vec<Smaller>> {
    let bytes = |dtype: DType| dtype.row_bytes(256);
    let fewer = [DType::Q8, DType::Q4, DType::Q3, DType::Q2].into_iter();
    let fewer = fewer.filter(|&dtype| bytes(dtype) < bytes(own));
    fewer
        .map(|dtype| {
            let copy = Typed::new(config, &Choices::of(dtype), weights)?;
            let placed = match place(config, &copy, limits, sizes, budget) {
                Err(error) if error.code() == "limit" => None,
                placed => Some(placed?),
            };
            let fits = placed.as_ref().is_some_and(|placed| placed.bytes.is_whole());
            let outlook = placed.map(|placed| speeds.outlook(&placed));
            let whole = total(config, &copy, limits, sizes)?;
            Ok(Smaller { dtype, whole, fits, outlook })
        })
        .collect()
}

/// Bytes of all of a model on a device; `None` if a buffer is larger than the device allows.
///
/// # Errors
///
/// Those of [`Planner::new`] and [`Planner::plan`] other than limits.
pub(crate) fn total(
    config: &Config,
    weights: &impl Weights,
    limits: DeviceLimits,
    sizes: SessionOptions,
) -> Result<Option<u64>> {
    let plan = Planner::new(config, weights, limits).and_then(|planner| planner.plan(sizes));
    match plan {
        Err(error) if error.code() == "limit" => Ok(None),
        plan => Ok(Some(plan?.total())),
    }
}

/// Lines of `inspect`: what would fit whole, and how fast that would be.
pub(crate) fn would_fit(whole: Option<u64>, smaller: &[Smaller]) -> Vec<String> {
    let all = whole.map_or("no device of such limits".into(), short_size);
    let mut lines = vec![format!("it would fit     whole in {all}")];
    lines.extend(smaller.iter().map(|of| {
        let size = of.whole.map_or("beyond limits".into(), short_size);
        let fits = if of.fits { ", which fits" } else { "" };
        let rate = of.outlook.map_or("does not run here".into(), |outlook| {
            let measured = if outlook.token.measured { "" } else { " (not measured)" };
            format!("{} here{measured}", tokens(&outlook.token))
        });
        let name = of.dtype.name().to_lowercase();
        format!("with --type {name}   whole in {size}{fits}; {rate}")
    }));
    lines
}

/// The same as an object.
pub(crate) fn to_json(
    speeds: &Speeds,
    outlook: &Outlook,
    on_cpu: bool,
    smaller: &[Smaller],
) -> Value {
    let token = outlook.token(on_cpu);
    let rate = |of: Expected| of.tokens_per_second();
    let smaller: Vec<Value> = smaller
        .iter()
        .map(|of| {
            json!({
                "type": of.dtype.name(),
                "total_bytes": of.whole,
                "whole": of.fits,
                "tokens_per_second": of.outlook.map(|outlook| rate(outlook.token)),
                "tokens_per_second_of_prompt": of.outlook.map(|outlook| rate(outlook.prompt)),
            })
        })
        .collect();
    json!({
        "tokens_per_second": rate(token),
        "tokens_per_second_of_prompt": rate(outlook.prompt),
        "tokens_per_second_with_host_compute": outlook.on_cpu.map(rate),
        "tokens_per_second_without_host_compute": rate(outlook.token),
        "measured": token.measured && outlook.prompt.measured,
        "seconds": {
            "device": token.device,
            "link": token.link,
            "files": token.files,
            "cpu": token.cpu,
            "calls": token.calls,
        },
        "rates": speeds.to_json(),
        "smaller": smaller,
    })
}
