//! Sizes, rates and counts as people write and read them.

/// A number of bytes with its unit, such as `80GiB`, `1.5 GiB` or `16 gb`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Err(format!("{number} of what? {number}GiB, {number}MiB or {number}B"));
    }
    let known = "KiB, MiB, GiB, TiB, KB, MB, GB and TB";
    let scale = scale(unit).ok_or_else(|| unknown(unit, known))?;
    times(number, scale)
}

/// A number of bytes a second with its unit, such as `936GB/s` or `3.35 TB/s`.
pub(super) fn bandwidth(text: &str) -> Result<u64, String> {
    let text = text.trim_end();
    let (number, unit) = split(text.strip_suffix("/s").unwrap_or(text))?;
    if unit.is_empty() {
        return Err(format!("{number} of what? {number}GB/s or {number}MB/s"));
    }
    let known = "MB/s, GB/s, TB/s, MiB/s, GiB/s and TiB/s";
    let scale = scale(unit).ok_or_else(|| unknown(unit, known))?;
    if !text.ends_with("/s") {
        return Err(format!("{number}{unit} in what time? {number}{unit}/s"));
    }
    match times(number, scale)? {
        0 => Err("wanted more than nothing".into()),
        rate => Ok(rate),
    }
}

/// A number and the unit after it.
fn split(text: &str) -> Result<(&str, &str), String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '/');
    let unit = &text[number.len()..];
    let number = number.trim();
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if number.is_empty() || !number.chars().all(plain) || number.parse::<f64>().is_err() {
        return Err("wanted a number with a unit, such as 24GiB or 1.5GiB".into());
    }
    Ok((number, unit))
}

/// Bytes of a unit, if it is known.
fn scale(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    })
}

fn unknown(unit: &str, known: &str) -> String {
    format!("unit {unit} is not known; {known} are")
}

/// A number of units, without rounding if it is whole.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is not negative, and compared with the limit before"
)]
fn times(number: &str, scale: u64) -> Result<u64, String> {
    const LARGE: &str = "too large";
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(|| LARGE.into());
    }
    let value = number.parse::<f64>().map_err(|error| error.to_string())? * scale as f64;
    if value < u64::MAX as f64 { Ok(value.round() as u64) } else { Err(LARGE.into()) }
}

/// A count in words: `269.5 billion`.
pub(super) fn count(count: u64) -> String {
    let value = count as f64;
    [(1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand")]
        .into_iter()
        .find(|(scale, _)| value >= *scale)
        .map_or_else(
            || count.to_string(),
            |(scale, word)| format!("{} {word}", rounded(value / scale)),
        )
}

/// A number of bytes in three digits or a little more: `14.3 MiB`, `502 GiB`.
pub(super) fn short_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 999.5 {
            return format!(
                "{} {unit}",
                if unit == "B" { bytes.to_string() } else { rounded(value) }
            );
        }
        value /= 1024.0;
    }
    format!("{} TiB", rounded(value))
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and no amount is negative"
)]
pub(super) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A number of bytes a second: `936 GB/s`.
pub(super) fn rate(bytes: u64) -> String {
    let value = bytes as f64;
    if value >= 1e12 {
        format!("{} TB/s", rounded(value / 1e12))
    } else if value >= 1e9 {
        format!("{} GB/s", rounded(value / 1e9))
    } else {
        format!("{} MB/s", rounded(value / 1e6))
    }
}

/// A number with fewer decimals the larger it is; ones that are zero are left out.
pub(super) fn rounded(value: f64) -> String {
    let text = match value {
        v if v >= 999.5 => return format!("{v:.0}"),
        v if v >= 9.95 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory() {
        for (text, want) in [
            ("80GiB", 80 << 30),
            ("16 gb", 16_000_000_000),
            ("1.5GiB", 3 << 29),
            ("0.5 TB", 500_000_000_000),
            ("123B", 123),
            ("9007199254740993B", 9_007_199_254_740_993),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for (text, what) in [
            ("24", "24 of what? 24GiB"),
            ("1.5", "1.5 of what?"),
            ("5 parsecs", "unit parsecs is not known"),
            ("99999999999T", "too large"),
            ("99999999999.5T", "too large"),
            ("", "wanted a number"),
            ("GiB", "wanted a number"),
            ("-1GiB", "wanted a number"),
            ("1e3GiB", "wanted a number"),
            ("1.2.3GiB", "wanted a number"),
            ("936GB/s", "unit GB/s is not known"),
        ] {
            assert!(bytes(text).is_err_and(|error| error.contains(what)), "{text}: {what}");
        }
    }

    #[test]
    fn bandwidths() {
        assert_eq!(bandwidth("936GB/s"), Ok(936_000_000_000));
        assert_eq!(bandwidth("3.35 TB/s"), Ok(3_350_000_000_000));
        assert_eq!(bandwidth("512MiB/s "), Ok(512 << 20));
        for (text, what) in [
            ("936", "936 of what? 936GB/s"),
            ("936/s", "936 of what? 936GB/s"),
            ("936GB", "936GB in what time? 936GB/s"),
            ("0GB/s", "more than nothing"),
            ("fast", "wanted a number"),
        ] {
            assert!(bandwidth(text).is_err_and(|error| error.contains(what)), "{text}: {what}");
        }
    }

    #[test]
    fn numbers_for_people() {
        let counts = [269_515_497_472, 7_483_648, 3_879_168, 1_000, 999, 2_000_000_000_000];
        let want = "269.5 billion, 7.48 million, 3.88 million, 1 thousand, 999, 2 trillion";
        assert_eq!(counts.map(count).join(", "), want);
        let sizes = [0, 1000, 1536, 14_963_000, 539_030_994_944, 1_072_000_000, 1 << 41];
        let want = "0 B, 0.98 KiB, 1.5 KiB, 14.3 MiB, 502 GiB, 1 GiB, 2 TiB";
        assert_eq!(sizes.map(short_size).join(", "), want);
        let rates = [936_000_000_000, 3_350_000_000_000, 12_300_000];
        assert_eq!(rates.map(rate).join(", "), "936 GB/s, 3.35 TB/s, 12.3 MB/s");
        assert_eq!([0.0, 4.125, 14.96, 150.0, 2750.4].map(rounded).join(" "), "0 4.12 15 150 2750");
    }
}
