//! The numbers of a phase: what JSON calls them, what people read, and how they are written.

use grok_wgpu::lab::base::num::size;

use super::measure::Phase;

/// A number of a [`Phase`].
pub(super) struct Figure {
    /// Its key in JSON. Keys do not change.
    pub(super) key: &'static str,
    /// Its name on a terminal.
    pub(super) label: &'static str,
    /// What it counts.
    pub(super) unit: Unit,
    /// The number, if it was measured.
    pub(super) of: fn(&Phase) -> Option<f64>,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Whole things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Anything by a second, or by another number.
    Ratio,
    /// Operations, or bytes by the second, in units of 10^9.
    Giga,
}

/// All figures, in the order in which they are shown.
pub(super) const FIGURES: &[Figure] = &[
    Figure {
        key: "tokens_per_second",
        label: "tokens/s",
        unit: Unit::Ratio,
        of: |p| p.rate(p.median()),
    },
    Figure {
        key: "tokens_per_second_low",
        label: "  9 of 10 are above",
        unit: Unit::Ratio,
        of: |p| p.rate(p.quantile(0.9)),
    },
    Figure {
        key: "tokens_per_second_high",
        label: "  9 of 10 are below",
        unit: Unit::Ratio,
        of: |p| p.rate(p.quantile(0.1)),
    },
    Figure {
        key: "tokens_per_second_expected",
        label: "  expected",
        unit: Unit::Ratio,
        of: |p| p.expected,
    },
    Figure { key: "seconds", label: "time", unit: Unit::Seconds, of: |p| Some(p.median()) },
    Figure { key: "host_seconds", label: "  of the host", unit: Unit::Seconds, of: |p| p.host },
    Figure {
        key: "device_seconds",
        label: "  of the device",
        unit: Unit::Seconds,
        of: Phase::device_seconds,
    },
    Figure {
        key: "submissions",
        label: "submissions",
        unit: Unit::Count,
        of: |p| Some(p.counters.submissions as f64),
    },
    Figure {
        key: "read_back_bytes",
        label: "bytes read back",
        unit: Unit::Bytes,
        of: |p| Some(p.counters.read_back_bytes as f64),
    },
    Figure {
        key: "dispatches",
        label: "dispatches",
        unit: Unit::Count,
        of: |p| Some(p.counters.dispatches as f64),
    },
    Figure {
        key: "dispatches_per_layer",
        label: "  of a layer",
        unit: Unit::Ratio,
        of: |p| p.layer_dispatches,
    },
    Figure {
        key: "bytes_bound",
        label: "bytes bound",
        unit: Unit::Bytes,
        of: |p| Some(p.counters.bytes_bound as f64),
    },
    Figure {
        key: "bytes_touched",
        label: "bytes touched",
        unit: Unit::Bytes,
        of: |p| Some(p.counters.bytes_touched as f64),
    },
    Figure { key: "bytes_brought", label: "bytes brought", unit: Unit::Bytes, of: |p| p.brought },
    Figure {
        key: "bytes_least",
        label: "least bytes",
        unit: Unit::Bytes,
        of: |p| Some(p.least_bytes as f64),
    },
    Figure {
        key: "bytes_ratio",
        label: "  touched / least",
        unit: Unit::Ratio,
        of: |p| Some(p.counters.bytes_touched as f64 / p.least_bytes as f64),
    },
    Figure {
        key: "gigabytes_per_second",
        label: "GB/s of the least bytes",
        unit: Unit::Ratio,
        of: |p| p.giga(p.least_bytes as f64),
    },
    Figure { key: "flops", label: "operations", unit: Unit::Giga, of: |p| Some(p.flops as f64) },
    Figure {
        key: "gigaflops_per_second",
        label: "GFLOP/s",
        unit: Unit::Ratio,
        of: |p| p.giga(p.flops as f64),
    },
];

impl Unit {
    /// Whether its numbers are whole.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Count | Self::Bytes) || self == Self::Giga
    }

    /// Formats a number for the table.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::Bytes => size(whole(value)),
            Self::Seconds => seconds(value),
            Self::Ratio => plain(value),
            Self::Giga => format!("{} G", plain(value * 1e-9)),
        }
    }
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and no figure is negative"
)]
pub(super) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A duration in the unit that suits it.
pub(super) fn seconds(value: f64) -> String {
    match value {
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 1e-3 => format!("{:.2} ms", 1e3 * v),
        v => format!("{:.1} us", 1e6 * v),
    }
}

/// Formats with fewer decimals the larger the value is.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v <= 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [0.0, 0.012, 1.0, 12.34, 1234.6].map(plain).join(" "),
            "0.00 0.0120 1.00 12.3 1235"
        );
        assert_eq!([2e-6, 0.0123, 3.0].map(seconds).join(", "), "2.0 us, 12.30 ms, 3.00 s");
        assert_eq!(Unit::Bytes.show(2048.0), "2.00 KiB");
        assert_eq!(Unit::Giga.show(1.5e9), "1.50 G");
        assert_eq!(Unit::Count.show(109.0), "109");
    }

    #[test]
    fn names_are_all_different() {
        let mut keys: Vec<_> = FIGURES.iter().map(|figure| figure.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), FIGURES.len());
    }
}
