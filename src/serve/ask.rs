//! What both endpoints that make texts take in the same way.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use serde_json::Value;

use super::{
    engine::Wanted,
    http::App,
    wire::{Fields, Refusal, wrong},
};
use crate::{
    engine::options::Options,
    text::{constraint::Constraint, sampler::Sampling, shaping::Shaping},
};

/// Most texts of a request.
const MOST_TEXTS: u32 = 8;
/// Most biases of logits.
const BIASES: usize = 1024;
/// Most stop texts, and bytes of each.
const STOPS: (usize, usize) = (16, 1024);

/// What is asked for, apart from the prompt.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are fields of requests")]
pub(super) struct Asked {
    pub(super) sampling: Sampling,
    max_tokens: Option<u32>,
    stops: Vec<String>,
    shaping: Shaping,
    /// Texts for each prompt.
    pub(super) count: u32,
    pub(super) stream: bool,
    /// Whether a stream ends with the usage.
    pub(super) usage: bool,
    /// How many of the likeliest tokens are reported, if log-probabilities are.
    pub(super) logprobs: Option<u32>,
    ignore_end: bool,
    /// Whether the ids of the answer are reported.
    pub(super) ids: bool,
    reuse: bool,
    /// What the texts may be.
    pub(super) constraint: Option<Arc<dyn Constraint>>,
    /// Whether they may be calls of functions.
    pub(super) calls: bool,
    /// Whether they must be.
    pub(super) forced: bool,
    /// Whether the prompt is given back.
    pub(super) echo: bool,
}

impl Asked {
    /// Takes the fields that both endpoints have; texts may have no fewer tokens than `least`.
    /// `logprobs` and what texts may be are left to be set.
    pub(super) fn read(app: &App, fields: &mut Fields, least: u32) -> Result<Self, Refusal> {
        app.check_model(fields.text("model")?.as_deref())?;
        let sampling = sampling(app.settings.sampling, fields)?;
        let count = fields.whole("n", 1, MOST_TEXTS)?.unwrap_or(1);
        let stream = fields.flag("stream")?.unwrap_or(false);
        let usage = match fields.take("stream_options") {
            None => false,
            Some(_) if !stream => {
                let what = "`stream_options` is only for answers that are streamed";
                return Err(Refusal::value("stream_options", what));
            }
            Some(options) => {
                let mut options = Fields::within("stream_options", options)?;
                options.accept("include_obfuscation");
                options.flag("include_usage")?.unwrap_or(false)
            }
        };
        for name in ["user", "metadata", "service_tier", "parallel_tool_calls"] {
            fields.accept(name);
        }
        Ok(Self {
            sampling,
            max_tokens: max_tokens(fields, least)?,
            stops: stops(fields)?,
            shaping: shaping(app, fields)?,
            count,
            stream,
            usage,
            logprobs: None,
            ignore_end: fields.flag("ignore_eos")?.unwrap_or(false),
            ids: fields.flag("return_token_ids")?.unwrap_or(false),
            reuse: fields.flag("cache_prompt")?.unwrap_or(true),
            constraint: None,
            calls: false,
            forced: false,
            echo: false,
        })
    }

    /// The texts that this asks of the engine after some prompts, in the order of their indices,
    /// for whoever has the key of this number.
    ///
    /// # Errors
    ///
    /// Status 400 if a prompt is empty or the context has no room for it and what is to follow.
    pub(super) fn texts(
        &self,
        app: &App,
        key: u64,
        prompts: Vec<Vec<u32>>,
    ) -> Result<Vec<Wanted>, Refusal> {
        let context = app.context()?;
        let mut texts = Vec::new();
        for prompt in prompts {
            let max_tokens = self.most(app, prompt.len(), context)?;
            let mut options = Options { max_tokens, ..Options::default() };
            options.stop_texts.clone_from(&self.stops);
            options.scored = self.echo && self.logprobs.is_some();
            options.shaping.clone_from(&self.shaping);
            options.logprobs = self.logprobs.map(|count| count as usize);
            options.constraint.clone_from(&self.constraint);
            if !self.ignore_end {
                options.stop_ids = app.model.tokenizer.stop_ids();
            }
            let &Self { sampling, reuse, .. } = self;
            let wanted = Wanted { prompt, sampling, stream: 0, options, reuse, key };
            texts.extend((0..self.count).map(|i| Wanted { stream: i.into(), ..wanted.clone() }));
        }
        Ok(texts)
    }

    /// How many tokens may follow a prompt of this length.
    fn most(&self, app: &App, prompt: usize, context: usize) -> Result<usize, Refusal> {
        if prompt == 0 {
            return Err(Refusal::new(400, "invalid_value", "the prompt is empty"));
        }
        let room = context.saturating_sub(prompt);
        let usual = (app.settings.max_tokens as usize).min(room);
        let wanted = self.max_tokens.map_or(usual, |most| most as usize);
        if room == 0 && self.max_tokens != Some(0) || wanted > room {
            let wanted = wanted.max(1);
            let what = format!(
                "This model's maximum context length is {context} tokens. However, you requested \
                 {} tokens ({prompt} in the prompt, {wanted} in the completion). Please reduce the \
                 length of either one.",
                prompt.saturating_add(wanted)
            );
            return Err(Refusal::new(400, "context_length_exceeded", what).on("messages"));
        }
        Ok(wanted)
    }
}

/// Whether a value holds nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_str().is_some_and(str::is_empty)
}

/// Whether a value is false.
pub(super) fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false)
}

fn sampling(usual: Sampling, fields: &mut Fields) -> Result<Sampling, Refusal> {
    #[expect(clippy::cast_possible_truncation, reason = "a number in range is rounded")]
    let mut number = |name: &str, least: f64, most: f64, usual: f32| {
        fields.number(name, least, most).map(|number| number.map_or(usual, |number| number as f32))
    };
    let temperature = number("temperature", 0.0, 2.0, usual.temperature)?;
    let top_p = number("top_p", 0.0, 1.0, usual.top_p)?;
    let min_p = number("min_p", 0.0, 1.0, usual.min_p)?;
    let repetition_penalty = number("repetition_penalty", 0.01, 2.0, usual.repetition_penalty)?;
    let top_k = fields.whole("top_k", 0, u32::MAX)?.unwrap_or(usual.top_k);
    let wanted = || "a whole number of 64 bits".to_owned();
    // Negative ones are numbers like others.
    let whole = |value: &Value| value.as_i64().map(i64::cast_unsigned).or_else(|| value.as_u64());
    let seed = fields.of("seed", wanted, whole)?;
    // `RandomState` has random keys, so no crate for random numbers is needed. 32 bits are exact in
    // every client's numbers.
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    Ok(Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed })
}

/// Penalties and biases.
#[expect(clippy::cast_possible_truncation, reason = "a number in range is rounded")]
fn shaping(app: &App, fields: &mut Fields) -> Result<Shaping, Refusal> {
    let mut penalty = |name| fields.number(name, -2.0, 2.0).map(|n| n.unwrap_or_default() as f32);
    let mut shaping = Shaping {
        frequency_penalty: penalty("frequency_penalty")?,
        presence_penalty: penalty("presence_penalty")?,
        ..Shaping::default()
    };
    let wanted = || {
        format!(
            "an object of up to {BIASES} numbers from -100 to 100, by ids of tokens below {}",
            app.model.tokenizer.vocab_size()
        )
    };
    let one = |(id, bias): (&String, &Value)| {
        let id = id.parse().ok().filter(|&id| app.has_token(id))?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((id, bias as f32))
    };
    let all = |value: &Value| {
        let biases = value.as_object().filter(|biases| biases.len() <= BIASES)?;
        biases.iter().map(one).collect()
    };
    shaping.logit_bias = fields.of("logit_bias", wanted, all)?.unwrap_or_default();
    Ok(shaping)
}

/// The most tokens, by its two names.
fn max_tokens(fields: &mut Fields, least: u32) -> Result<Option<u32>, Refusal> {
    const NAMES: [&str; 2] = ["max_completion_tokens", "max_tokens"];
    let [new, old] = NAMES.map(|name| fields.whole(name, least, u32::MAX));
    match (new?, old?) {
        (Some(new), Some(old)) if new != old => {
            let what = format!("`{}` is {new} and `{}` is {old}: give one", NAMES[0], NAMES[1]);
            Err(Refusal::value(NAMES[1], what))
        }
        (new, old) => Ok(new.or(old)),
    }
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let Some(value) = fields.take("stop") else { return Ok(Vec::new()) };
    let (most, bytes) = STOPS;
    let wanted = format!("a string or up to {most} strings, each of 1 to {bytes} bytes");
    let one = |value: &Value| {
        value.as_str().filter(|text| (1..=bytes).contains(&text.len())).map(str::to_owned)
    };
    let texts = match &value {
        Value::Array(texts) if texts.len() <= most => texts.iter().map(one).collect(),
        text => one(text).map(|text| vec![text]),
    };
    texts.ok_or_else(|| wrong("stop", &value, wanted))
}
