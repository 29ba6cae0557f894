//! Reads the configuration from the metadata of a GGUF.

use std::f64::consts::FRAC_1_SQRT_2;

use super::header::Metadata;
use crate::{
    checkpoint::families::{Family, LLAMA_CPP},
    model::config::{AttentionRule, Compat, Config, Ends, Experts, LayerRule, Rope, RopeType},
};

/// An architecture of llama.cpp.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Its name in `general.architecture`, which is also the prefix of its keys.
    pub name: &'static str,
    /// The tensor names of its files.
    pub names: &'static Family,
    /// Which released model a file is of.
    released: fn(Tensors, Option<u32>) -> &'static Released,
    /// Undoes what llama.cpp's converter writes and the reference does not do.
    follow_reference: fn(&mut Reader<'_>, &mut Rope),
}

/// A released model, whose values are the defaults of keys that a file lacks.
#[derive(Debug)]
struct Released {
    /// Its name in messages.
    title: &'static str,
    /// Name of its preset.
    preset: &'static str,
    /// Whether its router has a soft cap; the key that the converter writes does not tell.
    caps_router: bool,
}

/// All architectures that can be read.
pub(crate) static ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "grok",
    names: &LLAMA_CPP,
    released: |tensors, expert_width| {
        if tensors.dense || expert_width.is_some() { &GROK_2 } else { &GROK_1 }
    },
    follow_reference: grok_rope,
}];

static GROK_1: Released = Released { title: "Grok-1", preset: "grok-1", caps_router: false };
static GROK_2: Released = Released { title: "Grok-2", preset: "grok-2", caps_router: true };

/// What the tensors of a file tell about the model, beyond the metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensors {
    /// Rows of the embedding table, if there is one.
    pub vocab: Option<u64>,
    /// Whether there is an untied output head.
    pub head: bool,
    /// Whether there is a dense MLP beside the experts.
    pub dense: bool,
}

/// Reads the configuration of an architecture. Also returns warnings: values that are assumed
/// because the file lacks them, and values that the reference does not use.
///
/// # Errors
///
/// Every key that is missing or has an invalid value.
pub(crate) fn config(
    architecture: &'static Architecture,
    metadata: &Metadata,
    tensors: Tensors,
    compat: Compat,
) -> Result<(Config, Vec<String>), Vec<String>> {
    let mut reader = Reader { architecture, metadata, problems: Vec::new(), warnings: Vec::new() };
    let mut config = reader.config(tensors);
    match compat {
        Compat::Reference => {
            for rope in &mut config.ropes {
                (architecture.follow_reference)(&mut reader, rope);
            }
        }
        Compat::LlamaCpp => config = config.as_llama_cpp(),
    }
    let Reader { mut problems, warnings, .. } = reader;
    problems.extend(config.problems());
    if problems.is_empty() { Ok((config, warnings)) } else { Err(problems) }
}

/// The converter writes `YaRN` for both "yarn" and "original". The released Grok-2 says "original",
/// and its theta already includes the scaling.
fn grok_rope(reader: &mut Reader<'_>, rope: &mut Rope) {
    if rope.rope_type != RopeType::Yarn {
        return;
    }
    if (rope.scaling_factor - 1.0).abs() == 0.0 {
        rope.rope_type = RopeType::Original;
        return;
    }
    let grok_2 = Config::preset(GROK_2.preset);
    let mut released = grok_2.iter().flat_map(|config| &config.ropes);
    if released.any(|released| (rope.rope_theta / released.rope_theta - 1.0).abs() < 1e-6) {
        rope.rope_type = RopeType::Original;
        reader.warnings.push(
            "grok.rope.scaling.type is \"yarn\", but this theta is Grok-2's, which contains \
             the scaling: positions are not scaled again (--compat llama.cpp does)"
                .into(),
        );
    } else {
        reader.warnings.push(
            "grok.rope.scaling.type is \"yarn\", which llama.cpp's converter writes for \
             rope_type \"original\" too: taken as \"yarn\""
                .into(),
        );
    }
}

struct Reader<'a> {
    architecture: &'static Architecture,
    metadata: &'a Metadata,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// The configuration in the file, with the rope as llama.cpp reads it.
    fn config(&mut self, tensors: Tensors) -> Config {
        let expert_width = self.int("expert_feed_forward_length");
        let released = (self.architecture.released)(tensors, expert_width);
        let base = Config::preset(released.preset).expect("every released model is a preset");

        let hidden_size = self.required("embedding_length", 8);
        let intermediate = self.required("feed_forward_length", 8);
        let heads = self.required("attention.head_count", 8);
        let head_dim = self
            .int("attention.key_length")
            .unwrap_or_else(|| hidden_size.checked_div(heads).unwrap_or(base.head_dim));
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(got) = self.int(key)
                && got != head_dim
            {
                let key = self.key(key);
                self.problems.push(format!("{key} is {got}, wanted {head_dim}, as heads are wide"));
            }
        }
        self.refuse_other_scale(head_dim);
        let context = self.required("context_length", 1);
        let rows = tensors.vocab.and_then(|rows| u32::try_from(rows).ok());
        let vocab_size = self.int("vocab_size").or(rows).unwrap_or(1);
        let dense = tensors.dense.then_some(intermediate);
        let count = self.required("block_count", 1);
        let rule = LayerRule { rope: 0, dense, routed: true };
        Config {
            vocab_size,
            hidden_size,
            layers: Config::equal_layers(count, rule, &mut self.problems),
            num_attention_heads: heads,
            num_key_value_heads: self.int("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            rms_norm_eps: self.assumed(
                "attention.layer_norm_rms_epsilon",
                base.rms_norm_eps,
                released,
            ),
            ends: Ends {
                embed_scale: self.assumed("embedding_scale", base.ends.embed_scale, released),
                output_scale: self.assumed("logit_scale", base.ends.output_scale, released),
                // The converter leaves out caps that are off.
                softcap: self.number("final_logit_softcapping").unwrap_or(0.0),
                tied: !tensors.head,
            },
            attention: AttentionRule {
                scale: AttentionRule::usual_scale(head_dim),
                softcap: self.assumed("attn_logit_softcapping", base.attention.softcap, released),
                temperature_len: self.int("attention.temperature_length").unwrap_or(0),
            },
            experts: base.experts.map(|base| Experts {
                count: self.required("expert_count", 64),
                chosen: self.required("expert_used_count", 1),
                width: expert_width.unwrap_or(intermediate),
                softcap: self.router_cap(base.softcap, released),
                renormalize: false,
                joint_scale: if tensors.dense { FRAC_1_SQRT_2 } else { 1.0 },
            }),
            max_position_embeddings: context,
            ropes: base.ropes.iter().map(|base| self.rope(base, context, released)).collect(),
            ..base
        }
    }

    fn rope(&mut self, base: &Rope, context: u32, released: &Released) -> Rope {
        let (rope_type, rope_type_named, scaling_factor) = self.scaling();
        Rope {
            rope_theta: self.theta(base.rope_theta, released),
            rope_type,
            rope_type_named,
            scaling_factor,
            original_max_position_embeddings: self
                .int("rope.scaling.original_context_length")
                .unwrap_or(context),
            extrapolation_factor: self
                .number("rope.scaling.yarn_ext_factor")
                .filter(|factor| *factor >= 0.0)
                .unwrap_or(1.0),
            attn_factor: self.number("rope.scaling.yarn_attn_factor").unwrap_or(1.0),
            // llama.cpp's default for this architecture.
            beta_fast: self.number("rope.scaling.yarn_beta_fast").unwrap_or(8.0),
            beta_slow: self.number("rope.scaling.yarn_beta_slow").unwrap_or(1.0),
            magnitude: 1.0,
        }
    }

    /// The rule of the rope, whether the file names it, and the scaling factor.
    fn scaling(&mut self) -> (RopeType, bool, f64) {
        let factor = self.number("rope.scaling.factor").unwrap_or(1.0);
        let rope_type = match self.text("rope.scaling.type").as_deref() {
            Some("yarn") => RopeType::Yarn,
            Some("linear") => RopeType::Linear,
            // llama.cpp's default is linear; without a factor either, there is no scaling.
            None if (factor - 1.0).abs() > 0.0 => RopeType::Linear,
            Some("none") | None => return (RopeType::Original, false, 1.0),
            Some(other) => {
                let key = self.key("rope.scaling.type");
                self.problems
                    .push(format!("{key} is {other:?}, wanted \"none\", \"linear\" or \"yarn\""));
                RopeType::Linear
            }
        };
        (rope_type, true, factor)
    }

    /// The converter writes a router cap for Grok-1 too, which has none; llama.cpp applies none to
    /// either model.
    fn router_cap(&mut self, default: f64, released: &Released) -> f64 {
        const KEY: &str = "router_logit_softcapping";
        if released.caps_router {
            return self.assumed(KEY, default, released);
        }
        if self.number(KEY).is_some_and(|cap| cap > 0.0) {
            let (key, title) = (self.key(KEY), released.title);
            self.warnings.push(format!("{key} is ignored: the router of {title} has no cap"));
        }
        0.0
    }

    /// The file has theta as `f32`, which cannot represent Grok-2's exactly.
    fn theta(&mut self, default: f64, released: &Released) -> f64 {
        let theta = self.assumed("rope.freq_base", default, released);
        let same = (theta / default - 1.0).abs() < f64::from(f32::EPSILON);
        if same { default } else { theta }
    }

    /// The reference always scales attention by `head_dim^-0.5`.
    fn refuse_other_scale(&mut self, head_dim: u32) {
        let wanted = AttentionRule::usual_scale(head_dim);
        if let Some(got) = self.number("attention.output_scale")
            && (got / wanted - 1.0).abs() > 1e-6
        {
            let key = self.key("attention.output_scale");
            self.problems
                .push(format!("{key} is {got}, wanted key_length^-0.5, which is {wanted}"));
        }
    }

    /// The full name of a key: the architecture is its prefix.
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
    }

    fn note<T>(&mut self, got: Result<Option<T>, String>) -> Option<T> {
        got.unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        self.note(self.metadata.number(&self.key(key)))
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.note(self.metadata.text(&self.key(key))).map(str::to_owned)
    }

    fn int(&mut self, key: &str) -> Option<u32> {
        let key = self.key(key);
        let got = self.note(self.metadata.unsigned(&key))?;
        let int = u32::try_from(got).ok();
        if int.is_none() {
            self.problems.push(format!("{key} is {got}, wanted an integer of 32 bits"));
        }
        int
    }

    /// A required integer. The placeholder `stand_in` causes no second problem.
    fn required(&mut self, key: &str, stand_in: u32) -> u32 {
        let whole = self.key(key);
        if !self.metadata.has(&whole) {
            self.problems.push(format!("{whole} is missing"));
        }
        self.int(key).unwrap_or(stand_in)
    }

    fn assumed(&mut self, key: &str, default: f64, released: &Released) -> f64 {
        let whole = self.key(key);
        if !self.metadata.has(&whole) {
            let title = released.title;
            self.warnings.push(format!("{whole} is missing: {default}, as {title} has it"));
        }
        self.number(key).unwrap_or(default)
    }
}
