//! Reads the fields of a `config.json`, and collects all problems before it reports them.

use serde_json::{Map, Value};

use crate::{
    base::{activation::Gelu, json},
    model::config::{Config, LayerRule, Rope, RopeType},
};

/// Most unknown fields that a warning names.
const MAX_NAMED: usize = 20;

/// Fields that do not change the arithmetic: bookkeeping and training.
const IGNORED: &[&str] = &[
    "_name_or_path",
    "_attn_implementation",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "output_router_logits",
    "pad_token_id",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// Removes every field that is read, so that what is left is unknown.
pub(super) struct Reader {
    fields: Map<String, Value>,
    problems: Vec<String>,
}

impl Reader {
    pub(super) fn new(fields: Map<String, Value>) -> Self {
        Self { fields, problems: Vec::new() }
    }

    /// The problems, and a warning about the fields that nothing has read.
    pub(super) fn finish(self, ignored: &[&str]) -> (Vec<String>, Vec<String>) {
        let known = |name: &str| IGNORED.contains(&name) || ignored.contains(&name);
        let mut names: Vec<&String> = self.fields.keys().filter(|name| !known(name)).collect();
        names.sort_unstable();
        if names.is_empty() {
            return (self.problems, Vec::new());
        }
        let more = match names.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text: Vec<String> =
            names.iter().take(MAX_NAMED).map(|name| json::clipped(name)).collect();
        let text = text.join(", ") + &more;
        let warning = format!("config.json has fields that are not known and not used: {text}");
        (self.problems, vec![warning])
    }

    /// Records a problem.
    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// A field, without removing it. Null counts as absent.
    pub(super) fn peek(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// An integer field, without removing it.
    pub(super) fn peek_int(&self, field: &str) -> Option<u32> {
        let value = self.peek(field)?;
        let integer = value.as_i64().or_else(|| value.as_f64().and_then(whole))?;
        u32::try_from(integer).ok()
    }

    /// Removes and returns a field. Null counts as absent.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    pub(super) fn number(&mut self, field: &str) -> Option<f64> {
        let value = self.take(field)?;
        let number = value.as_f64();
        if number.is_none() {
            self.wrong(field, &value, "a number");
        }
        number
    }

    /// An integer, also when it is written as 8192.0.
    pub(super) fn integer(&mut self, field: &str) -> Option<i64> {
        let value = self.take(field)?;
        let integer = value.as_i64().or_else(|| value.as_f64().and_then(whole));
        if integer.is_none() {
            self.wrong(field, &value, "an integer");
        }
        integer
    }

    pub(super) fn int(&mut self, field: &str) -> Option<u32> {
        let got = self.integer(field)?;
        let int = u32::try_from(got).ok();
        if int.is_none() {
            self.wrong(field, &Value::from(got), "an integer from 0 to 4294967295");
        }
        int
    }

    pub(super) fn required(&mut self, field: &str) -> Option<u32> {
        if self.peek(field).is_none() {
            self.missing(field);
        }
        self.int(field)
    }

    pub(super) fn required_number(&mut self, field: &str) -> Option<f64> {
        if self.peek(field).is_none() {
            self.missing(field);
        }
        self.number(field)
    }

    pub(super) fn flag(&mut self, field: &str) -> Option<bool> {
        let value = self.take(field)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong(field, &value, "true or false");
        }
        flag
    }

    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(field, &other, "a string");
                None
            }
        }
    }

    pub(super) fn wrong(&mut self, field: &str, got: &Value, wanted: &str) {
        self.problem(format!("{field} is {}, wanted {wanted}", shown(got)));
    }

    pub(super) fn missing(&mut self, field: &str) {
        // A field of the wrong type was removed already, and its problem is recorded.
        let already = format!("{field} is ");
        if !self.problems.iter().any(|problem| problem.starts_with(&already)) {
            self.problem(format!("{field} is missing"));
        }
    }

    /// A field that has an older name too. Both may be present if they agree.
    pub(super) fn either<T: PartialEq + std::fmt::Display + Copy>(
        &mut self,
        [field, other]: [&str; 2],
        read: fn(&mut Self, &str) -> Option<T>,
    ) -> Option<T> {
        let (got, second) = (read(self, field), read(self, other));
        if let (Some(got), Some(second)) = (got, second)
            && got != second
        {
            self.problem(format!("{field} is {got}, but {other} is {second}: they are the same"));
        }
        got.or(second)
    }

    /// `num_hidden_layers` equal layers.
    pub(super) fn layers(&mut self, rule: LayerRule) -> Vec<LayerRule> {
        let count = self.required("num_hidden_layers").unwrap_or(1);
        Config::equal_layers(count, rule, &mut self.problems)
    }

    /// Refuses quantized weights that this project did not write. For its own, the tensors
    /// themselves tell the types.
    pub(super) fn quantization(&mut self) {
        let Some(value) = self.take("quantization_config") else { return };
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
        if method != "grok-wgpu" {
            self.problem(format!(
                "quantization_config says the weights are quantized (method {}), wanted plain \
                 F32, F16 or BF16 weights, or those that `grok-wgpu quantize` writes",
                shown(&Value::from(method))
            ));
        } else if value["block_size"] != crate::base::quant::BLOCK {
            self.wrong("quantization_config.block_size", &value["block_size"], "32");
        }
    }

    /// The rotary embedding of a model whose context is `context` positions.
    pub(super) fn rope(&mut self, context: u32) -> Rope {
        self.flatten_rope_parameters();
        let scaling_factor = self.number("scaling_factor").unwrap_or(1.0);
        let rope_type = self.rope_type();
        Rope {
            rope_theta: self.number("rope_theta").unwrap_or(10_000.0),
            rope_type: rope_type.unwrap_or_else(|| unnamed_rope(scaling_factor)),
            rope_type_named: rope_type.is_some(),
            scaling_factor,
            original_max_position_embeddings: self
                .int("original_max_position_embeddings")
                .unwrap_or(context),
            extrapolation_factor: self.number("extrapolation_factor").unwrap_or(1.0),
            attn_factor: self.number("attn_factor").unwrap_or(1.0),
            beta_fast: self.number("beta_fast").unwrap_or(32.0),
            beta_slow: self.number("beta_slow").unwrap_or(1.0),
            magnitude: self.number("rope_magnitude").unwrap_or(1.0),
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
                self.problem(format!(
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

    /// `hidden_act`.
    pub(super) fn activation(&mut self) -> Option<Gelu> {
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
}

/// The rule where `rope_type` is absent: a `scaling_factor` other than 1 means position
/// interpolation, as the notes on the step from Grok-1 to Grok-2 ask.
#[expect(clippy::float_cmp, reason = "exactly 1 is no scaling; anything else is some")]
pub(super) fn unnamed_rope(scaling_factor: f64) -> RopeType {
    if scaling_factor == 1.0 { RopeType::Original } else { RopeType::Linear }
}

/// The integer that a float is equal to, below 2^53, where an `f64` represents every integer.
#[expect(clippy::cast_possible_truncation, reason = "the range and the fraction are checked")]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

/// A value for a message: its JSON text, cut off if it is long.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::String(_) => json::clipped(&value.to_string()),
        other => other.to_string(),
    }
}
