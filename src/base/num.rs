//! Numbers that every floor rounds in the same way.

/// Rounds a value to the nearest `f32`.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what this is for")]
pub fn round(value: f64) -> f32 {
    value as f32
}
