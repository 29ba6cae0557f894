//! The configuration that a GGUF's metadata means.

use super::header::Metadata;
use crate::model::config::{Compat, Config, RopeType};

/// What the tensors tell about a model, beyond the metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensors {
    /// Rows of the embedding table, if there is one.
    pub vocab: Option<u64>,
    /// Whether there is a head of its own.
    pub head: bool,
    /// Whether there is a dense MLP beside the experts.
    pub dense: bool,
}

/// Reads `grok.*`. Also returns warnings: what is assumed because the file does not say it, and
/// what it says and the reference does not do.
///
/// # Errors
///
/// Every key that is missing or has a value that does not fit.
pub(crate) fn config(
    metadata: &Metadata,
    tensors: Tensors,
    compat: Compat,
) -> Result<(Config, Vec<String>), Vec<String>> {
    let mut reader = Reader { metadata, problems: Vec::new(), warnings: Vec::new() };
    let mut config = reader.config(tensors);
    match compat {
        Compat::Reference => reader.follow_reference(&mut config),
        Compat::LlamaCpp => config = config.as_llama_cpp(),
    }
    let Reader { mut problems, warnings, .. } = reader;
    problems.extend(config.problems());
    if problems.is_empty() { Ok((config, warnings)) } else { Err(problems) }
}

struct Reader<'a> {
    metadata: &'a Metadata,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// What the file says, with the rope that llama.cpp would make of it.
    fn config(&mut self, tensors: Tensors) -> Config {
        let expert_width = self.int("grok.expert_feed_forward_length");
        let grok_1 = !tensors.dense && expert_width.is_none();
        let model = if grok_1 { "Grok-1" } else { "Grok-2" };
        let base = Config::preset(if grok_1 { "grok-1" } else { "grok-2" });
        let base = base.expect("both presets exist");

        let hidden_size = self.required("grok.embedding_length", 8);
        let intermediate_size = self.required("grok.feed_forward_length", 8);
        let heads = self.required("grok.attention.head_count", 8);
        let head_dim = self
            .int("grok.attention.key_length")
            .unwrap_or_else(|| hidden_size.checked_div(heads).unwrap_or(base.head_dim));
        for key in ["grok.attention.value_length", "grok.rope.dimension_count"] {
            if let Some(got) = self.int(key)
                && got != head_dim
            {
                self.problems.push(format!("{key} is {got}, wanted {head_dim}, as heads are wide"));
            }
        }
        self.attention_scale(head_dim);
        let context = self.required("grok.context_length", 1);
        let rows = tensors.vocab.and_then(|rows| u32::try_from(rows).ok());
        let vocab_size = self.int("grok.vocab_size").or(rows).unwrap_or(1);
        let (rope_type, rope_type_named, scaling_factor) = self.scaling();
        Config {
            vocab_size,
            hidden_size,
            intermediate_size,
            moe_intermediate_size: expert_width.unwrap_or(intermediate_size),
            num_hidden_layers: self.required("grok.block_count", 1),
            num_attention_heads: heads,
            num_key_value_heads: self.int("grok.attention.head_count_kv").unwrap_or(heads),
            head_dim,
            num_local_experts: self.required("grok.expert_count", 64),
            num_experts_per_tok: self.required("grok.expert_used_count", 1),
            residual_moe: tensors.dense,
            rms_norm_eps: self.assumed(
                "grok.attention.layer_norm_rms_epsilon",
                base.rms_norm_eps,
                model,
            ),
            embedding_multiplier_scale: self.assumed(
                "grok.embedding_scale",
                base.embedding_multiplier_scale,
                model,
            ),
            output_multiplier_scale: self.assumed(
                "grok.logit_scale",
                base.output_multiplier_scale,
                model,
            ),
            attn_logit_softcapping: self.assumed(
                "grok.attn_logit_softcapping",
                base.attn_logit_softcapping,
                model,
            ),
            router_logit_softcapping: self.router_cap(grok_1, base.router_logit_softcapping),
            // The converter leaves out what is off.
            final_logit_softcapping: self.number("grok.final_logit_softcapping").unwrap_or(0.0),
            attn_temperature_len: self.int("grok.attention.temperature_length").unwrap_or(0),
            max_position_embeddings: context,
            rope_theta: self.theta(base.rope_theta, model),
            rope_type,
            rope_type_named,
            scaling_factor,
            original_max_position_embeddings: self
                .int("grok.rope.scaling.original_context_length")
                .unwrap_or(context),
            extrapolation_factor: self
                .number("grok.rope.scaling.yarn_ext_factor")
                .filter(|factor| *factor >= 0.0)
                .unwrap_or(1.0),
            attn_factor: self.number("grok.rope.scaling.yarn_attn_factor").unwrap_or(1.0),
            // llama.cpp's default for this architecture.
            beta_fast: self.number("grok.rope.scaling.yarn_beta_fast").unwrap_or(8.0),
            beta_slow: self.number("grok.rope.scaling.yarn_beta_slow").unwrap_or(1.0),
            tie_word_embeddings: !tensors.head,
            ..base
        }
    }

    /// The converter writes `YaRN` for both of the names "yarn" and "original". The released Grok-2
    /// says "original", and its theta contains the scaling already.
    fn follow_reference(&mut self, config: &mut Config) {
        if config.rope_type != RopeType::Yarn {
            return;
        }
        if (config.scaling_factor - 1.0).abs() == 0.0 {
            config.rope_type = RopeType::Original;
            return;
        }
        let released = Config::preset("grok-2").map(|grok_2| grok_2.rope_theta);
        if released.is_some_and(|theta| (config.rope_theta / theta - 1.0).abs() < 1e-6) {
            config.rope_type = RopeType::Original;
            self.warnings.push(
                "grok.rope.scaling.type is \"yarn\", but this theta is Grok-2's, which contains \
                 the scaling: positions are not scaled again (--compat llama.cpp does)"
                    .into(),
            );
        } else {
            self.warnings.push(
                "grok.rope.scaling.type is \"yarn\", which llama.cpp's converter writes for \
                 rope_type \"original\" too: taken as \"yarn\""
                    .into(),
            );
        }
    }

    /// The rule, whether the file names it, and the factor.
    fn scaling(&mut self) -> (RopeType, bool, f64) {
        let factor = self.number("grok.rope.scaling.factor").unwrap_or(1.0);
        let rope_type = match self.text("grok.rope.scaling.type").as_deref() {
            Some("yarn") => RopeType::Yarn,
            Some("linear") => RopeType::Linear,
            // Absent is linear, with a factor of 1 if that is absent too.
            None if (factor - 1.0).abs() > 0.0 => RopeType::Linear,
            Some("none") | None => return (RopeType::Original, false, 1.0),
            Some(other) => {
                self.problems.push(format!(
                    "grok.rope.scaling.type is {other:?}, wanted \"none\", \"linear\" or \"yarn\""
                ));
                RopeType::Linear
            }
        };
        (rope_type, true, factor)
    }

    /// The converter writes a cap for Grok-1 too, which has none, and llama.cpp applies none at all.
    fn router_cap(&mut self, grok_1: bool, default: f64) -> f64 {
        const KEY: &str = "grok.router_logit_softcapping";
        if !grok_1 {
            return self.assumed(KEY, default, "Grok-2");
        }
        if self.number(KEY).is_some_and(|cap| cap > 0.0) {
            self.warnings.push(format!("{KEY} is ignored: the router of Grok-1 has no cap"));
        }
        0.0
    }

    /// The file has theta in 32 bits, which Grok-2's does not fit.
    fn theta(&mut self, default: f64, model: &str) -> f64 {
        let theta = self.assumed("grok.rope.freq_base", default, model);
        let same = (theta / default - 1.0).abs() < f64::from(f32::EPSILON);
        if same { default } else { theta }
    }

    /// The reference always scales attention by `head_dim^-0.5`.
    fn attention_scale(&mut self, head_dim: u32) {
        let wanted = 1.0 / f64::from(head_dim).sqrt();
        if let Some(got) = self.number("grok.attention.output_scale")
            && (got / wanted - 1.0).abs() > 1e-6
        {
            self.problems.push(format!(
                "grok.attention.output_scale is {got}, wanted key_length^-0.5, which is {wanted}"
            ));
        }
    }

    fn note<T>(&mut self, got: Result<Option<T>, String>) -> Option<T> {
        got.unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        self.note(self.metadata.number(key))
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.note(self.metadata.text(key)).map(str::to_owned)
    }

    fn int(&mut self, key: &str) -> Option<u32> {
        let got = self.note(self.metadata.unsigned(key))?;
        let int = u32::try_from(got).ok();
        if int.is_none() {
            self.problems.push(format!("{key} is {got}, wanted an integer of 32 bits"));
        }
        int
    }

    /// An integer that must be there; the stand-in raises no second problem.
    fn required(&mut self, key: &str, stand_in: u32) -> u32 {
        if !self.metadata.has(key) {
            self.problems.push(format!("{key} is missing"));
        }
        self.int(key).unwrap_or(stand_in)
    }

    fn assumed(&mut self, key: &str, default: f64, model: &str) -> f64 {
        if !self.metadata.has(key) {
            self.warnings.push(format!("{key} is missing: {default}, as {model} has it"));
        }
        self.number(key).unwrap_or(default)
    }
}
