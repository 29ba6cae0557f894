//! Rounding of `f64` to `f32`, the same in all modules.

/// Rounds a value to the nearest `f32`.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what this is for")]
pub fn round(value: f64) -> f32 {
    value as f32
}
