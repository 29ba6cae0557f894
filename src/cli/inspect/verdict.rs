//! What people ask of a model first: how large it is, whether it fits, how fast it can be.

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::requantize::Choices,
    engine::SessionOptions,
    machine::counting::DeviceLimits,
    measure::fit::{Fit, Typed, type_of_most},
    model::{config::Parameters, weights::Weights},
};
use serde_json::{Value, json};

use super::{
    super::{
        table::table,
        units::{count, rate, rounded, short_size},
    },
    Known,
};

/// How fast a device reads its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bandwidth {
    /// Bytes in a second.
    pub(super) rate: u64,
    /// Whether `tune` has measured it.
    pub(super) measured: bool,
}

/// The verdict on a model.
pub(super) struct Verdict {
    name: String,
    parameters: Parameters,
    sizes: SessionOptions,
    /// The longest context that the model has.
    most: u32,
    memory: Option<u64>,
    bandwidth: Option<Bandwidth>,
    types: Vec<OfType>,
}

/// The model with weights of a type.
struct OfType {
    dtype: DType,
    /// Whether its weights are so already.
    stored: bool,
    /// `None` if a row is larger than a binding may be.
    fit: Option<Fit>,
}

impl Verdict {
    /// The model as it is, and as `quantize` makes it where that is smaller.
    pub(super) fn new(
        known: &Known,
        weights: &impl Weights,
        limits: DeviceLimits,
        sizes: SessionOptions,
        memory: Option<u64>,
        bandwidth: Option<Bandwidth>,
    ) -> Result<Self> {
        let config = &known.config;
        let own = type_of_most(config, weights)?;
        let mut types = Vec::new();
        // Made-up weights of few bits are no model that anybody has: `quantize` keeps some wider.
        if known.stored || !own.is_quantized() {
            let fit = Fit::of(config, weights, limits, sizes, memory)?;
            types.push(OfType { dtype: own, stored: known.stored, fit });
        }
        // Fewer bits cost much quality, so they are shown to those who ask for them.
        let fewer = [DType::Q3, DType::Q2].into_iter().filter(|&dtype| dtype == own);
        for dtype in [DType::Q8, DType::Q4].into_iter().chain(fewer) {
            let copy = Typed::new(config, &Choices::of(dtype), weights)?;
            let fit = Fit::of(config, &copy, limits, sizes, memory)?;
            let before = types.first().and_then(|of: &OfType| of.fit);
            let smaller = fit.zip(before).is_none_or(|(fit, before)| fit.weights < before.weights);
            if !known.stored || (dtype != own && smaller) {
                types.push(OfType { dtype, stored: false, fit });
            }
        }
        Ok(Self {
            name: known.name.clone(),
            parameters: config.parameters(),
            sizes,
            most: config.max_position_embeddings,
            memory,
            bandwidth,
            types,
        })
    }

    /// The lines that `inspect` begins with.
    pub(super) fn describe(&self) -> String {
        let Parameters { total, active } = self.parameters;
        let [total, active] = [total, active].map(count);
        let what = format!("{}: {total} parameters, {active} of them for each token", self.name);
        let fits = self.memory.map_or_else(String::new, |memory| {
            format!("In {}: {}\n", short_size(memory), self.in_memory())
        });
        format!("{what}\n{fits}\n{}", self.table())
    }

    /// What fits, as a sentence.
    fn in_memory(&self) -> String {
        let longest = |of: &OfType| of.fit.and_then(|fit| fit.longest).unwrap_or(0);
        let name = |of: &OfType| of.dtype.name().to_lowercase();
        let asked = self.sizes.context;
        // Types come by falling size.
        if let Some(best) = self.types.iter().find(|of| longest(of) >= asked) {
            return format!(
                "{} fits, with a context of up to {} tokens.",
                name(best),
                longest(best)
            );
        }
        if let Some(best) =
            self.types.iter().max_by_key(|of| longest(of)).filter(|of| longest(of) > 0)
        {
            return format!(
                "{} fits with a context of up to {} tokens, not of {asked}.",
                name(best),
                longest(best)
            );
        }
        let Some(least) = self.types.last() else { return "nothing fits whole.".into() };
        let needs = least.fit.and_then(|fit| fit.total).map_or_else(String::new, |total| {
            format!(" with {asked} tokens of context needs {}", short_size(total))
        });
        format!("nothing fits whole; {}{needs}.", name(least))
    }

    fn table(&self) -> String {
        let context = self.sizes.context;
        let mut head = vec!["weights".into(), "size".into(), format!("with {context} tokens")];
        head.extend(self.memory.map(|memory| format!("in {}", short_size(memory))));
        head.push("a token reads".into());
        head.extend(self.bandwidth.map(|of| {
            let how = if of.measured { ", as measured" } else { "" };
            format!("at {}{how}", rate(of.rate))
        }));
        let mut rows = vec![head];
        for of in &self.types {
            let stored = if of.stored { ", as it is" } else { "" };
            let mut row = vec![format!("{}{stored}", of.dtype.name().to_lowercase())];
            let size = |bytes: Option<u64>| bytes.map_or("beyond limits".into(), short_size);
            row.push(size(of.fit.map(|fit| fit.weights)));
            row.push(size(of.fit.and_then(|fit| fit.total)));
            row.extend(self.memory.map(|_| match of.fit.and_then(|fit| fit.longest) {
                None | Some(0) => "does not fit".into(),
                Some(longest) if longest == self.most => format!("all {longest} tokens"),
                Some(longest) => format!("{longest} tokens"),
            }));
            row.push(size(of.fit.map(|fit| fit.token)));
            row.extend(self.bandwidth.map(|bandwidth| {
                of.fit.map_or(String::new(), |fit| {
                    format!("{} tokens/s at most", rounded(fit.most_tokens(bandwidth.rate)))
                })
            }));
            rows.push(row);
        }
        table(&rows)
    }

    /// What could be asked for besides; `all` says whether all is shown.
    pub(super) fn more(&self, all: bool) -> Vec<&'static str> {
        let mut lines = Vec::new();
        if self.memory.is_none() {
            lines
                .push("--device-memory 24GiB: does it fit? WebGPU does not tell how much there is");
        }
        if self.bandwidth.is_none() {
            lines.push("--bandwidth 936GB/s, or `grok-wgpu tune`: how fast can it be?");
        }
        if !all {
            lines.push("--all: the configuration, the tokenizer, the memory plans");
        }
        lines
    }

    /// The verdict as an object.
    pub(super) fn to_json(&self) -> Value {
        let types: Vec<Value> = self
            .types
            .iter()
            .map(|of| {
                let total = of.fit.and_then(|fit| fit.total);
                let bound = |of: Bandwidth, fit: Fit| fit.most_tokens(of.rate);
                json!({
                    "type": of.dtype.name(),
                    "stored": of.stored,
                    "weights_bytes": of.fit.map(|fit| fit.weights),
                    "total_bytes": total,
                    "token_bytes": of.fit.map(|fit| fit.token),
                    "longest_context": of.fit.and_then(|fit| fit.longest),
                    "fits": self.memory.map(|memory| total.is_some_and(|total| total <= memory)),
                    "most_tokens_per_second":
                        self.bandwidth.zip(of.fit).map(|(of, fit)| bound(of, fit)),
                })
            })
            .collect();
        json!({
            "name": self.name,
            "context": self.sizes.context,
            "memory_bytes": self.memory,
            "bytes_per_second": self.bandwidth.map(|of| of.rate),
            "bytes_per_second_measured": self.bandwidth.map(|of| of.measured),
            "types": types,
        })
    }
}
