//! Rotary embedding: inverse frequencies, tables of cosines and sines, and the attention
//! temperature for long contexts.

use std::f64::consts::TAU;

use crate::{
    base::num::round,
    model::config::{Config, Rope, RopeType},
};

/// The `head_dim / 2` inverse frequencies, in radians per position.
///
/// Computed in `f64` and rounded to `f32` once. Follows `rope_type`: see [`explain`].
pub fn inv_freq(rope: &Rope, head_dim: u32) -> Vec<f32> {
    let dim = f64::from(head_dim);
    let plain = |theta: f64, i: u32| 1.0 / theta.powf(f64::from(2 * i) / dim);
    let factor = rope.scaling_factor;
    (0..head_dim / 2)
        .map(|i| {
            let unscaled = plain(rope.rope_theta, i);
            let scaled = unscaled / factor;
            round(match rope.rope_type {
                RopeType::Original => unscaled,
                RopeType::Linear => scaled,
                RopeType::Yarn => {
                    let mask = yarn_mask(rope, head_dim, i);
                    scaled * (1.0 - mask) + unscaled * mask
                }
                RopeType::YarnLog => {
                    let mask = yarn_mask(rope, head_dim, i);
                    (unscaled.ln() * mask + scaled.ln() * (1.0 - mask)).exp()
                }
                RopeType::ThetaScale => plain(scaled_theta(rope), i),
            })
        })
        .collect()
}

/// Computes the rows of the cos/sin table of one rope.
#[derive(Clone, Debug)]
pub struct Angles {
    inv_freq: Vec<f32>,
    magnitude: f32,
}

impl Angles {
    /// One for each of [`Config::ropes`], in order.
    pub fn of(config: &Config) -> Vec<Self> {
        let angles = |rope: &Rope| Self {
            inv_freq: inv_freq(rope, config.head_dim),
            magnitude: round(rope.magnitude),
        };
        config.ropes.iter().map(angles).collect()
    }

    /// Writes the row of a table for position `pos`, as [`cos_sin`] does, times the magnitude.
    pub fn row(&self, pos: u32, out: &mut [f32]) {
        cos_sin(&self.inv_freq, pos, out);
        for value in out {
            *value *= self.magnitude;
        }
    }
}

/// A line for the user for each rope: which rule the frequencies follow, and why.
pub fn explain(config: &Config) -> String {
    let ropes: Vec<String> =
        config.ropes.iter().map(|rope| explain_one(rope, config.head_dim)).collect();
    ropes.join("\n")
}

fn explain_one(rope: &Rope, head_dim: u32) -> String {
    let Rope { rope_theta: theta, scaling_factor: factor, .. } = rope;
    let original = rope.original_max_position_embeddings;
    let chosen = if rope.rope_type_named {
        format!("rope_type is \"{}\"", rope.rope_type.name())
    } else if rope.rope_type == RopeType::Linear {
        format!("rope_type is not named and scaling_factor is {factor}, not 1")
    } else {
        "rope_type is not named and scaling_factor is 1".into()
    };
    let rule = match rope.rope_type {
        RopeType::Original => {
            let mut rule = format!("plain rotary embedding with theta {theta}");
            if (factor - 1.0).abs() > 0.0 {
                rule += "; scaling_factor does not apply, because theta already contains it";
            }
            rule
        }
        RopeType::Linear => {
            format!("position interpolation: positions divided by {factor}, theta {theta}")
        }
        RopeType::Yarn | RopeType::YarnLog => {
            let (low, high) = yarn_range(rope, head_dim);
            let blend = if rope.rope_type == RopeType::Yarn { "linear" } else { "logarithmic" };
            format!(
                "YaRN with a {blend} blend: frequencies up to {low} as they are, from {high} \
                 divided by {factor} (theta {theta}, original context {original})"
            )
        }
        RopeType::ThetaScale => format!(
            "theta raised from {theta} to {} to stretch a context of {original} by {factor}",
            scaled_theta(rope)
        ),
    };
    format!("{rule} ({chosen})")
}

/// Writes `[cos 0, sin 0, cos 1, sin 1, ...]` for position `pos`: `2 * inv_freq.len()` values.
///
/// The angle is one `f32` product. Its cosine and sine are taken in `f64` and rounded, because the
/// `cos` and `sin` of a GPU are inaccurate at angles of 100,000 radians. Writes as many pairs as
/// `out` has room for.
pub fn cos_sin(inv_freq: &[f32], pos: u32, out: &mut [f32]) {
    for (pair, inv) in out.as_chunks_mut::<2>().0.iter_mut().zip(inv_freq) {
        let (sin, cos) = f64::from(pos as f32 * inv).sin_cos();
        *pair = [round(cos), round(sin)];
    }
}

/// Attention temperature: the factor on the attention logits of the query at position `pos`, after
/// their soft cap.
///
/// `log2(pos) / log2(attn_temperature_len)` for positions beyond that length, else 1. A length of 0
/// turns it off.
pub fn temperature(attn_temperature_len: u32, pos: u32) -> f32 {
    if attn_temperature_len == 0 || pos <= attn_temperature_len {
        return 1.0;
    }
    round(f64::from(pos).log2() / f64::from(attn_temperature_len).log2())
}

/// The theta that stretches `original_max_position_embeddings` by `scaling_factor`.
fn scaled_theta(rope: &Rope) -> f64 {
    let original = f64::from(rope.original_max_position_embeddings);
    let exponent = (original * rope.scaling_factor / TAU).ln() / (original / TAU).ln();
    rope.rope_theta.powf(exponent)
}

/// The indices of the frequencies between which `YaRN` blends.
fn yarn_range(rope: &Rope, head_dim: u32) -> (f64, f64) {
    let dim = f64::from(head_dim);
    let original = f64::from(rope.original_max_position_embeddings);
    let index = |turns: f64| dim * (original / (turns * TAU)).ln() / (2.0 * rope.rope_theta.ln());
    let low = index(rope.beta_fast).floor().max(0.0);
    let high = index(rope.beta_slow).ceil().min(dim - 1.0);
    (low, high)
}

/// `YaRN`'s weight of the unscaled frequency `i`; the scaled one has the rest.
#[expect(clippy::float_cmp, reason = "both are whole numbers")]
fn yarn_mask(rope: &Rope, head_dim: u32, i: u32) -> f64 {
    let (mut low, high) = yarn_range(rope, head_dim);
    if low == high {
        low -= 0.001;
    }
    let ramp = ((f64::from(i) - low) / (high - low)).clamp(0.0, 1.0);
    (1.0 - ramp) * rope.extrapolation_factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f32, want: f64, relative: f64) {
        let error = (f64::from(got) - want).abs();
        assert!(error <= relative * want.abs(), "got {got}, wanted {want}");
    }

    const DIM: u32 = 128;

    fn grok_2() -> Rope {
        Config::preset("grok-2").expect("a preset").ropes[0]
    }

    #[test]
    fn frequencies_of_grok_2() {
        let inv = inv_freq(&grok_2(), DIM);
        assert_eq!(inv.len(), 64);
        for (i, want) in [
            (0, 1.0),
            (1, 0.741_332_223_0),
            (17, 0.006_169_058_97),
            (24, 0.000_759_117_609),
            (31, 9.341_125_570e-5),
            (63, 6.468_614_920e-9),
        ] {
            // Half a unit in the last place of an f32, and the last printed digit.
            near(inv[i], want, 7e-8);
        }
    }

    #[test]
    fn angles_far_out() {
        // The last frequency is one that was computed in f32, as the numbers to compare with were.
        let inv = [1.0, 0.741_332_23, 9.341_126e-5];
        for (pos, i, cos, sin) in [
            (1000, 1, 0.996_503_2, -0.083_554_4),
            (131_071, 0, -0.817_983_5, -0.575_241_7),
            (131_071, 2, 0.948_330_9, -0.317_283_1),
        ] {
            let mut out = [9.0; 6];
            cos_sin(&inv, pos, &mut out);
            // Half a unit of the seventh printed digit.
            assert!((f64::from(out[2 * i]) - cos).abs() < 1e-7, "{out:?}");
            assert!((f64::from(out[2 * i + 1]) - sin).abs() < 1e-7, "{out:?}");
        }
        let mut out = [9.0; 128];
        cos_sin(&inv_freq(&grok_2(), DIM), 131_071, &mut out);
        for pair in out.as_chunks::<2>().0 {
            let [cos, sin] = pair.map(f64::from);
            assert!((cos * cos + sin * sin - 1.0).abs() < 2e-7);
        }
    }

    #[test]
    fn position_zero_turns_nothing() {
        let mut out = [9.0; 128];
        cos_sin(&inv_freq(&grok_2(), DIM), 0, &mut out);
        assert_eq!(out.as_chunks::<2>().0, [[1.0, 0.0]; 64]);
    }

    #[test]
    fn temperatures() {
        for pos in [0, 1, 1023, 1024] {
            assert_eq!(temperature(1024, pos).to_bits(), 1_f32.to_bits());
        }
        for (pos, want) in [
            (1025, 1.000_140_819),
            (1500, 1.055_074_679),
            (2048, 1.1),
            (4096, 1.2),
            (8192, 1.3),
            (16_384, 1.4),
            (32_768, 1.5),
            (65_536, 1.6),
            (131_071, 1.699_998_899),
        ] {
            near(temperature(1024, pos), want, 1e-7);
        }
        assert_eq!(temperature(0, 131_071).to_bits(), 1_f32.to_bits());
    }

    fn scaled(rope_type: RopeType) -> Rope {
        Rope { rope_type, rope_theta: 1e6, ..grok_2() }
    }

    #[test]
    fn released_theta_is_the_scaled_one() {
        let theta = scaled_theta(&scaled(RopeType::ThetaScale));
        assert!((theta - 208_533_496.363).abs() < 0.01, "{theta}");
        let [stretched, released] =
            [scaled(RopeType::ThetaScale), grok_2()].map(|rope| inv_freq(&rope, DIM));
        for (a, b) in stretched.iter().zip(&released) {
            near(*a, f64::from(*b), 1e-7);
        }
    }

    #[test]
    fn interpolation_divides_every_frequency() {
        let plain = inv_freq(&scaled(RopeType::Original), DIM);
        for (scaled, plain) in inv_freq(&scaled(RopeType::Linear), DIM).iter().zip(&plain) {
            near(*scaled * 16.0, f64::from(*plain), 1e-7);
        }
    }

    #[test]
    fn yarn_blends_between_two_frequencies() {
        let yarn = Rope { rope_type: RopeType::Yarn, ..grok_2() };
        assert_eq!(yarn_range(&yarn, DIM), (17.0, 24.0));
        let plain = inv_freq(&grok_2(), DIM);
        let log = inv_freq(&Rope { rope_type: RopeType::YarnLog, ..grok_2() }, DIM);
        let linear = inv_freq(&yarn, DIM);
        for i in 0..64 {
            let stretch = f64::from(plain[i]) / f64::from(linear[i]);
            match i {
                0..=17 => assert!((stretch - 1.0).abs() < 1e-6),
                24.. => assert!((stretch - 16.0).abs() < 1e-5),
                _ => assert!(stretch > 1.0 && stretch < 16.0),
            }
        }
        // Between them the logarithmic blend is the geometric one, and so below the arithmetic.
        let mask = 1.0 - 3.0 / 7.0;
        near(linear[20], f64::from(plain[20]) * (mask + (1.0 - mask) / 16.0), 1e-6);
        near(log[20], f64::from(plain[20]) * 16_f64.powf(mask - 1.0), 1e-6);
    }

    #[test]
    fn the_rule_is_explained() {
        let mut config = Config::preset("grok-2").expect("a preset");
        let text = explain(&config);
        assert!(text.starts_with("plain rotary embedding with theta 208533496;"), "{text}");
        config.ropes[0] =
            Rope { rope_type: RopeType::Linear, rope_type_named: false, ..config.ropes[0] };
        let text = explain(&config);
        assert!(text.contains("positions divided by 16"), "{text}");
        assert!(text.contains("rope_type is not named"), "{text}");
    }
}
