//! Numbers: rounding of `f64` to `f32`, and bytes as text, the same in all modules.

/// Rounds a value to the nearest `f32`.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what this is for")]
pub fn round(value: f64) -> f32 {
    value as f32
}

/// Formats a number of bytes, such as `1.50 GiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.2} {unit}") }
}

/// Bytes as lower-case hexadecimal digits, such as those of a hash.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
