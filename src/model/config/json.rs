//! Reads `config.json`, with every problem found at once, and writes it.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Config, RopeType};
use crate::base::{
    activation::Gelu,
    error::{Error, Result},
    json,
};

/// Bytes of the largest `config.json` that is read.
const MAX_BYTES: usize = 4 << 20;
/// Unknown fields that a warning names.
const MAX_NAMED: usize = 20;

const ARCHITECTURES: &[&str] = &[
    "Grok1ForCausalLM",
    "Grok1ModelForCausalLM",
    "Grok1AForCausalLM",
    "Grok2ForCausalLM",
    "GrokForCausalLM",
];
const MODEL_TYPES: &[&str] =
    &["git", "grok", "grok1", "grok-1", "grok_1", "grok2", "grok-2", "grok_2"];

/// Fields that say nothing about the arithmetic: bookkeeping, training, another loader's choices,
/// and what `GitConfig` leaks into a Grok-2 file whose `model_type` is "git" by accident.
const IGNORED: &[&str] = &[
    "_name_or_path",
    "_attn_implementation",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "load_presharded_attn",
    "load_presharded_embedding",
    "load_presharded_mlp",
    "load_presharded_moe",
    "output_router_logits",
    "pad_token_id",
    "replicate_embedding",
    "replicate_lm_head",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "vision_config",
];

impl Config {
    /// Reads a `config.json`. `path` is for messages only. Also returns warnings: fields that are
    /// not known and were ignored.
    ///
    /// A field that is absent or null takes `SGLang`'s default. A file is taken for a Grok-1 if it
    /// names neither `residual_moe: true` nor `moe_intermediate_size`. Grok-1 then differs from
    /// Grok-2 in these defaults, as xai-org/grok-1 has it: no router cap, a head tied to the
    /// embedding table, and the tanh form of GELU. A field that is named always wins.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if the text is not a JSON object of at most 4 MiB, else [`Error::Config`]
    /// with every field that is missing, of the wrong type, out of range or not supported.
    pub fn from_json(path: &Path, text: &str) -> Result<(Self, Vec<String>)> {
        if text.len() > MAX_BYTES {
            return Err(Error::format(
                path,
                format!("{} bytes are too many for a config.json (at most 4 MiB)", text.len()),
            ));
        }
        let fields = json::parse_object(text).map_err(|what| Error::format(path, what))?;
        let mut reader = Reader { fields, problems: Vec::new() };
        let config = reader.config();
        let warnings = reader.unknown();
        let mut problems = reader.problems;
        problems.extend(config.problems());
        if problems.is_empty() {
            Ok((config, warnings))
        } else {
            Err(Error::Config { path: path.into(), problems })
        }
    }

    /// The text of a `config.json` that reads back equal.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::json!({
            "architectures": ["Grok1ForCausalLM"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "moe_intermediate_size": self.moe_intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "num_local_experts": self.num_local_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "residual_moe": self.residual_moe,
            "rms_norm_eps": self.rms_norm_eps,
            "embedding_multiplier_scale": self.embedding_multiplier_scale,
            "output_multiplier_scale": self.output_multiplier_scale,
            "attn_logit_softcapping": self.attn_logit_softcapping,
            "router_logit_softcapping": self.router_logit_softcapping,
            "final_logit_softcapping": self.final_logit_softcapping,
            "attn_temperature_len": match self.attn_temperature_len { 0 => -1, n => i64::from(n) },
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope_theta,
            "rope_type": rope_name(self.rope_type),
            "scaling_factor": self.scaling_factor,
            "original_max_position_embeddings": self.original_max_position_embeddings,
            "extrapolation_factor": self.extrapolation_factor,
            "attn_factor": self.attn_factor,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "tie_word_embeddings": self.tie_word_embeddings,
            "hidden_act": match self.hidden_act {
                Gelu::Erf => "gelu",
                Gelu::Tanh => "gelu_pytorch_tanh",
            },
        });
        if let Some(fields) = value.as_object_mut() {
            // What only llama.cpp does is named only where it is done.
            if self.norm_topk_prob {
                fields.insert("norm_topk_prob".into(), true.into());
            }
            if (self.rope_magnitude - 1.0).abs() > 0.0 {
                fields.insert("rope_magnitude".into(), self.rope_magnitude.into());
            }
        }
        if !self.rope_type_named
            && self.rope_type == unnamed_rope(self.scaling_factor)
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("rope_type");
        }
        format!("{value:#}\n")
    }
}

/// The name that [`Config::from_json`] reads as `rope_type`.
pub(crate) fn rope_name(rope_type: RopeType) -> &'static str {
    match rope_type {
        RopeType::Original => "original",
        RopeType::Linear => "linear",
        RopeType::Yarn => "yarn",
        RopeType::YarnLog => "yarn_log",
        RopeType::ThetaScale => "theta_scale",
    }
}

/// A file that scales without saying how means position interpolation: that is what the way from
/// Grok-1 to Grok-2 asks for.
#[expect(clippy::float_cmp, reason = "exactly 1 is no scaling; anything else is some")]
fn unnamed_rope(scaling_factor: f64) -> RopeType {
    if scaling_factor == 1.0 { RopeType::Original } else { RopeType::Linear }
}

/// Takes fields out of the object, so that what is left is unknown.
struct Reader {
    fields: Map<String, Value>,
    problems: Vec<String>,
}

impl Reader {
    fn config(&mut self) -> Config {
        self.refuse_unsupported();
        self.flatten_rope_parameters();

        let residual_moe = self.flag("residual_moe");
        let intermediate = self.int("intermediate_size");
        let moe_intermediate = self.int("moe_intermediate_size");
        let residual_moe = residual_moe.unwrap_or(false);
        let grok_1 = !residual_moe && moe_intermediate.is_none();
        if intermediate.is_none() && (residual_moe || moe_intermediate.is_none()) {
            self.missing("intermediate_size");
        }
        let moe_intermediate_size = moe_intermediate.or(intermediate).unwrap_or(8);

        // Where a field is missing, the stand-in is one that raises no second problem.
        let heads = self.required("num_attention_heads");
        let kv_heads = self.required("num_key_value_heads");
        let experts = self.int("num_local_experts");
        let experts = match (experts, self.int("num_experts")) {
            (Some(local), Some(other)) if local != other => {
                self.problems.push(format!(
                    "num_local_experts is {local}, but num_experts is {other}: they are the same"
                ));
                Some(local)
            }
            (local, other) => local.or(other),
        };
        if experts.is_none() {
            self.missing("num_local_experts");
        }
        // SGLang's default for Grok-2; Grok-1 files leave it to the width.
        let grok_1_head_dim = || {
            let hidden = self.fields.get("hidden_size")?.as_u64()?;
            u32::try_from(hidden.checked_div(heads?.into())?).ok().filter(|&dim| dim > 0)
        };
        let stand_in = if grok_1 { grok_1_head_dim().unwrap_or(128) } else { 128 };
        let head_dim = self.int("head_dim").unwrap_or(stand_in);
        self.attention_scale(head_dim);

        let max_position_embeddings =
            match (self.int("context_len"), self.fields.remove("max_position_embeddings")) {
                (Some(context), _) => context,
                (None, Some(value)) => {
                    self.fields.insert("max_position_embeddings".into(), value);
                    self.required("max_position_embeddings").unwrap_or(1)
                }
                (None, None) => self.required("max_position_embeddings").unwrap_or(1),
            };
        let scaling_factor = self.number("scaling_factor").unwrap_or(1.0);
        let rope_type = self.rope_type();
        Config {
            vocab_size: self.required("vocab_size").unwrap_or(1),
            hidden_size: self.required("hidden_size").unwrap_or(8),
            intermediate_size: intermediate.unwrap_or(moe_intermediate_size),
            moe_intermediate_size,
            num_hidden_layers: self.required("num_hidden_layers").unwrap_or(1),
            num_attention_heads: heads.or(kv_heads).unwrap_or(8),
            num_key_value_heads: kv_heads.or(heads).unwrap_or(8),
            head_dim,
            num_local_experts: experts.unwrap_or(64),
            num_experts_per_tok: self.required("num_experts_per_tok").unwrap_or(1),
            norm_topk_prob: self.flag("norm_topk_prob").unwrap_or(false),
            residual_moe,
            rms_norm_eps: self.required_number("rms_norm_eps").unwrap_or(1e-5),
            embedding_multiplier_scale: self
                .required_number("embedding_multiplier_scale")
                .unwrap_or(1.0),
            output_multiplier_scale: self.required_number("output_multiplier_scale").unwrap_or(1.0),
            attn_logit_softcapping: self.attention_cap(),
            router_logit_softcapping: self
                .number("router_logit_softcapping")
                .unwrap_or(if grok_1 { 0.0 } else { 30.0 }),
            final_logit_softcapping: self.number("final_logit_softcapping").unwrap_or(0.0).max(0.0),
            attn_temperature_len: self.temperature_len(),
            max_position_embeddings,
            rope_theta: self.number("rope_theta").unwrap_or(10_000.0),
            rope_type: rope_type.unwrap_or_else(|| unnamed_rope(scaling_factor)),
            rope_type_named: rope_type.is_some(),
            scaling_factor,
            original_max_position_embeddings: self
                .int("original_max_position_embeddings")
                .unwrap_or(max_position_embeddings),
            extrapolation_factor: self.number("extrapolation_factor").unwrap_or(1.0),
            attn_factor: self.number("attn_factor").unwrap_or(1.0),
            beta_fast: self.number("beta_fast").unwrap_or(32.0),
            beta_slow: self.number("beta_slow").unwrap_or(1.0),
            rope_magnitude: self.number("rope_magnitude").unwrap_or(1.0),
            tie_word_embeddings: self.flag("tie_word_embeddings").unwrap_or(grok_1),
            hidden_act: self.activation().unwrap_or(if grok_1 { Gelu::Tanh } else { Gelu::Erf }),
        }
    }

    /// Fields whose presence changes the model in ways that the engine does not compute.
    fn refuse_unsupported(&mut self) {
        let model_type = self.text("model_type");
        match self.take("architectures") {
            None => {
                if let Some(name) = model_type
                    && !MODEL_TYPES.contains(&name.as_str())
                {
                    self.problems.push(format!(
                        "unsupported model_type {name:?}; supported: {}",
                        MODEL_TYPES.join(", ")
                    ));
                }
            }
            Some(Value::Array(names))
                if names
                    .iter()
                    .any(|name| name.as_str().is_some_and(|n| ARCHITECTURES.contains(&n))) => {}
            Some(other) => self.problems.push(format!(
                "unsupported architectures {}; supported: {}",
                shown(&other),
                ARCHITECTURES.join(", ")
            )),
        }
        if let Some(value) = self.take("quantization_config") {
            let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
            // What our own say of the weights, the files say again.
            if method != "grok-wgpu" {
                self.problems.push(format!(
                    "quantization_config says the weights are quantized (method {}), wanted plain \
                     F32, F16 or BF16 weights, or those that `grok-wgpu quantize` writes",
                    shown(&Value::from(method))
                ));
            } else if value["block_size"] != crate::base::quant::BLOCK {
                self.wrong("quantization_config.block_size", &value["block_size"], "32");
            }
        }
        for (field, wanted) in [("sliding_window_size", -1), ("global_attn_every_n", 1)] {
            if let Some(got) = self.integer(field)
                && got != wanted
            {
                self.problems.push(format!(
                    "{field} is {got}, wanted {wanted}: every layer attends to the whole context"
                ));
            }
        }
        if self.flag("rope_rotate_half_dims") == Some(true) {
            self.problems.push(
                "rope_rotate_half_dims is true, wanted false: all channels of a head are rotated"
                    .into(),
            );
        }
        if let Some(method) = self.text("attn_logit_softcapping_method")
            && method != "tanh"
        {
            self.problems
                .push(format!("attn_logit_softcapping_method is {method:?}, wanted \"tanh\""));
        }
        if let Some(value) = self.take("rope_scaling") {
            self.problems.push(format!(
                "rope_scaling is {}, wanted rope_type, scaling_factor and their like at the top \
                 level",
                shown(&value)
            ));
        }
    }

    /// Moves the fields of `rope_parameters` (newer Hugging Face files) to the top level.
    fn flatten_rope_parameters(&mut self) {
        let inner = match self.take("rope_parameters") {
            None => return,
            Some(Value::Object(inner)) => inner,
            Some(other) => return self.wrong("rope_parameters", &other, "an object"),
        };
        for (name, value) in inner {
            if value.is_null() {
                continue;
            }
            let name = if name == "factor" { "scaling_factor".into() } else { name };
            if !matches!(
                name.as_str(),
                "rope_theta"
                    | "rope_type"
                    | "scaling_factor"
                    | "original_max_position_embeddings"
                    | "extrapolation_factor"
                    | "attn_factor"
                    | "beta_fast"
                    | "beta_slow"
            ) {
                self.problems.push(format!(
                    "rope_parameters has the field {}, which is not supported",
                    shown(&Value::from(name))
                ));
                continue;
            }
            match self.fields.get(&name) {
                None | Some(Value::Null) => {
                    self.fields.insert(name, value);
                }
                Some(outer)
                    if outer.as_f64() == value.as_f64() && outer.as_str() == value.as_str() => {}
                Some(outer) => self.problems.push(format!(
                    "{name} is {}, but {} in rope_parameters",
                    shown(outer),
                    shown(&value)
                )),
            }
        }
    }

    fn rope_type(&mut self) -> Option<RopeType> {
        let name = self.text("rope_type")?;
        match name.as_str() {
            "original" | "default" => Some(RopeType::Original),
            "linear" => Some(RopeType::Linear),
            "yarn" | "yarn_linear" => Some(RopeType::Yarn),
            "yarn_log" => Some(RopeType::YarnLog),
            "theta_scale" => Some(RopeType::ThetaScale),
            _ => {
                self.wrong(
                    "rope_type",
                    &Value::from(name),
                    "original, default, linear, yarn, yarn_linear, yarn_log or theta_scale",
                );
                None
            }
        }
    }

    fn activation(&mut self) -> Option<Gelu> {
        let name = self.text("hidden_act")?;
        match name.as_str() {
            "gelu" => Some(Gelu::Erf),
            "gelu_tanh" | "gelu_new" | "gelu_pytorch_tanh" => Some(Gelu::Tanh),
            _ => {
                self.wrong(
                    "hidden_act",
                    &Value::from(name),
                    "gelu, gelu_tanh, gelu_new or gelu_pytorch_tanh",
                );
                None
            }
        }
    }

    /// Grok-1 calls the attention cap `max_attn_value`. A negative cap is no cap.
    #[expect(clippy::float_cmp, reason = "two spellings of one number must agree exactly")]
    fn attention_cap(&mut self) -> f64 {
        let cap = self.number("attn_logit_softcapping");
        let old = self.number("max_attn_value");
        if let (Some(cap), Some(old)) = (cap, old)
            && cap != old
        {
            self.problems.push(format!(
                "attn_logit_softcapping is {cap}, but max_attn_value is {old}: they are the same"
            ));
        }
        cap.or(old).unwrap_or(30.0).max(0.0)
    }

    /// The reference always scales attention by `head_dim^-0.5`.
    fn attention_scale(&mut self, head_dim: u32) {
        let wanted = 1.0 / f64::from(head_dim).sqrt();
        if let Some(got) = self.number("attn_output_multiplier")
            && (got / wanted - 1.0).abs() > 1e-6
        {
            self.problems.push(format!(
                "attn_output_multiplier is {got}, wanted head_dim^-0.5, which is {wanted}"
            ));
        }
    }

    fn temperature_len(&mut self) -> u32 {
        let Some(got) = self.integer("attn_temperature_len") else { return 0 };
        u32::try_from(got.max(0)).unwrap_or_else(|_| {
            self.problems
                .push(format!("attn_temperature_len is {got}, wanted at most {}", u32::MAX));
            0
        })
    }

    /// Removes a field. A null is as good as absent.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    fn number(&mut self, field: &str) -> Option<f64> {
        let value = self.take(field)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong(field, &value, "a number");
        }
        number
    }

    /// An integer, also when it is written as 8192.0.
    fn integer(&mut self, field: &str) -> Option<i64> {
        let value = self.take(field)?;
        let integer = value.as_i64().or_else(|| value.as_f64().and_then(whole));
        if integer.is_none() {
            self.wrong(field, &value, "an integer");
        }
        integer
    }

    fn int(&mut self, field: &str) -> Option<u32> {
        let got = self.integer(field)?;
        let int = u32::try_from(got).ok();
        if int.is_none() {
            self.wrong(field, &Value::from(got), "an integer from 0 to 4294967295");
        }
        int
    }

    fn required(&mut self, field: &str) -> Option<u32> {
        if self.fields.get(field).is_none_or(Value::is_null) {
            self.missing(field);
        }
        self.int(field)
    }

    fn required_number(&mut self, field: &str) -> Option<f64> {
        if self.fields.get(field).is_none_or(Value::is_null) {
            self.missing(field);
        }
        self.number(field)
    }

    fn flag(&mut self, field: &str) -> Option<bool> {
        let value = self.take(field)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong(field, &value, "true or false");
        }
        flag
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(field, &other, "a string");
                None
            }
        }
    }

    fn wrong(&mut self, field: &str, got: &Value, wanted: &str) {
        self.problems.push(format!("{field} is {}, wanted {wanted}", shown(got)));
    }

    fn missing(&mut self, field: &str) {
        // A field of the wrong type was taken already and has its own problem.
        let already = format!("{field} is ");
        if !self.problems.iter().any(|problem| problem.starts_with(&already)) {
            self.problems.push(format!("{field} is missing"));
        }
    }

    /// One warning for whatever no field of the model took.
    fn unknown(&self) -> Vec<String> {
        let names: Vec<&String> =
            self.fields.keys().filter(|name| !IGNORED.contains(&name.as_str())).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let more = match names.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text: Vec<String> =
            names.iter().take(MAX_NAMED).map(|name| json::clipped(name)).collect();
        let text = text.join(", ") + &more;
        vec![format!("config.json has fields that are not known and not used: {text}")]
    }
}

/// The integer that a float holds, below 2^53 where every integer is a float.
#[expect(clippy::cast_possible_truncation, reason = "the range and the fraction are checked")]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

/// A value as a message shows it: the JSON text, cut where it is long.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::String(_) => json::clipped(&value.to_string()),
        other => other.to_string(),
    }
}
