//! Requests of a page: JSON, parsed and checked.

use serde::Deserialize;

use crate::{
    base::{
        error::{Error, Result},
        tensor::DType,
    },
    engine::{SessionOptions, options::Options},
    model::config::Config,
    text::{
        chat::{Message, Scaffold, encode_chat},
        sampler::{Sampler, Sampling},
        tokenizer::Tokenizer,
    },
};

/// Sizes of a session, and what weights are taken.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LoadOptions {
    context: Option<u32>,
    prefill: Option<u32>,
    kv_cache: Option<CacheType>,
    /// Whether weights that are NaN or infinite are taken.
    pub(super) allow_non_finite: bool,
    submission_ms: Option<u32>,
    /// Bytes of the device's memory that the model may take.
    pub(super) device_memory: Option<u64>,
    /// Whether finished pages of the cache are kept on the host; if not said, where weights are
    /// brought.
    pub(super) keep_cache: Option<bool>,
}

/// Element types of the key-value cache.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CacheType {
    F32,
    F16,
    Q8,
}

impl CacheType {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Q8 => DType::Q8,
        }
    }
}

impl LoadOptions {
    /// Rows of a prefill chunk: fewer than natively, so that a page soon hears of progress.
    const PREFILL: u32 = 128;
    /// Longest submission: browsers give up on a device that takes long, and draw nothing
    /// meanwhile.
    const SUBMISSION_MS: u32 = 1000;

    /// Seconds of the longest submission; `None` for no limit.
    pub(super) fn longest_submission(&self) -> Option<f64> {
        let milliseconds = self.submission_ms.unwrap_or(Self::SUBMISSION_MS);
        (milliseconds > 0).then(|| f64::from(milliseconds) / 1e3)
    }

    pub(super) fn sizes(&self, config: &Config) -> SessionOptions {
        let usual = SessionOptions::of(config);
        SessionOptions::new(
            self.context.unwrap_or(usual.context),
            self.prefill.unwrap_or(Self::PREFILL),
            self.kv_cache.map_or(usual.cache, CacheType::dtype),
        )
    }
}

/// A turn of a conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: String,
}

/// What a text starts from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Prompt {
    Text(String),
    Messages(Vec<Turn>),
}

/// A request for a text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    prompt: Prompt,
    #[serde(default)]
    options: GenerateOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GenerateOptions {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: u64,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    inside: bool,
    top: usize,
    template: Option<String>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: Sampling::USUAL.seed,
            max_tokens: None,
            stop: Vec::new(),
            inside: false,
            top: 8,
            template: None,
        }
    }
}

/// Reads JSON that a page sent.
pub(super) fn parse<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::Usage(format!("options: {error}")))
}

impl Request {
    /// Whether the text is an assistant's answer in a conversation.
    pub(super) fn is_chat(&self) -> bool {
        matches!(self.prompt, Prompt::Messages(_))
    }

    /// The prompt's token ids; `usual` writes a conversation for which no template was asked.
    pub(super) fn ids(&self, tokenizer: &Tokenizer, usual: &Scaffold) -> Result<Vec<u32>> {
        let asked = self.options.template.as_deref().map(Scaffold::named).transpose()?;
        match &self.prompt {
            Prompt::Text(_) if asked.is_some() => {
                Err(Error::Usage("template is for conversations, and this is a text".into()))
            }
            Prompt::Text(text) => tokenizer.encode_prompt(text),
            Prompt::Messages(turns) => {
                let messages = turns
                    .iter()
                    .map(|turn| Ok(Message::new(turn.role.parse()?, turn.content.as_str())))
                    .collect::<Result<Vec<_>>>()?;
                encode_chat(tokenizer, asked.unwrap_or(usual), &messages)
            }
        }
    }

    /// A sampler; `usual` holds for what was not given, as in the command line.
    pub(super) fn sampler(&self, usual: Sampling) -> Result<Sampler> {
        let o = &self.options;
        Sampler::new(Sampling {
            temperature: o.temperature.unwrap_or(usual.temperature),
            top_k: o.top_k.unwrap_or(usual.top_k),
            top_p: o.top_p.unwrap_or(usual.top_p),
            min_p: o.min_p.unwrap_or(usual.min_p),
            repetition_penalty: o.repetition_penalty.unwrap_or(usual.repetition_penalty),
            seed: o.seed,
        })
    }

    pub(super) fn settings(&self, tokenizer: &Tokenizer) -> Options {
        let o = &self.options;
        let usual =
            if self.is_chat() { Options::MAX_TOKENS_OF_ANSWER } else { Options::MAX_TOKENS };
        Options {
            max_tokens: o.max_tokens.unwrap_or(usual) as usize,
            stop_texts: o.stop.clone(),
            logprobs: o.inside.then_some(o.top),
            trace: o.inside,
            ..Options::until_end(tokenizer)
        }
    }
}
