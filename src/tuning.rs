//! How work is divided among invocations: sound defaults by kind of device.

/// Tile shapes and lane counts that change speed, never which sums are formed by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Invocations that share one output row of a matrix-vector product. A power of two.
    pub lanes: u32,
    /// Output rows of a matrix-vector product that share a workgroup.
    pub rows: u32,
    /// Invocations that share the row of a norm. A power of two.
    pub wide: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self::GPU
    }
}

impl Tuning {
    /// For GPUs: lanes read neighbouring weights, so that loads coalesce.
    pub const GPU: Self = Self { lanes: 32, rows: 4, wide: 256 };

    /// For adapters that run on a CPU: a barrier costs more there than anything else, so each
    /// invocation owns a row.
    pub const CPU: Self = Self { lanes: 1, rows: 16, wide: 16 };

    /// Every tuning that tests must cover, with a name.
    pub const ALL: [(&'static str, Self); 2] = [("gpu", Self::GPU), ("cpu", Self::CPU)];
}
