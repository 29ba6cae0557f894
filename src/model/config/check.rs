//! Checks of a configuration, before anything is allocated from it.

use super::{Config, LayerRule, MAX_LAYERS, Rope, RopeType};

/// Positions up to here are exact in the `f32` angle of the rotary embedding.
const MAX_POSITIONS: u32 = 1 << 24;

impl Config {
    /// All problems of this configuration, one sentence each: the field, its value, the value
    /// wanted. Empty for a model that the engine can run.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.check_sizes(&mut found);
        self.check_heads(&mut found);
        self.check_experts(&mut found);
        self.check_layers(&mut found);
        self.check_numbers(&mut found);
        for rope in &self.ropes {
            self.check_rope(rope, &mut found);
        }
        found
    }

    /// `count` equal layers. A count above [`MAX_LAYERS`] is a problem, and only that many are
    /// made.
    pub(crate) fn equal_layers(
        count: u32,
        rule: LayerRule,
        found: &mut Vec<String>,
    ) -> Vec<LayerRule> {
        if count > MAX_LAYERS {
            within(found, "num_hidden_layers", count, 1, MAX_LAYERS);
        }
        vec![rule; count.min(MAX_LAYERS) as usize]
    }

    fn check_sizes(&self, found: &mut Vec<String>) {
        within(found, "vocab_size", self.vocab_size, 1, 1 << 24);
        within(found, "num_hidden_layers", self.num_hidden_layers(), 1, MAX_LAYERS);
        within(found, "max_position_embeddings", self.max_position_embeddings, 1, MAX_POSITIONS);
        within(found, "hidden_size", self.hidden_size, 8, 1 << 17);
        eights(found, "hidden_size", self.hidden_size);
        if let Some(dense) = self.dense_width() {
            within(found, "intermediate_size", dense, 8, 1 << 20);
            eights(found, "intermediate_size", dense);
        }
        if let Some(experts) = self.experts {
            within(found, "moe_intermediate_size", experts.width, 8, 1 << 20);
            eights(found, "moe_intermediate_size", experts.width);
        }
        if self.attention.temperature_len == 1 {
            found.push("attn_temperature_len is 1, wanted -1 (off) or at least 2".into());
        }
    }

    fn check_heads(&self, found: &mut Vec<String>) {
        let Self { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } =
            *self;
        within(found, "num_attention_heads", heads, 1, 1024);
        within(found, "num_key_value_heads", kv_heads, 1, 1024);
        if kv_heads > 0 && !heads.is_multiple_of(kv_heads) {
            found.push(format!(
                "num_attention_heads ({heads}) must be a multiple of num_key_value_heads \
                 ({kv_heads})"
            ));
        }
        within(found, "head_dim", head_dim, 4, 256);
        if !head_dim.is_multiple_of(2) {
            found.push(format!(
                "head_dim is {head_dim}, but rotary embedding turns pairs of channels: wanted an \
                 even number that is a multiple of 4"
            ));
        } else if !head_dim.is_multiple_of(4) {
            found.push(format!("head_dim is {head_dim}, wanted a multiple of 4"));
        }
        for (field, count) in [("num_attention_heads", heads), ("num_key_value_heads", kv_heads)] {
            let width = u64::from(count) * u64::from(head_dim);
            if !width.is_multiple_of(8) {
                found.push(format!(
                    "{field} * head_dim is {width}, wanted a multiple of 8: the kernels load \
                     eight weights at a time"
                ));
            }
        }
    }

    fn check_experts(&self, found: &mut Vec<String>) {
        let Some(experts) = self.experts else { return };
        within(found, "num_local_experts", experts.count, 1, 64);
        within(found, "num_experts_per_tok", experts.chosen, 1, 8);
        if experts.chosen > experts.count {
            found.push(format!(
                "num_experts_per_tok ({}) is more than num_local_experts ({})",
                experts.chosen, experts.count
            ));
        }
    }

    /// Consistency of the layers. A file cannot break it today; a family's reader could.
    fn check_layers(&self, found: &mut Vec<String>) {
        let width = self.dense_width();
        for (i, layer) in self.layers.iter().enumerate() {
            if layer.dense.is_some() && layer.dense != width {
                found.push(format!("layer {i} has a dense MLP of another width than the others"));
            }
            if layer.routed && self.experts.is_none() {
                found.push(format!("layer {i} is routed, but there are no experts"));
            }
            if !layer.routed && layer.dense.is_none() {
                found.push(format!("layer {i} has neither experts nor a dense MLP"));
            }
            if usize::from(layer.rope) >= self.ropes.len() {
                found.push(format!(
                    "layer {i} has rope {}, but there are {}",
                    layer.rope,
                    self.ropes.len()
                ));
            }
        }
    }

    fn check_numbers(&self, found: &mut Vec<String>) {
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 0.1) {
            found.push(format!(
                "rms_norm_eps is {}, wanted a number between 0 and 0.1",
                self.rms_norm_eps
            ));
        }
        for (field, scale) in [
            ("embedding_multiplier_scale", self.ends.embed_scale),
            ("output_multiplier_scale", self.ends.output_scale),
        ] {
            positive(found, field, scale);
        }
        if self.head_dim > 0 {
            positive(found, "attn_output_multiplier", self.attention.scale);
        }
        for (field, cap) in [
            ("attn_logit_softcapping", self.attention.softcap),
            ("router_logit_softcapping", self.experts.map_or(0.0, |experts| experts.softcap)),
            ("final_logit_softcapping", self.ends.softcap),
        ] {
            if !(cap >= 0.0 && cap <= f64::from(f32::MAX)) {
                found.push(format!("{field} is {cap}, wanted a finite number, or 0 for no cap"));
            }
            // Kernels divide by the cap: one that underflows in `f32` would be a division by zero.
            if cap > 0.0 && cap < f64::from(f32::MIN_POSITIVE) {
                found.push(format!("{field} is {cap}, too small for a 32-bit float"));
            }
        }
    }

    fn check_rope(&self, rope: &Rope, found: &mut Vec<String>) {
        positive(found, "rope_magnitude", rope.magnitude);
        if !(rope.rope_theta > 1.0 && rope.rope_theta <= f64::from(f32::MAX)) {
            found
                .push(format!("rope_theta is {}, wanted a finite number above 1", rope.rope_theta));
        }
        if rope.rope_type == RopeType::Original {
            return;
        }
        positive(found, "scaling_factor", rope.scaling_factor);
        if rope.rope_type == RopeType::Linear {
            return;
        }
        let original = rope.original_max_position_embeddings;
        // `theta_scale` divides by the logarithm of this number over 2 pi, which must be above
        // zero.
        within(found, "original_max_position_embeddings", original, 16, MAX_POSITIONS);
        positive(found, "beta_fast", rope.beta_fast);
        positive(found, "beta_slow", rope.beta_slow);
        if !(0.0..=1.0).contains(&rope.extrapolation_factor) {
            found.push(format!(
                "extrapolation_factor is {}, wanted a number from 0 to 1",
                rope.extrapolation_factor
            ));
        }
        let usable = |inv: &f32| inv.is_finite() && *inv >= 0.0;
        if found.is_empty() && !crate::model::rope::inv_freq(rope, self.head_dim).iter().all(usable)
        {
            found.push(
                "rope_theta, scaling_factor and original_max_position_embeddings give rotary \
                 frequencies that are not finite numbers"
                    .into(),
            );
        }
    }
}

fn within(found: &mut Vec<String>, field: &str, got: u32, least: u32, most: u32) {
    if !(least..=most).contains(&got) {
        found.push(format!("{field} is {got}, wanted a number from {least} to {most}"));
    }
}

fn eights(found: &mut Vec<String>, field: &str, got: u32) {
    if !got.is_multiple_of(8) {
        found.push(format!(
            "{field} is {got}, wanted a multiple of 8: the kernels load eight weights at a time"
        ));
    }
}

/// Reports a value that is not a positive, normal `f32`.
fn positive(found: &mut Vec<String>, field: &str, got: f64) {
    if !(got >= f64::from(f32::MIN_POSITIVE) && got <= f64::from(f32::MAX)) {
        found.push(format!("{field} is {got}, wanted a finite number above 0"));
    }
}
